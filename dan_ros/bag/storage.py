# SPDX-License-Identifier: Apache-2.0
"""Lists and reads one storage file of a rosbag2: SQLite or MCAP, compressed or not.

Each file is read on its own; its content does not depend on its name or metadata.yaml.
"""

import contextlib
import heapq
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mcap.data_stream import ReadDataStream
from mcap.reader import make_reader
from mcap.records import Chunk, ChunkIndex, Message, MessageIndex
from mcap.stream_reader import breakup_chunk

from dan_ros.bag import recovery
from dan_ros.bag.recovery import DamageError, RawMessage, full_kind
from dan_ros.errors import DataError, count_of, one_line
from dan_ros.storage.file_content import RECORDING, START_BYTES, explain_wrong_content

STORAGE_SUFFIXES = {'.db3': 'sqlite3', '.mcap': 'mcap'}
STORAGE_MAGICS = {recovery.SQLITE_MAGIC: 'sqlite3', b'\x89MCAP0\r\n': 'mcap'}
FIRST_NS = -(1 << 63)  # a bag time before all messages
NEVER_NS = (1 << 63) - 1  # start of a channel without messages
RECORD_HEADER_BYTES = 9  # opcode and length of an MCAP record
ZSTD_SUFFIXES = ('.zstd', '.zst')


@dataclass
class Channel:
    """Information about a topic in a storage file."""

    kind: str  # see `full_kind`
    count: int  # number of messages
    start_ns: int  # bag time of the first message or earlier, nanoseconds

    def add(self, other: 'Channel') -> None:
        """Add the messages of another channel of the same topic."""
        self.count += other.count
        self.start_ns = min(self.start_ns, other.start_ns)


def merge_channels(channels: Iterable[tuple[str, Channel]]) -> dict[str, Channel]:
    """Return one channel per topic, from pairs of topic and channel."""
    merged: dict[str, Channel] = {}
    for topic, channel in channels:
        if topic in merged:
            merged[topic].add(channel)
        else:
            merged[topic] = Channel(**vars(channel))
    return merged


def merge_by_time(
    parts: Iterable[tuple[int, Callable[[], Iterator[RawMessage]]]],
) -> Iterator[RawMessage]:
    """Merge parts, each sorted by time, into one sorted stream.

    Args:
        parts: pairs of a time that is not after the first message, nanoseconds, and a function that
            opens the part, and is called only when this time is reached.
    """

    def timed(
        start_ns: int, open_part: Callable[[], Iterator[RawMessage]]
    ) -> Iterator[tuple[int, RawMessage | None]]:
        yield start_ns, None
        for message in open_part():
            yield message.time_ns, message

    for _, message in heapq.merge(*(timed(*part) for part in parts), key=itemgetter(0)):
        if message is not None:
            yield message


class SqliteReader:
    """Reads an undamaged SQLite file.

    Raises:
        sqlite3.Error: the file is damaged; raised by every method.
        DataError: the database is not a recording.
    """

    def __init__(self, file: Path) -> None:
        # In a URI, characters such as # and ? have a meaning unless they are quoted.
        uri = f'file://{quote(os.fsencode(file.absolute()))}?immutable=1'
        self._database = sqlite3.connect(uri, uri=True)
        tables = {name for (name,) in self._database.execute('SELECT name FROM sqlite_master')}
        if tables and not {'topics', 'messages'} <= tables:
            raise DataError(f'{file} is an SQLite database, but not a recording of ROS 2')
        rows = self._database.execute('SELECT id, name, type, serialization_format FROM topics')
        self._topics = {n: (name, full_kind(kind, form)) for n, name, kind, form in rows}

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def channels(self) -> dict[str, Channel]:
        """Return information about each topic in the file."""
        found = {
            number: numbers
            for number, *numbers in self._database.execute(
                'SELECT topic_id, count(*), min(timestamp) FROM messages GROUP BY topic_id'
            )
        }
        return merge_channels(
            (topic, Channel(kind, *found.get(number, (0, NEVER_NS))))
            for number, (topic, kind) in self._topics.items()
        )

    def messages(self, topics: Collection[str], start_ns: int = FIRST_NS) -> Iterator[RawMessage]:
        """Yield the messages of some topics from a start time, sorted by bag time."""
        numbers = [number for number, (topic, _) in self._topics.items() if topic in topics]
        rows = self._database.execute(
            f'SELECT topic_id, timestamp, data FROM messages WHERE timestamp >= ? '  # noqa: S608
            f'AND topic_id IN ({", ".join("?" * len(numbers))}) ORDER BY timestamp',
            (start_ns, *numbers),
        )
        for number, time_ns, data in rows:
            yield RawMessage(*self._topics[number], time_ns, data)


class McapReader:
    """Reads an undamaged MCAP file with an index, whatever its profile.

    Raises:
        Exception, of many types: the file is damaged or has no complete index; raised by every
            method.
        DamageError: at the end of `messages`, if fewer messages were found than the index lists.
    """

    def __init__(self, file: Path) -> None:
        self._name = file.name
        self._stream = file.open('rb')
        reader = make_reader(self._stream)
        profile, summary = reader.get_header().profile, reader.get_summary()
        if summary is None or summary.statistics is None or not summary.chunk_indexes:
            raise DamageError(f'{file.name} has no index')
        self._chunks = summary.chunk_indexes
        self._counts = summary.statistics.channel_message_counts
        names = {0: ''} | {number: schema.name for number, schema in summary.schemas.items()}
        self._channels = {
            number: (c.topic, full_kind(names[c.schema_id], c.message_encoding or profile))
            for number, c in summary.channels.items()
        }
        if not self._counts.keys() <= self._channels.keys():
            raise DamageError(f'{file.name} has an incomplete index')

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def channels(self) -> dict[str, Channel]:
        """Return information about each topic in the file."""
        return merge_channels(
            (topic, self._channel(number, kind)) for number, (topic, kind) in self._channels.items()
        )

    def _channel(self, number: int, kind: str) -> Channel:
        chunks = self._chunks_of({number})
        start_ns = NEVER_NS
        for chunk in sorted(chunks, key=lambda chunk: chunk.message_start_time):
            if chunk.message_start_time >= start_ns:
                break
            start_ns = min(start_ns, *self._times(chunk, number))
        return Channel(kind, self._counts.get(number, 0), start_ns)

    def _times(self, chunk: ChunkIndex, number: int) -> list[int]:
        """Return the bag times of a channel in a chunk; those of the chunk without an index."""
        limits = [chunk.message_start_time, chunk.message_end_time]
        offset = chunk.message_index_offsets.get(number)
        if offset is None:
            return limits
        self._stream.seek(offset + RECORD_HEADER_BYTES)
        try:
            index = MessageIndex.read(ReadDataStream(self._stream))
        except recovery.MCAP_ERRORS:  # nothing else needs this record
            return limits
        return [time_ns for time_ns, _ in index.records] or limits

    def messages(self, topics: Collection[str], start_ns: int = FIRST_NS) -> Iterator[RawMessage]:
        """Yield the messages of some topics from a start time, sorted by bag time."""
        numbers = {number for number, (topic, _) in self._channels.items() if topic in topics}
        missing = {t: channel.count for t, channel in self.channels().items() if t in topics}
        parts = (
            (chunk.message_start_time, lambda chunk=chunk: self._read_chunk(chunk, numbers))
            for chunk in self._chunks_of(numbers)
            if chunk.message_end_time >= start_ns
        )
        for message in merge_by_time(parts):
            missing[message.topic] -= 1
            if message.time_ns >= start_ns:
                yield message
        lost = [f'{count_of(n, "message")} on {topic}' for topic, n in missing.items() if n > 0]
        if lost and start_ns == FIRST_NS:
            raise DamageError(f'{self._name} lacks {", ".join(lost)}')

    def _chunks_of(self, numbers: set[int]) -> list[ChunkIndex]:
        """Return the chunks that may contain messages of some channels."""
        return [
            chunk
            for chunk in self._chunks
            if not chunk.message_index_offsets
            or not numbers.isdisjoint(chunk.message_index_offsets)
        ]

    def _read_chunk(self, index: ChunkIndex, numbers: set[int]) -> Iterator[RawMessage]:
        self._stream.seek(index.chunk_start_offset + RECORD_HEADER_BYTES)
        chunk = Chunk.read(ReadDataStream(self._stream))
        messages = [
            RawMessage(*self._channels[record.channel_id], record.log_time, record.data)
            for record in breakup_chunk(chunk, validate_crc=True)
            if isinstance(record, Message) and record.channel_id in numbers
        ]
        yield from sorted(messages, key=lambda message: message.time_ns)


class SequentialReader:
    """Reads a file that is damaged or has no index, from its start to its end.

    `recover` yields the messages of a file in file order, and at its end raises a `DamageError` if
    the file is damaged.
    """

    def __init__(self, file: Path, recover: Callable[[Path], Iterator[RawMessage]]) -> None:
        self._file, self._recover = file, recover
        self.damage = ''
        self.is_sorted = True

    def reopen(self, file: Path) -> 'SequentialReader':
        """Return this reader for another copy of the same file."""
        self._file = file
        return self

    def close(self) -> None:
        """Do nothing; the file is open only while it is read."""

    def channels(self) -> dict[str, Channel]:
        """Return information about each topic in the file; set `damage` and `is_sorted`."""
        found: dict[str, Channel] = {}
        last_ns = 0
        try:
            for topic, kind, time_ns, _ in self._recover(self._file):
                found.setdefault(topic, Channel(kind, 0, NEVER_NS)).add(Channel(kind, 1, time_ns))
                self.is_sorted &= time_ns >= last_ns
                last_ns = time_ns
        except DamageError as error:
            self.damage = str(error)
        return found

    def messages(self, topics: Collection[str], start_ns: int = FIRST_NS) -> Iterator[RawMessage]:
        """Yield the messages of some topics from a start time; sorted in an undamaged file."""
        messages = (
            message
            for message in self._recover(self._file)
            if message.topic in topics and message.time_ns >= start_ns
        )
        return messages if self.is_sorted or self.damage else _sort_on_disk(messages)


def _sort_on_disk(messages: Iterator[RawMessage]) -> Iterator[RawMessage]:
    """Sort messages by time in a temporary database, which may be larger than the memory."""
    with contextlib.closing(sqlite3.connect('')) as database:
        database.execute('CREATE TABLE messages (topic, kind, time_ns, data)')
        database.executemany('INSERT INTO messages VALUES (?, ?, ?, ?)', messages)
        rows = database.execute('SELECT * FROM messages ORDER BY time_ns, rowid')
        yield from (RawMessage(*row) for row in rows)


READERS = {'sqlite3': SqliteReader, 'mcap': McapReader}
RECOVERERS = {'sqlite3': recovery.read_sqlite3, 'mcap': recovery.read_mcap}


class StorageFile:
    """One storage file of a bag.

    Attributes:
        path: the file; may be compressed with zstd.
        storage: sqlite3 or mcap.
        channels: information about each topic.
        damage: a sentence about what is damaged; '' as long as no damage is known.

    Raises:
        DataError: the file is not a recording; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ''
        if recovery.has_write_ahead_log(path):
            self.damage = f'the recording of {path} was not closed'
        with recovery.plain_file(path) as plain:
            self.storage = _storage_of(path, plain)
            self._open: Callable[[Path], Any] = READERS[self.storage]
            self.channels = self._list_channels(plain)

    @property
    def start_ns(self) -> int:
        """Bag time of the first message or earlier, nanoseconds."""
        return min((channel.start_ns for channel in self.channels.values()), default=NEVER_NS)

    def messages(self, topics: Collection[str], start_ns: int = FIRST_NS) -> Iterator[RawMessage]:
        """Yield the readable messages of some topics from a start time; may set `damage`."""
        last = ''
        try:
            with (
                recovery.plain_file(self.path) as plain,
                contextlib.closing(self._open(plain)) as reader,
            ):
                for message in reader.messages(topics, start_ns):
                    last = f'; its last readable message has bag time {message.time_ns} ns'
                    yield message
        except OSError as error:
            self.damage = self.damage or f'{self.path} cannot be read ({error.strerror}){last}'
        except Exception as error:
            _raise_unless_damage(error)
            self.damage = self.damage or f'{self.path} is damaged ({one_line(error)}){last}'

    def _list_channels(self, plain: Path) -> dict[str, Channel]:
        try:
            with contextlib.closing(self._open(plain)) as reader:
                channels: dict[str, Channel] = reader.channels()
                return channels
        except Exception as error:
            _raise_unless_damage(error)
        sequential = SequentialReader(plain, RECOVERERS[self.storage])
        channels = sequential.channels()
        if self.path.stat().st_size == 0:
            self.damage = f'{self.path} is empty'
        elif sequential.damage:
            self.damage = self.damage or f'{self.path} is damaged ({sequential.damage})'
        self._open = sequential.reopen
        return channels


def _raise_unless_damage(error: Exception) -> None:
    """Raise an error of the user; mcap and SQLite raise many types on damaged files."""
    if isinstance(error, DataError) and not isinstance(error, DamageError):
        raise error


def has_storage_suffix(path: Path) -> bool:
    """Return whether a file has the name of a storage file."""
    return uncompressed(path).suffix in STORAGE_SUFFIXES


def is_storage(path: Path) -> bool:
    """Return whether a file begins like an uncompressed storage file."""
    return _start(path).startswith(tuple(STORAGE_MAGICS))


def check_format(path: Path) -> None:
    """Refuse a file of a known format that is not a recording.

    Empty files and files of null bytes pass: a recorder that lost its power leaves them.

    Raises:
        DataError: the file has another format; the message names it and the remedy.
    """
    start = _start(path)
    if start.strip(b'\0') and not start.startswith(recovery.ZSTD_MAGIC):
        explanation = explain_wrong_content(start, 'a recording of ROS 2', RECORDING)
        if explanation:
            raise DataError(f'{path} {explanation}')


def _storage_of(path: Path, plain: Path) -> str:
    """Return the storage of a file by the first bytes of its content, or else by its name.

    Raises:
        DataError: it is not a storage file.
    """
    check_format(path)
    start = _start(plain)
    for magic, storage in STORAGE_MAGICS.items():
        if start.startswith(magic):
            return storage
    if has_storage_suffix(path):
        return STORAGE_SUFFIXES[uncompressed(path).suffix]
    raise DataError(f'{path} is not a bag: it is neither an SQLite nor an MCAP file')


def uncompressed(path: Path) -> Path:
    """Return the path of a file without the suffix of zstd."""
    return path.with_suffix('') if path.suffix in ZSTD_SUFFIXES else path


def _start(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(START_BYTES)
