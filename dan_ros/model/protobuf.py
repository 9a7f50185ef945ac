# SPDX-License-Identifier: Apache-2.0
"""Read and write protobuf messages field by field, without a schema and without copies.

ONNX files are protobuf messages; the package `onnx` would take 30 MB of memory to read them. The
format: https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types; groups are not used by ONNX
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
MAX_VARINT_BYTES = 10
MAX_FIELD_NUMBER = 2**29 - 1

Value = int | memoryview


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield the number and value of each field of a message, in file order.

    Numbers are returned as unsigned integers; text, bytes, packed arrays and messages as views.

    Raises:
        ValueError: the message is malformed.

    Example:
        >>> [(number, bytes(value)) for number, value in fields(memoryview(encode(4, 'Cast')))]
        [(4, b'Cast')]
    """
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        number, wire_type = tag >> 3, tag & 7
        if not 1 <= number <= MAX_FIELD_NUMBER:
            raise ValueError(f'field number {number}')
        if wire_type == VARINT:
            value, place = _read_varint(message, place)
            yield number, value
            continue
        if wire_type == LENGTH_DELIMITED:
            size, place = _read_varint(message, place)
        elif wire_type in FIXED_BYTES:
            size = FIXED_BYTES[wire_type]
        else:
            raise ValueError(f'wire type {wire_type}')
        content = message[place : place + size]
        if len(content) < size:
            raise ValueError('the file is truncated')
        place += size
        is_number = wire_type in FIXED_BYTES
        yield number, int.from_bytes(content, 'little') if is_number else content


def encode(number: int, value: int | str | bytes | memoryview) -> bytes:
    """Return a field as bytes: a varint for an int >= 0, length-delimited for other values."""
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    content = value.encode() if isinstance(value, str) else bytes(value)
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(content)) + content


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return a number and the position after it."""
    if place < len(message) and message[place] < 0x80:  # fast path for most numbers
        return message[place], place + 1
    value = 0
    for index, byte in enumerate(message[place : place + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value % 2**64, place + index + 1
    raise ValueError('a number without an end')


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
