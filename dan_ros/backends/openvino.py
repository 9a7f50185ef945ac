"""OpenVINO: Intel's runtime, a second way to run the network on a CPU.

Settings: https://docs.openvino.ai, "High-level Performance Hints" and "CPU Device".
"""

import numpy as np
import openvino

from dan_ros.backends.batching import Batcher
from dan_ros.errors import BackendError, ModelError
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo, Tensor
from dan_ros.model.store import ModelFile

MAX_BATCH = 32  # larger sets of faces are run in parts, which bounds memory
WARM = (1, 2, 3, 4)  # each new number of faces costs a hundredth of a second, the first five
DEVICE = 'CPU'


class OpenVinoBackend:
    """See `Backend`.

    OpenVINO decides by the CPU whether it computes a float model in fp32 or in bf16.

    Args:
        file: the ONNX file.
        threads: CPU threads; 0 leaves the choice to OpenVINO.

    Raises:
        ModelError: the file is not an ONNX file, or not one of this package.
        BackendError: OpenVINO can't use this CPU.
    """

    name = 'openvino'
    device = 'cpu'

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        self.model_name = file.name
        self.model = ModelInfo.from_onnx(file.content, str(file.path))
        compiled = _compile(file, threads)
        inputs, outputs = [*map(_tensor, compiled.inputs)], [*map(_tensor, compiled.outputs)]
        self.model.check_graph(inputs, outputs, str(file.path))
        self._request = compiled.create_infer_request()
        self.batches = Batcher(len(self.model.labels), MAX_BATCH, WARM)

    def warm_up(self) -> None:
        """Compile for a few faces, a tenth of a second in all."""
        self.batches.warm_up(self._run, self.model.input_size)

    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3] RGB; N may be 0."""
        return self.batches.infer(self._run, faces_rgb)

    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        faces = np.ascontiguousarray(faces_rgb)
        result = self._request.infer({metadata.INPUT_NAME: faces}, share_inputs=True)
        logits: np.ndarray = result[metadata.OUTPUT_NAME]
        return logits.copy()


def _tensor(port: openvino.ConstOutput) -> Tensor:
    shape = [d.to_string() if d.is_dynamic else d.get_length() for d in port.partial_shape][1:]
    return port.any_name, str(port.element_type.to_dtype()), shape


def _compile(file: ModelFile, threads: int) -> openvino.CompiledModel:
    core = openvino.Core()
    settings = {'PERFORMANCE_HINT': 'LATENCY'}
    if threads:
        settings['INFERENCE_NUM_THREADS'] = str(threads)
    try:
        model = core.read_model(file.content)
    except RuntimeError as error:
        raise ModelError(f'{file.path}: OpenVINO can not read it: {error}') from None
    try:
        return core.compile_model(model, DEVICE, settings)
    except RuntimeError as error:
        raise BackendError(f'OpenVINO can not run {file.path} on this CPU: {error}') from None
