"""Writes rosbag2 bags for tests."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_HUMBLE)
IMAGE, COMPRESSED, INFO = (
    f'sensor_msgs/msg/{name}' for name in ('Image', 'CompressedImage', 'CameraInfo')
)
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000


def header(stamp_ns: int, frame_id: str = 'optical'):
    stamp = TYPES.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 1_000_000_000))
    return TYPES.types['std_msgs/msg/Header'](stamp, frame_id)


def raw(image_bgr: np.ndarray, stamp_ns: int):
    height, width = image_bgr.shape[:2]
    data = np.ascontiguousarray(image_bgr).ravel()
    return TYPES.types[IMAGE](header(stamp_ns), height, width, 'bgr8', 0, 3 * width, data)


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
    """Write (topic, type, bag time, message) to a new bag; compression is "file" or "message"."""
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
    """Write images at 10 Hz, with stamps 5 ms before the bag time."""
    make, kind = (compressed, COMPRESSED) if is_compressed else (raw, IMAGE)
    messages = (
        (topic, kind, time_ns := START_NS + index * PERIOD_NS, make(image, time_ns - 5_000_000))
        for index, image in enumerate(images)
    )
    return record(path, messages, **options)
