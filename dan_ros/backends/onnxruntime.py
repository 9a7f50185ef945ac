# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: the default on CPUs; its GPU build also runs CUDA and TensorRT."""

from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import onnxruntime

from dan_ros.backends import cuda
from dan_ros.backends.base import DEFAULT_CONFIG, Backend, BackendConfig
from dan_ros.backends.batching import pad
from dan_ros.errors import BackendError, ModelError, one_line
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo, Tensor
from dan_ros.model.store import ModelFile

MAX_BATCH = 32
GPU_BATCHES = (1, 2, 4, 8, 16, MAX_BATCH)  # batches on a GPU are padded to one of these
# The warm-up starts with the smallest and the largest size, because TensorRT rebuilds its engine
# for each size outside the previous range.
GPU_WARM_UP_BATCHES = (1, MAX_BATCH, *GPU_BATCHES[1:-1])
SPIN_US = '50'  # microseconds; older versions ignore it and spin during the whole run
CPU, CUDA, TENSORRT = 'cpu', 'cuda', 'tensorrt'
PROVIDERS = {
    CPU: 'CPUExecutionProvider',
    CUDA: 'CUDAExecutionProvider',
    TENSORRT: 'TensorrtExecutionProvider',
}


def open_session(
    content: bytes, threads: int = 0, device: str = CPU
) -> onnxruntime.InferenceSession:
    """Open a session on the bytes of an ONNX file.

    During a run, idle threads spin for at most 50 us: on two cores, this is a sixth faster than no
    spinning. Between runs they sleep, to leave the cores to the robot's other work. With `threads`
    0, there is one per core. `device` is one of `PROVIDERS`.

    Raises:
        ModelError: ONNX Runtime cannot read the file.
        BackendError: ONNX Runtime cannot use the GPU, or would silently use the CPU instead.
    """
    provider = PROVIDERS[device]
    if device != CPU:
        _require_provider(provider)
    if device == TENSORRT:
        from dan_ros.backends.tensorrt.onnx_transforms import expand_log_softmax

        content = expand_log_softmax(content)
    try:
        session = onnxruntime.InferenceSession(
            content, _session_options(threads), providers=[(provider, _provider_options(device))]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        if device == CPU:
            raise ModelError(f'ONNX Runtime cannot read this model: {one_line(error)}') from None
        raise BackendError(f'ONNX Runtime cannot start {provider}: {error}') from None
    session.disable_fallback()  # a fallback would need the file in memory
    session._model_bytes = None
    if session.get_providers()[0] != provider:
        raise BackendError(
            f'ONNX Runtime fell back from {provider} to {session.get_providers()[0]}: its CUDA or '
            'cuDNN libraries do not match, see https://onnxruntime.ai/docs/execution-providers'
        )
    return session


def run_session(
    session: onnxruntime.InferenceSession, outputs: list[str], inputs: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """Run a session and return the named outputs.

    Raises:
        GpuMemoryError, GpuLostError: the GPU failed.
    """
    try:
        return list(session.run(outputs, inputs))
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        raise cuda.translate_error(error) from None


def _require_provider(provider: str) -> None:
    cuda.require_device()
    if provider not in onnxruntime.get_available_providers():
        raise BackendError(
            f'this ONNX Runtime has no {provider}: `pip uninstall onnxruntime` and `pip install '
            "onnxruntime-gpu` (on a Jetson, NVIDIA's wheel)"
        )


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Memory patterns need an additional block per input size.
    options.enable_mem_pattern = False
    options.log_severity_level = 3  # errors only; they are raised as exceptions as well
    options.add_session_config_entry('session.intra_op.allow_spinning', '1')
    options.add_session_config_entry('session.force_spinning_stop', '1')
    options.add_session_config_entry('session.intra_op.spin_duration_us', SPIN_US)
    return options


def _provider_options(device: str) -> dict[str, str]:
    if device != TENSORRT:
        return {}
    from dan_ros.backends.tensorrt.engine_cache import EngineCache

    return {
        'trt_fp16_enable': '1',
        'trt_engine_cache_enable': '1',
        'trt_engine_cache_path': str(EngineCache().folder),
        'trt_timing_cache_enable': '1',
    }


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime on the CPU; uses `threads` and `parallel_runs` of its config.

    Raises:
        ModelError: the file is not an ONNX file of this package.
        BackendError: the GPU cannot be used.
    """

    name = 'onnxruntime'
    max_batch = MAX_BATCH
    _session_device: ClassVar[str] = CPU
    _batches: tuple[int, ...] = ()  # sizes that batches are padded to; () for no padding

    def __init__(self, file: ModelFile, config: BackendConfig = DEFAULT_CONFIG) -> None:
        where = str(file.path)
        try:
            self._session = open_session(file.content, config.threads, self._session_device)
        except ModelError as error:
            raise ModelError(f'{where}: {error}') from None
        try:
            notes = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError:
            raise ModelError(f'{where} is damaged: its metadata is not text') from None
        model = ModelInfo.from_metadata(notes, where)
        described = CPU if self._session_device == CPU else f'cuda:0 {cuda.require_device().name}'
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        model.check_graph([*map(_tensor, inputs)], [*map(_tensor, outputs)], where)
        super().__init__(model, file.name, described)
        self._parallel_runs = config.parallel_runs if self._session_device == CPU else 1
        self._helpers = ThreadPoolExecutor(self._parallel_runs)  # starts its threads when needed

    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        own, *others = np.array_split(faces_rgb, min(self._parallel_runs, len(faces_rgb)))
        started = [self._helpers.submit(self._run_part, part) for part in others]
        return np.concatenate([self._run_part(own), *(run.result() for run in started)])

    def _run_part(self, faces_rgb: np.ndarray) -> np.ndarray:
        faces = pad(faces_rgb, self._batches) if self._batches else faces_rgb
        (logits,) = run_session(self._session, [metadata.OUTPUT_NAME], {metadata.INPUT_NAME: faces})
        return logits[: len(faces_rgb)]


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """ONNX Runtime on a GPU, with CUDA; few batch sizes, as cuDNN tries algorithms for each."""

    name = 'onnxruntime_cuda'
    _session_device = CUDA
    _batches = GPU_BATCHES
    warm_up_batches = GPU_WARM_UP_BATCHES


class OnnxRuntimeTensorRTBackend(OnnxRuntimeCudaBackend):
    """ONNX Runtime on a GPU, with TensorRT."""

    name = 'onnxruntime_tensorrt'
    _session_device = TENSORRT


def _tensor(tensor: onnxruntime.NodeArg) -> Tensor:
    kind = tensor.type.removeprefix('tensor(').removesuffix(')')
    shape = metadata.without_batch(list(tensor.shape))
    return tensor.name, 'float32' if kind == 'float' else kind, shape
