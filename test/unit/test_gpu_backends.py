# SPDX-License-Identifier: Apache-2.0
"""GPU backends: how one is chosen, what is allocated and freed, how errors are reported.

Memory and CUDA graphs are tested on a stand-in, whose calls the real CUDA runtime must accept. The
tests at the end need a GPU.
"""

import gc
import os
import subprocess
import sys
import threading
import weakref
from contextlib import ExitStack

import numpy as np
import pytest
from gpu_stand_in import DEVICE, METHODS, Engine, Gpu, RtxEngine, expected_logits, tensorrt_module

from dan_ros.backends import (
    GPU_BACKENDS,
    REGISTRY,
    BackendConfig,
    choose_backend,
    cuda,
    open_backend,
)
from dan_ros.backends import onnxruntime as ort
from dan_ros.backends.tensorrt import backend as tensorrt_backend
from dan_ros.backends.tensorrt import engine_cache
from dan_ros.backends.tensorrt.backend import GRAPH_BATCHES, MAX_BATCH, TensorRTBackend
from dan_ros.errors import BackendError, GpuLostError, GpuMemoryError
from dan_ros.model import store

AUTOMATIC = [name for name in GPU_BACKENDS if not REGISTRY[name].only_by_name]
HAS_GPU = cuda.find_device() is not None
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason='no CUDA device')
without_gpu = pytest.mark.skipif(HAS_GPU, reason='there is a CUDA device')


def some_faces(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 96, 96, 3), np.uint8)


# --- the choice ---------------------------------------------------------------------------------


@without_gpu
@pytest.mark.parametrize('name', GPU_BACKENDS)
def test_a_missing_gpu_is_an_error(name):
    with pytest.raises(BackendError, match='no CUDA device'):
        open_backend(name)


@without_gpu
@pytest.mark.parametrize('name', GPU_BACKENDS)
def test_with_fallback_a_missing_gpu_is_a_warning(name):
    choice = choose_backend(name, config=BackendConfig(fallback=True))
    assert choice.backend.name == 'onnxruntime'
    assert 'runs on the CPU' in choice.warning
    assert name in choice.reason
    assert choice.backend.infer(some_faces(2)).shape == (2, 8)


@without_gpu
def test_auto_without_a_gpu_takes_the_fastest_on_a_cpu_without_warning():
    choice = choose_backend()
    assert (choice.backend.name, choice.backend.model_name) == ('onnxruntime', 'dan_ferplus_int8')
    assert 'no CUDA device' in choice.reason
    assert choice.warning == ''


def test_a_gpu_that_no_backend_can_use_is_a_warning(monkeypatch, tmp_path):
    """The libraries of the GPU do not match."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    device = cuda.Device('Made-up GPU', '9.9', '1 CUDA 99.0')
    monkeypatch.setattr(cuda, 'find_device', lambda: device)
    choice = choose_backend()
    if choice.backend.name in AUTOMATIC:
        pytest.skip('there is a CUDA device')
    assert choice.backend.device == 'cpu'
    assert 'Made-up GPU is not used' in choice.warning
    for name in AUTOMATIC:
        assert f'{name}: ' in choice.warning


# --- errors -------------------------------------------------------------------------------------


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


# --- batches ------------------------------------------------------------------------------------


def test_onnxruntime_pads_on_a_gpu_so_that_few_sizes_are_new(monkeypatch):
    """In this test, the session runs on the CPU."""
    backend, faces = open_backend('onnxruntime', 'dan_ferplus'), some_faces(20)
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


# --- what is allocated and freed ----------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A stand-in GPU for `open_on_stand_in`, which opens the real backend."""
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


def test_every_number_of_faces_is_answered(gpu):
    backend = open_on_stand_in()
    for count in (1, 3, 8, 9, 64, 70, 2, 5, 1, 10, 0):
        faces = some_faces(count)
        np.testing.assert_allclose(backend.infer(faces), expected_logits(faces))


def test_an_engine_that_does_not_load_is_an_error(gpu, monkeypatch):
    take_engines(monkeypatch, lambda plan: None)
    with pytest.raises(BackendError, match='cannot load the engine'):
        open_on_stand_in()
    assert gpu.held == {}


def test_compiled_kernels_are_stored_if_possible(gpu, monkeypatch, tmp_path):
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


def test_everything_is_freed_as_soon_as_nobody_refers_to_the_backend(gpu):
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


def test_after_the_warm_up_neither_batch_sizes_nor_threads_allocate(gpu):
    """The node starts a new inference thread at each activation and each resume."""
    backend = open_on_stand_in()
    backend.warm_up()
    made = gpu.count('cudaStreamBeginCapture'), set(gpu.held)
    assert made[0] == len(GRAPH_BATCHES)
    answers = []
    for count in range(1, MAX_BATCH + 1):
        faces = some_faces(count)
        thread = threading.Thread(target=lambda faces=faces: answers.append(backend.infer(faces)))
        thread.start()
        thread.join()
        np.testing.assert_allclose(answers.pop(), expected_logits(faces))
    assert (gpu.count('cudaStreamBeginCapture'), set(gpu.held)) == made


@pytest.mark.parametrize('allocations', range(4))
def test_a_backend_that_runs_out_of_memory_while_loading_frees_everything(gpu, allocations):
    gpu.allocations_left = allocations
    with pytest.raises(GpuMemoryError) as caught:
        open_on_stand_in()
    assert gpu.held == {}  # freed even while the error object is referenced
    assert 'out of memory' in str(caught.value)
    gpu.allocations_left = None
    assert open_on_stand_in().infer(some_faces(1)).shape == (1, 8)


@pytest.mark.parametrize('allocations', range(9))
def test_running_out_of_memory_in_the_warm_up_leaves_smaller_batches(gpu, allocations):
    backend = open_on_stand_in()
    held = set(gpu.held)
    gpu.allocations_left = allocations  # one context and one graph per batch size
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


def test_a_lost_gpu_is_reported_once_and_freeing_is_silent(gpu, monkeypatch):
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


def test_pending_work_ends_before_its_memory_is_freed(gpu):
    backend = open_on_stand_in()
    for count in (1, 9):
        gpu.refuses_engines = True  # fails after the copy of the faces is enqueued
        with pytest.raises(BackendError, match='cannot run the engine'):
            backend.infer(some_faces(count))
        gpu.refuses_engines = False
        faces = some_faces(count)
        np.testing.assert_allclose(backend.infer(faces), expected_logits(faces))
    gpu.refuses_engines = True
    with pytest.raises(BackendError):
        backend.infer(some_faces(9))
    del backend
    assert gpu.held == {}


def test_an_error_in_a_capture_is_not_hidden_by_the_one_of_ending_it(gpu):
    def fail():
        raise BackendError('the first error')

    for gpu.spoils_captures in (False, True):
        with ExitStack() as taken:
            stream = cuda.Stream(taken)
            with pytest.raises(BackendError, match='the first error'):
                stream.record(taken, fail)
            assert len(gpu.held) == 1  # the stream
    assert gpu.held == {}


def test_a_graph_that_does_not_fit_is_freed(gpu):
    with ExitStack() as taken:
        stream = cuda.Stream(taken)
        gpu.allocations_left = 0
        with pytest.raises(GpuMemoryError):
            stream.record(taken, lambda: None)
        assert len(gpu.held) == 1
    assert gpu.held == {}


def test_nothing_is_freed_at_the_end_of_the_process():
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
def test_the_real_cuda_runtime_accepts_the_same_calls(gpu):
    """Without a driver, the runtime checks the arguments and then returns an error."""
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


# --- on a GPU -----------------------------------------------------------------------------------


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@needs_gpu
@pytest.mark.parametrize('name', GPU_BACKENDS)
@pytest.mark.parametrize('batch', [0, 1, 3, 8, 9, 70])
def test_gpu_backends_agree_with_the_cpu(name, batch):
    try:
        backend = open_backend(name, 'dan_ferplus')
    except BackendError as error:
        pytest.skip(f'{name} cannot be used: {error}')
    faces = some_faces(batch)
    expected = open_backend('torch', 'dan_ferplus').infer(faces)
    assert backend.device.startswith('cuda')
    np.testing.assert_allclose(softmax(backend.infer(faces)), softmax(expected), atol=0.02)


SLACK_BYTES = 8 << 20  # other processes may allocate meanwhile


def free_bytes() -> int:
    code, free, _ = cuda.runtime().cudaMemGetInfo()
    return int(cuda.check((code, free)))


@needs_gpu
def test_tensorrt_frees_its_memory_and_new_threads_allocate_nothing():
    """The driver reports the memory. Libraries keep some of it, so the first backend is ignored."""
    try:
        backend = open_backend('tensorrt', 'dan_ferplus')
    except BackendError as error:
        pytest.skip(f'tensorrt cannot be used: {error}')
    backend.warm_up()
    del backend
    before = free_bytes()
    for _ in range(3):
        backend = open_backend('tensorrt', 'dan_ferplus')
        backend.warm_up()
        warm = free_bytes()
        for count in (1, 3, 8, 20):
            thread = threading.Thread(target=backend.infer, args=(some_faces(count),))
            thread.start()
            thread.join()
        assert warm - free_bytes() < SLACK_BYTES
        del backend
    assert before - free_bytes() < SLACK_BYTES
