"""Images of a rosbag2, in the order of their bag time, as far as the bag is sound."""

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
from dan_ros.errors import DataError, FrameError

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
COMPRESSED_SUFFIX = '/compressed'
DEPTH = 'depth'  # in the name of a topic: its images show distances
SALVAGERS = {'sqlite3': recovery.read_sqlite3, 'mcap': recovery.read_mcap}
STORAGE_SUFFIXES = {'.db3': 'sqlite3', '.mcap': 'mcap'}
# These three messages have been the same in every distribution since Foxy.
TYPES = get_typestore(Stores.ROS2_HUMBLE)


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Attributes:
        name: of the topic.
        kind: type of its messages, such as sensor_msgs/msg/Image.
        count: number of its messages; 0 where a damaged bag does not say.
    """

    name: str
    kind: str
    count: int = 0

    @property
    def camera(self) -> str:
        """Name of the image topic: that of compressed images without what is behind it."""
        if self.kind == COMPRESSED_IMAGE:
            return self.name.removesuffix(COMPRESSED_SUFFIX) or self.name
        return self.name


@dataclass(frozen=True)
class Record:
    """A message of a bag.

    Attributes:
        topic: it is of.
        time_ns: bag time, nanoseconds.
        message: itself; None where its bytes are no such message.
    """

    topic: Topic
    time_ns: int
    message: Any

    def to_error(self) -> FrameError:
        """What is wrong where there is no message."""
        kind = self.topic.kind
        return FrameError('bad_data', f'bytes on {self.topic.name} that are no {kind}')


class Bag:
    """A rosbag2: a folder, or one of its files; sqlite3 or mcap, compressed or not.

    Args:
        path: the folder or file.

    Attributes:
        storage: sqlite3 or mcap.
        version: of the metadata; 9 where it is not known.
        topics: all of them, by name.
        damage: what is wrong with the bag, a sentence; '' as long as nothing is known to be.

    Raises:
        DataError: there is no bag, or nothing in it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''
        if not path.exists():
            raise DataError(f'there is no bag at {path}')
        self._files = _storage_files(path)
        if not self._files:
            raise DataError(f'{path} is no bag: it holds no .db3 or .mcap file')
        name = self._files[0].name.removesuffix('.zstd')
        self.storage = STORAGE_SUFFIXES[Path(name).suffix]
        self.version = _metadata_version(path)
        self._duration_ns = 0
        if any(recovery.has_log(file) for file in self._files):
            self.damage = f'{path} was not closed when it was recorded'
        self.topics = self._list_topics()

    def records(self, names: set[str]) -> Iterator[Record]:
        """Messages of some topics by bag time; ends where the bag is damaged, see `damage`."""
        last_ns = None
        source = self._salvaged(names) if self.damage else self._read(names)
        try:
            for name, kind, time_ns, data in source:
                last_ns = time_ns
                topic = self.topics.get(name) or Topic(name, kind)
                yield Record(topic, time_ns, _deserialized(data, kind))
        except GeneratorExit:
            raise
        except Exception as error:  # rosbags raises whatever damaged bytes lead to
            cause = self.damage or f'{self.path} is damaged ({_in_one_line(error)})'
            last = 'no message could be read'
            if last_ns is not None:
                last = f'the last message that could be read is of {last_ns} ns'
            self.damage = f'{cause}; {last}'

    def rates_hz(self, topics: list[Topic]) -> dict[str, float]:
        """Mean rate of the images of each camera; without those that the bag does not tell."""
        seconds = self._duration_ns / 1e9
        return {t.camera: (t.count - 1) / seconds for t in topics if seconds and t.count > 1}

    def _list_topics(self) -> dict[str, Topic]:
        if not self.damage:
            try:
                return self._listed_topics()
            except Exception as error:  # likewise
                self.damage = f'{self.path} is damaged ({_in_one_line(error)})'
        topics: dict[str, Topic] = {}
        with contextlib.suppress(recovery.EndedError):
            for name, kind, _, _ in self._salvaged(None):
                topics.setdefault(name, Topic(name, kind))
        if not topics:
            raise DataError(f'{self.damage}, and no message of it can be read')
        return topics

    def _listed_topics(self) -> dict[str, Topic]:
        topics: dict[str, Topic] = {}
        for whole in self._wholes:
            with Reader(whole) as reader:
                self._duration_ns += reader.duration
                for c in reader.connections:
                    count = topics[c.topic].count if c.topic in topics else 0
                    topics[c.topic] = Topic(c.topic, c.msgtype, count + c.msgcount)
        return topics

    @property
    def _wholes(self) -> list[Path]:
        """What rosbags opens: the folder where it has its metadata, else its files in turn."""
        return [self.path] if (self.path / 'metadata.yaml').is_file() else self._files

    def _read(self, names: set[str] | None) -> Iterator[recovery.Message]:
        """Messages of everything that rosbags opens.

        Raises:
            EndedError: of the first that is not as sound as it seemed, when all are read.
        """
        problems: list[recovery.EndedError] = []
        for whole in self._wholes:
            try:
                yield from _read_sound(whole, names)
            except recovery.EndedError as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def _salvaged(self, names: set[str] | None) -> Iterator[recovery.Message]:
        """Messages of sound files as they are, of the others what can be read; in the end it fails.

        Raises:
            EndedError: of the first damaged file, when all files are read.
        """
        problems: list[Exception] = []
        for file in self._files:
            with recovery.readable(file) as whole:
                try:
                    yield from (
                        _read_sound(whole, names)
                        if _is_sound(whole)
                        else (
                            m
                            for m in SALVAGERS[self.storage](whole)
                            if names is None or m[0] in names
                        )
                    )
                except GeneratorExit:
                    raise
                except Exception as error:  # rosbags raises whatever damaged bytes lead to
                    problems.append(error)
        if problems:
            raise recovery.EndedError(_in_one_line(problems[0]))


def _is_sound(file: Path) -> bool:
    """Whether rosbags can open a file, and so has its index."""
    try:
        with Reader(file):
            return True
    except Exception:  # likewise
        return False


def _read_sound(whole: Path, names: set[str] | None) -> Iterator[recovery.Message]:
    """Messages as rosbags gives them.

    Raises:
        EndedError: it gave fewer than there are: rosbags passes over damaged chunks in silence.
    """
    with Reader(whole) as reader:
        connections: list[Connection] = [
            c for c in reader.connections if names is None or c.topic in names
        ]
        if not connections:  # rosbags takes none for all
            return
        missing = {c.topic: 0 for c in connections}
        for c in connections:
            missing[c.topic] += c.msgcount
        for connection, time_ns, data in reader.messages(connections):
            missing[connection.topic] -= 1
            yield connection.topic, connection.msgtype, time_ns, data
    if lost := [f'{count} messages on {name}' for name, count in missing.items() if count > 0]:
        raise recovery.EndedError(f'{whole.name} lacks {", ".join(lost)}')


def _deserialized(data: bytes, kind: str) -> Any:
    """A message, or None where the bytes are none."""
    try:
        return TYPES.deserialize_cdr(recovery.uncompressed(data), kind)
    except Exception:  # rosbags raises whatever the bytes lead to
        return None


def choose_image_topics(bag: Bag, wanted: tuple[str, ...]) -> list[Topic]:
    """The topics to judge the images of, one a camera.

    Args:
        bag: with images.
        wanted: names of topics; () takes all cameras, raw where a camera has both, without those
            of depth where there are others.

    Raises:
        DataError: there are none, or a wanted one is not there or no image topic.
    """
    images = {n: t for n, t in bag.topics.items() if t.kind in (IMAGE, COMPRESSED_IMAGE)}
    there = ', '.join(f'{t.name} ({t.kind})' for t in bag.topics.values()) or 'no topics'
    for name in wanted:
        if name not in images:
            raise DataError(f'{bag.path} has no images on {name}; it has {there}')
    if wanted:
        return [images[name] for name in dict.fromkeys(wanted)]
    if not images:
        raise DataError(f'{bag.path} has no images; it has {there}')
    chosen: dict[str, Topic] = {}
    seen = [t for t in images.values() if DEPTH not in t.name.lower()] or list(images.values())
    for topic in sorted(seen, key=lambda topic: topic.kind != IMAGE):
        earlier = chosen.get(topic.camera)
        if earlier is None or (earlier.count == 0 and topic.count):
            chosen[topic.camera] = topic
    return list(chosen.values())


def _storage_files(path: Path) -> list[Path]:
    """The bag's files in the order of recording, by the numbers in their names."""
    files = [path] if path.is_file() else [entry for entry in path.iterdir() if entry.is_file()]
    files = [f for f in files if Path(f.name.removesuffix('.zstd')).suffix in STORAGE_SUFFIXES]
    return sorted(files, key=lambda f: (_number_of(f), f.name))


def _number_of(file: Path) -> int:
    number = file.name.split('.')[0].rpartition('_')[2]
    return int(number) if number.isdigit() else 0


def _metadata_version(path: Path) -> int:
    try:
        content = yaml.safe_load((path / 'metadata.yaml').read_text(encoding='utf-8'))
        return int(content['rosbag2_bagfile_information']['version'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return 9


def _in_one_line(error: Exception) -> str:
    return ' '.join(str(error).split()) or type(error).__name__
