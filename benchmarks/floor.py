"""The least time that the arithmetic of a network takes on this machine.

A network's multiplications are counted in its graph. How many this machine does a second at best is
measured on large products of matrices, which wait for no memory. Their ratio is a floor that no
implementation gets below; real ones also wait for weights, and for each other's threads.
"""

import time
from math import prod

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, shape_inference

SIDE = 1024  # of the matrices
ROUNDS = 20


def count_products(content: bytes, **sizes: int) -> float:
    """Multiplications of convolutions and matrix products in an ONNX graph.

    Args:
        content: the ONNX file.
        sizes: values of the free dimensions of the inputs, by name.
    """
    model = onnx.load_from_string(content)
    for value in model.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField('shape')
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return float(sum(_products_of(node, shapes) for node in graph.node))


def _products_of(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """For each value it gives, a convolution sums over a kernel, a product over a row."""
    if node.op_type == 'Conv':
        return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type in ('MatMul', 'Gemm'):
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0


def products_per_second(is_int8: bool) -> float:
    """How many multiplications this machine does at best, on all its cores."""
    session = _matrix_product(is_int8)
    left = np.ones((SIDE, SIDE), np.uint8 if is_int8 else np.float32)
    times_s = []
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        session.run(None, {'left': left})
        times_s.append(time.perf_counter() - started_s)
    return float(SIDE**3 / min(times_s))


def _matrix_product(is_int8: bool) -> onnxruntime.InferenceSession:
    """ONNX Runtime with a single product of two matrices, the right one constant."""
    kinds = (TensorProto.UINT8, TensorProto.INT32) if is_int8 else (TensorProto.FLOAT,) * 2
    right = np.ones((SIDE, SIDE), np.int8 if is_int8 else np.float32)
    graph = helper.make_graph(
        [helper.make_node('MatMulInteger' if is_int8 else 'MatMul', ['left', 'right'], ['out'])],
        'product',
        [helper.make_tensor_value_info('left', kinds[0], (SIDE, SIDE))],
        [helper.make_tensor_value_info('out', kinds[1], (SIDE, SIDE))],
        [onnx.numpy_helper.from_array(right, 'right')],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString())
