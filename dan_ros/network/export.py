# SPDX-License-Identifier: Apache-2.0
"""Write a fused DAN to an ONNX file with this package's interface, and read it back.

The interface: input `faces`, uint8 [N, H, W, 3] RGB, which feeds only a Cast; output `logits`,
float32 [N, C]; normalization inside the graph; opset 17, IR version 8, one file; metadata of
`ModelInfo`. The graph is written node by node instead of traced, so it is the same with every
version of torch, and its initializers have the names of `FusedDAN`'s parameters.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from dan_ros.errors import ModelError
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.onnx_file import parse_onnx
from dan_ros.model.onnx_writer import make_model, save_model
from dan_ros.network.dan import FEATURES
from dan_ros.network.fuse import FusedBlock, FusedDAN


class _Graph:
    """Nodes and initializers of a graph; every method returns the name of its output tensor."""

    def __init__(self, fp16_weights: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._fp16_weights = fp16_weights

    def op(self, kind: str, *inputs: str, output: str = '', **attributes: Any) -> str:
        output = output or f'{kind.lower()}_{len(self.nodes)}'
        self.nodes.append(
            helper.make_node(kind, inputs, [output], name=f'node_{output}', **attributes)
        )
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str, value: np.ndarray) -> str:
        """Add a weight: kernels and matrices in the chosen precision, small tensors in fp32."""
        value = np.ascontiguousarray(value, np.float32)
        if not self._fp16_weights or value.size <= 4096:
            return self.constant(name, value)
        if np.abs(value).max() > np.finfo(np.float16).max:
            raise ModelError(f'the weights {name} exceed the fp16 range; export with fp32 weights')
        self.constant(name, value.astype(np.float16))
        return self.op('Cast', name, output=f'{name}.fp32', to=TensorProto.FLOAT)

    def conv(self, x: str, name: str, layer: nn.Conv2d, relu: bool = True) -> str:
        y = self.op(
            'Conv',
            x,
            self.weight(f'{name}.weight', layer.weight.numpy()),
            self.weight(f'{name}.bias', np.asarray(layer.bias)),
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=list(layer.padding) * 2,
            group=layer.groups,
        )
        return self.op('Relu', y) if relu else y


def export_onnx(
    fused: FusedDAN, info: ModelInfo, path: Path, fp16: bool = False, batch: int | None = None
) -> None:
    """Write `fused` to `path`, whose folder must exist.

    Args:
        fused: the network, in float32.
        info: stored as metadata; defines height and width of the input.
        path: the ONNX file, replaced atomically.
        fp16: store kernels and matrices in fp16, each followed by a Cast to fp32. This halves the
            file; runtimes fold the Cast when they load it.
        batch: fixed batch size, for tools that need one; None allows any.

    Raises:
        ModelError: a weight exceeds the range of fp16.
    """
    height, width = info.input_size
    graph = _Graph(fp16)
    _write_nodes(graph, fused, places=-(-height // 32) * -(-width // 32))
    faces = helper.make_tensor_value_info(
        metadata.INPUT_NAME, TensorProto.UINT8, [batch or 'N', height, width, 3]
    )
    logits = helper.make_tensor_value_info(
        metadata.OUTPUT_NAME, TensorProto.FLOAT, [batch or 'N', len(info.labels)]
    )
    made = helper.make_graph(graph.nodes, 'dan', [faces], [logits], graph.initializers)
    save_model(make_model(made), info, path)


def _write_nodes(graph: _Graph, fused: FusedDAN, places: int) -> None:
    """Add the nodes of `FusedDAN.forward`, which documents the shapes."""
    x = graph.op('Cast', metadata.INPUT_NAME, to=TensorProto.FLOAT)
    colour = fused.colour.weight.numpy()  # [channels, 3], used as a 1x1 convolution
    x = graph.op('Transpose', x, perm=[0, 3, 1, 2])
    x = graph.op(
        'Conv',
        x,
        graph.weight('colour.weight', colour[:, :, None, None]),
        graph.weight('colour.bias', fused.colour.bias.numpy()),
        kernel_shape=[1, 1],
    )
    x = graph.conv(x, 'stem', fused.stem)
    x = graph.op('MaxPool', x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for name, block in fused.blocks.named_children():
        x = _write_block(graph, x, f'blocks.{name}', cast(FusedBlock, block))
    pooled = _write_spatial_attention(graph, x, fused, places)
    heads = _write_channel_attention(graph, pooled, fused)
    if fused.num_head > 1:
        heads = _write_log_softmax(graph, heads)
    heads = graph.op('ReduceSum', heads, graph.constant('axis_heads', np.array([0])), keepdims=0)
    graph.op(
        'Gemm',
        heads,
        graph.weight('classifier.weight', fused.classifier.weight.numpy()),
        graph.weight('classifier.bias', fused.classifier.bias.numpy()),
        transB=1,
        output=metadata.OUTPUT_NAME,
    )


def _write_log_softmax(graph: _Graph, x: str) -> str:
    """Add a log-softmax over the first axis that subtracts the maximum first.

    The LogSoftmax operator is not used: OpenCV, TensorRT's parser and ONNX's reference compute the
    logarithm of a softmax, which is minus infinity if the outputs of two heads differ by more than
    103. In trained networks they differ by thousands.
    """
    x = graph.op('Sub', x, graph.op('ReduceMax', x, axes=[0], keepdims=1))
    return graph.op('Sub', x, graph.op('ReduceLogSumExp', x, axes=[0], keepdims=1))


def _write_block(graph: _Graph, x: str, name: str, block: FusedBlock) -> str:
    y = graph.conv(x, f'{name}.conv1', block.conv1)
    y = graph.conv(y, f'{name}.conv2', block.conv2, relu=False)
    if block.downsample is not None:
        x = graph.conv(x, f'{name}.downsample', block.downsample, relu=False)
    return graph.op('Relu', graph.op('Add', y, x))


def _write_spatial_attention(graph: _Graph, x: str, fused: FusedDAN, places: int) -> str:
    heads = fused.num_head
    y = graph.conv(graph.conv(x, 'squeeze', fused.squeeze, relu=False), 'spatial', fused.spatial)
    shape = graph.constant('shape_heads', np.array([0, heads, FEATURES, places]))
    y = graph.op('Reshape', y, shape)  # [B, K, 512, hw]
    y = graph.op('ReduceSum', y, graph.constant('axis_channels', np.array([2])), keepdims=0)
    y = graph.op('Mul', y, graph.constant('one_over_places', np.array([1 / places], np.float32)))
    x = graph.op('Reshape', x, graph.constant('shape_features', np.array([0, FEATURES, places])))
    x = graph.op('Transpose', x, perm=[0, 2, 1])  # [B, hw, 512]
    return graph.op('Transpose', graph.op('MatMul', y, x), perm=[1, 0, 2])  # [K, B, 512]


def _write_channel_attention(graph: _Graph, pooled: str, fused: FusedDAN) -> str:
    y = pooled
    for step, activation in (('channel1', 'Relu'), ('channel2', 'Sigmoid')):
        weight = getattr(fused, f'{step}_weight').numpy()
        bias = getattr(fused, f'{step}_bias').numpy()
        y = graph.op('MatMul', y, graph.weight(f'{step}_weight', weight))
        y = graph.op(activation, graph.op('Add', y, graph.weight(f'{step}_bias', bias)))
    return graph.op('Mul', pooled, y)  # [K, B, 512]


def read_fused(content: bytes, where: str) -> tuple[FusedDAN, ModelInfo]:
    """Rebuild the fused network from an ONNX file written by `export_onnx`.

    Raises:
        ModelError: the file was not written by it, or its weights are quantized or external.
    """
    model = parse_onnx(content, where)
    info = ModelInfo.from_metadata({p.key: p.value for p in model.metadata_props}, where)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return _fused_from_arrays(arrays, where), info


def _fused_from_arrays(arrays: dict[str, np.ndarray], where: str) -> FusedDAN:
    import torch

    try:
        with torch.device('meta'):  # skip random initialization
            fused = FusedDAN(
                num_class=arrays['classifier.weight'].shape[0],
                num_head=arrays['channel1_weight'].shape[0],
                channels=arrays['stem.weight'].shape[1],
            )
        state = {
            name: torch.from_numpy(arrays[name].astype(np.float32)).reshape(parameter.shape)
            for name, parameter in fused.state_dict().items()
        }
    except KeyError as error:
        raise ModelError(
            f'{where} has no float weights of a DAN ({error.args[0]} is missing), which torch, '
            '`dan-ros explain` and `dan-ros export` need: give an fp32 or fp16 model, such as '
            'dan_ferplus. Other backends run quantized and adopted models, and `dan-ros export '
            '--as-is` copies them'
        ) from None
    fused.load_state_dict(state, assign=True)
    return fused.eval().requires_grad_(False)
