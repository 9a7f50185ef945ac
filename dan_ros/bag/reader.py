# SPDX-License-Identifier: Apache-2.0
"""Reads the images of a rosbag2 in order of bag time, up to the first damage."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from dan_ros.bag import recovery
from dan_ros.bag.recovery import DamageError, RawMessage
from dan_ros.errors import DataError, FrameError

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
COMPRESSED_SUFFIX = '/compressed'
DEPTH = 'depth'  # part of the topic name of depth images
NEWEST_VERSION = 9  # of the metadata
RECOVERERS = {'sqlite3': recovery.read_sqlite3, 'mcap': recovery.read_mcap}
STORAGE_SUFFIXES = {'.db3': 'sqlite3', '.mcap': 'mcap'}
# The definitions of these three messages are the same in every distribution since Foxy.
TYPES = get_typestore(Stores.ROS2_HUMBLE)


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Attributes:
        name: such as /camera/image_raw.
        kind: type of its messages, such as sensor_msgs/msg/Image.
        count: number of its messages; 0 if unknown, because the bag is damaged.
    """

    name: str
    kind: str
    count: int = 0

    @property
    def camera(self) -> str:
        """Name of the image topic, without /compressed if the images are compressed."""
        if self.kind == COMPRESSED_IMAGE:
            return self.name.removesuffix(COMPRESSED_SUFFIX) or self.name
        return self.name


@dataclass(frozen=True)
class Record:
    """A message of a bag.

    Attributes:
        topic: topic of the message.
        time_ns: bag time, nanoseconds.
        message: the message; None if its bytes are invalid.
    """

    topic: Topic
    time_ns: int
    message: Any

    def to_error(self) -> FrameError:
        """Describe the error of a record without a message."""
        return FrameError('bad_data', f'invalid {self.topic.kind} on {self.topic.name}')


class Bag:
    """A rosbag2: a folder or one of its storage files; sqlite3 or mcap, compressed or not.

    Args:
        path: the folder or file.

    Attributes:
        storage: sqlite3 or mcap.
        version: version of the metadata; `NEWEST_VERSION` if unknown.
        topics: all topics by name.
        damage: a sentence that says what is damaged; '' as long as no damage is known.

    Raises:
        DataError: there is no bag, or no message of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''
        if not path.exists():
            raise DataError(f'there is no bag at {path}')
        self._files = _storage_files(path)
        if not self._files:
            raise DataError(f'{path} is not a bag: it contains no .db3 or .mcap file')
        name = self._files[0].name.removesuffix('.zstd')
        self.storage = STORAGE_SUFFIXES[Path(name).suffix]
        self.version = _metadata_version(path)
        self._duration_ns = 0
        if any(recovery.has_write_ahead_log(file) for file in self._files):
            self.damage = f'the recording of {path} was not closed'
        self.topics = self._list_topics()

    def records(self, names: set[str]) -> Iterator[Record]:
        """Yield the messages of some topics by bag time.

        In a damaged bag they end where the damage begins; then `damage` says so.
        """
        last_ns = None
        messages = self._recover(names) if self.damage else self._read(names)
        try:
            for raw in messages:
                last_ns = raw.time_ns
                topic = self.topics.get(raw.topic) or Topic(raw.topic, raw.kind)
                yield Record(topic, raw.time_ns, _deserialize(raw.data, raw.kind))
        except Exception as error:  # rosbags raises many types of errors on damaged files
            cause = self.damage or f'{self.path} is damaged ({_one_line(error)})'
            last = 'no message could be read'
            if last_ns is not None:
                last = f'the last readable message has bag time {last_ns} ns'
            self.damage = f'{cause}; {last}'

    def rates_hz(self, topics: list[Topic]) -> dict[str, float]:
        """Return the mean image rate by camera, without the cameras whose rate is unknown."""
        seconds = self._duration_ns / 1e9
        return {t.camera: (t.count - 1) / seconds for t in topics if seconds and t.count > 1}

    def _list_topics(self) -> dict[str, Topic]:
        if not self.damage:
            try:
                return self._listed_topics()
            except Exception as error:  # rosbags raises many types of errors on damaged files
                self.damage = f'{self.path} is damaged ({_one_line(error)})'
        topics: dict[str, Topic] = {}
        with contextlib.suppress(DamageError):
            for message in self._recover(None):
                topics.setdefault(message.topic, Topic(message.topic, message.kind))
        if not topics:
            raise DataError(f'{self.damage}, and no message of it can be read')
        return topics

    def _listed_topics(self) -> dict[str, Topic]:
        """Return the topics that the index of the bag lists."""
        topics: dict[str, Topic] = {}
        for path in self._readable_paths:
            with Reader(path) as reader:
                self._duration_ns += reader.duration
                for c in reader.connections:
                    count = topics[c.topic].count if c.topic in topics else 0
                    topics[c.topic] = Topic(c.topic, c.msgtype, count + c.msgcount)
        return topics

    @property
    def _readable_paths(self) -> list[Path]:
        """Paths that rosbags opens: the folder if it has metadata, otherwise each file."""
        return [self.path] if (self.path / 'metadata.yaml').is_file() else self._files

    def _read(self, names: set[str]) -> Iterator[RawMessage]:
        """Yield the messages of an undamaged bag.

        Raises:
            DamageError: at the end, if messages were missing.
        """
        errors: list[DamageError] = []
        for path in self._readable_paths:
            try:
                yield from _read_indexed(path, names)
            except DamageError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _recover(self, names: set[str] | None) -> Iterator[RawMessage]:
        """Yield the readable messages of every file of a damaged bag; None stands for all topics.

        Raises:
            DamageError: at the end, about the first damaged file.
        """
        errors: list[Exception] = []
        for file in self._files:
            with recovery.plain_file(file) as plain:
                try:
                    yield from self._recover_file(plain, names)
                except Exception as error:  # rosbags raises many types of errors on damaged files
                    errors.append(error)
        if errors:
            raise DamageError(_one_line(errors[0]))

    def _recover_file(self, file: Path, names: set[str] | None) -> Iterator[RawMessage]:
        if _has_index(file):
            yield from _read_indexed(file, names)
            return
        for message in RECOVERERS[self.storage](file):
            if names is None or message.topic in names:
                yield message


def _has_index(file: Path) -> bool:
    """Return whether rosbags can open a file."""
    try:
        with Reader(file):
            return True
    except Exception:  # rosbags raises many types of errors on damaged files
        return False


def _read_indexed(path: Path, names: set[str] | None) -> Iterator[RawMessage]:
    """Yield messages by bag time, using the index of the bag.

    Raises:
        DamageError: fewer messages were found than the index lists; rosbags skips damaged chunks
            without an error.
    """
    with Reader(path) as reader:
        connections: list[Connection] = [
            c for c in reader.connections if names is None or c.topic in names
        ]
        if not connections:  # rosbags would read all topics
            return
        missing = {c.topic: 0 for c in connections}
        for c in connections:
            missing[c.topic] += c.msgcount
        for connection, time_ns, data in reader.messages(connections):
            missing[connection.topic] -= 1
            yield RawMessage(connection.topic, connection.msgtype, time_ns, data)
    if lost := [f'{count} messages on {name}' for name, count in missing.items() if count > 0]:
        raise DamageError(f'{path.name} lacks {", ".join(lost)}')


def _deserialize(data: bytes, kind: str) -> Any:
    """Return a message, or None if the bytes are invalid."""
    try:
        return TYPES.deserialize_cdr(recovery.decompress_message(data), kind)
    except Exception:  # rosbags raises many types of errors on invalid bytes
        return None


def choose_image_topics(bag: Bag, names: tuple[str, ...]) -> list[Topic]:
    """Choose the image topics to process, one per camera.

    Args:
        bag: a bag with images.
        names: names of topics; () for all cameras. A raw topic is preferred to a compressed one.
            Depth images are chosen only if there are no others.

    Raises:
        DataError: the bag has no images, or one of `names` is not an image topic of it.
    """
    images = {n: t for n, t in bag.topics.items() if t.kind in (IMAGE, COMPRESSED_IMAGE)}
    available = ', '.join(f'{t.name} ({t.kind})' for t in bag.topics.values()) or 'no topics'
    for name in names:
        if name not in images:
            raise DataError(f'{bag.path} has no images on {name}; it has {available}')
    if names:
        return [images[name] for name in dict.fromkeys(names)]
    if not images:
        raise DataError(f'{bag.path} has no images; it has {available}')
    chosen: dict[str, Topic] = {}
    color = [t for t in images.values() if DEPTH not in t.name.lower()] or list(images.values())
    for topic in sorted(color, key=lambda topic: topic.kind != IMAGE):
        earlier = chosen.get(topic.camera)
        if earlier is None or (earlier.count == 0 and topic.count):
            chosen[topic.camera] = topic
    return list(chosen.values())


def _storage_files(path: Path) -> list[Path]:
    """Return the storage files in recording order, by the number at the end of the name."""
    files = [path] if path.is_file() else [entry for entry in path.iterdir() if entry.is_file()]
    files = [f for f in files if Path(f.name.removesuffix('.zstd')).suffix in STORAGE_SUFFIXES]
    return sorted(files, key=lambda f: (_file_number(f), f.name))


def _file_number(file: Path) -> int:
    number = file.name.split('.')[0].rpartition('_')[2]
    return int(number) if number.isdigit() else 0


def _metadata_version(path: Path) -> int:
    try:
        content = yaml.safe_load((path / 'metadata.yaml').read_text(encoding='utf-8'))
        return int(content['rosbag2_bagfile_information']['version'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return NEWEST_VERSION


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split()) or type(error).__name__
