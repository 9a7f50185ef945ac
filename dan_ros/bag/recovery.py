# SPDX-License-Identifier: Apache-2.0
"""Reads the messages that are left in a damaged or unfinished storage file of a rosbag2.

A killed recorder, a full disk or an interrupted copy leaves files without an index or an end, which
the readers of `storage` reject. The readers here go through such a file in storage order.
"""

import contextlib
import errno
import os
import shutil
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Header, McapRecord, Message, Schema
from mcap.stream_reader import MAGIC_SIZE, StreamReader

from dan_ros.errors import DataError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # error numbers of a full disk
BLOCK_BYTES = 1 << 16  # compressed data read at a time; damage loses up to one block before it
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
SQLITE_MAGIC = b'SQLite format 3\0'
SQLITE_PAGE_BYTES = tuple(1 << power for power in range(9, 17))
TABLE_LEAF = b'\x0d'  # first byte of a leaf page of a table
# Raised by the package mcap on damaged files; the last three on invalid lengths.
MCAP_ERRORS = (McapError, ValueError, struct.error, OverflowError, MemoryError)


class RawMessage(NamedTuple):
    """A serialized message."""

    topic: str  # name of its topic
    kind: str  # name of its type, such as sensor_msgs/msg/Image
    time_ns: int  # bag time, nanoseconds
    data: bytes  # CDR, possibly compressed with zstd


class DamageError(DataError):
    """A storage file is damaged or incomplete; all readable messages were read."""


def has_write_ahead_log(file: Path) -> bool:
    """Return whether SQLite's write-ahead log contains messages that the file does not."""
    log = file.with_name(f'{file.name}-wal')
    return log.is_file() and log.stat().st_size > 0


def full_kind(name: str, serialization: str) -> str:
    """Return the full name of a message type; it includes any serialization other than CDR.

    >>> full_kind('sensor_msgs/Image', 'cdr'), full_kind('sensor_msgs/Image', 'ros1')
    ('sensor_msgs/msg/Image', 'sensor_msgs/msg/Image serialized as ros1')
    """
    if name.count('/') == 1:  # the short form, which old recorders write
        name = name.replace('/', '/msg/')
    return name if serialization in ('cdr', 'ros2', '') else f'{name} serialized as {serialization}'


@contextlib.contextmanager
def plain_file(file: Path) -> Iterator[Path]:
    """Provide a storage file in uncompressed form and with its write-ahead log applied.

    Yields:
        The file itself, or a temporary copy if it is compressed or has a log. The copy of a damaged
        compressed file ends at the damage.

    Raises:
        DataError: the disk is too full for the copy.
    """
    has_log = has_write_ahead_log(file)
    if not has_log and not _is_zstd(file):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        with _copying(file):
            copy = _apply_write_ahead_log if has_log else _decompress_file
            target = copy(file, Path(folder))
        yield target


@contextlib.contextmanager
def _copying(file: Path) -> Iterator[None]:
    """Explain a full disk while a temporary copy is written."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DataError(
            f'{file} needs a temporary copy, but {tempfile.gettempdir()} is full: free some disk '
            'space, or set TMPDIR to another folder'
        ) from None


def _decompress_file(file: Path, folder: Path) -> Path:
    """Decompress a file into `folder`."""
    target = folder / file.stem
    with file.open('rb') as source, target.open('wb') as out:
        out.writelines(_decompress(source, 'zstd'))
    return target


def _is_zstd(file: Path) -> bool:
    with file.open('rb') as source:
        return source.read(len(ZSTD_MAGIC)) == ZSTD_MAGIC


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
    """Yield the readable messages of a damaged .db3 file in the order of its pages.

    Raises:
        DamageError: always at the end, because SQLite cannot report what is missing; at once if
            the file has no valid SQLite header or its list of topics cannot be read.
    """
    page_bytes = _page_bytes(file)
    with tempfile.TemporaryDirectory() as folder:
        with _copying(file):
            copy = _copy_with_new_schema(file, Path(folder), page_bytes)
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as database:
            topics = _topics(database, copy, page_bytes)
            if not topics:
                raise DamageError(f'the list of topics in {file.name} cannot be read')
            for row in _rows(database, copy, page_bytes):
                match row:
                    case [_, int(number), int(time_ns), bytes(data)] if number in topics:
                        yield RawMessage(*topics[number], time_ns, data)
    raise DamageError(f'{file.name} is not a complete SQLite file')


def _topics(
    database: sqlite3.Connection, file: Path, page_bytes: int
) -> dict[int, tuple[str, str]]:
    """Return the name and type of each topic by its number in the database."""
    topics = {}
    for row in _rows(database, file, page_bytes):
        match row:
            case [int(number), str(name), str(kind), 'cdr']:
                topics[number] = name, full_kind(kind, 'cdr')
    return topics


def _page_bytes(file: Path) -> int:
    """Return the page size of an SQLite file, see https://www.sqlite.org/fileformat2.html.

    Raises:
        DamageError: the first 18 bytes of the file are damaged.
    """
    with file.open('rb') as source:
        header = source.read(18)
    size = int.from_bytes(header[16:], 'big')
    size = 1 << 16 if size == 1 else size
    if not header.startswith(SQLITE_MAGIC) or size not in SQLITE_PAGE_BYTES:
        raise DamageError(f'{file.name} has no valid SQLite header')
    return size


def _copy_with_new_schema(file: Path, folder: Path, page_bytes: int) -> Path:
    """Copy the complete pages of a database, with a first page that declares only table `leaf`.

    SQLite would fill an incomplete last page with zeros, and these would end up in a message.
    """
    copy = Path(shutil.copyfile(file, folder / 'copy.db3'))
    empty = folder / 'empty.db3'
    with contextlib.closing(sqlite3.connect(empty)) as database:
        database.execute(f'PRAGMA page_size = {page_bytes}')
        database.execute('CREATE TABLE leaf (id INTEGER PRIMARY KEY, a, b, c)')
    first_page = bytearray(empty.read_bytes()[:page_bytes])
    first_page[28:32] = bytes(4)  # number of pages; 0 stands for all pages of the file
    os.truncate(copy, copy.stat().st_size // page_bytes * page_bytes)
    with copy.open('r+b') as target:
        target.write(first_page)
    return copy


def _rows(database: sqlite3.Connection, file: Path, page_bytes: int) -> Iterator[tuple[Any, ...]]:
    """Yield the first four columns of the rows of all tables, without unreadable rows.

    Damage removes pages that lead from the root of a table to its leaves. Therefore each leaf in
    turn becomes the root of table `leaf`, in a transaction that is never committed.
    """
    for page in _leaf_pages(file, page_bytes):
        database.execute('BEGIN')
        database.execute('PRAGMA writable_schema = ON')
        database.execute("UPDATE sqlite_schema SET rootpage = ? WHERE name = 'leaf'", (page,))
        database.execute('PRAGMA writable_schema = RESET')  # read the schema again
        yield from _leaf_rows(database)
        database.execute('ROLLBACK')


def _leaf_pages(file: Path, page_bytes: int) -> Iterator[int]:
    """Yield the numbers of the leaf pages of tables, see https://www.sqlite.org/fileformat2.html."""
    with file.open('rb') as source:
        for page in range(2, file.stat().st_size // page_bytes + 1):
            source.seek((page - 1) * page_bytes)
            if source.read(1) == TABLE_LEAF:
                yield page


def _leaf_rows(database: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Yield the readable rows of table `leaf`.

    Each row has its own query, because the first unreadable row ends a query.
    """
    try:
        (count,) = database.execute('SELECT count(*) FROM leaf').fetchone()
    except sqlite3.Error:
        return
    for index in range(count):
        with contextlib.suppress(sqlite3.Error):
            row = database.execute('SELECT * FROM leaf LIMIT 1 OFFSET ?', (index,)).fetchone()
            if row is not None:
                yield row


def read_mcap(file: Path) -> Iterator[RawMessage]:
    """Yield the readable messages of a damaged .mcap file in file order.

    The last chunk may be incomplete: its messages are read up to the damage.

    Raises:
        DamageError: the file ends early or is damaged. All messages up to there were read.
    """
    profile = ''
    names: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    with file.open('rb') as source:
        try:
            for record in _mcap_records(source, file.stat().st_size):
                match record:
                    case Header():
                        profile = record.profile
                    case Schema():
                        names[record.id] = record.name
                    case Channel():
                        kind = full_kind(
                            names.get(record.schema_id, ''), record.message_encoding or profile
                        )
                        channels[record.id] = record.topic, kind
                    case Message() if record.channel_id in channels:
                        yield RawMessage(*channels[record.channel_id], record.log_time, record.data)
        except MCAP_ERRORS:
            raise DamageError(
                f'{file.name} cannot be read as MCAP beyond byte {source.tell()}'
            ) from None


def _mcap_records(source: BinaryIO, max_bytes: int) -> Iterator[McapRecord]:
    """Yield the records of an MCAP file in file order, with each chunk replaced by its content."""
    end = MAGIC_SIZE  # end of the last complete record
    damaged_chunks = 0
    try:
        for record in StreamReader(source, emit_chunks=True, record_size_limit=max_bytes).records:
            end = source.tell()
            if isinstance(record, Chunk):
                content = b''.join(_decompress(BytesIO(record.data), record.compression))
                yield from _content_records(content)
                damaged_chunks += _is_damaged(record, content)
            else:
                yield record
    except MCAP_ERRORS:
        source.seek(end)
        yield from _incomplete_chunk_records(source)
        raise
    if damaged_chunks:
        raise DamageError(f'{damaged_chunks} chunks are damaged')


def _is_damaged(chunk: Chunk, content: bytes) -> bool:
    """Return whether the content of a chunk contradicts its size or checksum."""
    crc = chunk.uncompressed_crc  # 0 stands for none
    return len(content) != chunk.uncompressed_size or (crc != 0 and crc != zlib.crc32(content))


def _incomplete_chunk_records(source: BinaryIO) -> Iterator[McapRecord]:
    """Yield the records of a chunk (https://mcap.dev/spec#chunk-op0x06) that was cut short."""
    stream = ReadDataStream(source)
    if stream.read1() != Opcode.CHUNK:
        return
    stream.read(8 + 8 + 8 + 8 + 4)  # record length, start time, end time, size and CRC
    compression = stream.read_prefixed_string()
    stream.read8()  # length of the compressed data
    yield from _content_records(b''.join(_decompress(source, compression)))


def _content_records(content: bytes) -> Iterator[McapRecord]:
    """Yield the complete records of the decompressed content of a chunk."""
    with contextlib.suppress(*MCAP_ERRORS):  # a chunk has no footer
        yield from StreamReader(BytesIO(content), skip_magic=True).records


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
        except (zstandard.ZstdError, RuntimeError, EOFError):  # damage, or data after the end
            return


def decompress_message(data: bytes) -> bytes:
    """Decompress a message that was compressed with zstd; others are returned unchanged."""
    if data[:4] == ZSTD_MAGIC:  # CDR begins with a zero byte
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data
