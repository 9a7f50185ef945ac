# SPDX-License-Identifier: Apache-2.0
"""OpenVINO: Intel's inference runtime, an alternative on CPUs.

Settings: https://docs.openvino.ai, "High-level Performance Hints" and "CPU Device".
"""

from typing import Any

import numpy as np
import openvino
from openvino.frontend.onnx import ConversionExtension

from dan_ros.backends.base import DEFAULT_CONFIG, Backend, BackendConfig
from dan_ros.errors import BackendError, ModelError, one_line
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo, Tensor
from dan_ros.model.store import ModelFile

try:
    from openvino import opset8 as ops
except ImportError:  # before 2025
    from openvino.runtime import opset8 as ops


class OpenVinoBackend(Backend):
    """OpenVINO on the CPU; on CPUs with fast bf16 it computes float models in bf16.

    It uses `threads` of its config.

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


def _tensor(port: 'openvino.ConstOutput') -> Tensor:
    sides = [d.to_string() if d.is_dynamic else d.get_length() for d in port.partial_shape]
    ours = port.names & {metadata.INPUT_NAME, metadata.OUTPUT_NAME}  # a port can have more names
    return min(ours or port.names), str(port.element_type.to_dtype()), metadata.without_batch(sides)


def _compile(file: ModelFile, threads: int) -> openvino.CompiledModel:
    core = openvino.Core()
    core.add_extension(ConversionExtension('ReduceLogSumExp', _log_sum_exp))
    settings = {'PERFORMANCE_HINT': 'LATENCY'}
    if threads:
        settings['INFERENCE_NUM_THREADS'] = str(threads)
    try:
        model = core.read_model(file.content)
    except RuntimeError as error:
        raise ModelError(f'{file.path}: OpenVINO cannot read it: {one_line(error)}') from None
    try:
        return core.compile_model(model, 'CPU', settings)
    except RuntimeError as error:
        raise BackendError(
            f'OpenVINO cannot run {file.path} on this CPU: {one_line(error)}'
        ) from None


def _log_sum_exp(node: Any) -> Any:
    """Convert a ReduceLogSumExp to m + log(sum(exp(x - m))), m = max(x).

    OpenVINO 2026 itself ignores its attribute `axes` in opsets 13 to 17, and sums over all faces.
    """
    x = node.get_input(0)
    if node.get_input_size() > 1:  # opset 18
        axes = node.get_input(1)
    else:
        axes = node.get_attribute('axes', list(range(x.get_partial_shape().rank.get_length())))
    largest = ops.reduce_max(x, axes, True)
    total = ops.reduce_sum(ops.exp(ops.subtract(x, largest)), axes, True)
    result = ops.add(ops.log(total), largest)
    return (result if node.get_attribute('keepdims', 1) else ops.squeeze(result, axes)).outputs()
