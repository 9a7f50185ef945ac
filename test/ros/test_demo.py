# SPDX-License-Identifier: Apache-2.0
"""`make demo` and its camera: results, and errors that say what to do; see also test/slow."""

import itertools
import os
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import PIL.Image
import pytest
import rclpy
from isolation import home_variables
from processes import Process
from rclpy.parameter import Parameter
from rich.console import Console

from dan_ros.demo.demo import _conclude, _profile_variable
from dan_ros.demo.sample_camera import SampleCamera
from dan_ros.errors import DanError, ParameterError
from dan_ros.images import playback
from dan_ros.images.playback import moving_face, open_source


@pytest.fixture
def start_demo(tmp_path):
    """Start demos that are killed at the end of the test, if they still run."""
    started = []

    def start_one(out, *arguments) -> Process:
        command = [sys.executable, '-m', 'dan_ros.demo.demo', '--out', out, *arguments]
        started.append(Process(command, tmp_path / 'log'))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()


def test_a_demo_with_own_pictures_ends_with_ctrl_c(start_demo, tmp_path, portrait, monkeypatch):
    """The home cannot be written."""
    for name, value in home_variables(Path('/dev/null')).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('ROS_LOG_DIR')
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    cv2.imwrite(str(pictures / 'one.png'), portrait)
    demo = start_demo(tmp_path / 'demo', '--source', pictures)
    demo.wait_until(lambda: 'First face' in demo.output, 'the first face')
    assert demo.stop() == 0, demo.output
    assert 'label=happy' in demo.output.splitlines()[-1]


@pytest.mark.parametrize(
    ('library', 'variable'),
    [
        ('libfastrtps.so.2.14', 'FASTRTPS_DEFAULT_PROFILES_FILE'),
        ('libfastdds.so.3.2', 'FASTDDS_DEFAULT_PROFILES_FILE'),
    ],
)
def test_the_profile_is_given_under_the_name_that_fast_dds_reads(monkeypatch, library, variable):
    monkeypatch.setattr(Path, 'read_text', lambda path: f'7f0c-7f0d r-xp /opt/ros/lib/{library}\n')
    assert _profile_variable() == variable


def test_a_demo_without_a_place_for_results_is_one_line(start_demo, tmp_path):
    (tmp_path / 'file').touch()
    demo = start_demo(tmp_path / 'file')
    assert demo.wait() == 1
    assert demo.output == f'Error: cannot create the folder {tmp_path / "file"}: File exists\n'


def test_a_demo_whose_camera_ends_says_so(start_demo, tmp_path):
    demo = start_demo(tmp_path / 'demo', '--source', tmp_path / 'no_such.mp4')
    assert demo.wait() == 1
    assert 'no_such.mp4' in demo.output
    assert demo.output.splitlines()[-2:] == [
        'A process ended early; see its output above.', 'demo: messages=0 ids=0 label=none'
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('arrivals', 'finished', 'said'),
    [
        ([], False, 'A process ended early'),
        ([], True, 'No message arrived'),
        ([1.0], True, 'no face'),
    ],
)
def test_a_demo_without_a_face_says_why(arrivals, finished, said, capsys):
    subscriber = SimpleNamespace(ids=Counter(), arrivals=arrivals, label='none')
    _conclude(subscriber, Console(), finished)
    reason, last = capsys.readouterr().out.splitlines()
    assert said in reason
    assert last == 'demo: messages=0 ids=0 label=none'


# --- the camera ---------------------------------------------------------------------------------


def test_the_face_moves_and_returns():
    first, later, again = (next(itertools.islice(moving_face(10), n, None)) for n in (0, 30, 120))
    assert first.shape == (480, 640, 3)
    assert not np.array_equal(first, later)
    np.testing.assert_array_equal(first, again)


def test_a_picture_is_repeated(tmp_path, portrait):
    path = tmp_path / 'one.png'
    cv2.imwrite(str(path), portrait)
    for image in itertools.islice(open_source(str(path), 10), 50):
        np.testing.assert_array_equal(image, portrait)


def test_pictures_of_a_folder_take_turns_of_two_seconds(tmp_path, portrait):
    for value in (10, 20):
        cv2.imwrite(str(tmp_path / f'{value}.png'), np.full((8, 8, 3), value, np.uint8))
    (tmp_path / 'notes.txt').write_text('no picture')
    values = [image[0, 0, 0] for image in itertools.islice(open_source(str(tmp_path), 5), 40)]
    assert values == [10] * 10 + [20] * 10 + [10] * 10 + [20] * 10


def test_pictures_are_told_by_their_content(tmp_path, portrait):
    for suffix in ('.tiff', '.gif', '.jp2', '.ppm'):
        PIL.Image.fromarray(portrait[..., ::-1]).save(tmp_path / f'face{suffix}')
        (tmp_path / f'face{suffix}').rename(tmp_path / 'face.mp4')
        images = list(itertools.islice(open_source(str(tmp_path / 'face.mp4'), 10), 45))
        assert {image.shape for image in images} == {portrait.shape}
        assert np.abs(images[-1].mean() - portrait.mean()) < 3


def test_names_of_files_need_not_be_utf_8(tmp_path, portrait):
    folder = tmp_path / os.fsdecode(b'caf\xe9')
    folder.mkdir()
    (folder / 'a.png').write_bytes(cv2.imencode('.png', portrait)[1].tobytes())
    np.testing.assert_array_equal(next(open_source(str(folder), 10)), portrait)
    write_video(tmp_path / 'x.avi', 5)
    images = open_source(str((tmp_path / 'x.avi').rename(folder / 'x.avi')))
    assert images.rate_hz == pytest.approx(5)
    assert all(image is not None for image in itertools.islice(images, 8))


def test_a_photo_is_shown_upright(tmp_path, portrait):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(np.rot90(portrait)[..., ::-1]).save(tmp_path / 'phone.png', exif=exif)
    np.testing.assert_array_equal(next(open_source(str(tmp_path), 10)), portrait)


def test_pictures_of_a_folder_are_read_one_at_a_time(tmp_path, portrait, monkeypatch):
    content = cv2.imencode('.jpg', portrait)[1].tobytes()
    for number in range(50):
        (tmp_path / f'{number:02}.jpg').write_bytes(content)
    read = []
    monkeypatch.setattr(playback, 'open_picture', lambda path: read.append(path.name) or portrait)
    images = open_source(str(tmp_path), 1)
    assert read == ['00.jpg']
    assert next(images) is portrait
    for _ in range(4):
        next(images)
    assert read == ['00.jpg', '01.jpg', '02.jpg']


def test_files_of_a_folder_that_are_left_out_are_named_once(tmp_path, portrait):
    cv2.imwrite(str(tmp_path / 'a.png'), portrait)
    (tmp_path / 'b.heic').write_bytes(b'\0\0\0\x18ftypheic' + bytes(100))
    (tmp_path / 'c.png').write_bytes((tmp_path / 'a.png').read_bytes()[:-20])
    (tmp_path / '.d.png').write_text('hidden')
    left_out = []
    images = open_source(str(tmp_path), 1, left_out.append)
    for _ in range(10):
        assert next(images) is not None
    first, second = left_out
    assert 'b.heic is a HEIC picture' in first
    assert 'c.png: is truncated' in second


def test_a_folder_whose_pictures_disappear_gives_no_image(tmp_path, portrait):
    cv2.imwrite(str(tmp_path / 'a.png'), portrait)
    images = open_source(str(tmp_path), 1)
    (tmp_path / 'a.png').unlink()
    assert [image is None for image in itertools.islice(images, 4)] == [False, False, True, True]


def write_video(path, rate_hz=10.0) -> None:
    """Three frames of 64 x 48 pixels, each brighter than the one before."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), rate_hz, (64, 48))
    for value in (0, 100, 200):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()


def test_a_video_restarts_at_its_end_without_a_gap(tmp_path):
    write_video(tmp_path / 'video.avi')
    images = itertools.islice(open_source(str(tmp_path / 'video.avi'), 10), 8)
    values = [round(float(image.mean()), -2) for image in images]
    assert values == [0, 100, 200, 0, 100, 200, 0, 100]


@pytest.mark.parametrize('own_rate_hz', [5, 24, 60, 120])
def test_a_video_plays_at_its_own_rate_unless_one_is_given(tmp_path, own_rate_hz):
    write_video(tmp_path / 'video.avi', own_rate_hz)
    source = str(tmp_path / 'video.avi')
    assert open_source(source).rate_hz == pytest.approx(own_rate_hz)
    assert open_source(source, 7).rate_hz == 7


def test_sources_without_a_rate_have_the_default_rate(tmp_path, portrait):
    cv2.imwrite(str(tmp_path / 'one.png'), portrait)
    for source in ('', str(tmp_path), str(tmp_path / 'one.png')):
        assert open_source(source).rate_hz == 30


def test_a_video_filmed_on_its_side_is_upright(tmp_path):
    """The matrix in the track header of an MP4 defines by how much players rotate it."""
    path = tmp_path / 'phone.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 30, (64, 48))
    for _ in range(3):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()
    content = bytearray(path.read_bytes())
    matrix = content.index(b'tkhd') + 4 + 40
    one = 1 << 16
    content[matrix : matrix + 36] = struct.pack('>9i', 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    shapes = {image.shape for image in itertools.islice(open_source(str(path)), 8)}
    assert shapes == {(64, 48, 3)}


def test_a_video_that_can_no_longer_be_read_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(playback, 'RETRY_S', 0.1)
    path = tmp_path / 'video.avi'
    write_video(path)
    images = open_source(str(path))
    path.rename(tmp_path / 'moved.avi')
    assert [next(images) is None for _ in range(4)] == [False, False, False, True]
    (tmp_path / 'moved.avi').rename(path)
    assert any(image is not None for image in itertools.islice(images, 10**7))


class FakeCapture:
    """Replaces cv2.VideoCapture: records what is opened, and returns no images."""

    opened: ClassVar[list] = []

    def __init__(self, source):
        self.opened.append(source)

    def isOpened(self):  # noqa: N802
        return True

    def get(self, _):
        return 0.0


@pytest.mark.parametrize(
    ('source', 'opened'),
    [
        ('0', 0),
        ('12', 12),
        ('rtsp://192.0.2.7/stream1', 'rtsp://192.0.2.7/stream1'),
        ('http://192.0.2.7:8080/video', 'http://192.0.2.7:8080/video'),
        ('/dev/null', '/dev/null'),
    ],
)
def test_cameras_and_streams_are_opened(monkeypatch, source, opened):
    monkeypatch.setattr(playback.cv2, 'VideoCapture', FakeCapture)
    FakeCapture.opened.clear()
    assert open_source(source).rate_hz == 30
    assert FakeCapture.opened == [opened]


def test_a_stable_name_of_a_camera_leads_to_its_number(tmp_path, monkeypatch):
    """/dev/v4l/by-id/usb-... is a link to /dev/video3."""
    monkeypatch.setattr(playback.cv2, 'VideoCapture', FakeCapture)
    monkeypatch.setattr(Path, 'is_char_device', lambda _: True)
    (tmp_path / 'usb-camera').symlink_to('/dev/video3')
    FakeCapture.opened.clear()
    open_source(str(tmp_path / 'usb-camera'))
    assert FakeCapture.opened == [3]


@pytest.mark.parametrize('source', ['/dev/null', 'rtsp://127.0.0.1:9/stream'])
def test_a_camera_that_cannot_be_opened_is_named(source):
    with pytest.raises(DanError, match='cannot be opened: no such camera or stream') as error:
        open_source(source)
    assert str(error.value).startswith(source)


@pytest.mark.parametrize('name', ['empty', 'no_such', 'text.mp4', 'IMG.HEIC'])
def test_an_invalid_source_is_named(tmp_path, name):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.mp4').write_text('no video')
    (tmp_path / 'IMG.HEIC').write_bytes(b'\0\0\0\x18ftypheic' + bytes(2000))
    with pytest.raises(DanError, match=r'no readable picture|no file or folder|cannot be opened'):
        open_source(str(tmp_path / name), 10)


@pytest.mark.parametrize('source', ['~nobody-of-this-name/x.mp4', 'x' * 300])
def test_an_unreadable_source_is_named(source):
    with pytest.raises(DanError, match='cannot be read') as error:
        open_source(source, 10)
    assert str(error.value).startswith(source)


def test_a_picture_above_the_limit_is_unreadable(tmp_path):
    rows = zlib.compress(bytes(100))
    header = struct.pack('>2I5B', 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = ((b'IHDR', header), (b'IDAT', rows), (b'IEND', b''))
    content = b'\x89PNG\r\n\x1a\n'
    for name, data in chunks:
        content += struct.pack('>I', len(data)) + name + data
        content += struct.pack('>I', zlib.crc32(name + data))
    path = tmp_path / 'large.png'
    path.write_bytes(content)
    with pytest.raises(DanError, match='no readable picture'):
        open_source(str(path), 10)


@pytest.mark.parametrize(
    ('parameter', 'words'),
    [
        *((f'rate_hz:={rate}', 'a number from 0.1 to 1000') for rate in ('0.0', 'abc', '[1, 2]')),
        *((f'rate_hz:={rate}', 'a number from 0.1 to 1000') for rate in ('true', '.nan')),
        *((f'source:={source}', 'text or the number of a camera') for source in ('true', '[1]')),
        ('source:=99', 'camera 99 cannot be opened'),
    ],
)
def test_an_invalid_parameter_is_refused(parameter, words):
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '-p', parameter], context=context)
    try:
        with pytest.raises(ParameterError, match=words):
            SampleCamera(context=context)
    finally:
        rclpy.shutdown(context=context)


def test_a_change_that_would_have_no_effect_is_refused():
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '-p', 'rate_hz:=5'], context=context)
    try:
        node = SampleCamera(context=context)
        parameters = [Parameter('rate_hz', value=9.0), Parameter('use_sim_time', value=False)]
        results = node.set_parameters(parameters)
        assert [result.successful for result in results] == [False, True]
        assert node.get_parameter('rate_hz').value == 5.0
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
