"""TensorRT and TensorRT for RTX: the fastest on NVIDIA's GPUs, from an engine kept in a cache.

Memory is allocated once and pinned, a stream is its own, and batches of 1, 2, 4 and 8 run as CUDA
graphs; up to 8, others are padded to the next of these.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from dan_ros.backends import cuda
from dan_ros.backends.batching import Batcher
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
from dan_ros.storage.atomic import atomic_write

MAX_BATCH = 64
GRAPH_BATCHES = (1, 2, 4, 8)

Say = Callable[[str], object]


def engine_key(trt: Any, file: ModelFile, precision: str, max_batch: int = MAX_BATCH) -> EngineKey:
    """What an engine for this machine is for; one of TensorRT for RTX serves every RTX card.

    Raises:
        BackendError: there is no GPU, and TensorRT needs one to build.
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
    say: Say = lambda text: None,
    must_keep: bool = True,
) -> bytes:
    """An engine from the cache, or built and kept there.

    Args:
        trt: module of TensorRT.
        cache: of engines.
        file: the model.
        precision: auto, fp32, fp16 or int8.
        max_batch: most faces at once.
        is_usable: whether an engine really loads.
        say: told what is done.
        must_keep: whether it is an error if the engine can't be kept.

    Raises:
        BackendError, ModelError: it can't be built.
    """
    ModelInfo.from_onnx(file.content, str(file.path))  # refuses what is no model of this package
    precision = choose_precision(precision, file.content)
    key = engine_key(trt, file, precision, max_batch)
    timings = cache.folder / f'{key.runtime}-{key.gpu}.timings'.replace(' ', '_').replace('/', '_')

    def make() -> bytes:
        say(
            f'building an engine of {file.name} in {precision} with {key.runtime}: may take minutes'
        )
        kept = timings.read_bytes() if timings.is_file() else b''
        plan, timing_cache = build(trt, file.content, precision, max_batch, kept, say)
        if timing_cache:
            with suppress(OSError):  # the engine is what counts
                atomic_write(timings, lambda out: out.write(timing_cache))
        return plan

    return cache.read_or_build(key, file.name, make, is_usable, say, must_keep)


class TensorRTBackend:
    """See `Backend`.

    Args:
        file: the ONNX file.
        precision: auto, fp32, fp16 or int8.
        say: told what is done, which may take minutes.

    Raises:
        BackendError: TensorRT, cuda-python or the GPU is missing, or no engine can be built.
    """

    name = 'tensorrt'

    def __init__(
        self, file: ModelFile, precision: str = 'auto', say: Say = lambda text: None
    ) -> None:
        device = cuda.require_device()
        cuda.runtime()
        trt = import_tensorrt()
        self.model = ModelInfo.from_onnx(file.content, str(file.path))
        self.model_name = file.name
        self.precision = choose_precision(precision, file.content)
        self.device = f'cuda:0 {device.name}, {runtime_of(trt)} {self.precision}'
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine: Any = None
        cache = EngineCache()
        plan = prepare_engine(
            trt, cache, file, self.precision, is_usable=self._load, say=say, must_keep=False
        )
        if self._engine is None and not self._load(plan):
            raise BackendError(
                f'{runtime_of(trt)} can not load the engine it has just built for {device.name}: '
                'TensorRT for RTX serves RTX cards alone; on others install tensorrt'
            )
        kernels = _KernelCache(cache.folder, device, trt, self._engine)
        self._runner = _Runner(kernels, self.model)
        self.batches = Batcher(len(self.model.labels), MAX_BATCH, (*GRAPH_BATCHES, MAX_BATCH))

    def warm_up(self) -> None:
        """Record all graphs, and set up what larger batches run in.

        That makes five execution contexts and is nine runs, of 94 faces in all; on TensorRT for
        RTX it compiles kernels too, unless they are in the cache.
        """
        self.batches.warm_up(self._runner.run, self.model.input_size)

    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3] RGB; N may be 0."""
        return self.batches.infer(self._runner.run, faces_rgb)

    def _load(self, plan: bytes) -> bool:
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        return self._engine is not None


class _KernelCache:
    """Makes execution contexts; keeps what TensorRT for RTX compiles for this GPU at first use."""

    def __init__(self, folder: Path, device: cuda.Device, trt: Any, engine: Any) -> None:
        self._engine = engine
        self._config = self._cache = None
        name = f'{runtime_of(trt)}-{device.name}.kernels'.replace(' ', '_').replace('/', '_')
        self._path = folder / name
        if hasattr(engine, 'create_runtime_config'):
            self._config = engine.create_runtime_config()
            if hasattr(self._config, 'create_runtime_cache'):
                self._cache = self._config.create_runtime_cache()
                if self._path.is_file():  # it says itself whether it fits
                    self._cache.deserialize(self._path.read_bytes())
                self._config.set_runtime_cache(self._cache)

    def create_context(self) -> Any:
        """A new execution context."""
        config = () if self._config is None else (self._config,)
        context = self._engine.create_execution_context(*config)
        if context is None:
            raise cuda.translated(RuntimeError('out of memory for a TensorRT context'))
        return context

    def keep(self) -> None:
        """Write what was compiled; if it can't be kept, the next start compiles it again."""
        if self._cache is not None:
            content = bytes(self._cache.serialize())
            with suppress(OSError):
                atomic_write(self._path, lambda out: out.write(content))


class _Runner:
    """Runs an engine, in any thread but one at a time; memory and graphs go when it goes."""

    def __init__(self, kernels: _KernelCache, model: ModelInfo) -> None:
        self._kernels = kernels
        self._contexts: dict[int, Any] = {}  # by batch; the largest serves all without a graph
        self._graphs: dict[int, Callable[[], None]] = {}
        with ExitStack() as taken:  # if memory ends halfway, what was taken is given back here
            self._stream = cuda.Stream(taken)
            self._faces = cuda.Buffer(taken, (MAX_BATCH, *model.input_size, 3), np.uint8)
            self._logits = cuda.Buffer(taken, (MAX_BATCH, len(model.labels)), np.float32)
            taken.callback(self._contexts.clear)  # before the stream and memory they were told of
            self._taken = taken.pop_all()  # graphs follow, and go first
        cuda.free_with(self, self._taken)

    def run(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Logits of at most `MAX_BATCH` faces.

        No work is under way after it, nor after an error: all that it used may be freed.
        """
        count = len(faces_rgb)
        self._faces.host[:count] = faces_rgb
        try:
            self._start(count)
            self._stream.wait()
        except BaseException:
            self._stream.settle()
            raise
        logits: np.ndarray = self._logits.host[:count].copy()
        return logits

    def _start(self, count: int) -> None:
        size = next((batch for batch in GRAPH_BATCHES if batch >= count), None)
        if size is None:
            self._enqueue_unrecorded(count)
        else:
            if size not in self._graphs:
                self._graphs[size] = self._record(size)
            self._graphs[size]()

    def _enqueue_unrecorded(self, size: int) -> None:
        if MAX_BATCH not in self._contexts:
            self._contexts[MAX_BATCH] = self._kernels.create_context()
        self._shape(self._contexts[MAX_BATCH], size)
        self._enqueue(self._contexts[MAX_BATCH], size)

    def _record(self, size: int) -> Callable[[], None]:
        """A graph has a context of its own, whose memory it works in: it must be kept."""
        context = self._kernels.create_context()
        self._shape(context, size)
        self._enqueue(context, size)  # sets up what may not happen while it is recorded
        self._stream.wait()
        self._kernels.keep()
        graph = self._stream.record(self._taken, lambda: self._enqueue(context, size))
        self._contexts[size] = context
        return graph

    def _shape(self, context: Any, size: int) -> None:
        shape = (size, *self._faces.host.shape[1:])
        context.set_input_shape(metadata.INPUT_NAME, shape)
        context.set_tensor_address(metadata.INPUT_NAME, self._faces.device)
        context.set_tensor_address(metadata.OUTPUT_NAME, self._logits.device)

    def _enqueue(self, context: Any, size: int) -> None:
        self._faces.to_device(size, self._stream.handle)
        if not context.execute_async_v3(self._stream.handle):
            raise BackendError('TensorRT can not run the engine; see its messages above')
        self._logits.to_host(size, self._stream.handle)
