# SPDX-License-Identifier: Apache-2.0
"""Converts a model's graph for TensorRT: to strongly typed fp16, or to symmetric int8.

Both are derived from the ONNX file when an engine is built, so that one file serves every backend.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from dan_ros.errors import ModelError
from dan_ros.model.onnx_file import has_operator

INVALID = onnx.checker.ValidationError  # a converted graph is invalid
QUANTIZE, DEQUANTIZE = 'QuantizeLinear', 'DequantizeLinear'
FP16_MAX = float(np.finfo(np.float16).max)
S8_MAX = 127
AXES_INPUT_OPSET = 18  # first opset in which the axes of ReduceMax are an input
# Operators that run in fp16 between convolutions. The attention's sums reach 4e4, close to the
# largest fp16 number, so they and everything after them stay in fp32.
FP16_OPERATORS = ('Conv', 'Relu', 'Add', 'MaxPool')


def to_fp16(content: bytes) -> bytes:
    """Convert the convolutions of a network to fp16, with explicit casts.

    Everything from the second to the last convolution runs in fp16. Inputs, outputs, the color
    conversion (the first convolution) and the layers after the attention's sums do not change.

    Raises:
        ModelError: it is quantized, or a weight is too large for fp16.
    """
    if has_operator(content, QUANTIZE):
        raise ModelError('an int8 model has no fp16 form: use the model with float weights')
    model = onnx.load_from_string(content)
    converter = _Fp16Converter(model)
    for node in model.graph.node:
        converter.add(node)
    return _finish(model, converter.nodes)


def to_symmetric_int8(content: bytes) -> bytes:
    """Convert a quantized network to the form TensorRT takes: signed, symmetric, float biases.

    The range of each activation, measured when the file was quantized, is made symmetric about
    zero. If the range started at zero, the unsigned type clipped negative values; a Relu does this
    instead. Weights keep their values.

    Args:
        content: an ONNX file written by `network.quantize`, or an adopted classifier that ONNX
            Runtime quantized.

    Raises:
        ModelError: it is not quantized.
    """
    if not has_operator(content, QUANTIZE):
        raise ModelError('the model has float weights: use its int8 version, see `dan-ros export`')
    model = onnx.load_from_string(content)
    arrays = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    dequantized: dict[str, list[str]] = defaultdict(list)  # names of a tensor after dequantization
    for node in model.graph.node:
        if node.op_type == DEQUANTIZE:
            dequantized[node.input[0]].append(node.output[0])
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == QUANTIZE:
            outputs = dequantized[node.output[0]]
            nodes += _quantize_activation(model.graph, node, outputs, arrays)
        elif node.op_type == DEQUANTIZE and node.input[0] in arrays:
            nodes += _quantize_constant(model.graph, node, arrays)
        elif node.op_type != DEQUANTIZE:
            nodes.append(node)
    return _finish(model, nodes)


def expand_log_softmax(content: bytes) -> bytes:
    """Replace LogSoftmax by its formula, with the maximum subtracted first.

    TensorRT's parser and OpenCV take the logarithm of a softmax, which is minus infinity where two
    heads differ by more than 103; in trained networks they differ by thousands. `dan-ros adopt`
    does this since it supports OpenCV; TensorRT also gets classifiers that were adopted before.
    """
    model = onnx.load_from_string(content)
    opset = max(entry.version for entry in model.opset_import if not entry.domain)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        is_old = node.op_type == 'LogSoftmax'
        nodes += _log_softmax_formula(model.graph, node, opset) if is_old else [node]
    return _finish(model, nodes)


def _log_softmax_formula(graph: onnx.GraphProto, node: NodeProto, opset: int) -> list[NodeProto]:
    x, y = node.input[0], node.output[0]
    axis = next((attribute.i for attribute in node.attribute if attribute.name == 'axis'), -1)
    axes: list[str] = []
    options: dict[str, Any] = {'axes': [axis]}
    if opset >= AXES_INPUT_OPSET:
        axes, options = [f'{y}.axes'], {}
        graph.initializer.append(numpy_helper.from_array(np.array([axis]), axes[0]))
    largest, less, total = f'{y}.largest', f'{y}.less', f'{y}.total'
    return [
        helper.make_node('ReduceMax', [x, *axes], [largest], name=f'node_{largest}', **options),
        helper.make_node('Sub', [x, largest], [less], name=f'node_{less}'),
        helper.make_node('ReduceLogSumExp', [less, *axes], [total], f'node_{total}', **options),
        helper.make_node('Sub', [less, total], [y], name=f'node_{y}'),
    ]


class _Fp16Converter:
    """Rewrites a graph node by node.

    Args:
        model: receives the fp16 weights.

    Attributes:
        nodes: the nodes of the new graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[NodeProto] = []
        self._graph = model.graph
        nodes = list(model.graph.node)
        self._fp16_tensors = {name for node in _fp16_nodes(nodes) for name in node.output}
        self._weights = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        # Weights stored in fp16 are followed by a Cast.
        self._cast_source = {n.output[0]: n.input[0] for n in nodes if n.op_type == 'Cast'}
        self._converted: set[str] = set()

    def add(self, node: NodeProto) -> None:
        """Append a node, preceded by the casts that its inputs need."""
        convert = self._as_fp16 if node.output[0] in self._fp16_tensors else self._as_fp32
        node.input[:] = [convert(name) for name in node.input]
        self.nodes.append(node)

    def _as_fp16(self, name: str) -> str:
        """Name of a tensor's fp16 version."""
        if name in self._fp16_tensors:
            return name
        half = f'{name}.fp16'
        if half not in self._converted:
            self._converted.add(half)
            weight = self._weights.get(self._cast_source.get(name, name))
            if weight is None:
                self.nodes.append(_cast(name, half, TensorProto.FLOAT16))
            else:
                self._graph.initializer.append(_weight_to_fp16(weight, name, half))
        return half

    def _as_fp32(self, name: str) -> str:
        """Name of a tensor's fp32 version; tensors outside the fp16 part keep their type."""
        if name not in self._fp16_tensors:
            return name
        wide = f'{name}.wide'
        if wide not in self._converted:
            self._converted.add(wide)
            self.nodes.append(_cast(name, wide, TensorProto.FLOAT))
        return wide


def _fp16_nodes(nodes: list[NodeProto]) -> list[NodeProto]:
    """All convolutions but the first, which converts colors, and the nodes between them."""
    maker = {name: node for node in nodes for name in node.output}
    convolutions = [node for node in nodes if node.op_type == 'Conv']
    colors, rest = convolutions[:1], convolutions[1:]
    found: dict[str, NodeProto] = {}
    waiting = list(rest)
    while waiting:
        node = waiting.pop()
        name = node.output[0]
        if name in found or node in colors or node.op_type not in FP16_OPERATORS:
            continue
        found[name] = node
        waiting += [maker[tensor] for tensor in node.input if tensor in maker]
    # The activation after the last convolution, before the sums.
    for node in nodes:
        if node.op_type == 'Relu' and node.input[0] in {n.output[0] for n in rest}:
            found[node.output[0]] = node
    return list(found.values())


def _weight_to_fp16(weight: np.ndarray, name: str, half_name: str) -> TensorProto:
    if np.abs(weight).max(initial=0) > FP16_MAX:
        raise ModelError(f'the weights {name} are too large for fp16: build with precision fp32')
    return numpy_helper.from_array(weight.astype(np.float16), half_name)


def _cast(name: str, output: str, kind: int) -> NodeProto:
    return helper.make_node('Cast', [name], [output], name=f'node_{output}', to=kind)


def _quantize_activation(
    graph: onnx.GraphProto, node: NodeProto, outputs: Sequence[str], arrays: dict[str, np.ndarray]
) -> list[NodeProto]:
    """Replace a node that quantizes, and those that dequantize its result to `outputs`."""
    scale, zero = float(arrays[node.input[1]]), arrays[node.input[2]]
    integers = np.iinfo(zero.dtype)
    largest = scale * max(int(zero) - integers.min, integers.max - int(zero))
    tensor, name = node.input[0], node.output[0]
    relu = []
    if zero == integers.min:
        relu = [helper.make_node('Relu', [tensor], [f'{name}.cut'], name=f'cut_{name}')]
        tensor = f'{name}.cut'
    return relu + _symmetric_pair(graph, name, tensor, outputs, np.float32(largest / S8_MAX))


def _quantize_constant(
    graph: onnx.GraphProto, node: NodeProto, arrays: dict[str, np.ndarray]
) -> list[NodeProto]:
    """Replace an int8 weight by a float weight and a symmetric pair; make a bias float."""
    name, output = node.input[0], node.output[0]
    scale = arrays[node.input[1]]
    integers, zeros = (arrays[key].astype(np.float32) for key in (name, node.input[2]))
    is_per_channel = scale.size > 1
    axis = next((attribute.i for attribute in node.attribute if attribute.name == 'axis'), 1)
    shape = [-1 if side == axis else 1 for side in range(integers.ndim)] if is_per_channel else []
    real = ((integers - zeros.reshape(shape)) * scale.reshape(shape)).astype(np.float32)
    if integers.ndim < 2 or not is_per_channel:
        graph.initializer.append(numpy_helper.from_array(real, output))
        return []
    graph.initializer.append(numpy_helper.from_array(real, f'{name}.real'))
    scale = scale.astype(np.float32)
    return _symmetric_pair(graph, name, f'{name}.real', [output], scale, axis=axis)


def _symmetric_pair(
    graph: onnx.GraphProto,
    name: str,
    tensor: str,
    outputs: Sequence[str],
    scale: np.ndarray | np.float32,
    **options: Any,
) -> list[NodeProto]:
    """Quantize `tensor` to int8 with zero point 0, and dequantize it to `outputs`."""
    names = [f'{name}.s8_scale', f'{name}.s8_zero']
    graph.initializer.append(numpy_helper.from_array(np.asarray(scale), names[0]))
    zero = np.zeros_like(np.asarray(scale), np.int8)
    graph.initializer.append(numpy_helper.from_array(zero, names[1]))
    return [
        helper.make_node(
            kind, [source, *names], [target], name=f'{kind.lower()}_{target}', **options
        )
        for kind, source, target in (
            (QUANTIZE, tensor, f'{name}.s8'),
            *((DEQUANTIZE, f'{name}.s8', output) for output in outputs),
        )
    ]


def _finish(model: onnx.ModelProto, nodes: list[NodeProto]) -> bytes:
    """Serialize the model with these nodes; drop casts and initializers that nothing uses."""
    used = {name for node in nodes for name in node.input} | {o.name for o in model.graph.output}
    kept_nodes = [node for node in nodes if node.op_type != 'Cast' or node.output[0] in used]
    used = {name for node in kept_nodes for name in node.input}
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept_nodes)
    model.graph.initializer.extend(initializers)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
