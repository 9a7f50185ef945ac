# SPDX-License-Identifier: Apache-2.0
"""`make demo` and its camera: results, and errors that say what to do; see also test/slow."""

import itertools
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from processes import Process
from robot import Program

from dan_ros.demo.sample_camera import moving_face, open_source
from dan_ros.errors import DanError


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


def test_a_demo_with_own_pictures_ends_with_ctrl_c(start_demo, tmp_path, portrait):
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    cv2.imwrite(str(pictures / 'one.png'), portrait)
    demo = start_demo(tmp_path / 'demo', '--source', pictures)
    demo.wait_until(lambda: 'First face' in demo.output, 'the first face')
    assert demo.stop() == 0, demo.output
    assert 'label=happy' in demo.output.splitlines()[-1]


def test_a_demo_without_a_place_for_results_is_one_line(start_demo, tmp_path):
    (tmp_path / 'file').touch()
    demo = start_demo(tmp_path / 'file')
    assert demo.wait() == 1
    assert demo.output == f'Error: cannot create the folder {tmp_path / "file"}: File exists\n'


def test_a_demo_whose_camera_ends_says_so(start_demo, tmp_path):
    demo = start_demo(tmp_path / 'demo', '--source', tmp_path / 'no_such.mp4')
    assert demo.wait() == 1
    assert 'no_such.mp4' in demo.output
    assert 'A process ended early' in demo.output
    assert demo.output.splitlines()[-1] == 'demo: messages=0 ids=0 label=none'


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


def test_a_video_restarts_at_its_end(tmp_path):
    path = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for value in (0, 100, 200):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    images = list(itertools.islice(open_source(str(path), 10), 8))
    values = [None if image is None else round(float(image.mean()), -2) for image in images]
    assert values == [0, 100, 200, None, 0, 100, 200, None]


@pytest.mark.parametrize('name', ['empty', 'no_such', 'text.mp4'])
def test_an_invalid_source_is_named(tmp_path, name):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.mp4').write_text('no video')
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


@pytest.mark.parametrize('rate', ['0.0', 'abc', 'true', '[1, 2]', '.nan'])
def test_an_invalid_rate_is_one_line_and_exit_code_2(tmp_path, rate):
    camera = Program('sample_camera', '-p', f'rate_hz:={rate}', log=tmp_path / 'log')
    assert camera.wait() == 2
    last = camera.output.splitlines()[-1]
    assert 'rate_hz cannot be ' in last
    assert 'a number from 0.1 to 1000' in last
    assert 'Traceback' not in camera.output
