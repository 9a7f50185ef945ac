# SPDX-License-Identifier: Apache-2.0
"""NVIDIA GPUs: the device, its memory, streams and graphs.

`find_device` queries the driver through ctypes and needs no package. Memory and streams use
cuda-python, which is imported at first use.
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
DRIVER_FILE = Path('/proc/driver/nvidia/version')  # absent on a Jetson
COMPUTE_MAJOR, COMPUTE_MINOR = 75, 76  # device attributes, cuda.h
OUT_OF_MEMORY = 2  # https://docs.nvidia.com/cuda/cuda-runtime-api, cudaError_t
# Error codes after which this process can no longer use the GPU.
STICKY = frozenset({214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 720, 999})
MAX_MESSAGE = 200  # characters quoted from a library's message


@dataclass(frozen=True)
class Device:
    """A GPU."""

    name: str  # as the driver reports it, such as 'NVIDIA H200'
    sm: str  # compute capability, such as '9.0'
    driver: str  # version of the driver and of the CUDA it supports


@lru_cache(maxsize=1)
def find_device() -> Device | None:
    """The first GPU; None if there is no driver or no GPU."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or count.value == 0:
        return None
    return _describe(driver)


def _describe(driver: ctypes.CDLL) -> Device:  # needs a GPU
    """Name and versions of the first GPU."""
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
    """Version of the kernel driver, followed by a space; '' if unknown."""
    try:
        words = DRIVER_FILE.read_text(encoding='utf-8').splitlines()[0].split()
    except (OSError, IndexError):
        return ''
    return next((f'{w} ' for w in words if w[:1].isdigit() and '.' in w), '')


def require_device() -> Device:
    """The first GPU.

    Raises:
        BackendError: there is no GPU.
    """
    device = find_device()
    if device is None:
        raise BackendError(
            'no CUDA device: `nvidia-smi` must list one (on a desktop, install the NVIDIA driver; '
            'start a container with --gpus all or --runtime nvidia), or choose a CPU backend (for '
            'the detector: detector.device cpu)'
        )
    return device


def translate_error(error: Exception) -> Exception:
    """Return `GpuMemoryError` or `GpuLostError` if the text matches; otherwise `error`.

    >>> translate_error(RuntimeError('CUDA out of memory. Tried to allocate 2 MiB'))
    GpuMemoryError('the GPU is out of memory: CUDA out of memory. Tried to allocate 2 MiB')
    """
    text = str(error)
    first_line = text.strip().partition('\n')[0][:MAX_MESSAGE]
    if 'out of memory' in text.lower():
        return GpuMemoryError(f'the GPU is out of memory: {first_line}')
    if 'CUDA error' in text or 'CUDA failure' in text:
        return GpuLostError(f'this process can no longer use the GPU: {first_line}')
    return error


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
    """Check the error code of a CUDA runtime call and return its value.

    Raises:
        GpuMemoryError, GpuLostError, BackendError: depending on the code.
    """
    code, *values = result
    number = int(code)
    if number == 0:
        return values[0] if values else None
    name = getattr(code, 'name', number)
    if number == OUT_OF_MEMORY:
        raise GpuMemoryError(f'the GPU is out of memory ({name})')
    if number in STICKY:
        raise GpuLostError(f'this process can no longer use the GPU ({name})')
    raise BackendError(f'CUDA failed: {name}')


def free_with(owner: object, resources: ExitStack) -> None:
    """Close `resources` when `owner` is garbage-collected.

    Any thread may free them, because all threads share the GPU's context. Error codes are ignored:
    they come from earlier work, and every call returns one on a lost GPU. At the end of the
    process nothing is freed: other threads may still run, and the driver frees everything anyway.

    Args:
        owner: nothing in `resources` may refer to it.
        resources: holds one callback per resource.
    """
    weakref.finalize(owner, resources.close).atexit = False


class Buffer:
    """Pinned host memory and device memory of the same size.

    Args:
        resources: receives the callbacks that free both; then the array is invalid.
        shape, dtype: shape and type of the array.

    Attributes:
        host: array in pinned memory.
        device: address on the GPU.

    Raises:
        GpuMemoryError: there is too little host or device memory.
    """

    def __init__(self, resources: ExitStack, shape: tuple[int, ...], dtype: type) -> None:
        cuda = runtime()
        self._row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        size = self._row_bytes * shape[0]
        self.device = int(check(cuda.cudaMalloc(size)))
        resources.callback(cuda.cudaFree, self.device)
        self._pinned = int(check(cuda.cudaHostAlloc(size, cuda.cudaHostAllocDefault)))
        resources.callback(cuda.cudaFreeHost, self._pinned)
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
    """A CUDA stream that does not wait for any other stream.

    Args:
        resources: receives the callback that destroys it.

    Attributes:
        handle: its address.
    """

    def __init__(self, resources: ExitStack) -> None:
        cuda = runtime()
        self._stream = check(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        resources.callback(cuda.cudaStreamDestroy, self._stream)
        self.handle = int(self._stream)

    def wait(self) -> None:
        """Wait until all enqueued work is done."""
        check(runtime().cudaStreamSynchronize(self._stream))

    def wait_after_error(self) -> None:
        """Wait, but raise nothing, so that the first error stays visible."""
        runtime().cudaStreamSynchronize(self._stream)

    def record(self, resources: ExitStack, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record the work that `enqueue` puts on this stream as a CUDA graph.

        Args:
            resources: receives the callback that destroys the graph, even while it runs.
            enqueue: called once; its work is recorded, not run. Everything it uses must live
                as long as the graph.

        Returns:
            A function that launches the graph.
        """
        cuda = runtime()
        graph = self._capture(enqueue)
        try:
            executable = check(cuda.cudaGraphInstantiate(graph, 0))
        finally:
            cuda.cudaGraphDestroy(graph)
        resources.callback(cuda.cudaGraphExecDestroy, executable)
        return lambda: check(cuda.cudaGraphLaunch(executable, self._stream))

    def _capture(self, enqueue: Callable[[], None]) -> Any:
        cuda = runtime()
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cuda.cudaStreamBeginCapture(self._stream, mode))
        try:
            enqueue()
        except BaseException:  # raise this error, not the one from the end of the capture
            code, graph = cuda.cudaStreamEndCapture(self._stream)
            if int(code) == 0:
                cuda.cudaGraphDestroy(graph)
            raise
        return check(cuda.cudaStreamEndCapture(self._stream))
