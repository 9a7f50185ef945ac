# SPDX-License-Identifier: Apache-2.0
"""Reads the messages that are left in a damaged or unfinished storage file of a rosbag2.

A killed recorder, a full disk or an interrupted copy leaves files without an index or an end, which
rosbags refuses. The readers here go through such a file in storage order.
"""

import contextlib
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, DataEnd, McapRecord, Message, Schema
from mcap.stream_reader import MAGIC_SIZE, StreamReader

from dan_ros.errors import DataError

BLOCK_BYTES = 1 << 16  # compressed data read at a time; damage loses at most one block before it
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
MAX_UNREADABLE_ROWS = 100  # consecutive ids of one page; then no more rows are expected
TABLE_LEAF = b'\x0d'  # first byte of a page
SELECT_TOPICS = 'SELECT id, name, type, serialization_format FROM topics WHERE id >= ? ORDER BY id'
SELECT_MESSAGES = 'SELECT id, topic_id, timestamp, data FROM messages WHERE id >= ? ORDER BY id'


class RawMessage(NamedTuple):
    """A serialized message.

    Attributes:
        topic: name of its topic.
        kind: name of its type, such as sensor_msgs/msg/Image.
        time_ns: bag time, nanoseconds.
        data: CDR, possibly compressed with zstd.
    """

    topic: str
    kind: str
    time_ns: int
    data: bytes


class DamageError(DataError):
    """A storage file is damaged or incomplete; all readable messages were read."""


def has_write_ahead_log(file: Path) -> bool:
    """Return whether SQLite's write-ahead log contains messages that the file does not."""
    log = file.with_name(f'{file.name}-wal')
    return log.is_file() and log.stat().st_size > 0


@contextlib.contextmanager
def plain_file(file: Path) -> Iterator[Path]:
    """Provide a storage file in uncompressed form and with its write-ahead log applied.

    Yields:
        The file itself, or a temporary copy if it is compressed or has a log. The copy of a damaged
        compressed file ends at the damage.
    """
    has_log = has_write_ahead_log(file)
    if file.suffix != '.zstd' and not has_log:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        if has_log:
            yield _apply_write_ahead_log(file, Path(folder))
            return
        target = Path(folder, file.stem)
        with file.open('rb') as source, target.open('wb') as out:
            out.writelines(_decompress(source, 'zstd'))
        yield target


def _apply_write_ahead_log(file: Path, folder: Path) -> Path:
    """Copy a database and its log into `folder` and merge them there."""
    for name in (file.name, f'{file.name}-wal'):
        shutil.copy(file.with_name(name), folder)
    target = folder / file.name
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(target)) as database,
    ):
        database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    return target


def read_sqlite3(file: Path) -> Iterator[RawMessage]:
    """Yield the readable messages of a damaged .db3 file in the order of recording.

    Raises:
        DamageError: always at the end, because SQLite cannot tell what is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copyfile(file, Path(folder, file.name)))  # writable, unlike some files
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as database:
            # Without writable_schema, SQLite refuses a file that is shorter than its header says.
            database.execute('PRAGMA writable_schema = ON')
            topics = {
                number: (name, kind)
                for number, name, kind, encoding in _rows(database, SELECT_TOPICS)
                if encoding == 'cdr'
            }
            for row in _leaf_rows(database, copy):
                match row:
                    case [_, int(topic), int(time_ns), bytes(data)] if topic in topics:
                        yield RawMessage(*topics[topic], time_ns, data)
    raise DamageError(f'{file.name} is not a complete SQLite file')


def _leaf_rows(database: sqlite3.Connection, file: Path) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of all leaf pages as if they belonged to the table `messages`.

    Truncation removes pages that lead from the root of a table to its leaves. Therefore each leaf
    in turn becomes the root, in a transaction that is never committed.
    """
    for page in _leaf_pages(file, database.execute('PRAGMA page_size').fetchone()[0]):
        database.execute('BEGIN')
        database.execute("UPDATE sqlite_schema SET rootpage = ? WHERE name = 'messages'", (page,))
        database.execute('PRAGMA writable_schema = RESET')  # read the schema again
        database.execute('PRAGMA writable_schema = ON')
        yield from _rows(database, SELECT_MESSAGES)
        database.execute('ROLLBACK')


def _leaf_pages(file: Path, page_bytes: int) -> Iterator[int]:
    """Yield the numbers of the leaf pages of tables, see https://www.sqlite.org/fileformat2.html."""
    with file.open('rb') as source:
        for page in range(2, file.stat().st_size // page_bytes + 1):
            source.seek((page - 1) * page_bytes)
            if source.read(1) == TABLE_LEAF:
                yield page


def _rows(database: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query by ascending id, without those that SQLite cannot read."""
    next_id = unreadable = 0
    while unreadable < MAX_UNREADABLE_ROWS:
        try:
            for row in database.execute(query, (next_id,)):
                next_id, unreadable = row[0] + 1, 0
                yield row
            return
        except sqlite3.Error:
            next_id, unreadable = next_id + 1, unreadable + 1


def read_mcap(file: Path) -> Iterator[RawMessage]:
    """Yield the readable messages of a damaged .mcap file in file order.

    The last chunk may be incomplete: its messages are read up to the damage.

    Raises:
        DamageError: the file ends early or is damaged. All messages up to there were read.
    """
    kinds: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    with file.open('rb') as source:
        try:
            for record in _mcap_records(source, file.stat().st_size):
                match record:
                    case Schema():
                        kinds[record.id] = record.name
                    case Channel():
                        channels[record.id] = record.topic, kinds.get(record.schema_id, '')
                    case Message() if record.channel_id in channels:
                        yield RawMessage(*channels[record.channel_id], record.log_time, record.data)
                    case DataEnd():
                        return
        except (McapError, ValueError, struct.error):
            raise DamageError(
                f'{file.name} cannot be read as MCAP beyond byte {source.tell()}'
            ) from None


def _mcap_records(source: BinaryIO, max_bytes: int) -> Iterator[McapRecord]:
    """Yield the records of an MCAP file in file order, with each chunk replaced by its content."""
    end = MAGIC_SIZE  # of the last complete record
    try:
        for record in StreamReader(source, emit_chunks=True, record_size_limit=max_bytes).records:
            end = source.tell()
            if isinstance(record, Chunk):
                yield from _chunk_records(BytesIO(record.data), record.compression)
            else:
                yield record
    except (McapError, ValueError, struct.error):
        source.seek(end)
        yield from _incomplete_chunk_records(source)
        raise


def _incomplete_chunk_records(source: BinaryIO) -> Iterator[McapRecord]:
    """Yield the records of a chunk (https://mcap.dev/spec#chunk-op0x06) that was cut short."""
    stream = ReadDataStream(source)
    if stream.read1() != Opcode.CHUNK:
        return
    stream.read(8 + 8 + 8 + 8 + 4)  # record length, start time, end time, size and CRC
    compression = stream.read_prefixed_string()
    stream.read8()  # length of the compressed data
    yield from _chunk_records(source, compression)


def _chunk_records(source: BinaryIO, compression: str) -> Iterator[McapRecord]:
    """Yield the complete records of the compressed data of a chunk."""
    content = BytesIO(b''.join(_decompress(source, compression)))
    with contextlib.suppress(McapError, ValueError, struct.error):  # a chunk has no footer
        yield from StreamReader(content, skip_magic=True).records


def _decompress(source: BinaryIO, compression: str) -> Iterator[bytes]:
    """Decompress a stream up to its end or its damage; '' stands for uncompressed."""
    decompressor: Any = None
    if compression == 'zstd':
        decompressor = zstandard.ZstdDecompressor().decompressobj()
    elif compression == 'lz4':
        decompressor = lz4.frame.LZ4FrameDecompressor()
    while block := source.read(BLOCK_BYTES):
        if decompressor is None:
            yield block
            continue
        try:
            yield decompressor.decompress(block)
        except (zstandard.ZstdError, RuntimeError, EOFError):  # damage, or data behind the end
            return


def decompress_message(data: bytes) -> bytes:
    """Decompress a message that was compressed with zstd; others are returned unchanged."""
    if data[:4] == ZSTD_MAGIC:  # CDR begins with a zero byte
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data
