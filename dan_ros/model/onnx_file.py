"""ONNX files read without trust: what they hold is all there is, and none of it is a program.

A tensor of an ONNX file may lie in another file, at a path that the file itself gives, and a node
may carry a compiled engine. Neither is part of this package's contract, so both are refused.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dan_ros.errors import ModelError, cut

if TYPE_CHECKING:
    import onnx

WEIGHTS_KEY = 'dan_ros.weights_sha256'  # of the metadata
ENGINE_NODE = 'EPContext'  # of ONNX Runtime: an engine, or the path of one


def parse_onnx(content: bytes, where: str) -> 'onnx.ModelProto':
    """Read an ONNX file's bytes; nothing but these bytes is ever opened.

    Args:
        content: the file.
        where: its name, for messages.

    Raises:
        ModelError: it is no ONNX file, refers to another file, or holds an engine.
    """
    import onnx

    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf's error class has moved between its versions
        raise ModelError(f'{where} is not an ONNX file: {error}') from None
    for message in _messages_in(model):
        if isinstance(message, onnx.TensorProto):
            _refuse_external_data(message, where)
        elif isinstance(message, onnx.NodeProto) and message.op_type == ENGINE_NODE:
            raise ModelError(
                f'{where} holds an engine (a node {ENGINE_NODE}), which is a program: give the '
                'model that it was made from'
            )
    return model


def weights_sha256(model: 'onnx.ModelProto') -> str:
    """Hash of all weights, hexadecimal: name, type, shape and values of each initialiser, by name.

    Everything else may change, such as a fixed batch or the names of nodes.

    Raises:
        ValueError: a tensor is not what it says of itself.
    """
    from onnx import numpy_helper

    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda tensor: str(tensor.name)):
        try:
            values = numpy_helper.to_array(tensor)
        except Exception as error:  # of its type or size, of many classes
            raise ValueError(f'tensor {cut(tensor.name)!r}: {error}') from None
        digest.update(repr((tensor.name, values.dtype.name, values.shape)).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def check_weights(model: 'onnx.ModelProto', where: str) -> None:
    """Refuse a model whose weights are not those that it was written with.

    Files of other tools, and of this package before it wrote the hash, have none: they pass.

    Args:
        model: as read.
        where: the file's name, for messages.

    Raises:
        ModelError: the weights are others.
    """
    written = next((entry.value for entry in model.metadata_props if entry.key == WEIGHTS_KEY), '')
    if not written:
        return
    try:
        found = weights_sha256(model)
    except ValueError as error:
        found = str(error)
    if found != written:
        raise ModelError(
            f'{where} is damaged: its weights are not those that it was written with '
            f'({WEIGHTS_KEY} is {cut(written)}, found {cut(found)}). Copy the file again. If a '
            'tool has changed them on purpose, remove that entry from its metadata'
        )


def _refuse_external_data(tensor: 'onnx.TensorProto', where: str) -> None:
    if tensor.data_location != tensor.EXTERNAL and not tensor.external_data:
        return
    places = [entry.value for entry in tensor.external_data if entry.key == 'location']
    place = cut(places[0]) if places else ''
    raise ModelError(
        f'{where} keeps the tensor {cut(tensor.name)!r} in another file ({place!r}); '
        'only models in a single file are read. Make one with `dan-ros convert`, or save yours '
        'with its weights inside'
    )


def _messages_in(message: Any) -> Iterator[Any]:
    """A protobuf message and all within it: subgraphs, attributes, functions, sparse tensors."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if hasattr(value, 'ListFields') else value:
                yield from _messages_in(part)
