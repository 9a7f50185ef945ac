# SPDX-License-Identifier: Apache-2.0
"""Backends: all give the same results; refused model files; the registry."""

import gc
import json
import re
import subprocess
import sys
import weakref

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from precision import uses_bf16

from dan_ros.backends import (
    CPU_BACKENDS,
    REGISTRY,
    BackendConfig,
    choose_backend,
    cuda,
    open_backend,
)
from dan_ros.backends import onnxruntime as ort
from dan_ros.backends.base import DEFAULT_CONFIG, smoke_test
from dan_ros.backends.registry import CPU, GPU, BackendEntry
from dan_ros.detect import open_detector
from dan_ros.errors import BackendError, DanError, MissingPackageError, ModelError
from dan_ros.labels import logits_to_probabilities
from dan_ros.model.store import read_model


def test_a_missing_model_is_reported_with_the_known_ones():
    with pytest.raises(ModelError, match=r'no_such\.onnx.*dan_ferplus'):
        open_backend('onnxruntime', 'no_such.onnx')


@pytest.mark.parametrize('backend', CPU_BACKENDS)
def test_invalid_model_files_are_refused_by_name(backend, tmp_path):
    (tmp_path / 'text.onnx').write_text('not ONNX')
    (tmp_path / 'yunet.onnx').write_bytes(read_model('yunet').content)
    (tmp_path / 'half.onnx').write_bytes(read_model('dan_ferplus').content[:100_000])
    for path in tmp_path.iterdir():
        with pytest.raises(ModelError, match=path.name):
            open_backend(backend, str(path))


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(BackendError, match='onnxruntime, torch'):
        open_backend('tpu')


def test_a_backend_whose_library_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'dan_ros.backends.torch', None)
    with pytest.raises(DanError, match='pip install'):
        open_backend('torch')


def test_the_packages_of_a_backend_are_named_if_a_module_is_missing():
    entry = BackendEntry('odd', 'no.such.module:Backend', CPU, 'one two')
    with pytest.raises(BackendError, match="needs the Python module 'no': `pip install one two`"):
        entry.load(read_model('dan_ferplus'), DEFAULT_CONFIG)


@pytest.mark.parametrize(
    ('error', 'kind'),
    [('ImportError', CPU), ('OSError', CPU), ('ImportError', GPU), ('RuntimeError', GPU)],
)
def test_a_backend_whose_library_does_not_load_is_passed_over(tmp_path, monkeypatch, error, kind):
    (tmp_path / 'broken_library.py').write_text(f'raise {error}("x.so:\\n no")')
    monkeypatch.syspath_prepend(tmp_path)
    entry = BackendEntry('odd', 'broken_library:Backend', kind)
    monkeypatch.setattr(cuda, 'find_device', lambda: None)
    table = {'odd': entry, 'onnxruntime': REGISTRY['onnxruntime']}
    monkeypatch.setattr('dan_ros.backends.REGISTRY', table)
    monkeypatch.setattr('dan_ros.backends.registry.REGISTRY', table)
    with pytest.raises(MissingPackageError, match=r"the backend 'odd' does not load: x.so: no$"):
        open_backend('odd')
    choice = choose_backend()
    assert choice.backend.name == 'onnxruntime'
    assert ("'odd' does not load" in choice.reason) == (kind == CPU)


@pytest.fixture(scope='module')
def backends():
    return {name: open_backend(name, 'dan_ferplus') for name in CPU_BACKENDS}


@pytest.mark.parametrize('batch', [0, 1, 5, 33])
def test_backends_agree(backends, batch):
    faces = np.random.RandomState(1).randint(0, 256, (batch, 96, 96, 3), np.uint8)
    expected = backends['torch'].infer(faces)
    assert expected.shape == (batch, 8)
    for name, backend in backends.items():
        tolerance = 0.1 if uses_bf16(name) else 1e-3
        np.testing.assert_allclose(backend.infer(faces), expected, atol=tolerance, err_msg=name)


@pytest.mark.parametrize('name', CPU_BACKENDS)
def test_a_backend_is_freed_as_soon_as_nobody_refers_to_it(name):
    """Without garbage collection; otherwise a node configured again would hold two models."""
    open_backend(name, 'dan_ferplus')  # the first import of torch keeps references to frames
    gc.disable()
    try:
        backend = open_backend(name, 'dan_ferplus')
        backend.infer(np.zeros((2, *backend.model.input_size, 3), np.uint8))
        gone = weakref.ref(backend)
        del backend
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize('name', CPU_BACKENDS)
def test_a_warm_up_changes_neither_answers_nor_the_limit(backends, name):
    backend, faces = backends[name], np.full((3, 96, 96, 3), 99, np.uint8)
    before = backend.infer(faces)
    backend.warm_up()
    np.testing.assert_array_equal(backend.infer(faces), before)
    assert backend.batcher.limit == backend.batcher.max_batch >= 32


@pytest.mark.parametrize('name', CPU_BACKENDS)
def test_a_large_set_runs_in_batches(monkeypatch, name):
    backend, sizes = open_backend(name, 'dan_ferplus'), []
    real = backend._run
    monkeypatch.setattr(backend, '_run', lambda faces: sizes.append(len(faces)) or real(faces))
    max_batch = backend.batcher.max_batch
    faces = np.zeros((max_batch + 1, 96, 96, 3), np.uint8)
    assert backend.infer(faces).shape == (max_batch + 1, 8)
    assert sizes == [max_batch, 1]


@pytest.mark.parametrize('tool', ["ONNX's reference", 'OpenCV'])
def test_other_tools_run_the_file_as_well(backends, portrait, tool):
    """For this face, the logits of the attention heads differ by thousands."""
    from onnx.reference import ReferenceEvaluator

    path = str(read_model('dan_ferplus').path)
    face = cv2.resize(portrait[63:176, 166:279, ::-1], (96, 96))[None]
    if tool == 'OpenCV':
        if tuple(int(part) for part in cv2.__version__.split('.')[:2]) < (4, 8):
            pytest.skip(f'OpenCV {cv2.__version__} reads fewer operators')
        network = cv2.dnn.readNetFromONNX(path)
        network.setInput(face)
        logits = network.forward('logits')
    else:
        (logits,) = ReferenceEvaluator(path).run(['logits'], {'faces': face})
    np.testing.assert_allclose(logits, backends['torch'].infer(face), atol=1e-3)


def test_auto_reports_its_choice():
    backend = open_backend()
    assert (backend.name, backend.device) == ('onnxruntime', 'cpu')
    assert backend.model_name == 'dan_ferplus_int8'
    assert open_backend('torch').model_name == 'dan_ferplus'
    assert open_backend('openvino').model_name == 'dan_ferplus_int8'
    with pytest.raises(BackendError, match=r'set backend\.precision to auto'):
        choose_backend('torch', config=BackendConfig(precision='int8'))


def test_the_int8_twin_has_the_same_metadata(backends):
    assert open_backend('onnxruntime', 'dan_ferplus_int8').model == backends['torch'].model


@pytest.mark.parametrize('name', [n for n in CPU_BACKENDS if REGISTRY[n].prefers_int8])
def test_the_int8_twin_agrees_on_a_face(backends, portrait, name):
    face = cv2.resize(portrait[63:176, 166:279, ::-1], (96, 96))[None]
    one = logits_to_probabilities(backends['torch'].infer(face), backends['torch'].model.labels)
    twin = open_backend(name, 'dan_ferplus_int8')
    two = logits_to_probabilities(twin.infer(face), twin.model.labels)
    np.testing.assert_allclose(one, two, atol=0.05)


def set_fixed_batch(model):
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 4


def add_scalar_output(model):
    model.graph.node.append(onnx.helper.make_node('Constant', [], ['scale'], value_float=1.0))
    scale = onnx.helper.make_tensor_value_info('scale', onnx.TensorProto.FLOAT, [])
    model.graph.output.append(scale)


@pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize(
    'change',
    [
        lambda model: (
            set_property(model, 'dan_ros.labels', 'happy,sad'),
            set_property(model, 'dan_ros.prior', '-0.7,-0.7'),
            set_property(model, 'dan_ros.prior_strength', '0.3'),
        ),
        lambda model: set_property(model, 'dan_ros.input_size', '64x64'),
        lambda model: rename_output(model, 'scores'),
        set_fixed_batch,
        add_scalar_output,
    ],
)
def test_a_graph_that_contradicts_its_metadata_is_refused(tmp_path, change, name):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    change(model)
    onnx.save(model, tmp_path / 'odd.onnx')
    with pytest.raises(ModelError, match=r'odd\.onnx: its metadata says'):
        open_backend(name, str(tmp_path / 'odd.onnx'))


@pytest.mark.parametrize('name', CPU_BACKENDS)
def test_faces_in_any_memory_order_are_taken_and_others_refused(backends, name):
    bgr = np.random.default_rng(0).integers(0, 255, (2, 96, 96, 3), np.uint8)
    view, copy = bgr[..., ::-1], np.ascontiguousarray(bgr[..., ::-1])
    np.testing.assert_array_equal(backends[name].infer(view), backends[name].infer(copy))
    for faces in (bgr.astype(np.float32), bgr[:, :64], bgr[0], bgr[..., :1]):
        with pytest.raises(BackendError, match=r'dan_ferplus takes uint8 \[N, 96, 96, 3\]'):
            backends[name].infer(faces)


@pytest.mark.parametrize('name', CPU_BACKENDS)
def test_a_model_with_unusable_answers_is_refused(tmp_path, name):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    (bias,) = (t for t in model.graph.initializer if t.name == 'classifier.bias')
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(8, np.nan, np.float32), bias.name))
    onnx.save(model, tmp_path / 'odd.onnx')
    with pytest.raises(ModelError, match=r'odd\.onnx gives (.*nan){8}.*expected 8 finite numbers'):
        smoke_test(open_backend(name, str(tmp_path / 'odd.onnx')))
    smoke_test(open_backend(name))


def test_a_model_that_does_not_run_is_refused(tmp_path):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    (last,) = (node for node in model.graph.node if 'logits' in node.output)
    last.output[0] = 'raw'
    indices = onnx.numpy_helper.from_array(np.arange(92, 100), 'out_of_range')
    model.graph.initializer.append(indices)
    gather = onnx.helper.make_node('Gather', ['raw', 'out_of_range'], ['logits'], axis=1)
    model.graph.node.append(gather)
    onnx.save(model, tmp_path / 'odd.onnx')
    with pytest.raises(ModelError, match=r'odd\.onnx does not run: .*Gather'):
        open_backend('onnxruntime', str(tmp_path / 'odd.onnx'))


def test_metadata_that_is_no_text_is_refused(tmp_path):
    content = read_model('dan_ferplus').content
    assert b'Apache-2.0' in content
    (tmp_path / 'odd.onnx').write_bytes(content.replace(b'Apache-2.0', b'\xff\xfe\xfdche-2.0'))
    with pytest.raises(ModelError, match=r'odd\.onnx is damaged: its metadata is not text'):
        open_backend('onnxruntime', str(tmp_path / 'odd.onnx'))


def test_metadata_that_is_incomplete_is_named_with_its_file(tmp_path):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    kept = [entry for entry in model.metadata_props if entry.key != 'dan_ros.crop']
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / 'odd.onnx')
    with pytest.raises(ModelError, match=r'odd\.onnx .* its metadata has no dan_ros\.crop\. Make'):
        open_backend('onnxruntime', str(tmp_path / 'odd.onnx'))


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('input_size', '60000x60000', 'outside 32 .. 2048'),
        ('input_size', '31x96', 'outside 32 .. 2048'),
        ('input_size', '-96x96', 'outside 32 .. 2048'),
        ('input_size', '9' * 4000 + 'x96', 'outside 32 .. 2048'),
        ('input_size', '9' * 5000 + 'x96', 'cannot be read'),
        ('input_size', '96', 'cannot be read'),
        ('labels', 'a,b,c', 'unknown label'),
        ('labels', 'x' * 5000, 'unknown label'),
        ('labels', 'happy,happy', 'is repeated'),
        ('crop', 'square nan', 'crop scale nan'),
        ('crop', 'round ' + '1' * 5000, 'crop rule'),
        ('crop', 'square ' + 'x' * 5000, 'cannot be read'),
    ],
)
def test_metadata_that_is_wrong_is_named_with_its_file_in_a_few_words(
    tmp_path, key, value, message
):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    set_property(model, f'dan_ros.{key}', value)
    set_property(model, 'dan_ros.source', 'long' * 1000)
    onnx.save(model, tmp_path / 'odd.onnx')
    with pytest.raises(ModelError, match=r'odd\.onnx: its metadata') as error:
        open_backend('onnxruntime', str(tmp_path / 'odd.onnx'))
    assert re.search(message, str(error.value))
    assert len(str(error.value)) < 800


def set_property(model, key: str, value: str) -> None:
    next(entry for entry in model.metadata_props if entry.key == key).value = value


def rename_output(model, name: str) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = name


ONLY_OPENCV = """
import sys
sys.modules.update(dict.fromkeys(('openvino', 'torch')))
sys.path.insert(0, 'broken')
from dan_ros.cli.main import main
main()
"""


def test_without_onnx_runtime_opencv_finds_and_classifies_faces(portrait, tmp_path):
    """ONNX Runtime does not load. Besides YuNet's file, the distribution's packages are enough."""
    cv2.imwrite(str(tmp_path / 'face.png'), portrait)
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'onnxruntime.py').write_text('raise ImportError("no executable stack")')
    result = subprocess.run(
        [sys.executable, '-c', ONLY_OPENCV, 'predict', '--json', 'face.png'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'slower: ONNX Runtime does not load: no executable stack' in result.stderr
    (face,) = json.loads(result.stdout)['faces']
    assert face['label'] == 'happy'
    expected = open_detector('yunet').detect(portrait)[0]
    np.testing.assert_allclose(face['box_xyxy'], expected.box_xyxy, atol=2)
    np.testing.assert_allclose(face['landmarks'], expected.landmarks, atol=2)


def test_an_old_opencv_is_told(monkeypatch):
    monkeypatch.setattr('dan_ros.backends.opencv.version', lambda: (4, 6))
    with pytest.raises(MissingPackageError, match=r'needs OpenCV 4\.10 or newer'):
        open_backend('opencv')
    monkeypatch.setattr('dan_ros.detect.yunet_opencv.version', lambda: (4, 6))
    monkeypatch.setitem(sys.modules, 'dan_ros.backends.onnxruntime', None)
    with pytest.raises(MissingPackageError, match=r'OpenCV 4\.9 or newer; ONNX Runtime does not'):
        open_detector('yunet')


@pytest.mark.parametrize('device', [ort.CUDA, ort.TENSORRT])
def test_onnx_runtime_without_gpu_support_never_runs_on_the_cpu_instead(monkeypatch, device):
    content, provider = read_model('dan_ferplus').content, ort.PROVIDERS[device]
    monkeypatch.setattr(cuda, 'require_device', lambda: None)
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CPUExecutionProvider'])
    with pytest.raises(BackendError, match=f'has no {provider}: `pip uninstall onnxruntime`'):
        ort.open_session(content, device=device)
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: [provider])
    cpu = ort.open_session(content)
    monkeypatch.setattr(onnxruntime, 'InferenceSession', lambda *_, **options: cpu)
    with pytest.raises(BackendError, match=f'fell back from {provider} to CPUExecutionProvider'):
        ort.open_session(content, device=device)

    def fail(*_, **options):
        raise RuntimeError('no cuDNN')

    monkeypatch.setattr(onnxruntime, 'InferenceSession', fail)
    with pytest.raises(BackendError, match=f'cannot start {provider}: no cuDNN'):
        ort.open_session(content, device=device)


@pytest.mark.parametrize('count', [0, 1, 2, 5])
def test_a_batch_may_be_split_into_parallel_runs(count):
    faces = np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), np.uint8)
    split = choose_backend('onnxruntime', config=BackendConfig(1, parallel_runs=2)).backend.infer(
        faces
    )
    whole = open_backend('onnxruntime', threads=1).infer(faces)
    np.testing.assert_allclose(split, whole, atol=1e-5)
