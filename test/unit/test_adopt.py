# SPDX-License-Identifier: Apache-2.0
"""Classifiers of other projects as models of this package, with real ONNX files."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from data_sets import write_image
from precision import uses_bf16

onnx = pytest.importorskip('onnx')
pytest.importorskip('pydantic')
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from dan_ros import labels  # noqa: E402
from dan_ros.adopt.descriptor import Descriptor, find_descriptor, read_descriptor  # noqa: E402
from dan_ros.adopt.wrapper import adopt  # noqa: E402
from dan_ros.backends import open_backend  # noqa: E402
from dan_ros.cli.adopt import explain_scores  # noqa: E402
from dan_ros.errors import ModelError  # noqa: E402
from dan_ros.evaluate.metrics import measure  # noqa: E402
from dan_ros.model.metadata import ModelInfo  # noqa: E402
from dan_ros.model.onnx_writer import save_model  # noqa: E402

SIZE = 40
# The classifier answers with the color of a face: red is happy, green is neutral, blue is sad.
NAMES = ['Happiness', 'Neutral', 'Sadness']
COLORS_BGR = {'happy': (0, 0, 255), 'neutral': (0, 255, 0), 'sad': (255, 0, 0)}
DESCRIPTION = {
    'labels': NAMES,
    'input_size': SIZE,
    'mean': [0.5, 0.4, 0.3],
    'std': [0.2, 0.25, 0.5],
    'source': 'made by a test',
}
NO_FACES = np.zeros((0, SIZE, SIZE, 3), np.uint8)


def classifier(
    *,
    batch: int | str = 'n',
    layout: str = 'nchw',
    channels: int = 3,
    softmax: bool = False,
    half: bool = False,
    opset: int = 13,
    ir_version: int = 7,
    reshape: tuple[int, ...] = (-1, 3),
    valence: bool = False,
    inputs: int = 1,
    domain: str = '',
) -> bytes:
    """An ONNX classifier with one logit per channel: its mean, from weights in fp32 or fp16."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    shape = [batch, channels, SIZE, SIZE] if layout == 'nchw' else [batch, SIZE, SIZE, channels]
    weights = np.eye(3, dtype=dtype)[:, :channels, None, None]
    tensors = {'w': weights, 'shape': np.array(reshape)}
    nodes = []
    name = 'logits'  # a name of the wrapper's graph, to check that names do not clash
    if layout == 'nhwc':
        nodes.append(helper.make_node('Transpose', ['faces'], ['image'], perm=[0, 3, 1, 2]))
    nodes += [
        helper.make_node('Conv', ['image' if layout == 'nhwc' else 'faces', 'w'], ['features']),
        helper.make_node('GlobalAveragePool', ['features'], ['pooled']),
        helper.make_node('Reshape', ['pooled', 'shape'], ['flat' if softmax else name]),
    ]
    if softmax:
        nodes.append(helper.make_node('Softmax', ['flat'], [name], axis=1))
    outputs = [helper.make_tensor_value_info(name, kind, [batch, 3])]
    if valence:
        tensors['columns'] = np.array([0, 1, 2, 0, 0])
        nodes.append(helper.make_node('Gather', [name, 'columns'], ['all'], axis=1))
        outputs = [helper.make_tensor_value_info('all', kind, [batch, 5])]
    if domain:
        nodes.append(helper.make_node('Gelu', [name], ['unused'], domain=domain))
    given = [helper.make_tensor_value_info('faces', kind, shape)]
    given += [helper.make_tensor_value_info(f'mask{i}', kind, [1]) for i in range(1, inputs)]
    graph = helper.make_graph(
        nodes, 'g', given, outputs, [numpy_helper.from_array(v, k) for k, v in tensors.items()]
    )
    opsets = [helper.make_opsetid('', opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    return model.SerializeToString()


def describe(**changes: object) -> Descriptor:
    return Descriptor.model_validate({**DESCRIPTION, **changes})


def probabilities(content: bytes, faces: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    session = onnxruntime.InferenceSession(content)
    (logits,) = session.run(['logits'], {'faces': faces})
    return labels.logits_to_probabilities(logits, names)


@pytest.mark.parametrize(
    ('form', 'changes'),
    [
        ({}, {}),
        ({'layout': 'nhwc'}, {'layout': 'nhwc'}),
        ({'batch': 1, 'reshape': (1, -1)}, {}),
        ({'batch': 1, 'reshape': (1, 3), 'softmax': True}, {'outputs': 'probabilities'}),
        ({'half': True}, {}),
        ({'opset': 11, 'ir_version': 4}, {}),
        ({'opset': 18}, {}),
        ({'valence': True}, {'labels': [*NAMES, None, None]}),
        (
            {},
            {
                'color': 'bgr',
                'labels': NAMES[::-1],
                'mean': [0.3, 0.4, 0.5],
                'std': [0.5, 0.25, 0.2],
            },
        ),
    ],
)
def test_the_wrapped_graph_answers_as_the_original(tmp_path, form, changes):
    """Logits are known: the normalized mean of each channel."""
    descriptor = describe(**changes)
    faces = np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    adopted = adopt(classifier(**form), descriptor, 'x.onnx', faces)
    assert adopted.difference < 1e-3
    model = adopted.model
    assert [(o.domain, o.version) for o in model.opset_import] == [('', 17)]
    assert [node.op_type for node in model.graph.node if 'faces' in node.input] == ['Cast']
    means = (faces / 255).mean(axis=(1, 2))
    expected = (means - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.5]  # red, green, blue
    expected = labels.logits_to_probabilities(expected, ('happy', 'neutral', 'sad'))
    found = probabilities(model.SerializeToString(), faces, descriptor.expressions)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    info = ModelInfo(descriptor.expressions, descriptor.size, source='x')
    save_model(model, info, tmp_path / 'ours.onnx')
    for backend in ('openvino', 'opencv'):
        logits = open_backend(backend, str(tmp_path / 'ours.onnx')).infer(faces)
        other = labels.logits_to_probabilities(logits, descriptor.expressions)
        np.testing.assert_allclose(other, found, atol=5e-3 if uses_bf16(backend) else 1e-4)


@pytest.mark.parametrize('channels', [1, 3])
def test_a_classifier_of_gray_faces(channels):
    descriptor = describe(color='gray', mean=[0.5], std=[0.25])
    faces = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    assert adopt(classifier(channels=channels), descriptor, 'x', faces).difference < 1e-4


@pytest.mark.parametrize(
    ('form', 'changes', 'words'),
    [
        ({'softmax': True}, {}, 'probabilities already .* outputs: probabilities'),
        ({}, {'outputs': 'probabilities'}, 'not probabilities .* outputs: logits'),
        ({'batch': 2, 'reshape': (2, 3), 'opset': 9}, {}, None),
        ({}, {'labels': ['happy', 'sad']}, 'has 2 labels, but the outputs are logits with 3'),
        ({}, {'input_size': 48}, r'its input is .*40, 40\]; the descriptor says nchw, 48x48'),
        ({}, {'layout': 'nhwc'}, 'the descriptor says nhwc, 40x40'),
        ({}, {'output': 'scores'}, 'has no output scores; it has logits'),
        ({'channels': 1}, {'color': 'gray'}, 'one channel, but the descriptor has 3 numbers'),
        ({'inputs': 2}, {}, 'has 2 inputs; a classifier of faces has one'),
        ({'domain': 'com.microsoft'}, {}, 'uses operators of com.microsoft'),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(form, changes, words):
    descriptor = describe(**changes)
    if words is None:
        assert adopt(classifier(**form), descriptor, 'x.onnx', NO_FACES).difference < 1e-4
        return
    with pytest.raises(ModelError, match=words) as error:
        adopt(classifier(**form), descriptor, 'x.onnx', NO_FACES)
    assert str(error.value).startswith('x.onnx')
    assert '\n' not in str(error.value)


def add_output(model):
    model.graph.node.append(helper.make_node('Identity', ['logits'], ['second']))
    model.graph.output.append(helper.make_tensor_value_info('second', TensorProto.FLOAT, ['n', 3]))


def take_integers(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    model.graph.node.insert(0, helper.make_node('Cast', ['faces'], ['x'], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = 'x'


def take_rows(model):
    del model.graph.input[0].type.tensor_type.shape.dim[3]
    model.graph.node.insert(0, helper.make_node('Unsqueeze', ['faces', 'last'], ['x']))
    model.graph.initializer.append(numpy_helper.from_array(np.array([3]), 'last'))
    model.graph.node[1].input[0] = 'x'


def store_nan(model):
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((3, 3, 1, 1), np.nan, np.float32), 'w')
    )


def reshape_wrongly(model):
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([-1, 7]), 'shape'))
    del model.graph.output[0].type.tensor_type.shape.dim[:]


def make_a_circle(model):
    model.graph.node[0].input[0] = 'logits'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (make_a_circle, 'the graph is not acyclic'),
        (add_output, r'several outputs have 3 values \(logits, second\); name one in the descrip'),
        (take_integers, r'its input faces is tensor\(int64\), not float'),
        (take_rows, r"its input is \['n', 3, 40\], not a batch of images"),
        (store_nan, 'gives results that are not finite; check mean and std'),
        (reshape_wrongly, 'x.onnx cannot be run: .*shape'),
    ],
)
def test_an_unusual_classifier_is_refused_in_one_line(change, words):
    model = onnx.load_from_string(classifier())
    change(model)
    with pytest.raises(ModelError, match=words) as error:
        adopt(model.SerializeToString(), describe(), 'x.onnx', NO_FACES)
    assert str(error.value).startswith('x.onnx')
    assert '\n' not in str(error.value)


def keep_places(model):
    """Leave out the reshape: the output is [N, 3, 1, 1]."""
    del model.graph.node[2]
    model.graph.node[1].output[0] = 'logits'
    for _ in range(2):
        model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1


def pool_in_a_function(model):
    opset = [helper.make_opsetid('', 13)]
    pool = helper.make_node('GlobalAveragePool', ['x'], ['y'])
    model.functions.append(helper.make_function('mine', 'Pool', ['x'], ['y'], [pool], opset))
    model.graph.node[1].op_type, model.graph.node[1].domain = 'Pool', 'mine'
    model.opset_import.append(helper.make_opsetid('mine', 1))


def list_the_last_node_first(model):
    model.graph.node.insert(0, model.graph.node.pop())


def leave_out_inputs_and_outputs(model):
    """ONNX writes '' for both; a name is no output of another node for that."""
    number = numpy_helper.from_array(np.float32(1e9), 'most')
    model.graph.initializer.append(number)
    last = model.graph.node[-1]
    last.output[0] = 'all'
    model.graph.node.append(helper.make_node('Clip', ['all', '', 'most'], ['clipped']))
    model.graph.node.append(helper.make_node('Dropout', ['clipped'], ['logits', '']))


@pytest.mark.parametrize(
    ('change', 'ir_version'),
    [
        (keep_places, 7),
        (pool_in_a_function, 8),
        (list_the_last_node_first, 7),
        (leave_out_inputs_and_outputs, 7),
    ],
)
def test_other_forms_of_the_same_classifier_give_the_same_results(change, ir_version):
    model = onnx.load_from_string(classifier(ir_version=ir_version))
    change(model)
    faces = np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    adopted = adopt(model.SerializeToString(), describe(), 'x.onnx', faces)
    assert adopted.difference < 1e-4
    expected = adopt(classifier(), describe(), 'x.onnx', faces).model.SerializeToString()
    found = adopted.model.SerializeToString()
    names = describe().expressions
    np.testing.assert_allclose(
        probabilities(found, faces, names), probabilities(expected, faces, names), atol=1e-6
    )


def compare_heads(model):
    """Take the log-softmax over two heads that differ by hundreds, as DAN does."""
    add = model.graph.node.add
    model.graph.node[-1].output[0] = 'flat'
    arrays = {'rows': np.array([-1, 1, 3]), 'axis': np.array([1])}
    arrays['heads'] = np.float32([[[1], [-300]]])
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in arrays.items())
    add().CopyFrom(helper.make_node('Reshape', ['flat', 'rows'], ['row']))
    add().CopyFrom(helper.make_node('Mul', ['row', 'heads'], ['two']))
    add().CopyFrom(helper.make_node('LogSoftmax', ['two'], ['shares'], axis=1))
    add().CopyFrom(helper.make_node('ReduceSum', ['shares', 'axis'], ['logits'], keepdims=0))


def end_in_a_cast(model):
    model.graph.node[-1].output[0] = 'flat'
    cast = helper.make_node('Cast', ['flat'], ['logits'], to=TensorProto.FLOAT)
    model.graph.node.append(cast)


def read_the_batch(model):
    """Reshape to the batch of the input, as PyTorch exports x.view(len(x), -1)."""
    for name, array in (('none', [0]), ('rest', [-1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(array), name))
    model.graph.node[-1].input[1] = 'sides'
    for place, (kind, inputs, output) in enumerate(
        [
            ('Shape', ['faces'], 'all'),
            ('Gather', ['all', 'none'], 'first'),
            ('Concat', ['first', 'rest'], 'sides'),
        ]
    ):
        axis = {} if kind == 'Shape' else {'axis': 0}
        model.graph.node.insert(place, helper.make_node(kind, inputs, [output], **axis))


def normalize_hundreds(model):
    """Give log-probabilities of scores whose powers of e are no floats."""
    add = model.graph.node.add
    model.graph.node[-1].output[0] = 'flat'
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e3), 'thousand'))
    add().CopyFrom(helper.make_node('Mul', ['flat', 'thousand'], ['large']))
    add().CopyFrom(helper.make_node('ReduceLogSumExp', ['large'], ['sum'], axes=[1]))
    add().CopyFrom(helper.make_node('Sub', ['large', 'sum'], ['logits']))


@pytest.mark.parametrize(
    'change', [keep_places, compare_heads, end_in_a_cast, read_the_batch, normalize_hundreds]
)
def test_every_cpu_backend_gives_the_same_results_or_refuses(tmp_path, change):
    model = onnx.load_from_string(classifier())
    change(model)
    wrapped = adopt(model.SerializeToString(), describe(), 'x.onnx', NO_FACES).model
    path = str(tmp_path / 'ours.onnx')
    save_model(wrapped, ModelInfo(describe().expressions, describe().size), Path(path))
    faces = np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    expected = open_backend('onnxruntime', path).infer(faces)
    for name in ('openvino', 'opencv'):
        if name == 'opencv' and change in (read_the_batch, normalize_hundreds):
            reason = 'the operator Shape' if change is read_the_batch else 'OpenCV|finite numbers'
            with pytest.raises(ModelError, match=reason):
                open_backend(name, path)
        else:
            found = open_backend(name, path).infer(faces)
            close = 0.02 * np.abs(expected).max() if uses_bf16(name) else 1e-3
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=close, err_msg=name)


def test_an_operator_that_opset_17_lacks_is_refused_in_one_line():
    model = onnx.load_from_string(classifier(opset=20, ir_version=9))
    model.graph.node.append(helper.make_node('Gelu', ['logits'], ['gelu']))
    model.graph.output[0].name = 'gelu'
    with pytest.raises(ModelError, match='cannot be converted to opset 17 .*export .*dynamo=False'):
        adopt(model.SerializeToString(), describe(), 'x.onnx', NO_FACES)


def test_one_of_several_outputs_may_be_named():
    model = onnx.load_from_string(classifier())
    add_output(model)
    model.graph.node[-1].op_type = 'Neg'  # the other output gives other results
    faces = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    found = []
    for output in ('logits', 'second'):
        adopted = adopt(model.SerializeToString(), describe(output=output), 'x', faces)
        wrapped = adopted.model.SerializeToString()
        found.append(probabilities(wrapped, faces, describe().expressions))
    happy, neutral = (list(labels.CANONICAL).index(name) for name in ('happy', 'neutral'))
    ratios = [np.log(p[:, happy] / p[:, neutral]) for p in found]
    np.testing.assert_allclose(ratios[0], -ratios[1], atol=1e-3)


def test_constants_in_nodes_and_casts_to_half_precision_are_converted():
    """Exporters write shapes as nodes, here with a fixed batch."""
    model = onnx.load_from_string(classifier(batch=1, reshape=(1, 3), half=True))
    shape = model.graph.initializer.pop(1)
    model.graph.node.insert(0, helper.make_node('Constant', [], ['shape'], value=shape))
    model.graph.node.insert(1, helper.make_node('Cast', ['faces'], ['x'], to=TensorProto.FLOAT16))
    model.graph.node[2].input[0] = 'x'
    faces = np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    adopted = adopt(model.SerializeToString(), describe(), 'x', faces)
    assert adopted.difference < 1e-3
    types = {t.data_type for t in adopted.model.graph.initializer}
    assert TensorProto.FLOAT16 not in types


@pytest.mark.parametrize('content', [b'', b'no model', classifier()[:200]])
def test_a_file_that_is_no_model_is_refused(content):
    with pytest.raises(ModelError, match=r'x.onnx') as error:
        adopt(content, describe(), 'x.onnx', NO_FACES)
    assert '\n' not in str(error.value)


def test_an_output_without_a_batch_is_passed_over():
    """Such as the loss of a training, which is one number."""
    model = onnx.load_from_string(classifier())
    model.graph.node.append(helper.make_node('ReduceMean', ['logits'], ['loss'], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info('loss', TensorProto.FLOAT, []))
    assert adopt(model.SerializeToString(), describe(), 'x', NO_FACES).difference < 1e-4


def test_a_reduction_as_pytorch_exports_it_is_converted():
    """Since opset 18 it has an attribute that opset 17 lacks, even if it has axes."""
    model = onnx.load_from_string(classifier(opset=18, ir_version=8))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), 'axes'))
    mean = helper.make_node('ReduceMean', ['features', 'axes'], ['pooled'], noop_with_empty_axes=0)
    model.graph.node[1].CopyFrom(mean)
    assert adopt(model.SerializeToString(), describe(), 'x', NO_FACES).difference < 1e-4


def test_a_reduction_that_reduces_nothing_stays_so():
    model = onnx.load_from_string(classifier())
    model.graph.node[-1].output[0] = 'rows'
    model.graph.node.append(
        helper.make_node('ReduceSum', ['rows'], ['logits'], noop_with_empty_axes=1)
    )
    assert adopt(model.SerializeToString(), describe(), 'x', NO_FACES).difference < 1e-4


def test_a_fixed_batch_is_freed_where_a_reshape_takes_zero_for_a_size():
    """As PyTorch exports it: then 0 does not stand for the size of the input."""
    model = onnx.load_from_string(classifier(batch=1, reshape=(1, 3), opset=18, ir_version=8))
    model.graph.node[-1].attribute.append(helper.make_attribute('allowzero', 1))
    assert adopt(model.SerializeToString(), describe(), 'x', NO_FACES).difference < 1e-4


def test_an_output_without_its_batch_of_one_is_understood():
    model = onnx.load_from_string(classifier(batch=1))
    model.graph.node[-1].output[0] = 'rows'
    model.graph.node.append(helper.make_node('Squeeze', ['rows'], ['logits']))
    del model.graph.output[0].type.tensor_type.shape.dim[0]
    assert adopt(model.SerializeToString(), describe(), 'x', NO_FACES).difference < 1e-4


def test_an_output_with_one_number_per_face_of_a_batch_is_passed_over():
    model = onnx.load_from_string(classifier(batch=3, reshape=(3, 3)))
    model.graph.node.append(helper.make_node('ArgMax', ['logits'], ['best'], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info('best', TensorProto.INT64, [3]))
    assert adopt(model.SerializeToString(), describe(), 'x', NO_FACES).difference < 1e-4


def test_probabilities_of_an_int8_classifier_need_not_sum_to_one():
    model = onnx.load_from_string(classifier(softmax=True))
    model.graph.node[-1].output[0] = 'shares'
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1.005), 'rounding'))
    model.graph.node.append(helper.make_node('Mul', ['shares', 'rounding'], ['logits']))
    content = model.SerializeToString()
    described = describe(outputs='probabilities')
    assert adopt(content, described, 'x', NO_FACES).difference < 1e-4
    with pytest.raises(ModelError, match='probabilities already'):
        adopt(content, describe(), 'x', NO_FACES)


def test_an_error_of_onnx_runtime_is_not_printed_as_well(capfd):
    model = onnx.load_from_string(classifier())
    reshape_wrongly(model)
    with pytest.raises(ModelError, match='cannot be run'):
        adopt(model.SerializeToString(), describe(), 'x', NO_FACES)
    assert capfd.readouterr().err == ''


def test_a_batch_that_is_part_of_the_graph_is_refused():
    """The weights have the batch in their shape, so no other batch is possible."""
    model = onnx.load_from_string(classifier(batch=1))
    model.graph.initializer.append(
        numpy_helper.from_array(np.ones((1, 3, SIZE, SIZE), np.float32), 'mask')
    )
    model.graph.node.insert(0, helper.make_node('Concat', ['faces', 'mask'], ['both'], axis=0))
    model.graph.node[1].input[0] = 'both'
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([1, 6]), 'shape'))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info('logits', TensorProto.FLOAT, [1, 6])
    )
    descriptor = describe(labels=[*NAMES, None, None, None])
    with pytest.raises(ModelError, match='batch of 1 is part of the graph; export it again'):
        adopt(model.SerializeToString(), descriptor, 'x.onnx', NO_FACES)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'labels': ['happy', 'bored', 'sad']}, "labels: unknown label 'bored'"),
        ({'labels': ['happy', 'joy', 'sad']}, 'labels: two outputs are happy'),
        ({'labels': [None, None]}, 'labels: no output is an expression'),
        ({'mean': [127.5]}, 'mean must be from 0 to 1, .* divide a mean for pixels in 0 .. 255'),
        ({'std': [0.1, 0.2]}, 'std: must be one number, or three'),
        ({'color': 'red'}, "color: must be 'rgb', 'bgr' or 'gray', found 'red'"),
        ({'colour': 'rgb'}, "unknown key 'colour'; did you mean 'color'"),
        ({'source': None}, 'source: must be a valid string'),
        ({'crop_scale': 40.0}, 'crop_scale: must be less than'),
    ],
)
def test_an_invalid_descriptor_is_refused_in_one_line(tmp_path, changes, words):
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump({**DESCRIPTION, **changes}))
    with pytest.raises(ModelError, match=words) as error:
        read_descriptor(path)
    assert str(error.value).startswith(str(path))
    assert '\n' not in str(error.value)


def test_a_descriptor_without_a_needed_key_is_refused(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('input_size: 224\n')
    with pytest.raises(ModelError, match='labels is missing'):
        read_descriptor(path)
    with pytest.raises(ModelError, match='nobody: give a YAML file, or one of hsemo'):
        find_descriptor('nobody')


@pytest.mark.parametrize('name', ['hsemotion_b0', 'hsemotion_b2', 'opencv_zoo'])
def test_descriptors_of_the_package_are_valid(name):
    descriptor = read_descriptor(find_descriptor(name))
    assert set(descriptor.expressions) >= set(labels.AFFECTNET7)


def write(folder: Path, content: bytes, **changes: object) -> tuple[Path, Path]:
    (folder / 'theirs.onnx').write_bytes(content)
    (folder / 'mine.yaml').write_text(yaml.safe_dump({**DESCRIPTION, **changes}))
    return folder / 'theirs.onnx', folder / 'mine.yaml'


def test_an_adopted_classifier_is_a_model_of_this_package(run, tmp_path):
    model, descriptor = write(tmp_path, classifier(batch=1, reshape=(1, 3)), crop_scale=1.2)
    for label, color in COLORS_BGR.items():
        for number in range(2):
            write_image(tmp_path / 'faces' / label / f'{number}.png', color)
    output = tmp_path / 'new' / 'ours.onnx'
    result = run('adopt', model, descriptor, '-o', output, '--faces', tmp_path / 'faces')
    assert result.exit_code == 0, result.stderr
    assert 'accuracy 100.00%, balanced 100.00%, 6 faces' in result.stdout
    assert 'Warning' not in result.stderr
    info = ModelInfo.from_onnx(output.read_bytes(), str(output))
    assert info.labels == ('happy', 'neutral', 'sad')
    assert (info.crop_scale, info.input_size) == (1.2, (SIZE, SIZE))
    assert info.source == 'made by a test'
    result = run(
        'evaluate', tmp_path / 'faces', output, '--json', '--out', tmp_path, '--backend', 'openvino'
    )
    assert result.exit_code == 0, result.stderr
    assert '"accuracy": 1.0' in result.stdout


def test_the_original_is_not_replaced(run, tmp_path):
    model, descriptor = write(tmp_path, classifier())
    original = model.read_bytes()
    (tmp_path / 'link.onnx').symlink_to(model)
    for output in (model, tmp_path / 'link.onnx'):
        result = run('adopt', model, descriptor, '-o', output)
        assert result.exit_code == 2
        assert f'it would replace {model}' in result.stderr
    assert model.read_bytes() == original


def test_without_faces_one_portrait_is_tried(run, tmp_path, monkeypatch):
    """Its colors are those of skin, so this classifier says happy; it would say sad of BGR."""
    model, descriptor = write(tmp_path, classifier())
    words = ('adopt', model, descriptor, '-o', tmp_path / 'ours.onnx')
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    assert 'a smiling face (scikit-image, astronaut): happy' in result.stdout
    assert 'not checked on labeled faces' in result.stdout
    monkeypatch.setitem(sys.modules, 'skimage.data', None)
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    assert 'astronaut' not in result.stdout
    assert 'not checked on labeled faces' in result.stdout


def test_labels_in_a_wrong_order_are_suspected(run, tmp_path):
    model, descriptor = write(tmp_path, classifier(), labels=[*NAMES[1:], NAMES[0]])
    for label, color in COLORS_BGR.items():
        write_image(tmp_path / 'faces' / label / 'a.png', color)
    output = tmp_path / 'ours.onnx'
    result = run('adopt', model, descriptor, '-o', output, '--faces', tmp_path / 'faces')
    assert result.exit_code == 0, result.stderr
    assert 'near chance' in result.stderr
    assert 'another order: neutral is given mostly to happy faces; happy' in result.stderr
    assert 'happy is given mostly to sad faces; sad is given mostly to neutral' in result.stderr
    result = run('adopt', tmp_path / 'none.onnx', descriptor, '-o', output)
    assert (result.exit_code, result.stderr.count('\n')) == (1, 1)


def test_good_scores_need_no_explanation():
    classes = np.arange(40) % 4
    rows = np.eye(4)[np.where(np.arange(40) < 10, 0, classes)]
    assert explain_scores(measure(rows, classes, labels.CANONICAL[:4])) == []
