"""ONNX Runtime, the default backend: runs on every CPU."""

import numpy as np
import onnxruntime

from dan_ros import model_info
from dan_ros.errors import ModelError
from dan_ros.model_info import ModelInfo
from dan_ros.model_store import ModelFile

MAX_BATCH = 32  # larger sets of faces are run in parts, which bounds memory


def open_session(content: bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open a CPU session on the bytes of an ONNX file.

    Its threads sleep between runs: a robot's computer has other work, and by default ONNX Runtime's
    threads would spin.

    Raises:
        ModelError: ONNX Runtime can't read the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they come as exceptions as well
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    try:
        return onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        raise ModelError(f'ONNX Runtime can not read this model: {error}') from None


class OnnxRuntimeBackend:
    """See `Backend`.

    Args:
        file: the ONNX file.
        threads: CPU threads; 0 lets ONNX Runtime take one a core.

    Raises:
        ModelError: the file is not an ONNX file, or not one of this package.
    """

    name = 'onnxruntime'
    device = 'cpu'

    def __init__(self, file: ModelFile, threads: int = 0) -> None:
        try:
            self._session = open_session(file.content, threads)
        except ModelError as error:
            raise ModelError(f'{file.path}: {error}') from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.model_name = file.name
        self.model = ModelInfo.from_metadata(metadata, str(file.path))
        _check_contract(self._session, self.model, str(file.path))

    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3] RGB; N may be 0."""
        parts = [
            self._session.run(
                [model_info.OUTPUT_NAME],
                {model_info.INPUT_NAME: faces_rgb[start : start + MAX_BATCH]},
            )[0]
            for start in range(0, len(faces_rgb), MAX_BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.model.labels)), np.float32)


def _check_contract(session: onnxruntime.InferenceSession, model: ModelInfo, where: str) -> None:
    """Refuse a file whose graph is not what its metadata says.

    Raises:
        ModelError: names, types or shapes differ.
    """
    expected = (
        (session.get_inputs(), model_info.INPUT_NAME, 'tensor(uint8)', [*model.input_size, 3]),
        (session.get_outputs(), model_info.OUTPUT_NAME, 'tensor(float)', [len(model.labels)]),
    )
    for tensors, name, kind, shape in expected:
        found = [(tensor.name, tensor.type, list(tensor.shape[1:])) for tensor in tensors]
        if found != [(name, kind, shape)]:
            raise ModelError(
                f'{where}: its metadata promises {name}, {kind} [N, {", ".join(map(str, shape))}], '
                f'its graph has {found}. Make the file anew with `dan-ros convert`.'
            )
