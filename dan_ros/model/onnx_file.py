# SPDX-License-Identifier: Apache-2.0
"""Check ONNX files from untrusted sources before any runtime reads them.

In this format, a tensor can be stored in another file, whose path is in the model, and a node can
contain a compiled engine, which is a program. This package uses neither, so both are rejected.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from dan_ros.errors import ModelError, shorten
from dan_ros.model.protobuf import Value, encode, fields
from dan_ros.storage.file_content import MODEL, explain_wrong_content

if TYPE_CHECKING:
    import onnx

ENGINE_NODE = 'EPContext'  # operator of ONNX Runtime that holds an engine, or the path of one
ORT_FORMAT = b'ORTM'  # bytes 4 to 7 of ONNX Runtime's own format, which is not protobuf
MAX_DEPTH = 100  # nested messages; the limit of protobuf's own parsers

# Message type -> {field number: message type of the field}, of all fields through which a tensor, a
# node or metadata can be reached. Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
GRAPH, METADATA = 7, 14  # fields of the model
NODE = 1  # field of a graph
OP_TYPE, ATTRIBUTE = 4, 5  # fields of a node
NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14  # fields of a tensor
SUBMESSAGES = {
    'model': {GRAPH: 'graph', METADATA: 'entry', 20: 'training', 25: 'function'},
    'training': {1: 'graph', 2: 'graph'},
    'function': {7: 'node', 11: 'attribute'},
    'graph': {1: 'node', 5: 'tensor', 15: 'sparse tensor'},
    'node': {5: 'attribute'},
    'attribute': dict.fromkeys((5, 10), 'tensor')
    | dict.fromkeys((6, 11), 'graph')
    | dict.fromkeys((22, 23), 'sparse tensor'),
    'sparse tensor': {1: 'tensor', 2: 'tensor'},
}


def inspect_onnx(content: bytes, where: str) -> dict[str, str]:
    """Check the bytes of an ONNX file and return its metadata.

    Raises:
        ModelError: it is not an ONNX file, refers to another file, or holds an engine.
    """
    metadata = {}
    try:
        if content[4:8] == ORT_FORMAT:
            raise ValueError("ONNX Runtime's own format")
        if not content:
            raise ValueError('empty')
        for kind, message in _messages(content):
            if kind == 'tensor':
                _refuse_external_data(message, where)
            elif kind == 'node' and _runs(message, ENGINE_NODE):
                raise ModelError(
                    f'{where} holds an engine (a node {ENGINE_NODE}), which is a program: '
                    'use the model that it was made from'
                )
            elif kind == 'entry':
                key, value = _entry(message)
                metadata[key] = value
    except ValueError as error:
        words = explain_wrong_content(content, 'an ONNX file', MODEL)
        raise ModelError(f'{where} {words or f"is not an ONNX file: {error}"}') from None
    return metadata


def parse_onnx(content: bytes, where: str) -> 'onnx.ModelProto':
    """Check an ONNX file as `inspect_onnx` does, and parse it with the package `onnx`.

    Raises:
        ModelError: see `inspect_onnx`.
    """
    import onnx

    inspect_onnx(content, where)
    try:
        return onnx.load_from_string(content)
    except Exception as error:  # protobuf's error class differs between versions
        raise ModelError(f'{where} is not an ONNX file: {error}') from None


def has_operator(content: bytes, operator: str) -> bool:
    """Return whether a valid ONNX file has a node with this operator, such as 'Conv'."""
    return any(kind == 'node' and _runs(message, operator) for kind, message in _messages(content))


def replace_graph(content: bytes, change: Callable[[memoryview], bytes]) -> bytes:
    """Return a valid ONNX file with its graph, a GraphProto, replaced by `change(graph)`."""
    model = list(fields(memoryview(content)))
    graph = b''.join(bytes(value) for number, value in model if number == GRAPH)
    others = b''.join(encode(*field) for field in model if field[0] != GRAPH)
    return others + encode(GRAPH, change(memoryview(graph)))


def encode_node(
    operator: str,
    inputs: Iterable[str],
    output: str,
    attributes: Iterable[bytes | memoryview] = (),
) -> bytes:
    """Return a field of a graph with a node whose attributes are AttributeProtos."""
    parts = [*(encode(1, name) for name in inputs), encode(2, output), encode(OP_TYPE, operator)]
    return encode(NODE, b''.join([*parts, *(encode(ATTRIBUTE, one) for one in attributes)]))


def _messages(content: bytes) -> Iterator[tuple[str, memoryview]]:
    """Yield the type and bytes of each message in a model, at any depth.

    Raises:
        ValueError: a message is malformed, or nested too deeply.
    """
    model = memoryview(content)
    stack = [('model', fields(model))]
    while stack:
        parent, rest = stack[-1]
        field = next(rest, None)
        if field is None:
            stack.pop()
            continue
        number, value = field
        kind = SUBMESSAGES.get(parent, {}).get(number)
        if kind and isinstance(value, memoryview):
            if len(stack) == MAX_DEPTH:
                raise ValueError('its messages are nested too deeply')
            yield kind, value
            stack.append((kind, fields(value)))


def _runs(node: memoryview, operator: str) -> bool:
    return any(number == OP_TYPE and to_text(value) == operator for number, value in fields(node))


def _refuse_external_data(tensor: memoryview, where: str) -> None:
    is_external, name, location = False, '', ''
    for number, value in fields(tensor):
        is_external |= number == EXTERNAL_DATA or (number == DATA_LOCATION and bool(value))
        if number == NAME:
            name = to_text(value)
        elif number == EXTERNAL_DATA and isinstance(value, memoryview):
            key, text = _entry(value)
            location = text if key == 'location' else location
    if is_external:
        raise ModelError(
            f'{where} keeps the tensor {shorten(name)!r} in another file ({shorten(location)!r}); '
            'only models in a single file are read. Make one with `dan-ros convert`, or load yours '
            'with the Python package onnx and save it again'
        )


def _entry(message: memoryview) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    values: dict[int, Value] = dict(fields(message))
    return to_text(values.get(1, 0)), to_text(values.get(2, 0))


def to_text(value: Value) -> str:
    """Return the text of a field; '' if it is a number."""
    return bytes(value).decode(errors='replace') if isinstance(value, memoryview) else ''
