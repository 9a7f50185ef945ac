# SPDX-License-Identifier: Apache-2.0
"""OpenVINO: Intel's inference runtime, an alternative on CPUs.

Settings: https://docs.openvino.ai, "High-level Performance Hints" and "CPU Device".
"""

import numpy as np
import openvino

from dan_ros.backends.base import DEFAULT_CONFIG, Backend, BackendConfig
from dan_ros.errors import BackendError, ModelError
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo, Tensor
from dan_ros.model.store import ModelFile


class OpenVinoBackend(Backend):
    """OpenVINO on the CPU; on CPUs with fast bf16 it computes float models in bf16.

    Args:
        file: the ONNX file.
        config: `threads` is used.

    Raises:
        ModelError: the file is not an ONNX file of this package.
        BackendError: OpenVINO cannot use this CPU.
    """

    name = 'openvino'
    warm_up_batches = (1, 2, 3, 4)  # the first run of a batch size takes about 10 ms longer

    def __init__(self, file: ModelFile, config: BackendConfig = DEFAULT_CONFIG) -> None:
        where = str(file.path)
        model = ModelInfo.from_onnx(file.content, where)
        compiled = _compile(file, config.threads)
        inputs, outputs = [*map(_tensor, compiled.inputs)], [*map(_tensor, compiled.outputs)]
        model.check_graph(inputs, outputs, where)
        self._request = compiled.create_infer_request()
        super().__init__(model, file.name)

    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        result = self._request.infer({metadata.INPUT_NAME: faces_rgb}, share_inputs=True)
        logits: np.ndarray = result[metadata.OUTPUT_NAME]
        return logits.copy()


def _tensor(port: openvino.ConstOutput) -> Tensor:
    sides = [d.to_string() if d.is_dynamic else d.get_length() for d in port.partial_shape]
    return port.any_name, str(port.element_type.to_dtype()), metadata.without_batch(sides)


def _compile(file: ModelFile, threads: int) -> openvino.CompiledModel:
    core = openvino.Core()
    settings = {'PERFORMANCE_HINT': 'LATENCY'}
    if threads:
        settings['INFERENCE_NUM_THREADS'] = str(threads)
    try:
        model = core.read_model(file.content)
    except RuntimeError as error:
        raise ModelError(f'{file.path}: OpenVINO cannot read it: {error}') from None
    try:
        return core.compile_model(model, 'CPU', settings)
    except RuntimeError as error:
        raise BackendError(f'OpenVINO cannot run {file.path} on this CPU: {error}') from None
