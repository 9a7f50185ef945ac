# SPDX-License-Identifier: Apache-2.0
"""Reads the messages of a rosbag2 in order of bag time, each file up to its first damaged part."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dan_ros.bag import storage
from dan_ros.bag.recovery import RawMessage, decompress_message, full_kind
from dan_ros.bag.storage import StorageFile
from dan_ros.errors import DataError, FrameError, count_of
from dan_ros.images.compressed import COMPRESSED_SUFFIX, compressed_to_frame
from dan_ros.images.encodings import image_to_frame
from dan_ros.types import Frame

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
IMAGE_KINDS = (IMAGE, COMPRESSED_IMAGE)
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
MAX_PIXELS = 100_000_000  # largest compressed image
METADATA = 'metadata.yaml'
NEWEST_VERSION = 9  # metadata version that rosbags writes
# The definitions of these three messages are the same in every distribution since Foxy.
TYPES = get_typestore(Stores.ROS2_HUMBLE)


@dataclass(frozen=True)
class Topic:
    """A topic of a bag."""

    name: str  # such as /camera/image_raw
    kind: str  # type of its messages, such as sensor_msgs/msg/Image; see `full_kind`
    count: int = 0  # number of its readable messages
    start_ns: int = 0  # bag time of the first message or earlier, nanoseconds

    @property
    def camera(self) -> str:
        """Name of the image topic, without /compressed if the images are compressed."""
        if self.kind == COMPRESSED_IMAGE:
            return self.name.removesuffix(COMPRESSED_SUFFIX) or self.name
        return self.name


@dataclass(frozen=True)
class Record:
    """A message of a bag."""

    topic: Topic  # topic of the message
    time_ns: int  # bag time, nanoseconds
    message: Any  # the message; None if its bytes are invalid

    def to_error(self) -> FrameError:
        """Describe the error of a record without a message."""
        return FrameError('bad_data', f'invalid {self.topic.kind} on {self.topic.name}')


def record_to_frame(record: Record) -> Frame:
    """Convert the image of a record.

    Raises:
        FrameError: the image is invalid.
        MemoryError: there is too little memory for its pixels.
    """
    if record.message is None:
        raise record.to_error()
    if record.topic.kind == COMPRESSED_IMAGE:
        return compressed_to_frame(bytes(record.message.data), MAX_PIXELS)
    return image_to_frame(record.message)


class Bag:
    """A rosbag2: a folder or one of its storage files; sqlite3 or mcap, compressed or not.

    Topics, counts and times come from the storage files. metadata.yaml only defines which files
    belong to the bag, so edited, outdated or newer metadata is not a problem.

    Attributes:
        storage: sqlite3 or mcap.
        version: version of the metadata; `NEWEST_VERSION` if unknown.
        topics: all topics by name.
        warning: a sentence if several files may be recordings of their own, or ''.

    Raises:
        DataError: there is no bag, or no message of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise DataError(f'there is no bag at {path}')
        self._metadata = _Metadata(path)
        self.version = self._metadata.version
        files = [StorageFile(file) for file in _storage_files(path, self._metadata)]
        self._files = sorted(files, key=lambda file: file.start_ns)
        self.warning = ''
        if len(files) > 1 and not (path / METADATA).exists():
            self.warning = (
                f'{path} has no {METADATA}, so its {len(files)} files are read as one recording; '
                'if they are not, give each file'
            )
        self.storage = self._files[0].storage
        if any(file.storage != self.storage for file in files):
            raise DataError(f'{path} contains SQLite and MCAP files; choose one of the files')
        channels = storage.merge_channels(
            item for file in self._files for item in file.channels.items()
        )
        self.topics = {name: Topic(name, **vars(channel)) for name, channel in channels.items()}
        if not self.topics and self.damage:
            raise DataError(f'{self.damage}, and no message of it can be read')

    @property
    def damage(self) -> str:
        """A sentence about what is damaged or missing; '' as long as no damage is known."""
        texts = [file.damage for file in self._files] + [self._metadata.damage, self._missing()]
        return next((text for text in texts if text), '')

    def records(self, names: Collection[str], start_ns: int = storage.FIRST_NS) -> Iterator[Record]:
        """Yield the messages of some topics from a start time, sorted by bag time.

        A damaged file ends where the damage begins; then `damage` is set.
        """
        for raw in self._messages(names, start_ns):
            topic = self.topics[raw.topic]
            yield Record(topic, raw.time_ns, _deserialize(raw.data, raw.kind))

    def times_ns(self, names: Collection[str]) -> dict[str, np.ndarray]:
        """Read the bag times of some topics, int64 [N] per topic, nanoseconds.

        They are sorted, except after the damage of a file. Unsigned times of MCAP are limited.
        """
        times: dict[str, list[int]] = {name: [] for name in names}
        for raw in self._messages(names):
            times[raw.topic].append(min(raw.time_ns, storage.NEVER_NS))
        return {name: np.array(values, np.int64) for name, values in times.items()}

    def _messages(
        self, names: Collection[str], start_ns: int = storage.FIRST_NS
    ) -> Iterator[RawMessage]:
        parts = ((f.start_ns, partial(f.messages, names, start_ns)) for f in self._files)
        return storage.merge_by_time(parts)

    def _missing(self) -> str:
        """Describe how many images that the metadata lists are missing in the files."""
        found = sum(topic.count for topic in self.topics.values() if topic.kind in IMAGE_KINDS)
        listed = self._metadata.image_count()
        if found >= listed:
            return ''
        files = ', '.join(name for name in self._metadata.files if not (self.path / name).is_file())
        return (
            f'{self.path} is incomplete: its files contain {found} of '
            f'{count_of(listed, "image")} that {METADATA} lists'
            + (f'; missing are {files}' if files else '')
        )


class _Metadata:
    """Information from metadata.yaml about a bag; nothing if `path` is not a folder with metadata.

    Attributes:
        damage: a sentence about a damaged file, or ''.
        version: version of the metadata; `NEWEST_VERSION` if unknown.
        files: names of the storage files.
    """

    def __init__(self, path: Path) -> None:
        self.damage = ''
        self._content: dict[str, Any] = {}
        file = path / METADATA
        if file.is_file():
            try:  # this loader reads every value as text and accepts any value
                content = YAML(typ='base', pure=True).load(file.read_bytes())
                self._content = dict(content['rosbag2_bagfile_information'])
            except (ValueError, KeyError, TypeError, RecursionError, YAMLError):
                self.damage = f'{file} is damaged'
        self.version = _to_int(self._content.get('version'), NEWEST_VERSION)
        paths = self._content.get('relative_file_paths')
        names = paths if isinstance(paths, list) else []
        self.files = [PurePath(str(name)).name for name in names]

    def image_count(self) -> int:
        """Return the number of images in the bag; 0 if unknown."""
        count = 0
        topics = self._content.get('topics_with_message_count')
        for topic in topics if isinstance(topics, list) else []:
            match topic:
                case {'topic_metadata': {'type': str(kind)}, 'message_count': number}:
                    count += _to_int(number, 0) if full_kind(kind, '') in IMAGE_KINDS else 0
        return count


def _to_int(value: object, default: int) -> int:
    return int(str(value)) if str(value).isdecimal() else default


def _storage_files(path: Path, metadata: _Metadata) -> list[Path]:
    """Return the storage files of a bag.

    Usually these are the files that the metadata lists. If one of them is missing, it may have
    been renamed, so all storage files of the folder are returned.

    Raises:
        DataError: there are none.
    """
    if path.is_file():
        return [path]
    listed = [path / name for name in metadata.files]
    if listed and all(file.is_file() for file in listed):
        return listed
    # macOS leaves files such as ._recording.mcap in the folders that it copies.
    files = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith('._'))
    named = [f for f in files if storage.has_storage_suffix(f)]
    if found := named or [f for f in files if storage.is_storage(f)]:
        # `zstd -d` keeps the compressed file beside the uncompressed one.
        return [
            f for f in found if storage.uncompressed(f) == f or storage.uncompressed(f) not in found
        ]
    for file in files:
        if file.suffix == '.bag':
            storage.check_format(file)
    raise DataError(f'{path} is not a bag: it contains no .db3 or .mcap file')


def _deserialize(data: bytes, kind: str) -> Any:
    """Return a message, or None if the bytes are invalid."""
    try:
        return TYPES.deserialize_cdr(decompress_message(data), kind)
    except Exception:  # rosbags raises many types of errors on invalid bytes
        return None
