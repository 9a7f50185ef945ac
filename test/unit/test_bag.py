# SPDX-License-Identifier: Apache-2.0
"""`dan-ros bag` in this process: storages, damage, several cameras, and what it writes."""

import contextlib
import csv
import functools
import os
import shutil
import sqlite3
import struct
import sys
from pathlib import Path

import cv2
import mcap.writer
import numpy as np
import pytest
from recording import (
    COMPRESSED,
    EVENT,
    FACES,
    IMAGE,
    INFO,
    PERIOD_NS,
    START_NS,
    TYPES,
    check_truncated_bag,
    compressed,
    header,
    moving_smile,
    raw,
    read_arrays,
    read_bag,
    record,
    record_images,
    run_bag,
)
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dan_ros import labels, palette
from dan_ros.bag import converter, timeline
from dan_ros.bag.reader import record_to_frame
from dan_ros.bag.recovery import DamageError, read_mcap, read_sqlite3
from dan_ros.bag.timeline import MAX_MOMENTS, Timelines
from dan_ros.bag.video import Videos, frame_rate_hz
from dan_ros.errors import DanError
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.tracking.face_tracker import TrackedFace

CHUNK_INDEX = 8  # https://mcap.dev/spec
open_once = functools.lru_cache(ExpressionPipeline.open)


@pytest.fixture(autouse=True)
def _save_time(monkeypatch):
    """Load each model once for all tests, and draw no timelines."""
    monkeypatch.setattr(ExpressionPipeline, 'open', open_once)
    monkeypatch.setattr(timeline, 'MIN_FRAMES', sys.maxsize)


@pytest.fixture(scope='module')
def images(smile, nobody):
    return moving_smile(smile, nobody)


@pytest.mark.parametrize(
    ('storage', 'compression', 'is_compressed'),
    [
        ('sqlite3', '', False),
        ('sqlite3', 'file', True),
        ('sqlite3', 'message', False),
        ('mcap', '', True),
        ('mcap', 'storage', False),  # compressed chunks
        ('mcap', 'message', True),
    ],
)
def test_every_frame_is_written_in_order_with_its_bag_time(
    tmp_path, images, storage, compression, is_compressed
):
    topic = '/camera/image_raw' + ('/compressed' if is_compressed else '')
    bag = record_images(
        tmp_path / 'in', images, topic, is_compressed, storage=storage, compression=compression
    )
    result = run_bag(bag, tmp_path / 'out')
    assert result.exit_code == 0, result.output
    assert '12 images, 11 faces, 1 id (happy 11)' in result.output
    found = read_arrays(tmp_path / 'out')
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
    single = [data for name, _, data in read_bag(tmp_path / 'out') if name.endswith('expression')]
    assert len(single) == 11


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_annotations_for_foxglove_are_written_on_request(tmp_path, images, storage):
    bag = record_images(tmp_path / 'in', images[:3], storage=storage)
    assert run_bag(bag, tmp_path / 'out', '--annotations').exit_code == 0
    types = get_typestore(Stores.EMPTY)  # the bag itself must define the messages
    with Reader(tmp_path / 'out') as reader:
        (connection,) = (c for c in reader.connections if c.topic.endswith('/annotations'))
        assert connection.topic == '/camera/image_raw/annotations'
        assert connection.msgtype == 'foxglove_msgs/msg/ImageAnnotations'
        types.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
        found = [
            (time_ns, types.deserialize_cdr(data, connection.msgtype))
            for _, time_ns, data in reader.messages([connection])
        ]
    arrays = read_arrays(tmp_path / 'out')
    assert [time_ns for time_ns, _ in found] == [time_ns for time_ns, _ in arrays]
    empty, *others = (message for _, message in found)
    assert len(empty.points) == len(empty.texts) == 0  # removes the boxes of the frame before
    for message, (_, array) in zip(others, arrays[1:], strict=True):
        (face,) = array.faces
        box, landmarks = message.points
        (text,) = message.texts
        assert message.timestamp == box.timestamp == text.timestamp == array.header.stamp
        assert (box.type, landmarks.type) == (box.LINE_LOOP, landmarks.POINTS)
        xs, ys = {p.x for p in box.points}, {p.y for p in box.points}
        assert face.roi.x_offset == int(min(xs))
        assert face.roi.y_offset + face.roi.height == int(np.ceil(max(ys)))
        assert [(p.x, p.y) for p in landmarks.points] == [(p.x, p.y) for p in face.landmarks]
        assert text.text == f'{face.face_id} happy {face.confidence:.0%}'
        assert min(color.a for color in (box.outline_color, text.text_color)) == 1


def test_two_runs_write_equal_bytes(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    for name in ('one', 'two'):
        assert run_bag(bag, tmp_path / name).exit_code == 0
    assert read_bag(tmp_path / 'one') == read_bag(tmp_path / 'two')
    tables = [(tmp_path / name / 'faces.csv').read_bytes() for name in ('one', 'two')]
    assert tables[0] == tables[1]


def test_table_and_timeline(tmp_path, images, monkeypatch):
    monkeypatch.setattr(timeline, 'MIN_FRAMES', 5)
    bag = record_images(tmp_path / 'in', images)
    run_bag(bag, tmp_path / 'out')
    with (tmp_path / 'out' / 'faces.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    assert int(rows[0]['bag_time_ns']) == START_NS + PERIOD_NS
    assert rows[-1]['label'] == 'happy'
    assert float(rows[-1]['happy']) == pytest.approx(float(rows[-1]['confidence']))
    (face_id,) = {row['face_id'] for row in rows}
    picture = cv2.imread(str(tmp_path / 'out' / f'timeline_{face_id}.png'))
    assert min(picture.shape[:2]) > 300
    happy = palette.to_bgr(palette.color_of(labels.CANONICAL.index('happy')))
    yellow = (np.abs(picture.astype(int) - happy).max(axis=2) < 3).mean()
    assert yellow > 0.3  # the band of happy is the largest


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_a_video_plays_at_the_rate_of_its_camera(tmp_path, images, storage):
    """The bag is longer than the images."""
    messages = [
        ('/camera/image_raw', IMAGE, time_ns := START_NS + i * PERIOD_NS, raw(image, time_ns))
        for i, image in enumerate(images)
    ]
    text = TYPES.types['std_msgs/msg/String']('x')
    others = (START_NS - 10**11, START_NS + 10**11)
    messages += [('/chatter', 'std_msgs/msg/String', time_ns, text) for time_ns in others]
    bag = record(tmp_path / 'in', sorted(messages, key=lambda message: message[2]), storage)
    assert run_bag(bag, tmp_path / 'out', '--video').exit_code == 0
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'camera_image_raw.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10, rel=0.01)
    frames = [video.read()[1] for _ in range(12)]
    assert frames[0].shape == images[0].shape
    assert np.abs(frames[5].astype(int) - images[5]).max() > 100  # something is drawn


@pytest.mark.parametrize('period_ns', [0, 1, 10_000, 11_111_463, 3_600_000_000_000])
def test_a_video_at_any_rate(tmp_path, images, period_ns):
    messages = [
        ('/camera/image_raw', IMAGE, START_NS + i * period_ns, raw(image, START_NS))
        for i, image in enumerate(images)
    ]
    result = run_bag(record(tmp_path / 'in', messages), tmp_path / 'out', '--video')
    assert result.exit_code == 0, result.exception
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'camera_image_raw.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert 0.1 <= video.get(cv2.CAP_PROP_FPS) <= 240


def test_a_pause_of_the_recording_lasts_one_second(tmp_path, images):
    times_s = [0, 0.1, 0.2, 0.3, 3600, 3600.1, 3600.2]
    messages = [
        ('/camera/image_raw', IMAGE, START_NS + round(time_s * 1e9), raw(images[i], START_NS + i))
        for i, time_s in enumerate(times_s)
    ]
    result = run_bag(record(tmp_path / 'in', messages), tmp_path / 'out', '--video')
    assert result.exit_code == 0, result.exception
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'camera_image_raw.mp4'))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 7 + 10


STEADY = np.arange(0, 20, 1 / 30)  # 30 images per second


def at_rates(*rates_hz: float) -> np.ndarray:
    """Times of images, seconds: 60 seconds at each rate."""
    parts = [60 * i + np.arange(0, 60, 1 / rate_hz) for i, rate_hz in enumerate(rates_hz)]
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ('times_s', 'expected_s', 'most_hz'),
    [
        (STEADY, 20, 30.1),
        (STEADY + np.random.default_rng(0).uniform(-0.01, 0.01, 600), 20, 30.2),
        (np.delete(STEADY, np.random.default_rng(0).permutation(600)[:200]), 20, 30.1),  # lost
        (np.concatenate([STEADY, 3600 + STEADY, 7200 + STEADY]), 62, 30.1),
        (at_rates(30, 15), 120, 30.1),  # slower in the dark
        (at_rates(15, 30), 120, 30.1),
        (at_rates(28, 30), 120, 30.1),
        (at_rates(5, 7), 120, 7.3),
        (at_rates(1, 3), 120, 3.3),
        (np.repeat(STEADY[::2], 2) + np.tile([0, 0.001], 300), 20, 30.2),  # pairs, as over Wi-Fi
        (np.concatenate([np.linspace(0, 0.01, 10), STEADY + 0.02]), 20, 32),  # a burst at the start
        (np.concatenate([np.arange(10) * 20, 200 + np.arange(100) / 10]), 21, 10.1),
        (np.arange(0, 60, 20), 30, 0.1),
    ],
)
def test_a_video_plays_in_the_time_of_the_bag(tmp_path, times_s, expected_s, most_hz):
    times_ns = START_NS + np.sort(times_s * 1e9).astype(np.int64)
    rate_hz = frame_rate_hz(times_ns)
    image = np.zeros((16, 16, 3), np.uint8)
    with Videos(tmp_path, {'/camera': rate_hz}) as videos:
        for time_ns in times_ns.tolist():
            videos.write('/camera', time_ns, image)
    video = cv2.VideoCapture(str(tmp_path / 'camera.mp4'))
    frames = video.get(cv2.CAP_PROP_FRAME_COUNT)
    assert frames >= len(times_s)  # no image is left out
    assert frames / rate_hz == pytest.approx(expected_s, abs=1)
    assert rate_hz <= most_hz


def test_the_rate_of_a_video_is_that_of_its_camera_when_the_clock_steps_back():
    """After its damage, a file is read in the order in which it was written."""
    times_ns = START_NS + np.arange(0, 100, 0.1) * 1e9
    times_ns[500:] -= 19e9
    assert frame_rate_hz(times_ns.astype(np.int64)) == pytest.approx(10, abs=0.1)


def test_a_video_of_images_with_unsigned_times(tmp_path, images):
    """As after a flipped bit: times of MCAP are unsigned."""
    times_ns = [START_NS, START_NS + PERIOD_NS, 2**63 + 1, 2**64 - 1]
    messages = [
        ('/camera/image_raw', IMAGE, time_ns, raw(images[i], START_NS + i))
        for i, time_ns in enumerate(times_ns)
    ]
    result = run_bag(record(tmp_path / 'in', messages, 'mcap'), tmp_path / 'out', '--video')
    assert result.exit_code == 0, result.exception
    assert (tmp_path / 'out' / 'camera_image_raw.mp4').exists()


@pytest.mark.parametrize(
    ('size', 'expected'),
    [((9000, 16), (8190, 16)), ((16, 20_001), (8, 8190)), ((1, 1), (2, 2)), ((33, 47), (34, 48))],
)
def test_a_video_of_any_size(tmp_path, size, expected):
    width, height = size
    images = [np.full((height, width, 3), 99, np.uint8)] * 3
    bag = record_images(tmp_path / 'in', images)
    assert run_bag(bag, tmp_path / 'out', '--video').exit_code == 0
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'camera_image_raw.mp4'))
    sides = video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)
    assert sides == pytest.approx(expected, abs=2)
    assert np.abs(video.read()[1].astype(int) - 99).max() < 5


def test_several_cameras_share_no_id(tmp_path, smile):
    def messages():
        for index in range(6):
            time_ns = START_NS + index * PERIOD_NS
            yield '/left/image_raw', IMAGE, time_ns, raw(smile, time_ns)
            image = smile[:, ::-1]
            yield '/right/image/compressed', COMPRESSED, time_ns + 1, compressed(image, time_ns)
            yield '/right/image', IMAGE, time_ns + 2, raw(image, time_ns)  # the same raw image

    bag = record(tmp_path / 'in', messages())
    assert '12 images, 12 faces, 2 ids' in run_bag(bag, tmp_path / 'out').output
    ids = [
        {face.face_id for _, array in read_arrays(tmp_path / 'out', topic) for face in array.faces}
        for topic in ('/left/facial_expressions', '/right/facial_expressions')
    ]
    assert all(len(own) == 1 for own in ids)
    assert not ids[0] & ids[1]
    result = run_bag(bag, tmp_path / 'one', '--topic', '/right/image/compressed')
    assert '6 images' in result.output


def test_events_of_a_visit(tmp_path, smile, nobody):
    """The last face leaves with the last image of the bag."""
    images = [nobody] + [smile] * 8 + [nobody] * 12 + [smile] * 8
    run_bag(record_images(tmp_path / 'in', images), tmp_path / 'out')
    events = read_arrays(tmp_path / 'out', '/camera/facial_expression_events', EVENT)
    assert [event.kind for _, event in events] == [0, 2, 3, 1] * 2
    assert [event.label for _, event in events[:3]] == ['unknown', 'happy', 'happy']
    (_, appeared), (_, happy), _, (_, left) = events[:4]
    assert appeared.face_id == left.face_id != events[-1][1].face_id
    assert left.lasted_s == pytest.approx(0.7)
    assert happy.confidence > 0.6
    assert events[-1][0] == START_NS + (len(images) - 1) * PERIOD_NS
    with (tmp_path / 'out' / 'faces.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['looking'] for row in rows[:8]] == ['false'] * 3 + ['true'] * 5
    assert float(rows[7]['looking_at_camera']) > 0.8
    assert float(rows[7]['looking_s']) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ('focal_px', 'height', 'warning'),
    [
        (400, 240, ''),
        (0, 240, '/camera/image_raw has no valid calibration'),
        (400, 320, 'is for 320x320, its images are 320x240'),
    ],
)
def test_calibrated_cameras_give_poses(tmp_path, smile, focal_px, height, warning):
    def messages():
        unit = np.eye(3).ravel()
        k = np.array([focal_px, 0, 160, 0, focal_px, 120, 0, 0, 1], float)
        roi = TYPES.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        info = TYPES.types[INFO](
            header(0), height, 320, 'plumb_bob', np.zeros(5), k, unit, np.zeros(12), 0, 0, roi
        )  # fmt: skip
        yield '/camera/image_raw', IMAGE, START_NS, raw(smile, START_NS)
        yield '/camera/camera_info', INFO, START_NS + 1, info
        yield '/camera/image_raw', IMAGE, START_NS + PERIOD_NS, raw(smile, START_NS + PERIOD_NS)

    result = run_bag(record(tmp_path / 'in', messages()), tmp_path / 'out')
    assert warning in result.stderr
    assert ('Warning' in result.stderr) == bool(warning)
    (_, before), (_, after) = read_arrays(tmp_path / 'out')
    assert before.faces[0].pose == []
    if warning:
        assert after.faces[0].pose == []
        return
    assert after.faces[0].pose[0].position.z == pytest.approx(0.55, abs=0.08)


def test_invalid_images_are_counted_and_skipped(tmp_path, smile):
    def messages():
        for index in range(5):
            time_ns = START_NS + index * PERIOD_NS
            message = raw(smile, time_ns)
            if index == 2:
                message.data = message.data[:100]
            yield '/image', IMAGE, time_ns, message

    result = run_bag(record(tmp_path / 'in', messages()), tmp_path / 'out')
    assert result.exit_code == 1
    assert '4 images, 4 faces' in result.output
    assert '1 message dropped, bad_data' in result.output
    assert len(read_arrays(tmp_path / 'out', '/facial_expressions')) == 4


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
@pytest.mark.parametrize('compression', ['', 'file', 'message'])
def test_a_truncated_bag_is_converted_up_to_the_damage(tmp_path, storage, compression):
    check_truncated_bag(tmp_path, storage, compression, part=0.5, has_metadata=True)


def test_messages_in_the_write_ahead_log_are_read(tmp_path):
    """A killed recorder with the storage preset `resilient` leaves such a log."""
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
    shutil.copytree(bag, killed)  # the log exists only while the database is open
    database.close()
    assert (killed / 'in.db3-wal').stat().st_size > 0
    result = run_bag(killed, tmp_path / 'out')
    assert result.exit_code == 1
    assert 'was not closed' in result.output
    assert len(read_arrays(tmp_path / 'out')) == 40


def test_a_bag_without_readable_messages_is_an_error(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    os.truncate(bag / 'in.db3', 50)
    result = run_bag(bag, tmp_path / 'out')
    assert isinstance(result.exception, DanError)
    assert 'no message of it can be read' in str(result.exception)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('content', ['[' * 500, '\x00', 'rosbag2_bagfile_information: 3', ''])
def test_invalid_metadata_is_damage(tmp_path, images, content):
    bag = record_images(tmp_path / 'in', images)
    (bag / 'metadata.yaml').write_text(content)
    result = run_bag(bag, tmp_path / 'out')
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert 'is damaged' in result.output
    assert len(read_arrays(tmp_path / 'out')) == 12


def count_recovered(messages) -> int:
    count = 0
    with contextlib.suppress(DamageError):
        for _ in messages:
            count += 1
    return count


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    """A database of 1000 messages, whose table has inner pages after most of its leaves."""
    string = TYPES.types['std_msgs/msg/String']
    messages = (('/text', 'std_msgs/msg/String', i, string('x' * 3600)) for i in range(1000))
    return record(tmp_path_factory.mktemp('texts') / 'bag', messages) / 'bag.db3'


@pytest.mark.parametrize('part', [0.02, 0.5, 0.9])
def test_messages_on_both_sides_of_damaged_pages_are_read(tmp_path, texts, part):
    file = Path(shutil.copy(texts, tmp_path))
    with file.open('r+b') as target:
        target.seek(round(part * file.stat().st_size) // 4096 * 4096)
        target.write(bytes(range(256)) * 32)
    assert 985 <= count_recovered(read_sqlite3(file)) < 1000


def recovered_data(file: Path) -> list[bytes]:
    data: list[bytes] = []
    with pytest.raises(DamageError):
        data.extend(message.data for message in read_sqlite3(file))
    return data


@pytest.fixture
def long_texts(tmp_path):
    """A database whose 40 messages fill several pages each, and the data of the messages."""
    string = TYPES.types['std_msgs/msg/String']
    texts = [string(f'{i:02}' * 9000 + f'end of {i:02}') for i in range(40)]
    messages = (('/text', 'std_msgs/msg/String', 10**18 + i, m) for i, m in enumerate(texts))
    file = record(tmp_path / 'bag', messages) / 'bag.db3'
    with contextlib.closing(sqlite3.connect(file)) as database:
        return file, [row[0] for row in database.execute('SELECT data FROM messages ORDER BY id')]


@pytest.mark.parametrize('part', [0.3, 0.6, 0.9])
@pytest.mark.parametrize('extra_bytes', [0, 1, 2000, 4095])
def test_a_cut_inside_a_page_costs_only_the_messages_behind_it(long_texts, part, extra_bytes):
    file, data = long_texts
    content = file.read_bytes()
    content = content[: round(part * len(content)) // 4096 * 4096]
    complete = [m for m in data if m[:60] in content and m[-10:] in content]
    file.write_bytes(content + b'\xff' * extra_bytes)
    assert 10 <= len(complete) < 40
    assert recovered_data(file) == complete


def test_an_incomplete_last_page_is_not_filled_with_zeros(long_texts):
    file, data = long_texts
    end = file.read_bytes().index(data[20][-10:])
    os.truncate(file, end)
    assert recovered_data(file) == data[:20]


@pytest.mark.parametrize('index', [0, 1, 20, 39])
def test_an_unreadable_message_costs_no_other(long_texts, index):
    file, data = long_texts
    end = file.read_bytes().index(data[index][-10:])
    with file.open('r+b') as target:
        target.seek((end // 4096 - 1) * 4096)  # the last page of the message but one
        target.write(b'\xff' * 4)  # number of the next page
    assert recovered_data(file) == data[:index] + data[index + 1 :]


@pytest.mark.parametrize('begin', [18, 100, 3000])
def test_messages_are_read_despite_a_damaged_first_page(long_texts, begin):
    file, data = long_texts
    with file.open('r+b') as target:
        target.seek(begin)
        target.write(b'\xa5' * (4096 - begin))
    assert recovered_data(file) == data


@pytest.mark.parametrize(
    ('begin', 'message'),
    [(0, 'has no valid SQLite header'), (18, 'list of topics .* cannot be read')],
)
def test_a_database_without_topics_is_damage(long_texts, begin, message):
    file, _ = long_texts
    file.write_bytes(file.read_bytes()[:begin] + bytes(8 * 4096 - begin))
    with pytest.raises(DamageError, match=message):
        next(read_sqlite3(file))


@pytest.mark.parametrize('compression', ['NONE', 'LZ4', 'ZSTD'])
@pytest.mark.parametrize('is_cut', [True, False])
def test_a_damaged_chunk_is_read_up_to_the_damage(tmp_path, compression, is_cut):
    file = tmp_path / 'one_chunk.mcap'
    writer = mcap.writer.Writer(str(file), compression=mcap.writer.CompressionType[compression])
    writer.start()
    schema = writer.register_schema('std_msgs/msg/String', 'ros2msg', b'string data')
    channel = writer.register_channel('/noise', 'cdr', schema)
    for index in range(100):
        noise = np.random.default_rng(index).bytes(9000)
        writer.add_message(channel, log_time=index, publish_time=index, data=noise)
    writer.finish()
    middle = file.stat().st_size // 2
    if is_cut:
        os.truncate(file, middle)
    else:
        with file.open('r+b') as target:
            target.seek(middle)
            target.write(b'\xff' * 10_000)
    assert 30 <= count_recovered(read_mcap(file)) <= 51


def test_nothing_is_overwritten_without_force(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    out = tmp_path / 'out'
    assert run_bag(bag, out).exit_code == 0
    before = read_bag(out)
    result = run_bag(bag, out)
    assert 'exists already' in str(result.exception)
    assert read_bag(out) == before
    assert run_bag(bag, out, '--force', '--topic', '/camera/image_raw').exit_code == 0
    for wrong, words in ((bag, 'inside the other'), (tmp_path, 'inside the other')):
        assert words in str(run_bag(bag, wrong, '--force').exception)
    (tmp_path / 'precious').mkdir()
    (tmp_path / 'precious' / 'thesis.tex').touch()
    assert 'is not a bag' in str(run_bag(bag, tmp_path / 'precious', '--force').exception)
    assert (tmp_path / 'precious' / 'thesis.tex').exists()
    other = record_images(tmp_path / 'other', images)  # another recording
    assert 'not a result of this command' in str(run_bag(bag, other, '--force').exception)
    assert read_bag(bag) == read_bag(other)


def test_outputs_that_cannot_be_replaced_are_errors(tmp_path, images, monkeypatch):
    bag = record_images(tmp_path / 'in', images)
    (tmp_path / 'link').symlink_to('nowhere')
    for out, words in (('/proc', 'mount point'), (tmp_path / 'link', 'is not a bag')):
        result = run_bag(bag, out, '--force')
        assert isinstance(result.exception, DanError), result.exception
        assert words in str(result.exception)
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    assert run_bag(bag, '.', '--force').exit_code == 0
    assert len(read_arrays(tmp_path / 'here')) == 12


def test_invalid_arguments_give_one_line(tmp_path, images):
    bag = record_images(tmp_path / 'in', images[:1])
    for arguments, words in (
        ((tmp_path / 'missing', tmp_path / 'x'), 'there is no bag at'),
        ((tmp_path, tmp_path / 'x'), 'contains no .db3 or .mcap'),
        (
            (bag, tmp_path / 'x', '--topic', '/other'),
            'no images on /other; it has /camera/image_raw',
        ),
        ((bag, tmp_path / 'x', '--model', 'no.onnx'), 'no model'),
    ):
        result = run_bag(*arguments)
        assert isinstance(result.exception, DanError), result.output
        assert words in str(result.exception)
        assert '\n' not in str(result.exception)
        assert not (tmp_path / 'x').exists()


def test_a_bag_without_images_lists_its_topics(tmp_path):
    text = TYPES.types['std_msgs/msg/String']('hello')
    bag = record(tmp_path / 'in', [('/chat', 'std_msgs/msg/String', START_NS, text)])
    assert 'no images; it has /chat (std_msgs/msg/String)' in str(
        run_bag(bag, tmp_path / 'x').exception
    )


def test_a_result_is_replaced_only_by_a_complete_one(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    for name in ('old', 'new'):
        out = tmp_path / 'results' / name
        assert run_bag(bag, out).exit_code == 0
        before = read_bag(out)
        assert isinstance(run_bag(bag, out, '--force', '--model', 'nope').exception, DanError)
        assert read_bag(out) == before
        assert run_bag(bag, out, '--force', '--half-life', 0).exit_code == 0
        assert read_bag(out) != before
    assert sorted(path.name for path in out.parent.iterdir()) == ['new', 'old']


def test_neighbours_of_the_output_are_left_alone(tmp_path, images):
    bag = record_images(tmp_path / 'out.partial', images)
    assert run_bag(bag, tmp_path / 'out').exit_code == 0
    assert len(read_bag(bag)) == len(images)


def test_the_output_must_not_be_inside_the_input(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    for out in (bag, bag / 'out', tmp_path):
        result = run_bag(bag, out, '--force')
        assert isinstance(result.exception, DanError), out
        assert 'is inside the other' in str(result.exception)
    assert len(read_bag(bag)) == len(images)


def test_messages_missing_in_the_index_are_reported(tmp_path, images):
    """MCAP readers silently skip chunks that are missing in the index."""
    bag = record_images(tmp_path / 'in', images * 4, storage='mcap', compression='storage')
    (file,) = bag.glob('*.mcap')
    content = bytearray(file.read_bytes())
    (place,) = struct.unpack_from('<Q', content, len(content) - 28)  # offset of the summary section
    while content[place] != CHUNK_INDEX:
        place += 9 + struct.unpack_from('<Q', content, place + 1)[0]
    content[place] = 0x80  # an unknown type of record
    file.write_bytes(content)
    result = run_bag(bag, tmp_path / 'out')
    written = len(read_arrays(tmp_path / 'out'))
    assert 0 < written < 4 * len(images)
    assert result.exit_code == 1
    assert f'lacks {4 * len(images) - written} messages on /camera/image_raw' in result.output


def test_an_invalid_message_is_skipped(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    with sqlite3.connect(bag / 'in.db3') as database:
        database.execute('UPDATE messages SET data = ? WHERE id = 5', (b'\x00\x01\x00\x00abc',))
    result = run_bag(bag, tmp_path / 'out')
    assert result.exit_code == 1
    assert '11 images, 10 faces' in result.output
    assert (
        '1 message dropped, bad_data: invalid sensor_msgs/msg/Image on /camera/image_raw'
        in result.output
    )


def test_an_invalid_calibration_and_an_image_without_memory_are_counted(
    tmp_path, images, monkeypatch
):
    def decode(record):
        if record.time_ns == START_NS:
            raise MemoryError
        return record_to_frame(record)

    monkeypatch.setattr(converter, 'record_to_frame', decode)
    info = TYPES.types[IMAGE](header(START_NS), 0, 0, '', 0, 0, np.zeros(0, np.uint8))
    messages = [('/cam/camera_info', IMAGE, START_NS, info)]
    messages += [
        ('/cam/image_raw', IMAGE, ns := START_NS + i * PERIOD_NS, raw(image, ns))
        for i, image in enumerate(images[1:4])
    ]
    bag = record(tmp_path / 'in', messages)
    with sqlite3.connect(bag / 'in.db3') as database:
        database.execute("UPDATE topics SET type = ? WHERE name LIKE '%info'", (INFO,))
    result = run_bag(bag, tmp_path / 'out')
    assert result.exit_code == 1
    assert '2 images, 2 faces, 1 id' in result.output
    assert '1 message dropped, out_of_memory: MemoryError' in result.output
    assert f'1 message dropped, bad_data: invalid {INFO} on /cam/camera_info' in result.output


def test_lost_faces_are_drawn_and_forgotten_at_intervals(tmp_path, images, monkeypatch):
    """Otherwise the memory for a long bag would grow with its faces."""
    visits = [*images[1:3], *[images[0]] * 10, *images[1:3]]
    messages = [
        ('/cam', IMAGE, ns := START_NS + i * 10**9, raw(image, ns))
        for i, image in enumerate(visits)
    ]
    bag, kept, finish = record(tmp_path / 'in', messages), [], Timelines.finish

    def finish_and_count(timelines, ids_in_view=()):
        finish(timelines, ids_in_view)
        kept.append(len(timelines._faces))

    monkeypatch.setattr(Timelines, 'finish', finish_and_count)
    monkeypatch.setattr(timeline, 'MIN_FRAMES', 1)
    monkeypatch.setattr(timeline._Moments, 'draw', lambda moments, title: str(moments.frames))
    monkeypatch.setattr(timeline, 'encode', str.encode)
    monkeypatch.setattr(converter, 'CLEANUP_FRAMES', 1)
    assert run_bag(bag, tmp_path / 'out').exit_code == 0
    assert (kept[0], max(kept), kept[-1]) == (1, 1, 0)
    assert [file.read_bytes() for file in (tmp_path / 'out').glob('*.png')] == [b'2', b'2']


def test_frozen_stamps_are_reported(tmp_path, images):
    messages = [
        ('/camera/image_raw', IMAGE, START_NS + i * PERIOD_NS, raw(image, 0))
        for i, image in enumerate(images)
    ]
    result = run_bag(record(tmp_path / 'in', messages), tmp_path / 'out')
    assert ' 1 id ' in result.output
    assert 'all images of /camera/image_raw have the same stamp' in result.output


def test_unordered_stamps_are_reported(tmp_path, images):
    """Only the camera whose stamps step back is named."""
    messages = []
    for i, image in enumerate(images):
        time_ns = START_NS + i * PERIOD_NS
        jitter_ns = 150_000_000 if i == 6 else 0
        messages += [
            ('/good/image_raw', IMAGE, time_ns, raw(image, time_ns)),
            ('/late/image_raw', IMAGE, time_ns, raw(image, time_ns - jitter_ns, frame_id='late')),
        ]
    result = run_bag(record(tmp_path / 'in', messages), tmp_path / 'out')
    assert '2 cameras: /good/image_raw, /late/image_raw' in result.output
    assert '2 ids' in result.output
    assert 'the stamps of /late/image_raw step back' in result.output
    assert 'the stamps of /good/image_raw' not in result.output


def test_a_topic_without_messages_is_named(tmp_path, images):
    """As the recorder leaves it, whose QoS did not match that of the camera."""
    bag = record_images(tmp_path / 'in', images[:2])
    (file,) = bag.glob('*.db3')
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "INSERT INTO topics SELECT id + 1, '/right/image_raw', type, serialization_format, "
            'offered_qos_profiles, type_description_hash FROM topics'
        )
    result = run_bag(bag, tmp_path / 'out')
    assert result.exit_code == 0, result.exception
    assert 'Warning: /right/image_raw has no messages' in result.stderr
    result = run_bag(bag, tmp_path / 'other', '--topic', '/right/image_raw')
    assert result.exit_code == 1
    assert 'could be processed; /right/image_raw has no messages; ' in str(result.exception)


@pytest.mark.parametrize('encoding', ['bgr8', 'no such encoding'])
def test_a_result_is_not_replaced_by_an_empty_one(tmp_path, images, encoding):
    """An image may be dropped, or there may be none."""
    good = record_images(tmp_path / 'good', images)
    assert run_bag(good, tmp_path / 'out').exit_code == 0
    before = read_bag(tmp_path / 'out')
    messages = [('/camera/image_raw', IMAGE, START_NS, raw(images[1], START_NS, encoding))]
    bag = record(tmp_path / 'in', messages)
    if encoding == 'bgr8':
        with contextlib.closing(sqlite3.connect(bag / 'in.db3')) as database, database:
            database.execute('DELETE FROM messages')
        (bag / 'metadata.yaml').unlink()
    for out in ('out', 'new'):
        result = run_bag(bag, tmp_path / out, '--force')
        assert result.exit_code == 1
        assert 'no image of /camera/image_raw could be processed' in str(result.exception)
        assert ('1 message dropped, bad_encoding' in str(result.exception)) == (encoding != 'bgr8')
    assert read_bag(tmp_path / 'out') == before
    assert not (tmp_path / 'new').exists()


def test_unusual_topic_names(tmp_path, images):
    names = ('/compressed', '/a_b_c_4', '/a/b_c', '/a_b/c', '/a/b/c', '/' + 'x' * 300)
    messages = [
        (topic, COMPRESSED, START_NS + i, compressed(images[1], START_NS))
        for i, topic in enumerate(names)
    ]
    result = run_bag(record(tmp_path / 'in', messages), tmp_path / 'out', '--video')
    assert result.exit_code == 0, result.output
    assert '6 images, 6 faces, 6 ids' in result.output
    assert len(list((tmp_path / 'out').glob('*.mp4'))) == 6


def test_a_timeline_has_gaps_only_where_the_face_was_missing():
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


def test_ros_can_read_the_messages(tmp_path, images):
    """The message classes and type hashes are those of the built package."""
    pytest.importorskip('rclpy')
    import json

    from ament_index_python.packages import get_package_share_directory
    from rclpy.serialization import deserialize_message

    from dan_ros.msg import FacialExpressionArray

    bag = record_images(tmp_path / 'in', images)
    run_bag(bag, tmp_path / 'out')
    data = [d for name, _, d in read_bag(tmp_path / 'out') if name.endswith('expressions')]
    message = deserialize_message(data[-1], FacialExpressionArray)
    (face,) = message.faces
    assert (face.label, face.camera) == ('happy', '/camera/image_raw')
    assert face.confidence == max(face.probabilities)
    share = Path(get_package_share_directory('dan_ros'))
    hashes = json.loads((share / 'msg' / 'FacialExpressionArray.json').read_text())['type_hashes']
    (expected,) = (h['hash_string'] for h in hashes if h['type_name'] == FACES)
    assert expected in (tmp_path / 'out' / 'metadata.yaml').read_text()
