"""Inference backends, one a file. Each needs the ONNX file alone; their libraries load lazily."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dan_ros.backends import cuda
from dan_ros.backends.base import smoke_test
from dan_ros.backends.batching import Batcher
from dan_ros.errors import BackendError, ModelError
from dan_ros.model import store
from dan_ros.model.metadata import ModelInfo

# In the order in which `auto` tries them.
GPU_BACKENDS = ('tensorrt', 'torch_cuda', 'onnxruntime_cuda', 'onnxruntime_tensorrt')
AUTO_GPU_BACKENDS = GPU_BACKENDS[:3]
CPU_BACKENDS = ('onnxruntime', 'torch', 'openvino')
BACKENDS = ('auto', *GPU_BACKENDS, *CPU_BACKENDS)
BEST_CPU_BACKEND = 'onnxruntime'
INT8_BACKENDS = ('onnxruntime', 'openvino')  # that run the int8 twin fastest
PRECISIONS = ('auto', 'fp32', 'fp16', 'int8')
INSTALL = {  # package to install for a module that is missing
    'cuda': 'cuda-python',
    'torch': 'torch',
    'onnxruntime': 'onnxruntime',
    'onnx': 'onnx',
    'openvino': 'openvino',
}

Say = Callable[[str], object]


class Backend(Protocol):
    """Runs the network on faces.

    Attributes:
        name: one of `BACKENDS`, what is really in use.
        device: where it really runs, such as 'cpu'.
        model: what the model file says of itself.
        model_name: the known name or path of the model that is really in use.
        batches: how many faces it runs at once: now `batches.largest`, at best `batches.most`.

    It may be called from several threads, which wait for each other, and gives back what it took
    from a GPU when nobody holds it any more.
    """

    name: str
    device: str
    model: ModelInfo
    model_name: str
    batches: Batcher

    def warm_up(self) -> None:
        """Do now what the first images would wait for: once, before the first of them.

        On a GPU that is to record a graph, or to look for the fastest algorithms, for every number
        of faces that images may bring.

        Raises:
            GpuMemoryError: there is no memory for a single face.
            GpuLostError: the GPU can't be used any more by this process.
        """
        ...

    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3] RGB; N may be 0.

        Raises:
            GpuMemoryError: there is no memory for a single face.
            GpuLostError: the GPU can't be used any more by this process.
        """
        ...


@dataclass(frozen=True)
class Selection:
    """A backend that was opened, and how it was chosen.

    Attributes:
        backend: in use.
        why: it and not another, a sentence.
        warning: '' if the choice is the one that was wished for.
    """

    backend: Backend
    why: str
    warning: str = ''


def open_backend(name: str = 'auto', model: str = store.DEFAULT_MODEL, threads: int = 0) -> Backend:
    """Load a model into a backend that gives usable answers.

    See `choose_backend` for arguments and errors, and `smoke_test` for what is refused.
    """
    backend = choose_backend(name, model, threads).backend
    smoke_test(backend)
    return backend


def choose_backend(
    name: str = 'auto',
    model: str = store.DEFAULT_MODEL,
    threads: int = 0,
    precision: str = 'auto',
    fallback: bool = False,
    say: Say = lambda text: None,
) -> Selection:
    """Load a model into a backend.

    Args:
        name: one of `BACKENDS`; 'auto' takes the first that really works of TensorRT, torch and
            ONNX Runtime on a GPU, and the fastest on the CPU.
        model: a known model's name, the path of an ONNX file, or 'auto': the bundled model, as
            int8 where that runs fastest.
        threads: CPU threads; 0 leaves the choice to the backend.
        precision: one of `PRECISIONS`, on a GPU; 'auto' is fp16, or int8 for an int8 model.
        fallback: where a GPU was asked for and can't be used, go on with the CPU and a warning.
        say: told what is done where it takes long.

    Raises:
        BackendError: the name is unknown, or it can't be used here.
        ModelError: the model is missing, damaged or not of this package.
    """
    if name not in BACKENDS:
        raise BackendError(f'unknown backend {name!r}; the backends are {", ".join(BACKENDS)}')
    if name != 'auto':
        try:
            backend = _open_proven(name, model, threads, precision, say)
            return Selection(backend, f'{name} was asked for')
        except BackendError as error:
            if name not in GPU_BACKENDS or not fallback:
                raise
            return _on_cpu(model, threads, f'{name} can not be used: {error}')
    device = cuda.find_device()
    if device is None:
        backend = _open(BEST_CPU_BACKEND, model, threads, precision, say)
        return Selection(backend, 'no CUDA device; it is the fastest on a CPU')
    problems = []
    for candidate in AUTO_GPU_BACKENDS:
        try:
            backend = _open_proven(candidate, model, threads, precision, say)
        except (BackendError, ModelError) as error:
            problems.append(f'{candidate}: {error}')
            continue
        return Selection(
            backend, '; '.join([f'the fastest that works on {device.name}', *problems])
        )
    return _on_cpu(model, threads, f'{device.name} is not used: {"; ".join(problems)}')


def _on_cpu(model: str, threads: int, problem: str) -> Selection:
    backend = _open(BEST_CPU_BACKEND, model, threads, 'auto', lambda text: None)
    return Selection(backend, problem, f'the network runs on the CPU, not on a GPU: {problem}')


def model_for(name: str, model: str, precision: str = 'auto') -> str:
    """Which of the bundled models `auto` stands for in a backend; any other name is itself."""
    if model != store.DEFAULT_MODEL:
        return model
    if name in INT8_BACKENDS or precision == 'int8':
        return store.INT8_MODEL
    return store.FLOAT_MODEL


def _open_proven(name: str, model: str, threads: int, precision: str, say: Say) -> Backend:
    """Open a backend; one on a GPU has run once before it is believed."""
    backend = _open(name, model, threads, precision, say)
    if name in GPU_BACKENDS:
        backend.infer(np.zeros((1, *backend.model.input_size, 3), np.uint8))
    return backend


def _open(name: str, model: str, threads: int, precision: str, say: Say) -> Backend:
    file = store.read_model(model_for(name, model, precision))
    try:
        if name == 'tensorrt':
            from dan_ros.backends.tensorrt.backend import TensorRTBackend

            return TensorRTBackend(file, precision, say)
        if name == 'torch_cuda':
            from dan_ros.backends.torch_cuda import TorchCudaBackend

            return TorchCudaBackend(file, precision)
        if name == 'openvino':
            from dan_ros.backends.openvino import OpenVinoBackend

            return OpenVinoBackend(file, threads)
        if name == 'torch':
            from dan_ros.backends.torch import TorchBackend

            return TorchBackend.read(file, threads)
        from dan_ros.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(
            file, threads, name.removeprefix('onnxruntime').strip('_') or 'cpu'
        )
    except ModuleNotFoundError as error:
        missing = str(error.name).partition('.')[0]
        raise BackendError(
            f'the backend {name!r} needs the Python package {missing!r}: '
            f'install it with `pip install {INSTALL.get(missing, missing)}`'
        ) from None
    except (ImportError, OSError, RuntimeError) as error:  # libraries that do not fit each other
        if name not in GPU_BACKENDS:
            raise
        raise BackendError(f'the backend {name!r} does not load: {error}') from None
