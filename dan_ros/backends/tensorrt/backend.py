# SPDX-License-Identifier: Apache-2.0
"""TensorRT and TensorRT for RTX: the fastest backend on NVIDIA GPUs, from a cached engine.

Memory is allocated once and pinned. Batches of 1, 2, 4 and 8 faces run as CUDA graphs; other
batches up to 8 are padded to the next larger one.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from dan_ros.backends import cuda
from dan_ros.backends.base import (
    DEFAULT_CONFIG,
    Backend,
    BackendConfig,
    OnProgress,
    ignore_progress,
)
from dan_ros.backends.batching import padded_size
from dan_ros.backends.tensorrt.engine_builder import (
    build,
    choose_precision,
    import_tensorrt,
    is_rtx,
    runtime_of,
)
from dan_ros.backends.tensorrt.engine_cache import EngineCache, EngineKey
from dan_ros.errors import BackendError
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.store import ModelFile

MAX_BATCH = 64
GRAPH_BATCHES = (1, 2, 4, 8)


def engine_key(trt: Any, file: ModelFile, precision: str, max_batch: int = MAX_BATCH) -> EngineKey:
    """The cache key of an engine for this machine; TensorRT for RTX builds for every RTX GPU.

    Raises:
        BackendError: there is no GPU, which TensorRT needs to build an engine.
    """
    if is_rtx(trt):
        gpu = sm = driver = 'any'
    else:
        device = cuda.require_device()
        gpu, sm, driver = device.name, device.sm, device.driver
    return EngineKey(file.sha256, runtime_of(trt), gpu, sm, driver, precision, max_batch)


def prepare_engine(
    trt: Any,
    cache: EngineCache,
    file: ModelFile,
    precision: str = 'auto',
    max_batch: int = MAX_BATCH,
    is_usable: Callable[[bytes], bool] = lambda plan: True,
    on_progress: OnProgress = ignore_progress,
    must_store: bool = True,
) -> bytes:
    """Read an engine from the cache, or build and store it.

    `on_progress` gets a sentence when the build begins; it may take minutes. See
    `EngineCache.read_or_build` for `is_usable` and `must_store`.

    Raises:
        BackendError, ModelError: the engine cannot be built.
    """
    ModelInfo.from_onnx(file.content, str(file.path))  # rejects models of other packages
    precision = choose_precision(precision, file.content)
    key = engine_key(trt, file, precision, max_batch)
    build_engine = partial(_build, trt, cache, file, key, on_progress)
    return cache.read_or_build(key, file.name, build_engine, is_usable, on_progress, must_store)


def _build(
    trt: Any, cache: EngineCache, file: ModelFile, key: EngineKey, on_progress: OnProgress
) -> bytes:
    """Build an engine; reuse and store the timing cache."""
    on_progress(
        f'building a {key.precision} engine of {file.name} with {key.runtime}, which may take '
        'minutes'
    )
    timings = f'{key.runtime}-{key.gpu}.timings'
    old = cache.read_extra(timings)
    plan, new = build(trt, file.content, key.precision, key.max_batch, old)
    if new:
        cache.store_extra(timings, new)
    return plan


class TensorRTBackend(Backend):
    """TensorRT on a GPU.

    The warm-up creates five execution contexts in nine runs, and records four graphs. During the
    warm-up, TensorRT for RTX also compiles kernels that are not in the cache. It uses `precision`
    of its config, and `on_progress` for the build, which may take minutes.

    Raises:
        BackendError: TensorRT, cuda-python or the GPU is missing, or no engine can be built.
    """

    name = 'tensorrt'
    max_batch = MAX_BATCH
    warm_up_batches = (*GRAPH_BATCHES, MAX_BATCH)

    def __init__(self, file: ModelFile, config: BackendConfig = DEFAULT_CONFIG) -> None:
        device = cuda.require_device()
        cuda.runtime()
        trt = import_tensorrt()
        model = ModelInfo.from_onnx(file.content, str(file.path))
        self.precision = choose_precision(config.precision, file.content)
        cache = EngineCache()
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine: Any = None
        plan = prepare_engine(
            trt,
            cache,
            file,
            self.precision,
            is_usable=self._load,
            on_progress=config.on_progress,
            must_store=False,
        )
        if self._engine is None and not self._load(plan):
            raise BackendError(
                f'{runtime_of(trt)} cannot load the engine it has just built for {device.name}: '
                'TensorRT for RTX supports RTX GPUs only; on other GPUs install tensorrt'
            )
        kernels = _KernelCache(cache, f'{runtime_of(trt)}-{device.name}.kernels', self._engine)
        self._runner = _Runner(kernels, model)
        described = f'cuda:0 {device.name}, {runtime_of(trt)} {self.precision}'
        super().__init__(model, file.name, described)

    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        return self._runner.run(faces_rgb)

    def _load(self, plan: bytes) -> bool:
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        return self._engine is not None


class _KernelCache:
    """Creates execution contexts and stores the kernels that TensorRT for RTX compiles in them."""

    def __init__(self, cache: EngineCache, name: str, engine: Any) -> None:
        self._cache, self._name, self._engine = cache, name, engine
        self._config = self._kernels = None
        if hasattr(engine, 'create_runtime_config'):
            self._config = engine.create_runtime_config()
            if hasattr(self._config, 'create_runtime_cache'):
                self._kernels = self._config.create_runtime_cache()
                if stored := cache.read_extra(name):
                    self._kernels.deserialize(stored)  # TensorRT checks whether they match
                self._config.set_runtime_cache(self._kernels)

    def create_context(self) -> Any:
        """A new execution context."""
        config = () if self._config is None else (self._config,)
        context = self._engine.create_execution_context(*config)
        if context is None:
            raise cuda.translate_error(RuntimeError('out of memory for a TensorRT context'))
        return context

    def store(self) -> None:
        """Store the compiled kernels; if that fails, the next start compiles them again."""
        if self._kernels is not None:
            self._cache.store_extra(self._name, bytes(self._kernels.serialize()))


class _Runner:
    """Runs an engine for one thread at a time; frees memory and graphs when it is deleted."""

    def __init__(self, kernels: _KernelCache, model: ModelInfo) -> None:
        self._kernels = kernels
        self._contexts: dict[int, Any] = {}  # by batch size; `MAX_BATCH`: for runs without graph
        self._graphs: dict[int, Callable[[], None]] = {}
        with ExitStack() as resources:  # frees everything if memory runs out halfway
            self._stream = cuda.Stream(resources)
            self._faces = cuda.Buffer(resources, (MAX_BATCH, *model.input_size, 3), np.uint8)
            self._logits = cuda.Buffer(resources, (MAX_BATCH, len(model.labels)), np.float32)
            resources.callback(self._contexts.clear)  # before the stream is freed
            self._resources = resources.pop_all()  # graphs are added later and freed first
        cuda.free_with(self, self._resources)

    def run(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Return the logits of at most `MAX_BATCH` faces.

        When it returns or raises, no GPU work is pending, so its memory may be freed.
        """
        count = len(faces_rgb)
        self._faces.host[:count] = faces_rgb
        try:
            self._start(count)
            self._stream.wait()
        except BaseException:
            self._stream.wait_after_error()
            raise
        logits: np.ndarray = self._logits.host[:count].copy()
        return logits

    def _start(self, count: int) -> None:
        if count > GRAPH_BATCHES[-1]:
            self._enqueue_without_graph(count)
            return
        size = padded_size(count, GRAPH_BATCHES)
        if size not in self._graphs:
            self._graphs[size] = self._record(size)
        self._graphs[size]()

    def _enqueue_without_graph(self, size: int) -> None:
        if MAX_BATCH not in self._contexts:
            self._contexts[MAX_BATCH] = self._kernels.create_context()
        self._set_shape(self._contexts[MAX_BATCH], size)
        self._enqueue(self._contexts[MAX_BATCH], size)

    def _record(self, size: int) -> Callable[[], None]:
        """Record a graph; it uses the memory of its own context, which is kept alive for it."""
        context = self._kernels.create_context()
        self._set_shape(context, size)
        self._enqueue(context, size)  # the first run does work that a capture must not contain
        self._stream.wait()
        self._kernels.store()
        graph = self._stream.record(self._resources, lambda: self._enqueue(context, size))
        self._contexts[size] = context
        return graph

    def _set_shape(self, context: Any, size: int) -> None:
        shape = (size, *self._faces.host.shape[1:])
        context.set_input_shape(metadata.INPUT_NAME, shape)
        context.set_tensor_address(metadata.INPUT_NAME, self._faces.device)
        context.set_tensor_address(metadata.OUTPUT_NAME, self._logits.device)

    def _enqueue(self, context: Any, size: int) -> None:
        self._faces.to_device(size, self._stream.handle)
        if not context.execute_async_v3(self._stream.handle):
            raise BackendError('TensorRT cannot run the engine; see its messages above')
        self._logits.to_host(size, self._stream.handle)
