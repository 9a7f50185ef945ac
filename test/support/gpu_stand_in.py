# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a GPU: the CUDA runtime with the API of cuda-python, engines with TensorRT's API.

It allocates host memory, runs enqueued work when its stream is synchronized, and records every use
after free and double free as a misuse.
"""

import ctypes
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from dan_ros.backends import cuda

SUCCESS, OUT_OF_MEMORY, INVALID_HANDLE, LOST, NOT_CAPTURED = 0, 2, 400, 700, 901
CONTEXT_BYTES = 1 << 20
CLASSES = 8
DEVICE = cuda.Device('Made-up GPU', '9.9', '1 CUDA 99.0')

METHODS = {
    'cudaMalloc': 'allocate',
    'cudaHostAlloc': 'allocate',
    'cudaFree': 'release',
    'cudaFreeHost': 'release',
    'cudaMemcpyAsync': 'copy',
    'cudaStreamCreateWithFlags': 'create_stream',
    'cudaStreamDestroy': 'release',
    'cudaStreamSynchronize': 'wait',
    'cudaStreamBeginCapture': 'begin_capture',
    'cudaStreamEndCapture': 'end_capture',
    'cudaGraphInstantiate': 'instantiate',
    'cudaGraphDestroy': 'drop',
    'cudaGraphExecDestroy': 'drop',
    'cudaGraphLaunch': 'launch',
}


class Gpu:
    """Replaces `cuda.runtime()`.

    Attributes:
        held: allocated resources, by address or handle.
        calls: name and arguments of each call.
        misuses: uses of memory and handles after they were freed.
        allocations_left: allocations before memory runs out; None for unlimited.
        refuses_engines: engines cannot be enqueued.
        is_lost: every call fails because the GPU is lost.
        spoils_captures: ending a capture fails and returns no graph.
    """

    cudaHostAllocDefault, cudaStreamNonBlocking = 0, 1  # noqa: N815

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.misuses: list[str] = []
        self.allocations_left: int | None = None
        self.is_lost = self.refuses_engines = self.spoils_captures = False
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        self._handles = itertools.count(1)
        self._captured: list[Callable[[], None]] | None = None

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if name not in METHODS:
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, arguments))
            if self.is_lost:
                return LOST, None
            return getattr(self, METHODS[name])(*arguments)

        return call

    def count(self, name: str) -> int:
        """Number of calls of a function."""
        return [called for called, _ in self.calls].count(name)

    # Resources

    def allocate(self, size: int, flags: int = 0) -> tuple[int, int | None]:
        if not self._has_memory():
            return OUT_OF_MEMORY, None
        memory = (ctypes.c_uint8 * size)()
        self.held[ctypes.addressof(memory)] = memory
        return SUCCESS, ctypes.addressof(memory)

    def _has_memory(self) -> bool:
        if self.allocations_left is None:
            return True
        self.allocations_left -= 1
        return self.allocations_left >= 0

    def hold(self, what: Any) -> tuple[int, int]:
        handle = next(self._handles)
        self.held[handle] = what
        return SUCCESS, handle

    def create_stream(self, flags: int) -> tuple[int, int]:
        return self.hold([])

    def release(self, handle: int) -> tuple[int]:
        if any(work for work in self.held.values() if isinstance(work, list)):
            self.misuses.append(f'{handle} was freed before the stream was waited for')
        return self.drop(handle)

    def drop(self, handle: int) -> tuple[int]:
        """Free a graph; it may still run."""
        if self.held.pop(handle, None) is None:
            self.misuses.append(f'{handle} was freed but not allocated')
        return (SUCCESS,)

    def require(self, handle: int, what: str) -> None:
        if handle not in self.held:
            self.misuses.append(f'{what} is used but not allocated')

    # Work

    def enqueue(self, stream: int, work: Callable[[], None]) -> tuple[int]:
        self.require(stream, 'a stream')
        (self.held[stream] if self._captured is None else self._captured).append(work)
        return (SUCCESS,)

    def copy(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        def work() -> None:
            self.require(target, 'the target of a copy')
            self.require(source, 'the source of a copy')
            ctypes.memmove(target, source, size)

        return self.enqueue(stream, work)

    def wait(self, stream: int) -> tuple[int]:
        self.require(stream, 'a stream')
        pending = self.held[stream]
        while pending:
            pending.pop(0)()
        return (SUCCESS,)

    def begin_capture(self, stream: int, mode: int) -> tuple[int]:
        self._captured = []
        return (SUCCESS,)

    def end_capture(self, stream: int) -> tuple[int, int | None]:
        work, self._captured = self._captured, None
        return (NOT_CAPTURED, None) if self.spoils_captures else self.hold(tuple(work))

    def instantiate(self, graph: int, flags: int) -> tuple[int, int | None]:
        if not self._has_memory():
            return OUT_OF_MEMORY, None
        return self.hold(self.held[graph])

    def launch(self, executable: int, stream: int) -> tuple[int]:
        self.require(executable, 'a graph')
        self.held[stream].extend(self.held[executable])
        return (SUCCESS,)


class Engine:
    """Returns the mean of each face and the next seven numbers."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def create_execution_context(self) -> 'Context | None':
        code, memory = self._gpu.allocate(CONTEXT_BYTES)
        return None if code else Context(self._gpu, memory)


class RtxEngine(Engine):
    """An engine of TensorRT for RTX, which compiles kernels and can store them."""

    def create_runtime_config(self) -> SimpleNamespace:
        cache = SimpleNamespace(serialize=lambda: b'kernels', deserialize=self.kernels_read.append)
        return SimpleNamespace(
            create_runtime_cache=lambda: cache, set_runtime_cache=self.caches_set.append
        )

    def create_execution_context(self, config: SimpleNamespace) -> 'Context | None':
        return super().create_execution_context()

    def __init__(self, gpu: Gpu) -> None:
        super().__init__(gpu)
        self.kernels_read: list[bytes] = []
        self.caches_set: list[SimpleNamespace] = []


class Context:
    """Has its own memory; must be deleted before the stream and memory that it uses."""

    def __init__(self, gpu: Gpu, memory: int) -> None:
        self._gpu, self._memory = gpu, memory
        self._addresses: dict[str, int] = {}
        self._stream = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        self._stream = stream
        gpu, memory, shape, addresses = self._gpu, self._memory, self._shape, {**self._addresses}

        def work() -> None:
            for address in (memory, *addresses.values()):
                gpu.require(address, 'memory of an engine')
            faces = _at(gpu, addresses['faces'], np.uint8, shape)
            logits = _at(gpu, addresses['logits'], np.float32, (len(faces), CLASSES))
            logits[:] = expected_logits(faces)

        if not gpu.refuses_engines:
            gpu.enqueue(stream, work)
        return not gpu.refuses_engines

    def __del__(self) -> None:
        for handle in filter(None, (self._stream, *self._addresses.values())):
            self._gpu.require(handle, 'what a context uses')
        self._gpu.release(self._memory)


def _at(gpu: Gpu, address: int, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape))
    return np.frombuffer(gpu.held[address], dtype)[:size].reshape(shape)


def expected_logits(faces: np.ndarray) -> np.ndarray:
    """The logits of `Engine`, float32 [N, 8]."""
    means = faces.mean(axis=(1, 2, 3))
    return (means[:, None] + np.arange(CLASSES)).astype(np.float32)


class Logger:
    ERROR = 1

    def __init__(self, least: int) -> None:
        self.least = least


def tensorrt_module(load: Callable[[bytes], Engine | None]) -> SimpleNamespace:
    """The part of TensorRT that `TensorRTBackend` uses to load an engine."""
    runtime = SimpleNamespace(deserialize_cuda_engine=load)
    return SimpleNamespace(
        __name__='tensorrt',
        __version__='10.3.0',
        Logger=Logger,
        Runtime=lambda logger: runtime,
    )
