"""Rows of a damaged SQLite file, page by page, without its trees.

A file that was cut short has lost pages which SQLite needs to find the others. The leaves of tables
hold whole rows and can be read by themselves: https://www.sqlite.org/fileformat2.html, whose
sections are named below.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

FILE_MAGIC = b'SQLite format 3\0'
FILE_HEADER_BYTES = 100
LEAF_OF_TABLE = 0x0D
Value = int | float | str | bytes | None


class SqlitePages:
    """The pages of a database file. A context manager.

    Args:
        file: the file; whatever of it is there.

    Raises:
        ValueError: it does not begin as a database.
    """

    def __init__(self, file: Path) -> None:
        with file.open('rb') as source:
            head = source.read(FILE_HEADER_BYTES)
            if len(head) < FILE_HEADER_BYTES or not head.startswith(FILE_MAGIC):
                raise ValueError(f'{file.name} does not begin as an SQLite file')
            self._bytes = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
        (size,) = struct.unpack_from('>H', head, 16)
        self._page_size = 65536 if size == 1 else size
        if self._page_size < 512:
            raise ValueError(f'{file.name} is an SQLite file with pages of {size} bytes')
        self._usable = self._page_size - head[20]

    def __enter__(self) -> 'SqlitePages':
        return self

    def __exit__(self, *error: object) -> None:
        self._bytes.close()

    def cells(self) -> Iterator[tuple[int, int]]:
        """Row number and place in the file of every row of every table (section 1.6)."""
        for page in range(len(self._bytes) // self._page_size):
            begin = page * self._page_size
            header = begin + (FILE_HEADER_BYTES if page == 0 else 0)
            if self._bytes[header] != LEAF_OF_TABLE:
                continue
            (count,) = struct.unpack_from('>H', self._bytes, header + 3)
            if header + 8 + 2 * count > begin + self._page_size:
                continue
            for offset in struct.unpack_from(f'>{count}H', self._bytes, header + 8):
                if not 8 <= offset <= self._usable - 4:
                    continue
                place = begin + offset
                _, behind = self._varint(place)
                row, _ = self._varint(behind)
                yield row, place

    def row(self, place: int) -> list[Value] | None:
        """The values of a row; None if a part of it is not there, or it is no row."""
        try:
            return _values(self._payload(place))
        except (ValueError, IndexError, struct.error, UnicodeDecodeError):
            return None

    def _payload(self, place: int) -> bytes:
        """Content of a row, the overflow pages behind it included (section 1.6)."""
        size, place = self._varint(place)
        _, place = self._varint(place)
        local = self._local_size(size)
        parts = [self._bytes[place : place + local]]
        missing = size - local
        page = struct.unpack_from('>I', self._bytes, place + local)[0] if missing else 0
        while missing > 0:
            begin = (page - 1) * self._page_size
            if page < 2 or begin + self._page_size > len(self._bytes):
                raise ValueError('an overflow page is not there')
            (page,) = struct.unpack_from('>I', self._bytes, begin)
            parts.append(self._bytes[begin + 4 : begin + min(self._usable, 4 + missing)])
            missing -= self._usable - 4
        return b''.join(parts)

    def _local_size(self, size: int) -> int:
        """How much of a row's content lies in its leaf."""
        most = self._usable - 35
        if size <= most:
            return size
        least = (self._usable - 12) * 32 // 255 - 23
        fitting = least + (size - least) % (self._usable - 4)
        return fitting if fitting <= most else least

    def _varint(self, place: int) -> tuple[int, int]:
        return read_varint(self._bytes, place)


def read_varint(content: bytes | mmap.mmap, place: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it (section 1.6).

    >>> read_varint(bytes([0x81, 0x02]), 0)
    (130, 2)
    """
    value = 0
    for index in range(8):
        byte = content[place + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + index + 1
    return value << 8 | content[place + 8], place + 9


def _values(record: bytes) -> list[Value]:
    """Values of a record (section 2.1)."""
    header_size, place = read_varint(record, 0)
    body = header_size
    values: list[Value] = []
    while place < header_size:
        kind, place = read_varint(record, place)
        value, body = _value(record, kind, body)
        values.append(value)
    return values


def _value(record: bytes, kind: int, place: int) -> tuple[Value, int]:
    """A value of a serial type, and the place behind it."""
    if kind in (0, 8, 9):
        return (None, 0, 1)[(0, 8, 9).index(kind)], place
    if kind == 7:
        return struct.unpack_from('>d', record, place)[0], place + 8
    size = (kind - 12) // 2 if kind >= 12 else (0, 1, 2, 3, 4, 6, 8)[kind]
    content = record[place : place + size]
    if len(content) < size:
        raise ValueError('a value is cut short')
    if kind < 12:
        return int.from_bytes(content, 'big', signed=True), place + size
    return (content if kind % 2 == 0 else content.decode()), place + size
