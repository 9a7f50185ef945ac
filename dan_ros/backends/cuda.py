"""NVIDIA GPUs: what is there, its memory, streams and graphs.

What is there is asked of the driver itself, so that nothing needs to be installed to learn that
there is nothing. Memory and streams go through cuda-python, which loads when they are first used.
"""

import ctypes
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dan_ros.errors import BackendError, GpuLostError, GpuMemoryError

DRIVER = 'libcuda.so.1'
DRIVER_FILE = Path('/proc/driver/nvidia/version')  # not on a Jetson
COMPUTE_MAJOR, COMPUTE_MINOR = 75, 76  # attributes of a device, cuda.h
OUT_OF_MEMORY = 2  # https://docs.nvidia.com/cuda/cuda-runtime-api, cudaError_t
# Errors after which the process can't use the GPU any more.
STICKY = frozenset({214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 720, 999})


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        name: as the driver has it, such as 'NVIDIA H200'.
        sm: compute capability, such as '9.0'.
        driver: version of the driver, and of the CUDA that it brings.
    """

    name: str
    sm: str
    driver: str


@lru_cache(maxsize=1)
def find_device() -> Device | None:
    """The first GPU; None where there is no driver or no GPU."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or count.value == 0:
        return None
    return _describe(driver)


def _describe(driver: ctypes.CDLL) -> Device:  # needs a GPU
    """What a driver says of its first GPU."""
    device, version = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(128)
    driver.cuDeviceGetName(name, len(name), device)
    numbers = []
    for attribute in (COMPUTE_MAJOR, COMPUTE_MINOR):
        number = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        numbers.append(str(number.value))
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = f'CUDA {version.value // 1000}.{version.value % 1000 // 10}'
    return Device(name.value.decode(), '.'.join(numbers), _driver_version() + cuda)


def _driver_version() -> str:  # needs a GPU
    """Version of the kernel's driver and a space, or ''."""
    try:
        words = DRIVER_FILE.read_text(encoding='utf-8').splitlines()[0].split()
    except (OSError, IndexError):
        return ''
    return next((f'{w} ' for w in words if w[:1].isdigit() and '.' in w), '')


def require_device() -> Device:
    """The first GPU.

    Raises:
        BackendError: there is none.
    """
    device = find_device()
    if device is None:
        raise BackendError(
            'no CUDA device: `nvidia-smi` must list one (on a desktop install the NVIDIA driver, '
            'start a container with --gpus all or --runtime nvidia), or choose a CPU backend'
        )
    return device


def translated(error: Exception) -> Exception:
    """An error of a GPU library as one of ours where its text says what happened, else itself."""
    text = str(error)
    if 'out of memory' in text.lower():
        return GpuMemoryError(f'the GPU is out of memory: {_first_line(text)}')
    if 'CUDA error' in text or 'CUDA failure' in text:
        return GpuLostError(f'the GPU can not be used any more: {_first_line(text)}')
    return error


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200]


@lru_cache(maxsize=1)
def runtime() -> Any:
    """The module of the CUDA runtime.

    Raises:
        ModuleNotFoundError: cuda-python is not installed.
    """
    try:
        from cuda.bindings import runtime as found  # cuda-python 12.6 and later
    except ModuleNotFoundError:
        from cuda import cudart as found
    return found


def check(result: tuple[Any, ...]) -> Any:
    """Result of a call of the CUDA runtime without its error code.

    Raises:
        GpuMemoryError, GpuLostError, BackendError: by the code.
    """
    code, *values = result
    number = int(code)
    if number == 0:
        return values[0] if values else None
    name = getattr(code, 'name', number)
    if number == OUT_OF_MEMORY:
        raise GpuMemoryError(f'the GPU is out of memory ({name})')
    if number in STICKY:
        raise GpuLostError(f'the GPU can not be used any more ({name})')
    raise BackendError(f'CUDA failed: {name}')


def free_with(owner: object, taken: ExitStack) -> None:
    """Give back what was taken from the CUDA runtime, last things first, when its owner goes.

    Any thread may do so: all threads of a process share the context of its GPU. Error codes are not
    looked at there: they tell of earlier work, and are the answer to all calls once the GPU is
    lost. At the end of the process nothing is done: the driver takes everything back, and other
    threads may still use it.

    Args:
        owner: must not be referred to by anything in `taken`.
        taken: with a callback for each thing.
    """
    weakref.finalize(owner, taken.close).atexit = False


class Buffer:
    """Memory of a host and a device side of the same size.

    Args:
        taken: told how to free both; the array must not be used after it.
        shape, dtype: of the array.

    Attributes:
        host: array in pinned memory.
        device: address on the GPU.

    Raises:
        GpuMemoryError: there is too little of either memory.
    """

    def __init__(self, taken: ExitStack, shape: tuple[int, ...], dtype: type) -> None:
        cuda = runtime()
        self._row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        size = self._row_bytes * shape[0]
        self.device = int(check(cuda.cudaMalloc(size)))
        taken.callback(cuda.cudaFree, self.device)
        self._pinned = int(check(cuda.cudaHostAlloc(size, cuda.cudaHostAllocDefault)))
        taken.callback(cuda.cudaFreeHost, self._pinned)
        memory = (ctypes.c_uint8 * size).from_address(self._pinned)
        self.host: np.ndarray = np.ndarray(shape, dtype, memoryview(memory))

    def to_device(self, rows: int, stream: Any) -> None:
        """Enqueue a copy of the first rows to the GPU."""
        kind = runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        size = rows * self._row_bytes
        check(runtime().cudaMemcpyAsync(self.device, self._pinned, size, kind, stream))

    def to_host(self, rows: int, stream: Any) -> None:
        """Enqueue a copy of the first rows from the GPU."""
        kind = runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        size = rows * self._row_bytes
        check(runtime().cudaMemcpyAsync(self._pinned, self.device, size, kind, stream))


class Stream:
    """A stream of its own, which waits for no other.

    Args:
        taken: told how to destroy it.

    Attributes:
        handle: its address.
    """

    def __init__(self, taken: ExitStack) -> None:
        cuda = runtime()
        self._stream = check(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        taken.callback(cuda.cudaStreamDestroy, self._stream)
        self.handle = int(self._stream)

    def wait(self) -> None:
        """Wait until everything enqueued is done."""
        check(runtime().cudaStreamSynchronize(self._stream))

    def settle(self) -> None:
        """As `wait`, after an error, which another one must not hide."""
        runtime().cudaStreamSynchronize(self._stream)

    def record(self, taken: ExitStack, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record what `enqueue` puts on this stream as a graph; gives what runs it again.

        Whatever `enqueue` uses must be kept as long as the graph.

        Args:
            taken: told how to destroy the graph, also while it runs.
            enqueue: called once, and what it enqueues does not run.
        """
        cuda = runtime()
        graph = self._capture(enqueue)
        try:
            executable = check(cuda.cudaGraphInstantiate(graph, 0))
        finally:
            cuda.cudaGraphDestroy(graph)
        taken.callback(cuda.cudaGraphExecDestroy, executable)
        return lambda: check(cuda.cudaGraphLaunch(executable, self._stream))

    def _capture(self, enqueue: Callable[[], None]) -> Any:
        cuda = runtime()
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cuda.cudaStreamBeginCapture(self._stream, mode))
        try:
            enqueue()
        except BaseException:  # it is the first error; that of ending the capture follows from it
            code, graph = cuda.cudaStreamEndCapture(self._stream)
            if int(code) == 0:
                cuda.cudaGraphDestroy(graph)
            raise
        return check(cuda.cudaStreamEndCapture(self._stream))
