"""`dan-ros bag` on real bags: every storage, damage, several cameras, what others can read."""

import csv
import fcntl
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from recording import (
    COMPRESSED,
    IMAGE,
    INFO,
    PERIOD_NS,
    START_NS,
    TYPES,
    compressed,
    header,
    raw,
    record,
    record_images,
)
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_types_from_msg

from dan_ros.bag.timeline import MAX_MOMENTS, Timelines
from dan_ros.cli.main import cli
from dan_ros.errors import DanError
from dan_ros.tracking.face_tracker import TrackedFace

CHUNK_INDEX = 8  # https://mcap.dev/spec
FACE, FACES = 'dan_ros/msg/FacialExpression', 'dan_ros/msg/FacialExpressionArray'
for kind in (FACE, FACES):
    definition = Path(__file__).parents[2] / 'msg' / f'{kind.rpartition("/")[2]}.msg'
    TYPES.register(get_types_from_msg(definition.read_text(), kind))


@pytest.fixture(scope='module')
def images(smile, nobody):
    """Twelve images: nobody in the first, then a smile that moves."""
    return [nobody] + [np.roll(smile, 3 * step, axis=1) for step in range(11)]


def run(*arguments: object):
    return CliRunner().invoke(cli, ['bag', *map(str, arguments)])


def contents(path: Path) -> list[tuple[str, int, bytes]]:
    with Reader(path) as reader:
        return [(c.topic, time_ns, bytes(data)) for c, time_ns, data in reader.messages()]


def arrays(path: Path, topic: str = '/camera/facial_expressions'):
    return [
        (time_ns, TYPES.deserialize_cdr(data, FACES))
        for name, time_ns, data in contents(path)
        if name == topic
    ]


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
@pytest.mark.parametrize('compression', ['', 'file', 'message'])
@pytest.mark.parametrize('is_compressed', [False, True])
def test_every_frame_in_order_with_bag_time(tmp_path, images, storage, compression, is_compressed):
    if storage == 'mcap' and compression == 'file':
        compression = 'storage'  # mcap compresses its own chunks
    topic = '/camera/image_raw' + ('/compressed' if is_compressed else '')
    bag = record_images(
        tmp_path / 'in', images, topic, is_compressed, storage=storage, compression=compression
    )
    result = run(bag, tmp_path / 'out')
    assert result.exit_code == 0, result.output
    assert '12 images, 11 faces, 1 ids (happy 11)' in result.output
    found = arrays(tmp_path / 'out')
    assert [time_ns for time_ns, _ in found] == [START_NS + i * PERIOD_NS for i in range(12)]
    assert [len(array.faces) for _, array in found] == [0] + [1] * 11
    for time_ns, array in found:
        stamp = array.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == time_ns - 5_000_000
        assert array.header.frame_id == 'optical'
        assert array.camera == '/camera/image_raw'
        for face in array.faces:
            assert (face.label, face.expression) == ('happy', 1)
            assert face.header == array.header
            assert face.probabilities.sum() == pytest.approx(1, abs=1e-4)
    metadata = (tmp_path / 'out' / 'metadata.yaml').read_text()
    assert f'storage_identifier: {storage}' in metadata
    assert (tmp_path / 'out' / f'out.{"db3" if storage == "sqlite3" else "mcap"}').is_file()
    single = [data for name, _, data in contents(tmp_path / 'out') if name.endswith('expression')]
    assert len(single) == 11


def test_two_runs_give_equal_bytes(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    for name in ('one', 'two'):
        assert run(bag, tmp_path / name).exit_code == 0
    assert contents(tmp_path / 'one') == contents(tmp_path / 'two')
    tables = [(tmp_path / name / 'faces.csv').read_bytes() for name in ('one', 'two')]
    assert tables[0] == tables[1]


def test_table_and_timeline(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    run(bag, tmp_path / 'out')
    with (tmp_path / 'out' / 'faces.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    assert int(rows[0]['bag_time_ns']) == START_NS + PERIOD_NS
    assert rows[-1]['label'] == 'happy'
    assert float(rows[-1]['happy']) == pytest.approx(float(rows[-1]['confidence']))
    (face_id,) = {row['face_id'] for row in rows}
    picture = cv2.imread(str(tmp_path / 'out' / f'timeline_{face_id}.png'))
    assert min(picture.shape[:2]) > 300
    yellow = (np.abs(picture.astype(int) - (80, 205, 255)).max(axis=2) < 3).mean()
    assert yellow > 0.3  # the band of happiness fills most of it


def test_video(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    assert run(bag, tmp_path / 'out', '--video').exit_code == 0
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'camera_image_raw.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10, rel=0.01)
    frames = [video.read()[1] for _ in range(12)]
    assert frames[0].shape == images[0].shape
    assert np.abs(frames[5].astype(int) - images[5]).max() > 100  # something is drawn


def command(*arguments: object, **environment: str) -> subprocess.Popen:
    """`dan-ros bag` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, '-m', 'dan_ros.cli.main', 'bag', *map(str, arguments)],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize('period_ns', [0, 1, 10_000, 3_600_000_000_000])
def test_a_video_at_any_rate(tmp_path, images, period_ns):
    messages = [
        ('/camera/image_raw', IMAGE, START_NS + i * period_ns, raw(image, START_NS))
        for i, image in enumerate(images)
    ]
    result = run(record(tmp_path / 'in', messages), tmp_path / 'out', '--video')
    assert result.exit_code == 0, result.exception
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'camera_image_raw.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert 0.1 <= video.get(cv2.CAP_PROP_FPS) <= 240


@pytest.mark.parametrize(
    ('size', 'expected'),
    [((9000, 16), (8190, 16)), ((16, 20_001), (8, 8190)), ((1, 1), (2, 2)), ((33, 47), (34, 48))],
)
def test_a_video_of_any_size(tmp_path, size, expected):
    width, height = size
    images = [np.full((height, width, 3), 99, np.uint8)] * 3
    bag = record_images(tmp_path / 'in', images)
    assert run(bag, tmp_path / 'out', '--video').exit_code == 0
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'camera_image_raw.mp4'))
    sides = video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)
    assert sides == pytest.approx(expected, abs=2)
    assert np.abs(video.read()[1].astype(int) - 99).max() < 5


def test_without_a_video_backend_everything_else_is_there(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    process = command(bag, tmp_path / 'out', '--video', OPENCV_VIDEOIO_PRIORITY_FFMPEG='0')
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert 'Warning: no video of /camera/image_raw: OpenCV opens none here, of 320 x 240' in errors
    assert ' at 10 Hz' in errors
    assert len(arrays(tmp_path / 'out')) == 12
    assert list((tmp_path / 'out').glob('*.mp4')) == []


def run_with_room(size: int, *arguments: object) -> subprocess.CompletedProcess:
    """`dan-ros bag` where no file may be larger; what is beyond fails, as on a full disk."""
    code = (
        'import resource, sys; from dan_ros.cli.main import main\n'
        'size = int(sys.argv.pop(1))\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); main()\n'
    )
    return subprocess.run(
        [sys.executable, '-B', '-c', code, str(size), 'bag', *map(str, arguments)],
        # without coverage's data, for which there is no room either
        env={k: v for k, v in os.environ.items() if not k.startswith('COVERAGE')},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_video_there_is_no_room_for_is_no_success(tmp_path, smile):
    """OpenCV writes on as if nothing were."""
    rng = np.random.default_rng(0)
    noise = list(rng.integers(0, 256, (20, 240, 320, 3), np.uint8))
    bag = record_images(tmp_path / 'in', [smile, *noise])
    result = run_with_room(200_000, bag, tmp_path / 'out', '--video')
    assert result.returncode == 1, result.stderr
    assert 'Error: out/camera_image_raw.mp4 could not be written, 0 of its 21' in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['in']


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
@pytest.mark.parametrize('size', [100, 5000])
def test_a_bag_there_is_no_room_for_is_one_line(tmp_path, images, storage, size):
    bag = record_images(tmp_path / 'in', images, storage=storage)
    result = run_with_room(size, bag, tmp_path / 'out')
    assert result.returncode == 1, result.stderr
    assert 'Traceback' not in result.stderr
    assert f'Error: {tmp_path / "out"} can not be written: ' in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_several_cameras_share_no_id(tmp_path, smile):
    def messages():
        for index in range(6):
            time_ns = START_NS + index * PERIOD_NS
            yield '/left/image_raw', IMAGE, time_ns, raw(smile, time_ns)
            image = smile[:, ::-1]
            yield '/right/image/compressed', COMPRESSED, time_ns + 1, compressed(image, time_ns)
            yield '/right/image', IMAGE, time_ns + 2, raw(image, time_ns)  # the same, raw

    bag = record(tmp_path / 'in', messages())
    assert '12 images, 12 faces, 2 ids' in run(bag, tmp_path / 'out').output
    ids = [
        {face.face_id for _, array in arrays(tmp_path / 'out', topic) for face in array.faces}
        for topic in ('/left/facial_expressions', '/right/facial_expressions')
    ]
    assert all(len(own) == 1 for own in ids)
    assert not ids[0] & ids[1]
    result = run(bag, tmp_path / 'one', '--topic', '/right/image/compressed')
    assert '6 images' in result.output


def test_calibrated_cameras_give_poses(tmp_path, smile):
    def messages():
        unit = np.eye(3).ravel()
        k = np.array([400.0, 0, 160, 0, 400, 120, 0, 0, 1])
        roi = TYPES.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        info = TYPES.types[INFO](
            header(0), 240, 320, 'plumb_bob', np.zeros(5), k, unit, np.zeros(12), 0, 0, roi
        )  # fmt: skip
        yield '/camera/image_raw', IMAGE, START_NS, raw(smile, START_NS)
        yield '/camera/camera_info', INFO, START_NS + 1, info
        yield '/camera/image_raw', IMAGE, START_NS + PERIOD_NS, raw(smile, START_NS + PERIOD_NS)

    run(record(tmp_path / 'in', messages()), tmp_path / 'out')
    (_, before), (_, after) = arrays(tmp_path / 'out')
    assert before.faces[0].pose == []
    assert after.faces[0].pose[0].position.z == pytest.approx(0.55, abs=0.08)


def test_bad_images_are_counted_and_the_rest_goes_on(tmp_path, smile):
    def messages():
        for index in range(5):
            time_ns = START_NS + index * PERIOD_NS
            message = raw(smile, time_ns)
            if index == 2:
                message.data = message.data[:100]
            yield '/image', IMAGE, time_ns, message

    result = run(record(tmp_path / 'in', messages()), tmp_path / 'out')
    assert result.exit_code == 0
    assert '4 images, 4 faces' in result.output
    assert '1 messages dropped, bad_data' in result.output
    assert len(arrays(tmp_path / 'out', '/facial_expressions')) == 4


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
@pytest.mark.parametrize('compression', ['', 'file', 'message'])
@pytest.mark.parametrize('part', [0.5, 0.93])
@pytest.mark.parametrize('has_metadata', [True, False])
def test_a_truncated_bag_gives_everything_up_to_the_damage(
    tmp_path, storage, compression, part, has_metadata
):
    if storage == 'mcap' and compression == 'file':
        compression = 'storage'
    rng = np.random.default_rng(0)  # noise, so that every frame takes as much room
    images = rng.integers(0, 256, (60, 64, 80, 3), np.uint8)
    bag = record_images(tmp_path / 'in', images, storage=storage, compression=compression)
    (file,) = (f for f in bag.iterdir() if f.suffix != '.yaml')
    os.truncate(file, round(part * file.stat().st_size))
    if not has_metadata:
        (bag / 'metadata.yaml').unlink()
    result = run(bag, tmp_path / 'out')
    assert result.exit_code == 1, result.output
    assert 'damaged' in result.output
    assert isinstance(result.exception, SystemExit)
    found = arrays(tmp_path / 'out')
    # SQLite writes a page that tells where eight frames lie behind them.
    assert 60 * part - 10 <= len(found) <= 60 * part + 1
    assert [time_ns for time_ns, _ in found] == [
        START_NS + i * PERIOD_NS for i in range(len(found))
    ]


def test_a_recording_whose_log_was_never_taken_in_is_read_whole(tmp_path):
    """As a recorder with the resilient preset leaves it when it is killed."""
    images = np.random.default_rng(0).integers(0, 256, (20, 64, 80, 3), np.uint8)
    bag = record_images(tmp_path / 'in', images)
    database = sqlite3.connect(bag / 'in.db3')
    database.execute('PRAGMA journal_mode=WAL')
    database.execute('PRAGMA wal_autocheckpoint=0')
    rows = database.execute(
        'SELECT topic_id, timestamp + 2000000000, data FROM messages'
    ).fetchall()
    database.executemany('INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)', rows)
    database.commit()
    killed = tmp_path / 'killed'
    shutil.copytree(bag, killed)  # while the database is open, its log is beside it
    database.close()
    assert (killed / 'in.db3-wal').stat().st_size > 0
    result = run(killed, tmp_path / 'out')
    assert result.exit_code == 1
    assert 'was not closed' in result.output
    assert len(arrays(tmp_path / 'out')) == 40


def test_a_bag_of_which_nothing_is_left_is_refused(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    os.truncate(bag / 'in.db3', 50)
    result = run(bag, tmp_path / 'out')
    assert isinstance(result.exception, DanError)
    assert 'no message of it can be read' in str(result.exception)
    assert not (tmp_path / 'out').exists()


def test_a_bag_without_its_metadata_is_read(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    (bag / 'metadata.yaml').unlink()
    result = run(bag, tmp_path / 'out')
    assert result.exit_code == 0
    assert '12 images' in result.output
    assert run(bag / 'in.db3', tmp_path / 'file').exit_code == 0


@pytest.mark.parametrize('content', ['[' * 20_000, '\x00', 'rosbag2_bagfile_information: 3', ''])
def test_metadata_that_is_none_is_damage(tmp_path, images, content):
    bag = record_images(tmp_path / 'in', images)
    (bag / 'metadata.yaml').write_text(content)
    result = run(bag, tmp_path / 'out')
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert 'is damaged' in result.output
    assert len(arrays(tmp_path / 'out')) == 12


@pytest.mark.parametrize('is_damaged', [False, True])
def test_a_split_recording_without_metadata_is_read_file_by_file(tmp_path, images, is_damaged):
    """As a recorder that split its bag and was killed leaves it."""
    bag = tmp_path / 'in'
    bag.mkdir()
    for number in (0, 1, 2, 10):
        part = record_images(tmp_path / f'in_{number}', images[:4])
        shutil.move(part / f'in_{number}.db3', bag)
    if is_damaged:
        os.truncate(bag / 'in_1.db3', (bag / 'in_1.db3').stat().st_size - 300_000)
    result = run(bag, tmp_path / 'out')
    found = len(arrays(tmp_path / 'out'))
    assert result.exit_code == is_damaged
    assert 12 <= found <= 15 if is_damaged else found == 16


def test_compressed_messages_without_metadata_are_read(tmp_path, images):
    bag = record_images(tmp_path / 'in', images[:3], compression='message')
    (bag / 'metadata.yaml').unlink()
    assert '3 images, 2 faces' in run(bag, tmp_path / 'out').output


def test_nothing_is_overwritten_without_force(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    out = tmp_path / 'out'
    assert run(bag, out).exit_code == 0
    before = contents(out)
    result = run(bag, out)
    assert 'exists already' in str(result.exception)
    assert contents(out) == before
    assert run(bag, out, '--force', '--topic', '/camera/image_raw').exit_code == 0
    for wrong, words in ((bag, 'in each other'), (tmp_path, 'in each other')):
        assert words in str(run(bag, wrong, '--force').exception)
    (tmp_path / 'precious').mkdir()
    (tmp_path / 'precious' / 'thesis.tex').touch()
    assert 'is no bag' in str(run(bag, tmp_path / 'precious', '--force').exception)
    assert (tmp_path / 'precious' / 'thesis.tex').exists()
    assert contents(bag)


def test_what_can_not_be_replaced_is_refused_at_once(tmp_path, images, monkeypatch):
    bag = record_images(tmp_path / 'in', images)
    (tmp_path / 'link').symlink_to('nowhere')
    for out, words in (('/proc', 'mount point'), (tmp_path / 'link', 'is no bag')):
        result = run(bag, out, '--force')
        assert isinstance(result.exception, DanError), result.exception
        assert words in str(result.exception)
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    assert run(bag, '.', '--force').exit_code == 0
    assert len(arrays(tmp_path / 'here')) == 12


def test_bad_input_is_one_line(tmp_path, images):
    bag = record_images(tmp_path / 'in', images[:1])
    for arguments, words in (
        ((tmp_path / 'missing', tmp_path / 'x'), 'there is no bag at'),
        ((tmp_path, tmp_path / 'x'), 'holds no .db3 or .mcap'),
        (
            (bag, tmp_path / 'x', '--topic', '/other'),
            'no images on /other; it has /camera/image_raw',
        ),
        ((bag, tmp_path / 'x', '--model', 'no.onnx'), 'no model'),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, DanError), result.output
        assert words in str(result.exception)
        assert '\n' not in str(result.exception)
        assert not (tmp_path / 'x').exists()


def test_a_bag_without_images_says_what_it_has(tmp_path):
    text = TYPES.types['std_msgs/msg/String']('hello')
    bag = record(tmp_path / 'in', [('/chat', 'std_msgs/msg/String', START_NS, text)])
    assert 'no images; it has /chat (std_msgs/msg/String)' in str(
        run(bag, tmp_path / 'x').exception
    )


def test_a_killed_run_leaves_nothing_that_looks_whole_and_the_next_one_tidies_up(tmp_path, images):
    bag = record_images(tmp_path / 'in', images * 20)
    out = tmp_path / 'out'
    killed, running = (stopped_amid_its_work(bag, out, tmp_path) for _ in range(2))
    killed.kill()
    killed.communicate()
    assert not out.exists()
    (hidden,) = (h for h in tmp_path.glob('.out.*') if not is_locked(h))
    short = record_images(tmp_path / 'short', images)
    assert run(short, out).exit_code == 0
    assert not hidden.exists()
    assert len(list(tmp_path.glob('.out.*'))) == 1  # of the run that goes on
    running.send_signal(signal.SIGCONT)
    running.terminate()
    running.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out', 'short']


def stopped_amid_its_work(bag: Path, out: Path, parent: Path) -> subprocess.Popen:
    """A run that stands still once its table is begun."""
    pattern = '.out.*/new/out/faces.csv'
    before = len(list(parent.glob(pattern)))
    process = command(bag, out)
    while len(list(parent.glob(pattern))) == before:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    return process


def is_locked(folder: Path) -> bool:
    descriptor = os.open(folder / 'lock', os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_nothing(tmp_path, images, number):
    bag = record_images(tmp_path / 'in', images * 20)
    process = command(bag, tmp_path / 'out', '--video')
    while not list(tmp_path.glob('.out.*/new/out/*.mp4')):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == 'Stopped'
    assert 'Traceback' not in errors
    assert [path.name for path in tmp_path.iterdir()] == ['in']


# The process gets the signal argv[1] where folders change places: before move number argv[2] of
# two, or, for 3, when the old one is to be removed.
STOPPER = """
import os, pathlib, shutil, sys
number, at = int(sys.argv.pop(1)), int(sys.argv.pop(1))
moves = 0

def stopping(move):
    def moved(*arguments, **options):
        global moves
        moves += 1
        if moves == at:
            os.kill(os.getpid(), number)
        return move(*arguments, **options)
    return moved

pathlib.Path.rename = stopping(pathlib.Path.rename)
shutil.rmtree = stopping(shutil.rmtree)
from dan_ros.cli.main import main
main()
"""


@pytest.mark.parametrize('at', [1, 2, 3])
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_while_a_bag_is_replaced_the_old_or_the_new_one_is_there(tmp_path, images, number, at):
    bag = record_images(tmp_path / 'in', images)
    out = tmp_path / 'out'
    assert run(bag, out).exit_code == 0
    old = contents(out)
    arguments = map(str, (number.value, at, 'bag', bag, out, '--force', '--half-life', 0))
    process = subprocess.run(
        [sys.executable, '-c', STOPPER, *arguments], capture_output=True, check=False
    )
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    is_missing = number == signal.SIGKILL and at == 2
    assert out.exists() != is_missing
    result = run(bag, out)
    assert 'exists already' in str(result.exception)
    assert ('the old one is back' in result.output) == is_missing
    assert (contents(out) == old) == (at < 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out']


def test_a_result_is_replaced_when_the_new_one_is_whole_and_not_before(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    for name in ('out', 'old', 'new'):
        out = tmp_path / 'results' / name
        assert run(bag, out).exit_code == 0
        before = contents(out)
        assert isinstance(run(bag, out, '--force', '--model', 'nope').exception, DanError)
        assert contents(out) == before
        assert run(bag, out, '--force', '--half-life', 0).exit_code == 0
        assert contents(out) != before
    assert sorted(path.name for path in out.parent.iterdir()) == ['new', 'old', 'out']


def test_what_lies_beside_is_left_alone(tmp_path, images):
    bag = record_images(tmp_path / 'out.partial', images)
    assert run(bag, tmp_path / 'out').exit_code == 0
    assert len(contents(bag)) == len(images)


def test_nothing_is_written_into_the_bag_to_be_read(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    for out in (bag, bag / 'out', tmp_path):
        result = run(bag, out, '--force')
        assert isinstance(result.exception, DanError), out
        assert 'lie in each other' in str(result.exception)
    assert len(contents(bag)) == len(images)


def test_messages_that_the_index_has_lost_are_said(tmp_path, images):
    """Readers of mcap go by its index of chunks, and pass in silence over what is not in it."""
    bag = record_images(tmp_path / 'in', images * 4, storage='mcap', compression='storage')
    (file,) = bag.glob('*.mcap')
    content = bytearray(file.read_bytes())
    (place,) = struct.unpack_from('<Q', content, len(content) - 28)  # of the summary
    while content[place] != CHUNK_INDEX:
        place += 9 + struct.unpack_from('<Q', content, place + 1)[0]
    content[place] = 0x80  # a kind of record that nobody knows
    file.write_bytes(content)
    result = run(bag, tmp_path / 'out')
    written = len(arrays(tmp_path / 'out'))
    assert 0 < written < 4 * len(images)
    assert result.exit_code == 1
    assert f'lacks {4 * len(images) - written} messages on /camera/image_raw' in result.output


def test_one_message_that_is_none_does_not_end_a_bag(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    with sqlite3.connect(next(bag.glob('*.db3'))) as database:
        database.execute('UPDATE messages SET data = ? WHERE id = 5', (b'\x00\x01\x00\x00abc',))
    result = run(bag, tmp_path / 'out')
    assert result.exit_code == 0
    assert '11 images, 10 faces' in result.output
    assert '1 messages dropped, bad_data: bytes on /camera/image_raw that are no' in result.output


def test_stamps_that_stand_still(tmp_path, images):
    messages = [
        ('/camera/image_raw', IMAGE, START_NS + i * PERIOD_NS, raw(image, 0))
        for i, image in enumerate(images)
    ]
    result = run(record(tmp_path / 'in', messages), tmp_path / 'out')
    assert '1 ids' in result.output
    assert 'stamps of /camera/image_raw stand still' in result.output


def test_depth_is_no_camera_where_there_is_another(tmp_path, images):
    messages = [
        (topic, IMAGE, START_NS, raw(images[1], START_NS))
        for topic in ('/camera/depth/image_rect_raw', '/camera/color/image_raw')
    ]
    bag = record(tmp_path / 'in', messages)
    assert run(bag, tmp_path / 'out').exit_code == 0
    assert {topic for topic, *_ in contents(tmp_path / 'out')} == {
        '/camera/color/facial_expression',
        '/camera/color/facial_expressions',
    }


def test_odd_names_of_topics(tmp_path, images):
    names = ('/compressed', '/a_b_c_4', '/a/b_c', '/a_b/c', '/a/b/c', '/' + 'x' * 300)
    messages = [
        (topic, COMPRESSED, START_NS + i, compressed(images[1], START_NS))
        for i, topic in enumerate(names)
    ]
    result = run(record(tmp_path / 'in', messages), tmp_path / 'out', '--video')
    assert result.exit_code == 0, result.output
    assert '6 images, 6 faces, 6 ids' in result.output
    assert len(list((tmp_path / 'out').glob('*.mp4'))) == 6


def test_a_timeline_has_gaps_only_where_the_face_was_away():
    face = TrackedFace('f1', None, np.full(8, 1 / 8, np.float32), 0)

    def gaps(times_s: list[float], seen=lambda time_s: True) -> int:
        timelines = Timelines(Path())
        for time_s in times_s:
            timelines.add('/camera', [face] if seen(time_s) else [], round(time_s * 1e9))
        moments = timelines._faces['f1']
        assert len(moments.after_gap) == len(moments.rows) == len(moments.times_s)
        assert len(moments.rows) <= MAX_MOMENTS
        return sum(moments.after_gap)

    assert gaps([step * 1.1 for step in range(100)]) == 0
    assert gaps([step / 30 for step in range(60_000)]) == 0
    away = lambda time_s: not 500 < time_s < 502  # noqa: E731
    assert gaps([step / 30 for step in range(60_000)], away) == 1
    assert gaps([step / 30 for step in range(100)] + [20 + step / 30 for step in range(100)]) == 1


def test_ros_reads_the_messages(tmp_path, images):
    """With the real message classes of the built package and their type hashes."""
    pytest.importorskip('rclpy')
    import json

    from ament_index_python.packages import get_package_share_directory
    from rclpy.serialization import deserialize_message

    from dan_ros.msg import FacialExpressionArray

    bag = record_images(tmp_path / 'in', images)
    run(bag, tmp_path / 'out')
    data = [d for name, _, d in contents(tmp_path / 'out') if name.endswith('expressions')]
    message = deserialize_message(data[-1], FacialExpressionArray)
    (face,) = message.faces
    assert (face.label, face.camera) == ('happy', '/camera/image_raw')
    assert face.confidence == max(face.probabilities)
    share = Path(get_package_share_directory('dan_ros'))
    hashes = json.loads((share / 'msg' / 'FacialExpressionArray.json').read_text())['type_hashes']
    (expected,) = (h['hash_string'] for h in hashes if h['type_name'] == FACES)
    assert expected in (tmp_path / 'out' / 'metadata.yaml').read_text()
