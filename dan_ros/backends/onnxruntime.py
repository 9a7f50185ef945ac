"""ONNX Runtime: the default on every CPU; with its GPU build also CUDA and TensorRT."""

import numpy as np
import onnxruntime

from dan_ros.backends import cuda
from dan_ros.backends.batching import Batcher, pad
from dan_ros.backends.tensorrt.engine_cache import EngineCache
from dan_ros.errors import BackendError, ModelError
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo, Tensor
from dan_ros.model.store import ModelFile

MAX_BATCH = 32  # larger sets of faces are run in parts, which bounds memory
GPU_BATCHES = (1, 2, 4, 8, 16, MAX_BATCH)  # cuDNN looks for its algorithms at each new size
# Of a new size its TensorRT builds an engine for the range of those it had: here twice at most.
GPU_WARM = (1, MAX_BATCH, *GPU_BATCHES[1:-1])
SPIN_US = '50'  # older versions, which do not know it, wait busily for all of a run
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

    Within a run its threads wait busily for each other, but briefly: on two cores that is faster by
    a sixth, and who else needs a core hardly waits. Between runs they sleep: a robot's computer has
    other work, and by default they would spin on.

    Args:
        content: the ONNX file.
        threads: CPU threads; 0 is one a core.
        device: cpu, cuda or tensorrt.

    Raises:
        ModelError: ONNX Runtime can't read the file.
        BackendError: it can't use the GPU; where it would go on with the CPU, too.
    """
    provider = PROVIDERS[device]
    if device != CPU:
        _require_provider(provider)
    if device == TENSORRT:
        from dan_ros.backends.tensorrt.onnx_transforms import without_log_softmax

        content = without_log_softmax(content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they come as exceptions as well
    options.add_session_config_entry('session.intra_op.allow_spinning', '1')
    options.add_session_config_entry('session.force_spinning_stop', '1')
    options.add_session_config_entry('session.intra_op.spin_duration_us', SPIN_US)
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=[(provider, _options_of(device))]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        if device == CPU:
            raise ModelError(f'ONNX Runtime can not read this model: {error}') from None
        raise BackendError(f'ONNX Runtime can not start {provider}: {error}') from None
    if session.get_providers()[0] != provider:
        raise BackendError(
            f'ONNX Runtime fell back from {provider} to {session.get_providers()[0]}: its CUDA or '
            'cuDNN libraries do not fit, see https://onnxruntime.ai/docs/execution-providers'
        )
    return session


def run_session(
    session: onnxruntime.InferenceSession, outputs: list[str], inputs: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """Outputs of a session by name.

    Raises:
        GpuMemoryError, GpuLostError: of the GPU, where there is one.
    """
    try:
        return list(session.run(outputs, inputs))
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        raise cuda.translated(error) from None


def _require_provider(provider: str) -> None:
    cuda.require_device()
    if provider not in onnxruntime.get_available_providers():
        raise BackendError(
            f'this ONNX Runtime has no {provider}: `pip uninstall onnxruntime` and `pip install '
            "onnxruntime-gpu` (on a Jetson NVIDIA's wheel)"
        )


def _options_of(device: str) -> dict[str, str]:
    if device != TENSORRT:
        return {}
    return {
        'trt_fp16_enable': '1',
        'trt_engine_cache_enable': '1',
        'trt_engine_cache_path': str(EngineCache().folder),
        'trt_timing_cache_enable': '1',
    }


class OnnxRuntimeBackend:
    """See `Backend`.

    Args:
        file: the ONNX file.
        threads: CPU threads; 0 lets ONNX Runtime take one a core.
        device: cpu, cuda or tensorrt.

    Raises:
        ModelError: the file is not an ONNX file, or not one of this package.
        BackendError: the GPU can't be used.
    """

    def __init__(self, file: ModelFile, threads: int = 0, device: str = CPU) -> None:
        try:
            self._session = open_session(file.content, threads, device)
        except ModelError as error:
            raise ModelError(f'{file.path}: {error}') from None
        self.name = 'onnxruntime' if device == CPU else f'onnxruntime_{device}'
        found = cuda.find_device() if device != CPU else None
        self.device = CPU if found is None else f'cuda:0 {found.name}'
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.model_name = file.name
        self.model = ModelInfo.from_metadata(metadata, str(file.path))
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.model.check_graph([*map(_tensor, inputs)], [*map(_tensor, outputs)], str(file.path))
        self._is_padded = device != CPU
        self.batches = Batcher(
            len(self.model.labels), MAX_BATCH, GPU_WARM if self._is_padded else (1,)
        )

    def warm_up(self) -> None:
        """On a CPU one blank face; on a GPU 6 runs, of 63 faces in all."""
        self.batches.warm_up(self._run, self.model.input_size)

    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3] RGB; N may be 0."""
        return self.batches.infer(self._run, faces_rgb)

    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        faces = pad(faces_rgb, GPU_BATCHES) if self._is_padded else faces_rgb
        (logits,) = run_session(self._session, [metadata.OUTPUT_NAME], {metadata.INPUT_NAME: faces})
        return logits[: len(faces_rgb)]


def _tensor(tensor: onnxruntime.NodeArg) -> Tensor:
    kind = tensor.type.removeprefix('tensor(').removesuffix(')')
    return tensor.name, 'float32' if kind == 'float' else kind, list(tensor.shape[1:])
