# SPDX-License-Identifier: Apache-2.0
"""Adapt YuNet's ONNX file to uint8 camera images of any size.

The file expects float32 [1, 3, 640, 640], but its network accepts any multiple of 32. The
conversion from uint8 [1, height, width, 3] is put in front of the graph, where it costs a fraction
of the time that OpenCV needs for it.
"""

from dan_ros.errors import ModelError
from dan_ros.model.onnx_file import encode_node, inspect_onnx, replace_graph
from dan_ros.model.protobuf import encode, fields

IMAGE = 'image'  # name of the new input
CHANNELS_FIRST = 'image_channels_first'  # name of the transposed image

# Numbers of fields and types: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
INPUT, OUTPUT, VALUE_INFO = 11, 12, 13  # fields of a graph
FLOAT, UINT8 = 1, 2  # element types of tensors
INT_ATTRIBUTE, INTS_ATTRIBUTE = 2, 7  # types of attributes


def for_images(content: bytes) -> bytes:
    """Return YuNet's network with the input uint8 [1, height, width, 3], BGR.

    Raises:
        ModelError: it is not an ONNX file, or has no input.
    """
    inspect_onnx(content, "YuNet's file")
    return replace_graph(content, _adapt_graph)


def _adapt_graph(graph: memoryview) -> bytes:
    """Replace the input by an image, and drop the shapes that are valid only for 640 x 640."""
    names, kept = [], []
    for number, value in fields(graph):
        if isinstance(value, int):  # a graph has no such field
            continue
        if number == INPUT:
            names.append(_name_of(value))
        elif number == OUTPUT:
            name = _name_of(value)
            kept.append(encode(OUTPUT, _tensor_info(name, FLOAT, [1, f'{name}_cells', name])))
        elif number != VALUE_INFO:
            kept.append(encode(number, value))
    if not names:
        raise ModelError("YuNet's file has no input")
    nodes = (
        encode_node('Transpose', [IMAGE], CHANNELS_FIRST, [_ints('perm', [0, 3, 1, 2])]),
        encode_node('Cast', [CHANNELS_FIRST], names[0], [_int('to', FLOAT)]),
    )
    image = _tensor_info(IMAGE, UINT8, [1, 'height', 'width', 3])
    return b''.join([*nodes, encode(INPUT, image), *kept])


def _name_of(value_info: memoryview) -> str:
    return b''.join(bytes(value) for number, value in fields(value_info) if number == 1).decode()


def _int(name: str, value: int) -> bytes:
    return encode(1, name) + encode(3, value) + encode(20, INT_ATTRIBUTE)


def _ints(name: str, values: list[int]) -> bytes:
    return encode(1, name) + b''.join(encode(8, v) for v in values) + encode(20, INTS_ATTRIBUTE)


def _tensor_info(name: str, element_type: int, shape: list[int | str]) -> bytes:
    """Return a ValueInfoProto; a string in `shape` names a dynamic dimension."""
    sides = [encode(2 if isinstance(side, str) else 1, side) for side in shape]
    tensor = encode(1, element_type) + encode(2, b''.join(encode(1, side) for side in sides))
    return encode(1, name) + encode(2, encode(1, tensor))
