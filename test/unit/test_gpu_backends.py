"""GPU backends: real engines built here, the cache with its races and damage, what is taken from a
GPU and given back, and what is said where there is none. What needs a GPU to run is skipped without
one; who owns what is tried on a stand-in, whose calls the real CUDA runtime must take."""

import gc
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
import time
import weakref
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from gpu_stand_in import DEVICE, METHODS, Engine, Gpu, RtxEngine, expected_logits, tensorrt_module
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dan_ros.backends import GPU_BACKENDS, REGISTRY, choose_backend, cuda, open_backend
from dan_ros.backends import onnxruntime as ort
from dan_ros.backends.batching import GROW_AFTER, Batcher, pad
from dan_ros.backends.tensorrt import backend as tensorrt_backend
from dan_ros.backends.tensorrt import engine_builder, engine_cache, onnx_transforms
from dan_ros.backends.tensorrt.backend import (
    GRAPH_BATCHES,
    MAX_BATCH,
    TensorRTBackend,
    prepare_engine,
)
from dan_ros.backends.tensorrt.engine_cache import EngineCache, EngineKey
from dan_ros.errors import BackendError, GpuLostError, GpuMemoryError, ModelError
from dan_ros.model import store

AUTOMATIC_ON_GPU = [name for name in GPU_BACKENDS if REGISTRY[name].is_automatic]
HAS_GPU = cuda.find_device() is not None
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason='no CUDA device')
without_gpu = pytest.mark.skipif(HAS_GPU, reason='there is a CUDA device')
KEY = EngineKey('ab' * 32, 'tensorrt 10.3.0', 'Orin', '8.7', '540.4', 'fp16', 64)


@pytest.fixture(scope='module')
def trt():
    return pytest.importorskip('tensorrt_rtx')


@pytest.fixture(scope='module')
def floats():
    return store.read_model('dan_ferplus').content


@pytest.fixture(scope='module')
def quantised():
    return store.read_model('dan_ferplus_int8').content


@pytest.fixture(scope='module')
def faces():
    """Blobs that look different to the network: uint8 [24, 96, 96, 3]."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (24, 6, 6, 1))
    return np.repeat(np.kron(coarse, np.ones((1, 16, 16, 1))), 3, axis=3).astype(np.uint8)


def run(content: bytes, faces: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    return session.run(None, {'faces': faces})[0]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# Graphs


@pytest.mark.parametrize('weights', ['fp16', 'fp32'])
def test_the_fp16_graph_gives_the_same_answers(tmp_path, floats, faces, weights):
    content = floats
    if weights == 'fp32':
        from dan_ros.network.export import export_onnx, read_fused

        export_onnx(*read_fused(floats, 'x'), tmp_path / 'fp32.onnx')
        content = (tmp_path / 'fp32.onnx').read_bytes()
    found = run(onnx_transforms.to_fp16(content), faces)
    np.testing.assert_allclose(softmax(found), softmax(run(content, faces)), atol=0.01)


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
    """What torch_cuda runs in fp16, here on the CPU."""
    import torch

    from dan_ros.network.export import read_fused

    network, _ = read_fused(floats, 'x')
    network.halve()
    assert network.classifier.weight.dtype == network.colour.weight.dtype == torch.float32
    assert network.spatial.weight.dtype == network.stem.weight.dtype == torch.float16
    network = network.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = network(torch.from_numpy(faces)).numpy()
    np.testing.assert_allclose(softmax(found), softmax(run(floats, faces)), atol=0.02)


def test_the_symmetric_int8_graph_stays_near_its_twin(quantised, faces):
    content = onnx_transforms.to_symmetric_int8(quantised)
    difference = np.abs(softmax(run(content, faces)) - softmax(run(quantised, faces)))
    assert np.median(difference.max(axis=1)) < 0.05


def test_the_symmetric_int8_graph_is_what_tensorrt_takes(quantised):
    model = onnx.load_from_string(onnx_transforms.to_symmetric_int8(quantised))
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in ('QuantizeLinear', 'DequantizeLinear')]
    assert len(pairs) > 50
    for node in pairs:
        zero = arrays[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    assert not [array for array in arrays.values() if array.dtype in (np.uint8, np.int32)]


def test_a_form_that_a_model_lacks_is_refused(floats, quantised):
    with pytest.raises(ModelError, match='float weights'):
        onnx_transforms.to_fp16(quantised)
    with pytest.raises(ModelError, match='dan-ros export'):
        onnx_transforms.to_symmetric_int8(floats)
    with pytest.raises(ModelError, match='precision int8 can not be built'):
        engine_builder.choose_precision('int8', floats)
    assert engine_builder.choose_precision('auto', floats) == 'fp16'
    assert engine_builder.choose_precision('auto', quantised) == 'int8'


def operators(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


def with_log_softmax(content: bytes) -> bytes:
    """A model as older versions of this package wrote it."""
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


def test_a_log_softmax_is_written_out_and_changes_nothing(floats, quantised, faces):
    for new in (floats, quantised):
        old = with_log_softmax(new)
        assert 'LogSoftmax' in operators(old)
        content = onnx_transforms.expand_log_softmax(old)
        assert 'LogSoftmax' not in operators(content)
        np.testing.assert_allclose(run(content, faces), run(old, faces), atol=1e-5)
        assert 'LogSoftmax' not in operators(new)
        np.testing.assert_allclose(run(new, faces), run(old, faces), atol=1e-5)


@pytest.mark.parametrize('opset', [13, 17, 18, 21])
@pytest.mark.parametrize('options', [{}, {'axis': 0}])
def test_a_log_softmax_is_written_out_at_any_opset(opset, options):
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
    found = run(onnx_transforms.expand_log_softmax(content), x)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, run(content, x), rtol=1e-6)


@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'int8'])
def test_tensorrt_takes_the_logarithm_of_no_softmax(trt, floats, quantised, precision):
    """Which its parser makes of a log-softmax; of the heads it would be minus infinity."""
    old = with_log_softmax(quantised if precision == 'int8' else floats)
    network = engine_builder.parse(trt, old, precision).definition
    kinds = [network.get_layer(index).type for index in range(network.num_layers)]
    assert trt.LayerType.SOFTMAX not in kinds
    assert trt.LayerType.REDUCE in kinds


# Engines


@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'int8'])
def test_networks_have_the_input_output_and_types_they_should(trt, floats, quantised, precision):
    network = engine_builder.parse(
        trt, quantised if precision == 'int8' else floats, precision
    ).definition
    assert (network.num_inputs, network.num_outputs) == (1, 1)
    taken, given = network.get_input(0), network.get_output(0)
    assert (taken.name, tuple(taken.shape), taken.dtype) == ('faces', (-1, 96, 96, 3), trt.uint8)
    assert (given.name, tuple(given.shape), given.dtype) == ('logits', (-1, 8), trt.float32)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    convolutions = [x for x in layers if x.type == trt.LayerType.CONVOLUTION]
    expected = {'fp32': trt.float32, 'fp16': trt.float16, 'int8': trt.float32}[precision]
    assert {x.get_output(0).dtype for x in convolutions[1:]} == {expected}
    quantising = [x for x in layers if x.type == trt.LayerType.QUANTIZE]
    assert (len(quantising) > 25) == (precision == 'int8')


def test_engines_build_and_differ_in_size_by_precision(trt, floats, quantised):
    sizes = {}
    for precision in ('fp32', 'fp16', 'int8'):
        content = quantised if precision == 'int8' else floats
        plan, timings = engine_builder.build(trt, content, precision, max_batch=8)
        sizes[precision] = len(plan)
        assert timings == b''  # TensorRT for RTX has none
    assert sizes['int8'] < 0.7 * sizes['fp16'] < 0.5 * sizes['fp32']


def test_the_profile_runs_from_one_face_to_the_most(trt, floats):
    network = engine_builder.parse(trt, floats, 'fp32')
    profile = engine_builder._profile(trt, network, 16)
    found = [tuple(shape) for shape in profile.get_shape('faces')]
    assert found == [(batch, 96, 96, 3) for batch in (1, 4, 16)]


def test_a_model_with_a_fixed_batch_is_refused(trt, tmp_path, floats):
    from dan_ros.network.export import export_onnx, read_fused

    export_onnx(*read_fused(floats, 'x'), tmp_path / 'one.onnx', batch=1)
    with pytest.raises(ModelError, match='free batch'):
        engine_builder.parse(trt, (tmp_path / 'one.onnx').read_bytes(), 'fp32')


def test_a_long_build_says_that_it_goes_on(trt, floats, monkeypatch):
    monkeypatch.setattr(engine_builder, 'TELL_S', 0.02)
    said = []
    engine_builder.build(trt, floats, 'fp16', 8, on_progress=said.append)
    assert said
    assert all('building the engine' in text for text in said)


def test_a_node_that_tensorrt_can_not_read_is_named(trt, floats):
    model = onnx.load_from_string(floats)
    relu = next(node for node in model.graph.node if node.op_type == 'Relu')
    relu.op_type, relu.domain, relu.name = 'Frobnicate', 'somewhere', 'odd_one'
    model.opset_import.append(onnx.helper.make_opsetid('somewhere', 1))
    with pytest.raises(BackendError, match='odd_one'):
        engine_builder.parse(trt, model.SerializeToString(), 'fp32')


# What differs between versions, from NVIDIA's documentation: flags of a network, and how fp16 and
# int8 come about.
VERSIONS = {
    '8.6': ({'EXPLICIT_BATCH': 0}, 0b1, False),
    '10.3': ({'EXPLICIT_BATCH': 0, 'STRONGLY_TYPED': 1}, 0b11, True),
    '11.0': ({'STRONGLY_TYPED': 1}, 0b10, True),
}


def stand_in(version: str) -> SimpleNamespace:
    """A module with the names that a version of TensorRT has."""
    flags = SimpleNamespace(**VERSIONS[version][0])
    return SimpleNamespace(
        __name__='tensorrt', __version__=version, NetworkDefinitionCreationFlag=flags
    )


@pytest.mark.parametrize('version', VERSIONS)
def test_each_version_is_asked_for_what_it_has(version, floats):
    _, flags, is_strongly_typed = VERSIONS[version]
    module = stand_in(version)
    assert engine_builder._network_flags(module) == flags
    assert engine_builder._is_strongly_typed(module) == is_strongly_typed
    form = engine_builder._convert(module, floats, 'fp16')
    plain = onnx_transforms.expand_log_softmax(floats)
    assert (form == plain) == (not is_strongly_typed)
    assert engine_builder.runtime_of(module) == f'tensorrt {version}'
    assert not engine_builder.is_rtx(module)


def test_8_6_holds_the_tail_in_fp32_and_gets_its_flags(trt, floats):
    """On a real network, with a recorder in place of 8.6's configuration."""
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


# The cache


def test_an_engine_is_built_once(tmp_path):
    built, said = [], []
    cache = EngineCache(tmp_path / 'engines')

    def build() -> bytes:
        built.append(1)
        return b'plan'

    for _ in range(3):
        assert cache.read_or_build(KEY, 'dan', build, on_progress=said.append) == b'plan'
    assert len(built) == 1
    assert said[-1].endswith('taken from the cache')
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize('field', list(KEY.__dataclass_fields__))
def test_every_field_of_the_key_tells_engines_apart(tmp_path, field):
    cache = EngineCache(tmp_path)
    other = replace(KEY, **{field: 7 if field == 'max_batch' else 'other'})
    assert cache.read_or_build(KEY, 'dan', lambda: b'one') == b'one'
    assert cache.read_or_build(other, 'dan', lambda: b'two') == b'two'
    assert cache.read_or_build(KEY, 'dan', lambda: b'three') == b'one'


DAMAGE = {
    'truncated': lambda content: content[:-1],
    'flipped': lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    'empty': lambda content: b'',
    'of something else': lambda content: b'an engine of another program',
    'header gone': lambda content: content[40:],
    'for another machine': lambda content: content.replace(b'"8.7"', b'"9.0"'),
}


@pytest.mark.parametrize('kind', DAMAGE)
def test_a_damaged_or_foreign_engine_is_set_aside_and_built_again(tmp_path, kind):
    cache, said = EngineCache(tmp_path), []
    cache.read_or_build(KEY, 'dan', lambda: b'good plan')
    path = cache.path_of(KEY, 'dan')
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    assert cache.read_or_build(KEY, 'dan', lambda: b'new plan', on_progress=said.append) == b'new plan'
    assert 'set aside' in said[0]
    assert path.with_suffix('.unusable').exists()
    assert cache.read_or_build(KEY, 'dan', lambda: b'newer') == b'new plan'


def test_an_engine_that_does_not_load_is_built_again(tmp_path):
    cache = EngineCache(tmp_path)
    cache.read_or_build(KEY, 'dan', lambda: b'old')
    assert cache.read_or_build(KEY, 'dan', lambda: b'new', lambda plan: plan == b'new') == b'new'


def test_an_engine_that_others_can_write_is_not_run(tmp_path):
    cache = EngineCache(tmp_path)
    cache.read_or_build(KEY, 'dan', lambda: b'mine')
    cache.path_of(KEY, 'dan').chmod(0o666)
    assert cache.read_or_build(KEY, 'dan', lambda: b'new') == b'new'


def test_an_engine_that_can_not_be_kept_is_said_and_used(tmp_path, monkeypatch):
    def refuse(path, write):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(engine_cache, 'atomic_write', refuse)
    cache, said = EngineCache(tmp_path), []
    with pytest.raises(BackendError, match='No space left.*make room'):
        cache.read_or_build(KEY, 'dan', lambda: b'plan')
    plan = cache.read_or_build(KEY, 'dan', lambda: b'plan', on_progress=said.append, must_store=False)
    assert plan == b'plan'
    assert 'built again' in said[-1]


def test_an_open_folder_is_closed(tmp_path):
    (tmp_path / 'engines').mkdir(mode=0o777)
    EngineCache(tmp_path / 'engines')
    assert stat.S_IMODE((tmp_path / 'engines').stat().st_mode) == 0o700


def _build_slowly(folder, log) -> None:
    def build() -> bytes:
        with log.open('a') as file:
            file.write('built\n')
        time.sleep(0.5)
        return b'plan' * 1000

    assert EngineCache(folder).read_or_build(KEY, 'dan', build) == b'plan' * 1000


def test_two_that_start_at_once_build_once(tmp_path):
    context = multiprocessing.get_context('spawn')
    processes = [
        context.Process(target=_build_slowly, args=(tmp_path / 'engines', tmp_path / 'log'))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / 'log').read_text() == 'built\n'


def test_a_killed_build_leaves_nothing_that_is_taken_for_an_engine(tmp_path):
    context = multiprocessing.get_context('spawn')
    process = context.Process(target=_build_slowly, args=(tmp_path / 'engines', tmp_path / 'log'))
    process.start()
    while not (tmp_path / 'log').exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert EngineCache(tmp_path / 'engines').entries() == []
    _build_slowly(tmp_path / 'engines', tmp_path / 'log')


def test_a_real_engine_is_kept(trt, tmp_path):
    cache, said = EngineCache(tmp_path), []
    file = store.read_model('dan_ferplus_int8')
    plan = prepare_engine(trt, cache, file, max_batch=4, on_progress=said.append)
    assert prepare_engine(trt, cache, file, max_batch=4, on_progress=said.append) == plan
    (entry,) = cache.entries()
    assert entry.key.model_sha256 == file.sha256
    assert entry.key.runtime == f'tensorrt_rtx {trt.__version__}'
    assert (entry.key.precision, entry.key.max_batch) == ('int8', 4)
    assert 'taken from the cache' in said[-1]


# The command


def engine(tmp_path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-m', 'dan_ros.cli.main', 'engine', *arguments],
        env={**os.environ, 'XDG_CACHE_HOME': str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_builds_lists_and_cleans(trt, tmp_path):
    for expected in ('may take', 'taken from the cache'):
        done = engine(tmp_path, 'build', '--precision', 'int8', '--runtime', 'tensorrt_rtx')
        assert done.returncode == 0, done.stderr
        assert expected in ' '.join(done.stderr.split())
    (found,) = json.loads(engine(tmp_path, 'list', '--json').stdout)['engines']
    assert found['built_for']['precision'] == 'int8'
    assert 'dan_ferplus_int8' in engine(tmp_path, 'list').stdout
    assert '0 engines deleted' in engine(tmp_path, 'clean').stdout
    path = tmp_path / 'dan_ros' / 'engines' / found['file']
    path.write_bytes(b'broken')
    assert '1 engines deleted' in engine(tmp_path, 'clean').stdout
    assert not path.exists()
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph([], 'empty', [], []),
        opset_imports=[onnx.helper.make_opsetid('', 17)],
    )
    onnx.save(foreign, tmp_path / 'foreign.onnx')
    (tmp_path / 'noise.onnx').write_bytes(b'hello' * 100)
    for model in ('no_such_model', str(tmp_path / 'foreign.onnx'), str(tmp_path / 'noise.onnx')):
        wrong = engine(tmp_path, 'build', model)
        assert wrong.returncode == 1
        assert 'Traceback' not in wrong.stderr
        assert wrong.stderr.startswith('Error: ')


# The choice


@without_gpu
@pytest.mark.parametrize('name', GPU_BACKENDS)
def test_a_gpu_that_is_not_there_is_an_error(name):
    with pytest.raises(BackendError, match='no CUDA device'):
        open_backend(name)


@without_gpu
@pytest.mark.parametrize('name', GPU_BACKENDS)
def test_with_fallback_it_is_a_warning(name, faces):
    choice = choose_backend(name, fallback=True)
    assert choice.backend.name == 'onnxruntime'
    assert 'runs on the CPU' in choice.warning
    assert name in choice.reason
    assert choice.backend.infer(faces).shape == (24, 8)


@without_gpu
def test_auto_without_a_gpu_is_the_fastest_on_a_cpu_and_no_warning():
    choice = choose_backend()
    assert (choice.backend.name, choice.backend.model_name) == ('onnxruntime', 'dan_ferplus_int8')
    assert 'no CUDA device' in choice.reason
    assert choice.warning == ''


def test_a_gpu_that_nothing_can_use_is_a_warning(monkeypatch, tmp_path):
    """As on a machine with a GPU whose libraries do not fit."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    device = cuda.Device('Made-up GPU', '9.9', '1 CUDA 99.0')
    monkeypatch.setattr(cuda, 'find_device', lambda: device)
    choice = choose_backend()
    if choice.backend.name in AUTOMATIC_ON_GPU:
        pytest.skip('there is a CUDA device')
    assert choice.backend.device == 'cpu'
    assert 'Made-up GPU is not used' in choice.warning
    for name in AUTOMATIC_ON_GPU:
        assert f'{name}: ' in choice.warning


# Errors


@pytest.mark.parametrize(
    ('text', 'kind'),
    [
        ('CUDA out of memory. Tried to allocate 2.00 MiB', GpuMemoryError),
        ('CUDA error: an illegal memory access was encountered', GpuLostError),
        ('CUDA failure 700: an illegal memory access', GpuLostError),
        ('shape mismatch', RuntimeError),
    ],
)
def test_errors_of_gpu_libraries_are_told_apart(text, kind):
    assert type(cuda.translate_error(RuntimeError(text))) is kind


def test_codes_of_the_cuda_runtime_are_told_apart():
    assert cuda.check((0, 5)) == 5
    assert cuda.check((0,)) is None
    for code, kind in ((2, GpuMemoryError), (700, GpuLostError), (1, BackendError)):
        with pytest.raises(BackendError) as caught:
            cuda.check((code,))
        assert type(caught.value) is kind


# Batcher


def answers(faces: np.ndarray) -> np.ndarray:
    """float32 [N, 8], the first number of each face."""
    return np.tile(faces[:, 0, 0, :1].astype(np.float32), (1, 8))


def numbered(count: int) -> np.ndarray:
    """Tiny faces, uint8 [N, 1, 1, 3], that can be told apart."""
    return np.tile(np.arange(count, dtype=np.uint8)[:, None, None, None], (1, 1, 1, 3))


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost():
    sizes = []

    def run_at_most_three(faces):
        sizes.append(len(faces))
        if len(faces) > 3:
            raise GpuMemoryError('too many')
        return answers(faces)

    batches = Batcher(8, 16)
    found = batches.infer(run_at_most_three, numbered(20))
    assert found[:, 0].tolist() == list(range(20))
    assert sizes[:4] == [16, 8, 4, 2]
    assert (batches.limit, batches.max_batch) == (2, 16)
    assert batches.infer(run_at_most_three, numbered(0)).shape == (0, 8)


def test_a_single_face_that_does_not_fit_is_an_error():
    def refuse(faces):
        raise GpuMemoryError('full')

    with pytest.raises(GpuMemoryError):
        Batcher(8, 4).infer(refuse, numbered(2))


class MemoryThatComesAndGoes(RuleBasedStateMachine):
    """A GPU whose memory another process takes and gives back, under sets of any number."""

    @initialize(most=strategies.integers(1, 12))
    def start(self, most):
        self.batches = Batcher(8, most)
        self.room = most
        self.fitted, self.refused = 0, 0

    def run(self, faces):
        assert 1 <= len(faces) <= self.batches.limit
        if len(faces) > self.room:
            self.refused += 1
            raise GpuMemoryError('too many')
        self.fitted += 1
        return answers(faces)

    @rule(room=strategies.integers(0, 12))
    def memory_changes(self, room):
        self.room = room

    @rule(count=strategies.integers(0, 255))
    def faces_come(self, count):
        before = self.fitted, self.refused
        if self.room == 0 and count > 0:
            with pytest.raises(GpuMemoryError):
                self.batches.infer(self.run, numbered(count))
            return
        found = self.batches.infer(self.run, numbered(count))
        assert found[:, 0].tolist() == list(range(count))
        fitted, refused = self.fitted - before[0], self.refused - before[1]
        assert fitted <= count
        halvings = self.batches.max_batch.bit_length()
        assert refused <= halvings + fitted // GROW_AFTER + 1

    @rule()
    def memory_is_back(self):
        self.room = most = self.batches.max_batch
        faces = numbered(GROW_AFTER * 2)
        for _ in range(most):  # GROW_AFTER parts of 1, 2, 4 ... faces
            self.batches.infer(self.run, faces)
        assert self.batches.limit == most

    @invariant()
    def it_stays_in_its_bounds(self):
        if hasattr(self, 'batches'):
            assert 1 <= self.batches.limit <= self.batches.max_batch


MemoryThatComesAndGoes.TestCase.settings = settings(max_examples=50, stateful_step_count=20)
test_batches_go_on_shrink_and_recover = MemoryThatComesAndGoes.TestCase


def test_threads_wait_for_each_other():
    inside, seen = [], []

    def run(faces):
        inside.append(1)
        seen.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return answers(faces)

    batches = Batcher(8, 2)
    threads = [threading.Thread(target=batches.infer, args=(run, numbered(4))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 8


@pytest.mark.parametrize('count', [1, 2, 3, 4])
def test_padding_keeps_the_faces(count):
    faces = numbered(count)
    padded = pad(faces, (1, 2, 4))
    assert len(padded) == {1: 1, 2: 2, 3: 4, 4: 4}[count]
    np.testing.assert_array_equal(padded[:count], faces)
    assert not padded[count:].any()


def test_onnxruntime_pads_on_a_gpu_so_that_few_sizes_are_new(monkeypatch, faces):
    """Its session is on the CPU here."""
    backend = open_backend('onnxruntime', 'dan_ferplus')
    expected, real, sizes = backend.infer(faces), ort.run_session, []

    def run_and_note(session, outputs, inputs):
        sizes.append(len(inputs['faces']))
        return real(session, outputs, inputs)

    monkeypatch.setattr(ort, 'run_session', run_and_note)
    backend._batches = ort.GPU_BATCHES
    np.testing.assert_allclose(backend.infer(faces), expected, atol=1e-3)
    np.testing.assert_allclose(backend.infer(faces[:3]), expected[:3], atol=1e-3)
    assert sizes == [32, 4]
    assert sorted(ort.GPU_WARM_UP_BATCHES) == [*ort.GPU_BATCHES]


# What is taken from a GPU


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A stand-in, on which `open_on_stand_in` opens the real backend."""
    gpu = Gpu()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(cuda, 'runtime', lambda: gpu)
    monkeypatch.setattr(cuda, 'find_device', lambda: DEVICE)
    take_engines(monkeypatch, lambda plan: Engine(gpu))
    monkeypatch.setattr(
        tensorrt_backend, 'prepare_engine', lambda *parts, is_usable, **options: is_usable(b'plan')
    )
    yield gpu
    assert gpu.misuses == []


def take_engines(monkeypatch, load) -> None:
    monkeypatch.setattr(tensorrt_backend, 'import_tensorrt', lambda: tensorrt_module(load))


def open_on_stand_in() -> TensorRTBackend:
    return TensorRTBackend(store.read_model('dan_ferplus'))


def some_faces(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 96, 96, 3), np.uint8)


def test_every_number_of_faces_is_answered(gpu):
    backend = open_on_stand_in()
    for count in (1, 3, 8, 9, 64, 70, 2, 5, 1, 10, 0):
        faces = some_faces(count)
        np.testing.assert_allclose(backend.infer(faces), expected_logits(faces))


def test_an_engine_that_does_not_load_is_an_error(gpu, monkeypatch):
    take_engines(monkeypatch, lambda plan: None)
    with pytest.raises(BackendError, match='can not load the engine'):
        open_on_stand_in()
    assert gpu.held == {}


def test_kernels_are_kept_where_they_can_be(gpu, monkeypatch, tmp_path):
    engines = []
    take_engines(monkeypatch, lambda plan: engines.append(RtxEngine(gpu)) or engines[-1])
    open_on_stand_in().warm_up()
    open_on_stand_in()
    assert [engine.kernels_read for engine in engines] == [[], [b'kernels']]
    assert len(engines[-1].caches_set) == 1

    def refuse(path, write):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(engine_cache, 'atomic_write', refuse)
    assert open_on_stand_in().infer(some_faces(2)).shape == (2, 8)


def test_all_is_given_back_at_once_when_nobody_holds_the_backend(gpu):
    gc.disable()
    try:
        backend = open_on_stand_in()
        backend.warm_up()
        gone = weakref.ref(backend)
        assert len(gpu.held) > 10
        del backend
        assert gone() is None
    finally:
        gc.enable()
    assert gpu.held == {}


def test_one_thread_after_another_takes_nothing_more(gpu):
    """As the node's inference thread, which each activation and each resume makes anew."""
    backend = open_on_stand_in()
    backend.warm_up()
    held, answered = set(gpu.held), []
    for count in (1, 2, 3, 9, 64):
        faces = some_faces(count)
        thread = threading.Thread(target=lambda faces=faces: answered.append(backend.infer(faces)))
        thread.start()
        thread.join()
        np.testing.assert_allclose(answered.pop(), expected_logits(faces))
    assert set(gpu.held) == held


def test_after_the_warm_up_no_number_of_faces_is_new(gpu):
    backend = open_on_stand_in()
    backend.warm_up()
    made = gpu.count('cudaStreamBeginCapture'), set(gpu.held)
    assert made[0] == len(GRAPH_BATCHES)
    for count in range(1, MAX_BATCH + 1):
        backend.infer(some_faces(count))
    assert (gpu.count('cudaStreamBeginCapture'), set(gpu.held)) == made


@pytest.mark.parametrize('allocations', range(4))
def test_what_was_taken_before_memory_ended_is_given_back(gpu, allocations):
    gpu.allocations_left = allocations
    with pytest.raises(GpuMemoryError) as caught:
        open_on_stand_in()
    assert gpu.held == {}  # also while somebody still holds the error
    assert 'out of memory' in str(caught.value)
    gpu.allocations_left = None
    assert open_on_stand_in().infer(some_faces(1)).shape == (1, 8)


@pytest.mark.parametrize('allocations', range(9))
def test_memory_that_ends_in_the_warm_up_leaves_smaller_batches(gpu, allocations):
    backend = open_on_stand_in()
    held = set(gpu.held)
    gpu.allocations_left = allocations  # a context and a graph for each number of faces
    graphs = allocations // 2
    if graphs == 0:
        with pytest.raises(GpuMemoryError):
            backend.warm_up()
        assert set(gpu.held) == held
    else:
        backend.warm_up()
        assert backend.batcher.limit == GRAPH_BATCHES[graphs - 1]
        faces = some_faces(20)
        np.testing.assert_allclose(backend.infer(faces), expected_logits(faces))
    gpu.allocations_left = None
    backend.infer(some_faces(8))
    del backend
    assert gpu.held == {}


def test_a_lost_gpu_is_said_once_and_freeing_says_nothing(gpu, monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, 'unraisablehook', unraisable.append)
    backend = open_on_stand_in()
    backend.warm_up()
    gpu.is_lost = True
    with pytest.raises(GpuLostError, match='700'):
        backend.infer(some_faces(1))
    before = gpu.count('cudaFree')
    del backend
    assert gpu.count('cudaFree') == before + 2
    assert unraisable == []


def test_work_that_an_error_left_behind_is_waited_for_before_its_memory_goes(gpu):
    backend = open_on_stand_in()
    for count in (1, 9):
        gpu.refuses_engines = True  # the copy of the faces is enqueued by then
        with pytest.raises(BackendError, match='can not run the engine'):
            backend.infer(some_faces(count))
        gpu.refuses_engines = False
        faces = some_faces(count)
        np.testing.assert_allclose(backend.infer(faces), expected_logits(faces))
    gpu.refuses_engines = True
    with pytest.raises(BackendError):
        backend.infer(some_faces(9))
    del backend
    assert gpu.held == {}


def test_the_error_in_a_capture_is_not_hidden_by_that_of_its_end(gpu):
    def fail():
        raise BackendError('the first error')

    for gpu.spoils_captures in (False, True):
        with ExitStack() as taken:
            stream = cuda.Stream(taken)
            with pytest.raises(BackendError, match='the first error'):
                stream.record(taken, fail)
            assert len(gpu.held) == 1  # the stream
    assert gpu.held == {}


def test_a_graph_that_does_not_fit_is_given_back(gpu):
    with ExitStack() as taken:
        stream = cuda.Stream(taken)
        gpu.allocations_left = 0
        with pytest.raises(GpuMemoryError):
            stream.record(taken, lambda: None)
        assert len(gpu.held) == 1
    assert gpu.held == {}


def test_at_the_end_of_the_process_all_is_left_to_the_driver():
    code = (
        'import atexit\n'
        'from gpu_stand_in import Gpu\n'
        'gpu = Gpu()\n'
        'atexit.register(lambda: print(*[name for name, _ in gpu.calls]))  # runs last\n'
        'from contextlib import ExitStack\n'
        'from dan_ros.backends import cuda\n'
        'cuda.runtime = lambda: gpu\n'
        'class Owner:\n'
        '    def __init__(self):\n'
        '        with ExitStack() as taken:\n'
        '            cuda.Buffer(taken, (2, 2), float)\n'
        '            cuda.free_with(self, taken.pop_all())\n'
        'one, other = Owner(), Owner()\n'
        'del one\n'
    )
    folders = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([*folders, *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, '')
    taken = ['cudaMalloc', 'cudaHostAlloc']
    assert done.stdout.split() == [*taken, *taken, 'cudaFreeHost', 'cudaFree']


VALUES_GIVEN = {'allocate', 'create_stream', 'end_capture', 'instantiate'}


@without_gpu
def test_the_real_cuda_runtime_takes_the_same_calls(gpu):
    """Without a driver it looks at the arguments and then refuses."""
    real = pytest.importorskip('cuda.bindings.runtime')
    gpu.cudaMemcpyKind, gpu.cudaStreamCaptureMode = real.cudaMemcpyKind, real.cudaStreamCaptureMode
    gpu.cudaHostAllocDefault = real.cudaHostAllocDefault
    gpu.cudaStreamNonBlocking = real.cudaStreamNonBlocking
    backend = open_on_stand_in()
    backend.warm_up()
    del backend
    assert {name for name, _ in gpu.calls} == set(METHODS)
    refusals = {real.cudaError_t.cudaErrorInsufficientDriver, real.cudaError_t.cudaErrorNoDevice}
    for name, arguments in gpu.calls:
        code, *values = getattr(real, name)(*arguments)
        assert code in refusals, name
        assert len(values) == (METHODS[name] in VALUES_GIVEN), name


# On a GPU


@needs_gpu
@pytest.mark.parametrize('name', GPU_BACKENDS)
@pytest.mark.parametrize('batch', [0, 1, 3, 8, 9, 70])
def test_gpu_backends_agree_with_the_cpu(name, faces, batch):
    try:
        backend = open_backend(name, 'dan_ferplus')
    except BackendError as error:
        pytest.skip(f'{name} is not installed: {error}')
    many = np.concatenate([faces] * 3)[:batch]
    expected = open_backend('torch', 'dan_ferplus').infer(many)
    assert backend.device.startswith('cuda')
    np.testing.assert_allclose(softmax(backend.infer(many)), softmax(expected), atol=0.02)


SLACK_BYTES = 8 << 20  # what others may take meanwhile


def free_bytes() -> int:
    code, free, _ = cuda.runtime().cudaMemGetInfo()
    return int(cuda.check((code, free)))


@needs_gpu
def test_memory_of_tensorrt_comes_back_and_threads_take_no_more(faces):
    """As the driver has it; what libraries keep for the process is there after the first."""
    try:
        backend = open_backend('tensorrt', 'dan_ferplus')
    except BackendError as error:
        pytest.skip(f'tensorrt is not installed: {error}')
    backend.warm_up()
    del backend
    before = free_bytes()
    for _ in range(3):
        backend = open_backend('tensorrt', 'dan_ferplus')
        backend.warm_up()
        warm = free_bytes()
        for count in (1, 3, 8, 20):
            thread = threading.Thread(target=backend.infer, args=(faces[:count],))
            thread.start()
            thread.join()
        assert warm - free_bytes() < SLACK_BYTES
        del backend
    assert before - free_bytes() < SLACK_BYTES
