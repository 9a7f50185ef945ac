# SPDX-License-Identifier: Apache-2.0
"""Graph conversion for TensorRT, checked on ONNX Runtime; engines built by TensorRT for RTX."""

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime import quantization

from dan_ros.backends.tensorrt import engine_builder, onnx_transforms
from dan_ros.errors import BackendError, ModelError
from dan_ros.model import store


@pytest.fixture(scope='module')
def trt():
    return pytest.importorskip('tensorrt_rtx')


@pytest.fixture(scope='module')
def floats():
    return store.read_model('dan_ferplus').content


@pytest.fixture(scope='module')
def quantized():
    return store.read_model('dan_ferplus_int8').content


@pytest.fixture(scope='module')
def faces():
    """Random blobs, uint8 [8, 96, 96, 3], that the network tells apart."""
    coarse = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1))
    return np.repeat(np.kron(coarse, np.ones((1, 16, 16, 1))), 3, axis=3).astype(np.uint8)


def infer(content: bytes, faces: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    return session.run(None, {'faces': faces})[0]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# --- graphs -------------------------------------------------------------------------------------


@pytest.mark.parametrize('weights', ['fp16', 'fp32'])
def test_the_fp16_graph_gives_the_same_answers(tmp_path, floats, faces, weights):
    content = floats
    if weights == 'fp32':
        from dan_ros.network.export import export_onnx, read_fused

        export_onnx(*read_fused(floats, 'x'), tmp_path / 'fp32.onnx')
        content = (tmp_path / 'fp32.onnx').read_bytes()
    found = infer(onnx_transforms.to_fp16(content), faces)
    np.testing.assert_allclose(softmax(found), softmax(infer(content, faces)), atol=0.01)


def test_the_fp16_graph_is_fp16_from_the_first_convolution_to_the_last(floats):
    model = onnx.shape_inference.infer_shapes(
        onnx.load_from_string(onnx_transforms.to_fp16(floats)), strict_mode=True
    )
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    convolutions = [node for node in model.graph.node if node.op_type == 'Conv']
    found = [types[node.output[0]] for node in convolutions]
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert found == [single] + [half] * (len(found) - 1)
    sums = [types[n.output[0]] for n in model.graph.node if n.op_type in ('ReduceSum', 'MatMul')]
    assert set(sums) == {single}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert model.graph.output[0].type.tensor_type.elem_type == single


def test_the_halved_torch_network_gives_the_same_answers(floats, faces):
    """The network of torch_cuda in fp16, here on the CPU."""
    import torch

    from dan_ros.network.export import read_fused

    network, _ = read_fused(floats, 'x')
    network.halve()
    assert network.classifier.weight.dtype == network.colour.weight.dtype == torch.float32
    assert network.spatial.weight.dtype == network.stem.weight.dtype == torch.float16
    network = network.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = network(torch.from_numpy(faces)).numpy()
    np.testing.assert_allclose(softmax(found), softmax(infer(floats, faces)), atol=0.02)


def test_the_symmetric_int8_graph_stays_near_its_twin(quantized, faces):
    content = onnx_transforms.to_symmetric_int8(quantized)
    difference = np.abs(softmax(infer(content, faces)) - softmax(infer(quantized, faces)))
    assert np.median(difference.max(axis=1)) < 0.05


def test_the_symmetric_int8_graph_is_what_tensorrt_takes(quantized):
    model = onnx.load_from_string(onnx_transforms.to_symmetric_int8(quantized))
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in ('QuantizeLinear', 'DequantizeLinear')]
    assert len(pairs) > 50
    for node in pairs:
        zero = arrays[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    assert not [array for array in arrays.values() if array.dtype in (np.uint8, np.int32)]


def classifier(size: int = 32) -> onnx.ModelProto:
    """A classifier of another project: uint8 [N, size, size, 3] -> [N, 8]."""
    rng = np.random.default_rng(0)
    weights = {
        'kernel': rng.normal(0, 0.1, (8, 3, 3, 3)),
        'matrix': rng.normal(0, 4, (8, 8)),
    }
    make = onnx.helper.make_node
    nodes = [
        make('Cast', ['faces'], ['pixels'], to=onnx.TensorProto.FLOAT),
        make('Transpose', ['pixels'], ['x'], perm=[0, 3, 1, 2]),
        make('Conv', ['x', 'kernel'], ['y']),
        make('Tanh', ['y'], ['signed']),
        make('GlobalAveragePool', ['signed'], ['pooled']),
        make('Flatten', ['pooled'], ['flat']),
        make('MatMul', ['flat', 'matrix'], ['logits']),
    ]
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        'other',
        [tensor('faces', onnx.TensorProto.UINT8, ['N', size, size, 3])],
        [tensor('logits', onnx.TensorProto.FLOAT, ['N', 8])],
        [onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    imports = [onnx.helper.make_opsetid('', 17)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize('kind', ['QInt8', 'QUInt8'])
@pytest.mark.parametrize('per_channel', [True, False])
def test_the_symmetric_form_of_classifiers_that_onnx_runtime_quantized(
    tmp_path, faces, kind, per_channel
):
    small = faces[:, ::3, ::3].copy()
    batches = iter([{'faces': small}])
    reader = SimpleNamespace(get_next=lambda: next(batches, None))
    quantization.CalibrationDataReader.register(type(reader))
    path = tmp_path / 'int8.onnx'
    quantization.quantize_static(
        classifier(),
        path,
        reader,
        per_channel=per_channel,
        activation_type=quantization.QuantType[kind],
    )
    expected = infer(path.read_bytes(), small)
    found = infer(onnx_transforms.to_symmetric_int8(path.read_bytes()), small)
    np.testing.assert_allclose(softmax(found), softmax(expected), atol=0.05)


def test_an_impossible_conversion_is_refused(floats, quantized):
    with pytest.raises(ModelError, match='float weights'):
        onnx_transforms.to_fp16(quantized)
    with pytest.raises(ModelError, match='dan-ros export'):
        onnx_transforms.to_symmetric_int8(floats)
    with pytest.raises(ModelError, match='cannot build precision int8'):
        engine_builder.choose_precision('int8', floats)
    assert engine_builder.choose_precision('auto', floats) == 'fp16'
    assert engine_builder.choose_precision('auto', quantized) == 'int8'


def operators(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


def with_log_softmax(content: bytes) -> bytes:
    """The model as older versions of this package exported it."""
    model = onnx.load_from_string(content)
    nodes = list(model.graph.node)
    largest = next(place for place, node in enumerate(nodes) if node.op_type == 'ReduceMax')
    kinds = [node.op_type for node in nodes[largest : largest + 4]]
    assert kinds == ['ReduceMax', 'Sub', 'ReduceLogSumExp', 'Sub']
    source, target = nodes[largest].input[0], nodes[largest + 3].output[0]
    old = onnx.helper.make_node('LogSoftmax', [source], [target], 'old', axis=0)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:largest], old, *nodes[largest + 4 :]])
    return model.SerializeToString()


@pytest.mark.parametrize('opset', [13, 17, 18, 21])
@pytest.mark.parametrize('options', [{}, {'axis': 0}])
def test_the_log_softmax_is_expanded_at_any_opset(opset, options):
    numbers = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node('LogSoftmax', ['faces'], ['y'], **options)],
        'one',
        [onnx.helper.make_tensor_value_info('faces', numbers, [2, 3])],
        [onnx.helper.make_tensor_value_info('y', numbers, [2, 3])],
    )
    imports = [onnx.helper.make_opsetid('', opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    content = model.SerializeToString()
    x = np.float32([[0, 1, 2777], [-3000, 5, 1e4]])
    found = infer(onnx_transforms.expand_log_softmax(content), x)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, infer(content, x), rtol=1e-6)


@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'int8'])
def test_tensorrt_never_takes_the_logarithm_of_a_softmax(trt, floats, quantized, precision):
    """The parser does this for LogSoftmax; the result for the heads would be -inf."""
    old = with_log_softmax(quantized if precision == 'int8' else floats)
    network = engine_builder.parse(trt, old, precision).definition
    kinds = [network.get_layer(index).type for index in range(network.num_layers)]
    assert trt.LayerType.SOFTMAX not in kinds
    assert trt.LayerType.REDUCE in kinds


# --- engines ------------------------------------------------------------------------------------


@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'int8'])
def test_networks_have_the_promised_inputs_outputs_and_types(trt, floats, quantized, precision):
    network = engine_builder.parse(
        trt, quantized if precision == 'int8' else floats, precision
    ).definition
    assert (network.num_inputs, network.num_outputs) == (1, 1)
    taken, given = network.get_input(0), network.get_output(0)
    assert (taken.name, tuple(taken.shape), taken.dtype) == ('faces', (-1, 96, 96, 3), trt.uint8)
    assert (given.name, tuple(given.shape), given.dtype) == ('logits', (-1, 8), trt.float32)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    convolutions = [x for x in layers if x.type == trt.LayerType.CONVOLUTION]
    expected = {'fp32': trt.float32, 'fp16': trt.float16, 'int8': trt.float32}[precision]
    assert {x.get_output(0).dtype for x in convolutions[1:]} == {expected}
    quantizing = [x for x in layers if x.type == trt.LayerType.QUANTIZE]
    assert (len(quantizing) > 25) == (precision == 'int8')


def test_the_profile_ranges_from_one_face_to_the_largest_batch(trt, floats):
    network = engine_builder.parse(trt, floats, 'fp32')
    profile = engine_builder._profile(trt, network, 16)
    found = [tuple(shape) for shape in profile.get_shape('faces')]
    assert found == [(batch, 96, 96, 3) for batch in (1, 4, 16)]


def test_a_model_with_a_fixed_batch_is_refused(trt, tmp_path, floats):
    from dan_ros.network.export import export_onnx, read_fused

    export_onnx(*read_fused(floats, 'x'), tmp_path / 'one.onnx', batch=1)
    with pytest.raises(ModelError, match='dynamic batch'):
        engine_builder.parse(trt, (tmp_path / 'one.onnx').read_bytes(), 'fp32')


def test_a_node_that_tensorrt_cannot_read_is_named(trt, floats):
    model = onnx.load_from_string(floats)
    relu = next(node for node in model.graph.node if node.op_type == 'Relu')
    relu.op_type, relu.domain, relu.name = 'Frobnicate', 'somewhere', 'odd_one'
    model.opset_import.append(onnx.helper.make_opsetid('somewhere', 1))
    with pytest.raises(BackendError, match='odd_one'):
        engine_builder.parse(trt, model.SerializeToString(), 'fp32')


# From NVIDIA's documentation: network flags of a version, their bits, whether it is strongly typed.
VERSIONS = {
    '8.6': ({'EXPLICIT_BATCH': 0}, 0b1, False),
    '10.3': ({'EXPLICIT_BATCH': 0, 'STRONGLY_TYPED': 1}, 0b11, True),
    '11.0': ({'STRONGLY_TYPED': 1}, 0b10, True),
}


def stand_in(version: str) -> SimpleNamespace:
    """A module with the names of a TensorRT version."""
    flags = SimpleNamespace(**VERSIONS[version][0])
    return SimpleNamespace(
        __name__='tensorrt', __version__=version, NetworkDefinitionCreationFlag=flags
    )


@pytest.mark.parametrize('version', VERSIONS)
def test_each_version_gets_the_flags_it_has(version, floats):
    _, flags, is_strongly_typed = VERSIONS[version]
    module = stand_in(version)
    assert engine_builder._network_flags(module) == flags
    assert engine_builder._is_strongly_typed(module) == is_strongly_typed
    form = engine_builder._convert(module, floats, 'fp16')
    plain = onnx_transforms.expand_log_softmax(floats)
    assert (form == plain) == (not is_strongly_typed)
    assert engine_builder.runtime_of(module) == f'tensorrt {version}'
    assert not engine_builder.is_rtx(module)


def test_8_6_keeps_the_tail_in_fp32_and_gets_its_flags(trt, floats):
    """Uses a real network and records the calls to the configuration."""
    network = engine_builder.parse(trt, floats, 'fp32').definition
    real = [network.get_layer(index) for index in range(network.num_layers)]
    layers = [
        SimpleNamespace(type=x.type, num_outputs=x.num_outputs, get_output=x.get_output)
        for x in real
    ]
    kept = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    names = SimpleNamespace(FP16='FP16', INT8='INT8', OBEY_PRECISION_CONSTRAINTS='OBEY')
    module = SimpleNamespace(BuilderFlag=names, LayerType=trt.LayerType, DataType=trt.DataType)
    for precision, expected in (('fp16', ['FP16', 'OBEY']), ('int8', ['INT8']), ('fp32', [])):
        flags = []
        engine_builder._allow_precision(
            module, SimpleNamespace(set_flag=flags.append), kept, precision
        )
        assert flags == expected
    first = next(i for i, x in enumerate(real) if x.type == trt.LayerType.REDUCE)
    held = [hasattr(x, 'precision') for x in layers]
    assert not any(held[:first])
    assert held[first]
    convolutions = [i for i, x in enumerate(real) if x.type == trt.LayerType.CONVOLUTION]
    assert max(convolutions) < first


# --- the command --------------------------------------------------------------------------------


def test_the_command_refuses_what_is_no_model(trt, run, tmp_path):
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph([], 'empty', [], []),
        opset_imports=[onnx.helper.make_opsetid('', 17)],
    )
    onnx.save(foreign, tmp_path / 'foreign.onnx')
    (tmp_path / 'noise.onnx').write_bytes(b'hello' * 100)
    for model in ('no_such_model', tmp_path / 'foreign.onnx', tmp_path / 'noise.onnx'):
        wrong = run('engine', 'build', model)
        assert wrong.exit_code == 1
        assert wrong.stderr.startswith('Error: ')
