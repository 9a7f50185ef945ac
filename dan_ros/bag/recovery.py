"""What can still be read of a damaged bag: everything up to the damage.

A recorder that was killed, or a disk that was full, leaves files without their index or end, which
readers refuse as a whole. Here their messages are read one after the other until one is not there.
"""

import contextlib
import io
import shutil
import sqlite3
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import lz4.frame

from dan_ros.bag.sqlite_pages import SqlitePages
from dan_ros.errors import DataError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Message = tuple[str, str, int, bytes]  # topic, type, bag time in nanoseconds, CDR
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
MCAP_MAGIC = b'\x89MCAP0\r\n'
SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 3, 4, 5, 6, 15  # https://mcap.dev/spec
BLOCK = 1 << 20


class EndedError(DataError):
    """A bag ends where it should not."""


def has_log(file: Path) -> bool:
    """Whether SQLite's write-ahead log beside a file holds what is not in it yet."""
    log = file.with_name(f'{file.name}-wal')
    return log.is_file() and log.stat().st_size > 0


@contextlib.contextmanager
def readable(file: Path) -> Iterator[Path]:
    """The file itself, or a copy: with its log taken in, or decompressed as far as that goes."""
    if file.suffix != '.zstd' and not has_log(file):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        if has_log(file):
            target = Path(folder, file.name)
            for name in (file.name, f'{file.name}-wal'):
                shutil.copy(file.with_name(name), folder)
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(sqlite3.connect(target)) as database,
            ):
                database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
            yield target
            return
        target = Path(folder, file.stem)
        with file.open('rb') as source, target.open('wb') as out:
            decompressor = zstd.ZstdDecompressor()
            while not decompressor.eof and (block := source.read(BLOCK)):
                try:
                    out.write(decompressor.decompress(block))
                except zstd.ZstdError:
                    break
        yield target


def read_sqlite3(file: Path) -> Iterator[Message]:
    """Messages of a .db3 file in the order they were written.

    Raises:
        EndedError: always at the end, since nobody can tell what is missing.
    """
    try:
        with SqlitePages(file) as pages:
            topics, places = _topics_and_messages(pages)
            for row in sorted(places):
                match pages.row(places[row]):
                    case [None, int(number), int(time_ns), bytes(data)] if number in topics:
                        yield *topics[number], time_ns, uncompressed(data)
    except ValueError as error:
        raise EndedError(str(error)) from None
    raise EndedError(f'{file.name} is no sound SQLite file')


def _topics_and_messages(pages: SqlitePages) -> tuple[dict[int, tuple[str, str]], dict[int, int]]:
    """Name and type of topics by number, and places of messages by row number.

    Rows are told by their values. Topics have a name and a type, messages the number of a topic, a
    time and a blob. The first column of both is the row number, which rows do not repeat.
    """
    topics: dict[int, tuple[str, str]] = {}
    places: dict[int, int] = {}
    for row, place in pages.cells():
        match pages.row(place):
            case [None, str(name), str(kind), 'cdr', *_]:
                topics[row] = name, kind
            case [None, int(), int(), bytes()]:
                places[row] = place
    return topics, places


def read_mcap(file: Path) -> Iterator[Message]:
    """Messages of an .mcap file in the order they were written, also of a chunk cut short.

    Raises:
        DataError: it ends early, after the last message given.
    """
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    with file.open('rb') as source:
        if source.read(len(MCAP_MAGIC)) != MCAP_MAGIC:
            raise EndedError(f'{file.name} does not begin as an mcap file')
        for code, content in _records(source):
            if code == SCHEMA:
                number, name, _ = _number_and_texts(content, 0)
                schemas[number] = name
            elif code == CHANNEL:
                number, topic, _ = _number_and_texts(content, 2)
                channels[number] = topic, schemas.get(_u16(content, 2), '')
            elif code == MESSAGE:
                topic, kind = channels[_u16(content, 0)]
                yield (
                    topic,
                    kind,
                    struct.unpack_from('<Q', content, 6)[0],
                    uncompressed(content[22:]),
                )


def _records(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Records of an mcap stream, those inside chunks in their place."""
    while head := source.read(9):
        if len(head) < 9:
            raise EndedError('it ends inside a record')
        code, length = struct.unpack('<BQ', head)
        if code == DATA_END:
            return
        content = _read_at_most(source, length)
        if code == CHUNK:
            yield from _chunk_records(content)
        if len(content) < length:
            raise EndedError('it ends inside a record')
        if code != CHUNK:
            yield code, content
    raise EndedError('it has no end')


def _chunk_records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Records of a chunk, as many as are whole."""
    size = struct.unpack_from('<I', content, 28)[0] if len(content) >= 32 else 0
    compression = content[32 : 32 + size]
    packed = content[40 + size :]
    if compression == b'zstd':
        packed = zstd.ZstdDecompressor().decompress(packed)
    elif compression == b'lz4':
        packed = lz4.frame.LZ4FrameDecompressor().decompress(packed)
    stream = io.BytesIO(packed)
    while len(head := stream.read(9)) == 9:
        code, length = struct.unpack('<BQ', head)
        record = _read_at_most(stream, length)
        if len(record) < length:
            return
        yield code, record


def _read_at_most(source: BinaryIO, length: int) -> bytes:
    """Read `length` bytes or what there is, without reserving what a damaged length claims."""
    parts = []
    while length > 0 and (part := source.read(min(length, BLOCK))):
        parts.append(part)
        length -= len(part)
    return b''.join(parts)


def _number_and_texts(content: bytes, between: int) -> tuple[int, str, str]:
    """A record that begins with a number and, `between` bytes behind it, two texts."""
    place = 2 + between
    texts = []
    for _ in range(2):
        (size,) = struct.unpack_from('<I', content, place)
        texts.append(content[place + 4 : place + 4 + size].decode())
        place += 4 + size
    return _u16(content, 0), texts[0], texts[1]


def _u16(content: bytes, place: int) -> int:
    number: int = struct.unpack_from('<H', content, place)[0]
    return number


def uncompressed(data: bytes) -> bytes:
    """A message that may have been compressed by itself; CDR begins with a zero byte."""
    if data[:4] == ZSTD_MAGIC:
        return bytes(zstd.decompress(data))
    return data
