"""`make demo` and its camera: what they show, and what they say where there is nothing to show."""

import itertools
import re
import signal
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from robot import Program, environment_of, new_domain, wait_until

from dan_ros.demo.sample_camera import moving_face, open_source
from dan_ros.errors import DanError


def start_demo(out, *arguments):
    return subprocess.Popen(
        [sys.executable, '-m', 'dan_ros.demo.demo', '--out', out, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment_of(new_domain()),
    )


def test_the_demo_shows_a_smile_and_ends_by_itself(tmp_path):
    demo = start_demo(tmp_path / 'demo')
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    last = output.splitlines()[-1]
    found = re.fullmatch(r'demo: messages=(\d+) ids=1 label=happy', last)
    assert found, output
    assert int(found[1]) >= 150
    assert cv2.imread(str(tmp_path / 'demo' / 'annotated.png')).shape == (480, 640, 3)


def test_a_demo_of_ones_own_pictures_runs_until_ctrl_c(tmp_path, portrait):
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    cv2.imwrite(str(pictures / 'one.png'), portrait)
    demo = start_demo(tmp_path / 'demo', '--source', pictures)
    try:
        wait_until((tmp_path / 'demo').is_dir, 'the demo to begin', lambda: '')
        with pytest.raises(subprocess.TimeoutExpired):
            demo.wait(12)
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 0, output
    assert 'label=happy' in output.splitlines()[-1]


def test_a_demo_that_can_not_save_its_picture_says_so(tmp_path):
    out = tmp_path / 'demo'
    (out / 'annotated.png').mkdir(parents=True)
    demo = start_demo(out)
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1, output
    assert f'{out / "annotated.png"} cannot be written: ' in output
    assert 'annotated picture: ' not in output
    assert output.splitlines()[-1].endswith('label=happy')
    assert [path.name for path in out.iterdir()] == ['annotated.png']


def test_a_demo_without_a_place_for_results_is_one_line(tmp_path):
    (tmp_path / 'file').touch()
    demo = start_demo(tmp_path / 'file')
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert output == f'Error: cannot create the folder {tmp_path / "file"}: File exists\n'


def test_a_demo_whose_camera_ends_says_so(tmp_path):
    demo = start_demo(tmp_path / 'demo', '--source', tmp_path / 'no_such.mp4')
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert 'no_such.mp4' in output
    assert 'A process ended early' in output
    assert output.splitlines()[-1] == 'demo: messages=0 ids=0 label=none'


# --- the camera ---------------------------------------------------------------------------------


def test_the_face_moves_and_comes_round_again():
    first, later, again = (next(itertools.islice(moving_face(10), n, None)) for n in (0, 30, 120))
    assert first.shape == (480, 640, 3)
    assert not np.array_equal(first, later)
    np.testing.assert_array_equal(first, again)


def test_a_picture_stays(tmp_path, portrait):
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


def test_a_video_begins_again_at_its_end(tmp_path):
    path = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for value in (0, 100, 200):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    images = list(itertools.islice(open_source(str(path), 10), 8))
    values = [None if image is None else round(float(image.mean()), -2) for image in images]
    assert values == [0, 100, 200, None, 0, 100, 200, None]


@pytest.mark.parametrize('name', ['empty', 'no_such', 'text.mp4'])
def test_what_is_no_source_is_said(tmp_path, name):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.mp4').write_text('no video')
    with pytest.raises(DanError, match=r'no readable picture|no file or folder|cannot be opened'):
        open_source(str(tmp_path / name), 10)


@pytest.mark.parametrize('source', ['~nobody-of-this-name/x.mp4', 'x' * 300])
def test_what_can_not_even_be_looked_at_is_said(source):
    with pytest.raises(DanError, match='cannot be read') as error:
        open_source(source, 10)
    assert str(error.value).startswith(source)


def test_a_picture_larger_than_any_is_none(tmp_path):
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
def test_a_rate_that_is_none_is_one_line_and_exit_code_2(tmp_path, rate):
    camera = Program('sample_camera', '-p', f'rate_hz:={rate}', log=tmp_path / 'log')
    assert camera.process.wait(60) == 2
    last = camera.output.splitlines()[-1]
    assert 'rate_hz cannot be ' in last
    assert 'a number from 0.1 to 1000' in last
    assert 'Traceback' not in camera.output
