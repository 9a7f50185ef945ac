# SPDX-License-Identifier: Apache-2.0
"""Makes and reads rosbag2 bags for tests, with rosbags."""

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from click.testing import CliRunner, Result
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

TYPES = get_typestore(Stores.ROS2_HUMBLE)
FACE, FACES, EVENT = (f'dan_ros/msg/FacialExpression{name}' for name in ('', 'Array', 'Event'))
for kind in (FACE, FACES, EVENT):
    definition = Path(__file__).parents[2] / 'msg' / f'{kind.rpartition("/")[2]}.msg'
    TYPES.register(get_types_from_msg(definition.read_text(), kind))
IMAGE, COMPRESSED, INFO = (
    f'sensor_msgs/msg/{name}' for name in ('Image', 'CompressedImage', 'CameraInfo')
)
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000


def header(stamp_ns: int, frame_id: str = 'optical'):
    stamp = TYPES.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 1_000_000_000))
    return TYPES.types['std_msgs/msg/Header'](stamp, frame_id)


def raw(image: np.ndarray, stamp_ns: int, encoding: str = 'bgr8', frame_id: str = 'optical'):
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image).view(np.uint8).ravel()
    step = data.size // height
    return TYPES.types[IMAGE](header(stamp_ns, frame_id), height, width, encoding, 0, step, data)


def compressed(image_bgr: np.ndarray, stamp_ns: int, suffix: str = '.jpg'):
    data = cv2.imencode(suffix, image_bgr)[1].ravel()
    return TYPES.types[COMPRESSED](header(stamp_ns), suffix[1:], data)


def record(
    path: Path,
    messages: Iterable[tuple[str, str, int, object]],
    storage: str = 'sqlite3',
    compression: str = '',
    version: int = 9,
) -> Path:
    """Write a bag of (topic, type, bag time, message); compression is file, storage or message."""
    writer = Writer(path, version=version, storage_plugin=StoragePlugin[storage.upper()])
    if compression:
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    connections = {}
    with writer:
        for topic, kind, time_ns, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], time_ns, TYPES.serialize_cdr(message, kind))
    return path


def record_images(
    path: Path,
    images: Iterable[np.ndarray],
    topic: str = '/camera/image_raw',
    is_compressed: bool = False,
    **options,
) -> Path:
    """Write a bag of images at 10 Hz; each stamp is 5 ms before the bag time."""
    make, kind = (compressed, COMPRESSED) if is_compressed else (raw, IMAGE)
    messages = (
        (topic, kind, time_ns := START_NS + index * PERIOD_NS, make(image, time_ns - 5_000_000))
        for index, image in enumerate(images)
    )
    return record(path, messages, **options)


def moving_smile(smile: np.ndarray, nobody: np.ndarray) -> list[np.ndarray]:
    """Return twelve images: nobody in the first, then a smile that moves."""
    return [nobody] + [np.roll(smile, 3 * step, axis=1) for step in range(11)]


def run_bag(*arguments: object) -> Result:
    """Run `dan-ros bag` in this process."""
    from dan_ros.cli.main import cli

    return CliRunner().invoke(cli, ['bag', *map(str, arguments)])


def read_bag(path: Path) -> list[tuple[str, int, bytes]]:
    """Return (topic, bag time, CDR) of every message."""
    with Reader(path) as reader:
        return [(c.topic, time_ns, bytes(data)) for c, time_ns, data in reader.messages()]


def read_arrays(path: Path, topic: str = '/camera/facial_expressions', kind: str = FACES):
    """Return (bag time, message) of every message of a topic; FacialExpressionArray by default."""
    return [
        (time_ns, TYPES.deserialize_cdr(data, kind))
        for name, time_ns, data in read_bag(path)
        if name == topic
    ]


def check_truncated_bag(
    folder: Path, storage: str, compression: str, part: float, has_metadata: bool
) -> None:
    """Truncate a bag to `part` of its size and check that everything before that is converted."""
    if storage == 'mcap' and compression == 'file':
        compression = 'storage'
    rng = np.random.default_rng(0)  # noise, so that all frames have the same compressed size
    images = rng.integers(0, 256, (60, 64, 80, 3), np.uint8)
    bag = record_images(folder / 'in', images, storage=storage, compression=compression)
    (file,) = (f for f in bag.iterdir() if f.suffix != '.yaml')
    os.truncate(file, round(part * file.stat().st_size))
    if not has_metadata:
        (bag / 'metadata.yaml').unlink()
    result = run_bag(bag, folder / 'out')
    assert result.exit_code == 1, result.output
    assert 'damaged' in result.output
    assert isinstance(result.exception, SystemExit)
    found = read_arrays(folder / 'out')
    assert 60 * part - 10 <= len(found) <= 60 * part + 1
    assert [time_ns for time_ns, _ in found] == [
        START_NS + i * PERIOD_NS for i in range(len(found))
    ]
