# SPDX-License-Identifier: Apache-2.0
"""ONNX files are checked and changed without the package onnx, with the same result."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dan_ros.backends.onnxruntime import open_session
from dan_ros.detect.yunet_file import IMAGE, for_images
from dan_ros.errors import ModelError
from dan_ros.model.onnx_file import SUBMESSAGES, inspect_onnx, parse_onnx
from dan_ros.model.protobuf import encode, fields
from dan_ros.model.store import read_model

TYPES = {
    'model': onnx.ModelProto,
    'training': onnx.TrainingInfoProto,
    'function': onnx.FunctionProto,
    'graph': onnx.GraphProto,
    'node': onnx.NodeProto,
    'attribute': onnx.AttributeProto,
    'sparse tensor': onnx.SparseTensorProto,
    'tensor': onnx.TensorProto,
    'entry': onnx.StringStringEntryProto,
}


@pytest.mark.parametrize('kind', TYPES)
def test_every_way_to_a_tensor_or_a_node_is_walked(kind):
    """Uses onnx's own schema, so that a field of a later version is not missed."""
    names = {message.DESCRIPTOR.full_name: name for name, message in TYPES.items()}
    found = {
        field.number: names[field.message_type.full_name]
        for field in TYPES[kind].DESCRIPTOR.fields
        if field.message_type and field.message_type.full_name in names
    }
    if kind != 'model':  # only the model has our metadata
        found = {number: name for number, name in found.items() if name != 'entry'}
    assert SUBMESSAGES.get(kind, {}) == found


def test_the_fields_of_a_tensor_and_a_node_have_these_numbers():
    numbers = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
    assert [numbers[name] for name in ('name', 'external_data', 'data_location')] == [8, 13, 14]
    assert onnx.NodeProto.DESCRIPTOR.fields_by_name['op_type'].number == 4


def some_model() -> bytes:
    weights = numpy_helper.from_array(np.arange(6, dtype=np.float32), 'weights')
    inner = helper.make_graph([], 'inner', [], [], initializer=[weights])
    nodes = [
        helper.make_node('Relu', ['x'], ['y'], alpha=0.5, perm=[1, 0, 300]),
        helper.make_node('If', ['c'], ['z'], then_branch=inner),
    ]
    x = helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, 'n'])
    graph = helper.make_graph(nodes, 'outer', [x], [], initializer=[weights])
    model = helper.make_model(graph)
    helper.set_model_props(model, {'key': 'valué', 'other': ''})
    return model.SerializeToString()


MODEL = some_model()


def listed(content: bytes) -> list:
    """Number and value of each field, read by protobuf's own reader of unknown fields."""
    from google.protobuf.empty_pb2 import Empty
    from google.protobuf.unknown_fields import UnknownFieldSet

    return [
        (field.field_number, field.data) for field in UnknownFieldSet(Empty.FromString(content))
    ]


NUMBERS = st.integers(1, 2**29 - 1)


@given(st.lists(st.tuples(NUMBERS, st.integers(0, 2**64 - 1) | st.binary(max_size=300))))
def test_fields_are_written_and_read_as_protobuf_does(values):
    content = b''.join(encode(number, value) for number, value in values)
    read = [(n, v if isinstance(v, int) else bytes(v)) for n, v in fields(memoryview(content))]
    assert read == values == listed(content)


def read_by_onnx(content: bytes) -> dict[str, str] | str:
    """Result of the package onnx: the metadata, or the reason why a file must not be used."""
    try:
        model = onnx.load_from_string(content)
        if any(is_dangerous(message) for message in messages_in(model)):
            return 'dangerous'
        return {text_of(entry.key): text_of(entry.value) for entry in model.metadata_props}
    except Exception:  # error class of protobuf, which differs between versions
        return 'malformed'


def text_of(value: str | bytes) -> str:
    """Decode text that protobuf returned as bytes, because it is not UTF-8."""
    return value if isinstance(value, str) else value.decode(errors='replace')


def is_dangerous(message) -> bool:
    if isinstance(message, TensorProto):
        return message.data_location == message.EXTERNAL or bool(message.external_data)
    return isinstance(message, onnx.NodeProto) and message.op_type == 'EPContext'


def messages_in(message):
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if hasattr(value, 'ListFields') else value:
                yield from messages_in(part)


def test_metadata_is_read():
    assert inspect_onnx(MODEL, 'it') == {'key': 'valué', 'other': ''}
    assert parse_onnx(MODEL, 'it').SerializeToString() == MODEL
    for name in ('dan_ferplus', 'yunet'):
        content = read_model(name).content
        assert inspect_onnx(content, name) == read_by_onnx(content)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.integers(0, 255)), max_size=4), st.data()
)
def test_no_change_of_bytes_gets_past_the_check(changes, data):
    """Dangerous files are refused; others give the same metadata as onnx, or an error."""
    content = bytearray(MODEL)
    for place, value in changes:
        content[place] = value
    content = bytes(content[: data.draw(st.integers(0, len(MODEL)) | st.just(len(MODEL)))])
    try:
        found = inspect_onnx(content, 'it')
    except ModelError:
        return
    expected = read_by_onnx(content)
    assert expected != 'dangerous'
    if expected != 'malformed':  # error in a part without tensors: left to the runtime
        assert found == expected


def external(*location_fields: bytes) -> bytes:
    tensor = b''.join(location_fields)
    return MODEL + encode(7, encode(5, encode(8, 'elsewhere') + tensor))


LOCATION = encode(13, encode(1, 'location') + encode(2, '/etc/passwd'))


@pytest.mark.parametrize(
    'tensor',
    [
        [LOCATION],
        [encode(14, 1)],
        [encode(14, 1), encode(14, b'')],  # the second field has a wrong type and is ignored
        [encode(14, 1), encode(14, 7)],  # protobuf keeps 1, because 7 is not in the enumeration
        [encode(14, 2**32 + 1)],  # protobuf keeps the lower 32 bits
    ],
)
def test_a_second_value_does_not_hide_the_first(tensor):
    with pytest.raises(ModelError, match="'elsewhere' in another file"):
        inspect_onnx(external(*tensor), 'it')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'\xfe\xff\x00', 'wire type 6'),
        (MODEL[:-1], 'truncated'),
        (b'\x0a' + b'\xff' * 20, 'number without an end'),
        (b'\x00\x00', 'field number 0'),
        (b'\x0b\x0c', 'wire type 3'),
        (b'\x18\0\0\0ORTM' + bytes(100), "ONNX Runtime's own format"),
    ],
)
def test_what_is_not_onnx_is_refused(content, message):
    with pytest.raises(ModelError, match=f'odd.onnx is not an ONNX file: .*{message}'):
        inspect_onnx(content, 'odd.onnx')


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'', 'is an empty file, not an ONNX file: copy or download it again'),
        (b'not ONNX', "is a text that begins with 'not ONNX', not an ONNX file"),
        (b'version https://git-lfs.github.com/spec/v1\noid', 'is a Git LFS pointer.*git lfs pull'),
        (b'<!DOCTYPE html>', 'is a web page, not an ONNX file'),
        (b'PK\3\4' + bytes(26) + b'dan/data.pkl', 'is a PyTorch checkpoint.*`dan-ros convert`'),
    ],
)
def test_what_is_something_else_is_named(content, words):
    with pytest.raises(ModelError, match=f'^odd.onnx {words}'):
        inspect_onnx(content, 'odd.onnx')


def test_nesting_has_a_limit():
    graph = b''
    for _ in range(60):
        graph = encode(1, encode(5, encode(6, graph)))  # node, attribute, graph
    with pytest.raises(ModelError, match='nested too deeply'):
        inspect_onnx(encode(7, graph), 'it')


def for_images_by_onnx(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    taken = model.graph.input[0].name
    del model.graph.input[:], model.graph.value_info[:]
    shape = [1, 'height', 'width', 3]
    model.graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape))
    conversion = (
        helper.make_node('Transpose', [IMAGE], ['channels_first'], perm=[0, 3, 1, 2]),
        helper.make_node('Cast', ['channels_first'], [taken], to=TensorProto.FLOAT),
    )
    for place, node in enumerate(conversion):
        model.graph.node.insert(place, node)
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f'{output.name}_cells'
    return model.SerializeToString()


def test_yunet_for_images_answers_as_the_graph_that_onnx_makes():
    content = read_model('yunet').content
    onnx.checker.check_model(onnx.load_from_string(for_images(content)), full_check=True)
    ours, theirs = open_session(for_images(content)), open_session(for_images_by_onnx(content))
    for size in ((64, 96), (480, 640)):
        image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
        for one, two in zip(
            ours.run(None, {IMAGE: image}), theirs.run(None, {IMAGE: image}), strict=True
        ):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize('content', [encode(1, 8), encode(7, b'')])
def test_a_graph_without_an_input_is_refused(content):
    with pytest.raises(ModelError, match="YuNet's file has no input"):
        for_images(content)


def test_predict_and_the_node_run_without_onnx(portrait_file):
    """The package onnx takes 13 MB of memory, and only tools for model files need it."""
    code = (
        'import importlib.util, sys\n'
        'sys.modules["onnx"] = None  # an import fails\n'
        'from click.testing import CliRunner\n'
        'from dan_ros.cli.main import cli\n'
        'if importlib.util.find_spec("rclpy"): import dan_ros.ros.node\n'
        'for options in ([], sys.argv[2:]):\n'
        '    words = ["predict", sys.argv[1], *options]\n'
        '    result = CliRunner().invoke(cli, words, catch_exceptions=False)\n'
        '    assert "happy" in result.stdout, result.output\n'
    )
    model = read_model('dan_ferplus').path  # read by its path, like a file of the user
    words = [sys.executable, '-c', code, str(portrait_file), '--model', str(model)]
    subprocess.run(words, check=True, timeout=120)
