"""Other forms of a model's graph, for TensorRT: strongly typed fp16, and symmetric int8.

Both are derived from the ONNX file when an engine is built, so that one file serves every backend.
"""

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from dan_ros.errors import ModelError

FP16_MAX = float(np.finfo(np.float16).max)
S8_MAX, U8_MAX = 127, 255
AXES_ARE_AN_INPUT = 18  # opset from which ReduceMax has them so
# What runs in fp16 between convolutions; weights and the tail behind them stay in fp32, because the
# attention's sums reach 4e4.
HALVED_OPERATORS = ('Conv', 'Relu', 'Add', 'MaxPool')


def is_quantised(content: bytes) -> bool:
    """Whether the graph of an ONNX file has int8 parts."""
    return any(n.op_type == 'QuantizeLinear' for n in onnx.load_from_string(content).graph.node)


def to_fp16(content: bytes) -> bytes:
    """The same network with its convolutions in fp16, every tensor's type written down.

    From the first to the last convolution, all but the conversion of colours runs in fp16; inputs,
    outputs, the conversion in front and the attention's tail stay as they are.

    Args:
        content: an ONNX file with float weights.

    Raises:
        ModelError: it is quantised, or a weight does not fit fp16.
    """
    if is_quantised(content):
        raise ModelError('an int8 model has no fp16 form: give the file with float weights')
    model = onnx.load_from_string(content)
    halving = _Halving(model)
    for node in model.graph.node:
        halving.add(node)
    return _finished(model, halving.nodes)


def to_symmetric_int8(content: bytes) -> bytes:
    """The same int8 network as TensorRT takes it: signed, symmetric, with float biases.

    Each activation's range was measured on faces when the file was made; here it is made symmetric
    about zero. Where it began at zero, the file let the unsigned type cut off what is negative; a
    Relu does so here. Weights keep their values.

    Args:
        content: an ONNX file of `network.quantise`.

    Raises:
        ModelError: it is not quantised.
    """
    model = onnx.load_from_string(content)
    if not is_quantised(content):
        raise ModelError('the model has float weights: give its int8 twin, see `dan-ros export`')
    arrays = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == 'QuantizeLinear':
            nodes += _symmetric_pair(model.graph, node, arrays)
        elif node.op_type == 'DequantizeLinear' and node.input[0] in arrays:
            nodes += _constant_pair(model.graph, node, arrays)
        elif node.op_type != 'DequantizeLinear':
            nodes.append(node)
    return _finished(model, nodes)


def without_log_softmax(content: bytes) -> bytes:
    """The same network with its log-softmax written out, the largest taken off before.

    TensorRT's parser takes the logarithm of a softmax, which is minus infinity where two heads
    differ by more than 103; those of trained networks differ by thousands. Files of an older
    `network.export` have that operator.
    """
    model = onnx.load_from_string(content)
    opset = max(entry.version for entry in model.opset_import if not entry.domain)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        is_old = node.op_type == 'LogSoftmax'
        nodes += _written_out(model.graph, node, opset) if is_old else [node]
    return _finished(model, nodes)


def _written_out(graph: onnx.GraphProto, node: NodeProto, opset: int) -> list[NodeProto]:
    x, y = node.input[0], node.output[0]
    axis = next((attribute.i for attribute in node.attribute if attribute.name == 'axis'), -1)
    axes: list[str] = []
    options: dict[str, Any] = {'axes': [axis]}
    if opset >= AXES_ARE_AN_INPUT:
        axes, options = [f'{y}.axes'], {}
        graph.initializer.append(numpy_helper.from_array(np.array([axis]), axes[0]))
    largest, less, total = f'{y}.largest', f'{y}.less', f'{y}.total'
    return [
        helper.make_node('ReduceMax', [x, *axes], [largest], name=f'node_{largest}', **options),
        helper.make_node('Sub', [x, largest], [less], name=f'node_{less}'),
        helper.make_node('ReduceLogSumExp', [less, *axes], [total], f'node_{total}', **options),
        helper.make_node('Sub', [less, total], [y], name=f'node_{y}'),
    ]


class _Halving:
    """Rewrites a graph node by node.

    Args:
        model: gets the weights in fp16.

    Attributes:
        nodes: of the new graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[NodeProto] = []
        self._graph = model.graph
        nodes = list(model.graph.node)
        self._made = {name for node in _halved_nodes(nodes) for name in node.output}
        self._weights = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        # Weights stored in fp16 have a Cast behind them.
        self._stored = {n.output[0]: n.input[0] for n in nodes if n.op_type == 'Cast'}
        self._converted: set[str] = set()

    def add(self, node: NodeProto) -> None:
        """Append a node, with casts before it where it needs them."""
        convert = self._half if node.output[0] in self._made else self._wide
        node.input[:] = [convert(name) for name in node.input]
        self.nodes.append(node)

    def _half(self, name: str) -> str:
        """A tensor's name in fp16."""
        if name in self._made:
            return name
        half = f'{name}.fp16'
        if half not in self._converted:
            self._converted.add(half)
            weight = self._weights.get(self._stored.get(name, name))
            if weight is None:
                self.nodes.append(_cast(name, half, TensorProto.FLOAT16))
            else:
                self._graph.initializer.append(_to_half(weight, name, half))
        return half

    def _wide(self, name: str) -> str:
        """A tensor's name in fp32, or whatever type it has outside."""
        if name not in self._made:
            return name
        wide = f'{name}.wide'
        if wide not in self._converted:
            self._converted.add(wide)
            self.nodes.append(_cast(name, wide, TensorProto.FLOAT))
        return wide


def _halved_nodes(nodes: list[NodeProto]) -> list[NodeProto]:
    """The convolutions and what lies between them, without the first, which converts colours."""
    maker = {name: node for node in nodes for name in node.output}
    convolutions = [node for node in nodes if node.op_type == 'Conv']
    colour, rest = convolutions[0], convolutions[1:]
    halved: dict[str, NodeProto] = {}
    waiting = list(rest)
    while waiting:
        node = waiting.pop()
        name = node.output[0]
        if name in halved or node is colour or node.op_type not in HALVED_OPERATORS:
            continue
        halved[name] = node
        waiting += [maker[tensor] for tensor in node.input if tensor in maker]
    # The activation of the last convolution, before its sums.
    for node in nodes:
        if node.op_type == 'Relu' and node.input[0] in {n.output[0] for n in rest}:
            halved[node.output[0]] = node
    return list(halved.values())


def _to_half(weight: np.ndarray, name: str, half_name: str) -> TensorProto:
    if np.abs(weight).max(initial=0) > FP16_MAX:
        raise ModelError(f'the weights {name} do not fit fp16: build with precision fp32')
    return numpy_helper.from_array(weight.astype(np.float16), half_name)


def _cast(name: str, output: str, kind: int) -> NodeProto:
    return helper.make_node('Cast', [name], [output], name=f'node_{output}', to=kind)


def _symmetric_pair(
    graph: onnx.GraphProto, node: NodeProto, arrays: dict[str, np.ndarray]
) -> list[NodeProto]:
    """Quantise and dequantise an activation; the old pair's names are kept."""
    scale, zero = float(arrays[node.input[1]]), int(arrays[node.input[2]])
    largest = scale * max(zero, U8_MAX - zero)
    tensor = node.input[0]
    pair = []
    if zero == 0:
        pair.append(helper.make_node('Relu', [tensor], [f'{tensor}.cut'], name=f'cut_{tensor}'))
        tensor = f'{tensor}.cut'
    factor = np.float32(largest / S8_MAX)
    output = node.output[0].replace('_QuantizeLinear_Output', '_DequantizeLinear_Output')
    return pair + _pair(graph, node.input[0], tensor, output, factor, None)


def _constant_pair(
    graph: onnx.GraphProto, node: NodeProto, arrays: dict[str, np.ndarray]
) -> list[NodeProto]:
    """A weight as float numbers that are quantised and dequantised; a bias as float numbers."""
    name, output = node.input[0], node.output[0]
    scale = arrays[node.input[1]]
    numbers, zeros = (arrays[place].astype(np.float32) for place in (name, node.input[2]))
    is_per_channel = scale.size > 1
    # One factor a channel, the first axis; or one for all.
    shape = (-1,) + (1,) * (numbers.ndim - 1) if is_per_channel else ()
    real = ((numbers - zeros.reshape(shape)) * scale.reshape(shape)).astype(np.float32)
    if numbers.ndim < 2 or not is_per_channel:
        graph.initializer.append(numpy_helper.from_array(real, output))
        return []
    graph.initializer.append(numpy_helper.from_array(real, f'{name}.real'))
    return _pair(graph, name, f'{name}.real', output, scale.astype(np.float32), 0)


def _pair(
    graph: onnx.GraphProto,
    name: str,
    tensor: str,
    output: str,
    scale: np.ndarray | np.float32,
    axis: int | None,
) -> list[NodeProto]:
    names = [f'{name}.s8_scale', f'{name}.s8_zero']
    graph.initializer.append(numpy_helper.from_array(np.asarray(scale), names[0]))
    zero = np.zeros_like(np.asarray(scale), np.int8)
    graph.initializer.append(numpy_helper.from_array(zero, names[1]))
    options: dict[str, Any] = {} if axis is None else {'axis': axis}
    return [
        helper.make_node(kind, [source, *names], [target], name=f'{kind.lower()}_{name}', **options)
        for kind, source, target in (
            ('QuantizeLinear', tensor, f'{name}.s8'),
            ('DequantizeLinear', f'{name}.s8', output),
        )
    ]


def _finished(model: onnx.ModelProto, nodes: list[NodeProto]) -> bytes:
    """The model with these nodes, without what they do not use."""
    used = {name for node in nodes for name in node.input}
    kept_nodes = [node for node in nodes if node.op_type != 'Cast' or node.output[0] in used]
    used = {name for node in kept_nodes for name in node.input}
    initialisers = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept_nodes)
    model.graph.initializer.extend(initialisers)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
