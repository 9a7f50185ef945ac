# SPDX-License-Identifier: Apache-2.0
"""OpenVINO: Intel's inference runtime, an alternative on CPUs.

Settings: https://docs.openvino.ai, "High-level Performance Hints" and "CPU Device".
"""

import numpy as np
import openvino

from dan_ros.backends.base import DEFAULT_CONFIG, Backend, BackendConfig
from dan_ros.errors import BackendError, ModelError, one_line
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo, Tensor
from dan_ros.model.onnx_file import ATTRIBUTE, NODE, OP_TYPE, encode_node, replace_graph, to_text
from dan_ros.model.protobuf import Value, encode, fields
from dan_ros.model.store import ModelFile

LOG_SUM_EXP = b'ReduceLogSumExp'
NAME = 1  # field of an attribute


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


def _tensor(port: 'openvino.ConstOutput') -> Tensor:
    sides = [d.to_string() if d.is_dynamic else d.get_length() for d in port.partial_shape]
    ours = port.names & {metadata.INPUT_NAME, metadata.OUTPUT_NAME}  # a port can have more names
    return min(ours or port.names), str(port.element_type.to_dtype()), metadata.without_batch(sides)


def _compile(file: ModelFile, threads: int) -> openvino.CompiledModel:
    core = openvino.Core()
    settings = {'PERFORMANCE_HINT': 'LATENCY'}
    if threads:
        settings['INFERENCE_NUM_THREADS'] = str(threads)
    try:
        model = core.read_model(replace_graph(file.content, _expand_log_sum_exp))
    except RuntimeError as error:
        raise ModelError(f'{file.path}: OpenVINO cannot read it: {one_line(error)}') from None
    try:
        return core.compile_model(model, 'CPU', settings)
    except RuntimeError as error:
        raise BackendError(
            f'OpenVINO cannot run {file.path} on this CPU: {one_line(error)}'
        ) from None


def _expand_log_sum_exp(graph: memoryview) -> bytes:
    """Replace each ReduceLogSumExp of a graph by m + log(sum(exp(x - m))), m = max(x).

    OpenVINO 2026 ignores its attribute `axes` in opsets 13 to 17, and sums over all faces.
    """
    return b''.join(_expand_field(*field) for field in fields(graph))


def _expand_field(number: int, value: Value) -> bytes:
    if number != NODE or isinstance(value, int):
        return encode(number, value)
    node: dict[int, list[memoryview]] = {1: [], 2: [], OP_TYPE: [], ATTRIBUTE: []}
    for field, part in fields(value):
        if field in node and isinstance(part, memoryview):
            node[field].append(part)
    axes = [one for one in node[ATTRIBUTE] if to_text(dict(fields(one)).get(NAME, 0)) == 'axes']
    if node[OP_TYPE] != [LOG_SUM_EXP] or not axes:
        return encode(number, value)
    x, y = (to_text(node[field][0]) for field in (1, 2))
    constant = b''.join(encode(i, 'value_ints' if i == NAME else v) for i, v in fields(axes[0]))
    others = [one for one in node[ATTRIBUTE] if one not in axes]
    return b''.join(
        (
            encode_node('ReduceMax', [x], f'{y}.max', axes),
            encode_node('Sub', [x, f'{y}.max'], f'{y}.rest'),
            encode_node('Exp', [f'{y}.rest'], f'{y}.powers'),
            encode_node('Constant', [], f'{y}.axes', [constant]),
            encode_node('ReduceSum', [f'{y}.powers', f'{y}.axes'], f'{y}.sum', others),
            encode_node('Log', [f'{y}.sum'], f'{y}.log'),
            encode_node('ReduceMax', [x], f'{y}.top', [*axes, *others]),
            encode_node('Add', [f'{y}.log', f'{y}.top'], y),
        )
    )
