# SPDX-License-Identifier: Apache-2.0
"""Builds a TensorRT engine from ONNX with TensorRT 8.6, 10, 11 or TensorRT for RTX.

It uses the API calls that all of them share. The differences:

* fp16: networks are strongly typed in TensorRT 10 and later and in TensorRT for RTX, so the graph
  is rewritten in fp16. TensorRT 8.6 gets the float graph, the FP16 flag, and fp32 layers after the
  attention's sums.
* int8: quantized symmetrically in the graph; 8.6 also needs the INT8 flag.
* EXPLICIT_BATCH is set in versions that have it.
* TensorRT for RTX has no timing cache.

Building needs a GPU, except with TensorRT for RTX, whose engines run on every RTX GPU.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dan_ros.errors import BackendError, ModelError, one_line, shorten
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.onnx_file import has_operator

if TYPE_CHECKING:
    import onnx
    import tensorrt as trt

FLAVORS = ('tensorrt', 'tensorrt_rtx')
FP32, FP16, INT8 = 'fp32', 'fp16', 'int8'
OPTIMAL_BATCH = 4  # faces per run that the engine is tuned for
WORKSPACE_BYTES = 1 << 30
MAX_MESSAGE = 400  # characters quoted from TensorRT's message


def import_tensorrt(flavor: str = 'auto') -> Any:
    """Import one of `FLAVORS`, or with 'auto' the first of them that is installed.

    Raises:
        BackendError: it is not installed, or does not load.
    """
    problems = []
    for name in FLAVORS if flavor == 'auto' else (flavor,):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:  # incompatible libraries
            problems.append(f'{name} does not load: {error}')
            continue
        if hasattr(module, 'Builder'):  # if only type stubs are installed, the module is empty
            return module
    raise BackendError(
        '; '.join(problems)
        or 'TensorRT is not installed: on a Jetson it comes with JetPack (apt install '
        'python3-libnvinfer), on a desktop `pip install tensorrt`, for RTX GPUs also `pip install '
        'tensorrt-rtx-cu12`'
    )


def runtime_of(trt: Any) -> str:
    """Name and version, such as 'tensorrt 10.3.0'."""
    return f'{trt.__name__} {trt.__version__}'


def is_rtx(trt: Any) -> bool:
    """Whether the module is TensorRT for RTX."""
    return bool(trt.__name__ == 'tensorrt_rtx')


def choose_precision(precision: str, content: bytes) -> str:
    """Resolve 'auto': int8 for a quantized model, else fp16.

    Raises:
        ModelError: the model cannot run in this precision.
    """
    is_quantized = has_operator(content, 'QuantizeLinear')
    if precision == 'auto':
        return INT8 if is_quantized else FP16
    if is_quantized != (precision == INT8):
        form = 'int8' if is_quantized else 'float'
        raise ModelError(
            f'cannot build precision {precision} from a model with {form} weights: float weights '
            'give fp32 or fp16, an int8 model (see `dan-ros export --int8`) gives int8'
        )
    return precision


@dataclass
class Network:
    """A parsed network and the objects that must live as long as it."""

    definition: 'trt.INetworkDefinition'
    builder: 'trt.Builder'
    parser: 'trt.OnnxParser'
    log: Any


def parse(trt: Any, content: bytes, precision: str) -> Network:
    """Parse an ONNX file of this package, converted to the form that a precision needs.

    Raises:
        BackendError: TensorRT cannot parse it; the message names the node.
        ModelError: it cannot be converted, or its inputs and outputs differ from its metadata.
    """
    import onnx

    log = _logger(trt)
    builder = trt.Builder(log)
    definition = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(definition, log)
    form = _convert(trt, content, precision)
    if not parser.parse(form):
        nodes = onnx.load_from_string(form).graph.node
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        messages = '; '.join(f'{_name_of(nodes, e.node())}: {e.desc()}' for e in errors)
        raise BackendError(
            f'{runtime_of(trt)} cannot read the model: {messages or log.last}. Convert the model '
            'with `dan-ros convert`, or use the backend onnxruntime_cuda, which reads any ONNX'
        )
    _check_contract(trt, definition, content)
    return Network(definition, builder, parser, log)


def build(
    trt: Any, content: bytes, precision: str, max_batch: int, timing_cache: bytes = b''
) -> tuple[bytes, bytes]:
    """Build an engine in fp32, fp16 or int8, which may take minutes.

    The timing cache of an earlier build makes it faster.

    Returns:
        The engine and the timing cache; b'' if this TensorRT has none.

    Raises:
        BackendError, ModelError: the engine cannot be built.
    """
    network = parse(trt, content, precision)
    config = network.builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.add_optimization_profile(_profile(trt, network, max_batch))
    if not _is_strongly_typed(trt):
        _allow_precision(trt, config, network.definition, precision)
    cache = None
    if not is_rtx(trt):
        cache = config.create_timing_cache(timing_cache)
        config.set_timing_cache(cache, False)
    plan = network.builder.build_serialized_network(network.definition, config)
    if plan is None:
        raise BackendError(
            f'{runtime_of(trt)} cannot build an engine: {network.log.last}. Try precision fp32, a '
            'smaller batch, or backend.name onnxruntime_cuda or torch_cuda, which need no engine'
        )
    return bytes(plan), bytes(cache.serialize()) if cache else b''


def _name_of(nodes: 'Sequence[onnx.NodeProto]', index: int) -> str:
    if not 0 <= index < len(nodes):
        return 'the graph'
    return f'node {nodes[index].name} ({nodes[index].op_type})'


def _is_strongly_typed(trt: Any) -> bool:
    return is_rtx(trt) or hasattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED')


def _network_flags(trt: Any) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    wanted = ('STRONGLY_TYPED', 'EXPLICIT_BATCH')
    return sum(1 << int(getattr(flags, name)) for name in wanted if hasattr(flags, name))


def _convert(trt: Any, content: bytes, precision: str) -> bytes:
    from dan_ros.backends.tensorrt import onnx_transforms

    try:
        content = onnx_transforms.expand_log_softmax(content)
        if precision == INT8:
            return onnx_transforms.to_symmetric_int8(content)
        if precision == FP16 and _is_strongly_typed(trt):
            return onnx_transforms.to_fp16(content)
    except (ArithmeticError, LookupError, TypeError, ValueError, onnx_transforms.INVALID) as error:
        raise ModelError(
            f'this {precision} graph of another project cannot be converted for TensorRT '
            f'({shorten(one_line(error))}): use the backend onnxruntime_cuda, which runs any ONNX'
        ) from None
    return content


def _check_contract(trt: Any, network: 'trt.INetworkDefinition', content: bytes) -> None:
    info = ModelInfo.from_onnx(content, 'the model')
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    found = [(tensor.name, tensor.dtype, _sizes(tensor.shape)) for tensor in tensors]
    expected = [
        (metadata.INPUT_NAME, trt.DataType.UINT8, (-1, *info.input_size, 3)),
        (metadata.OUTPUT_NAME, trt.DataType.FLOAT, (-1, len(info.labels))),
    ]
    if found != expected:
        raise ModelError(
            f'the graph has the inputs and outputs {found}, but its metadata says {expected}. '
            'TensorRT needs a dynamic batch size: write the model again with `dan-ros export`'
        )


def _profile(trt: Any, network: Network, max_batch: int) -> 'trt.IOptimizationProfile':
    tensor = network.definition.get_input(0)
    face = _sizes(tensor.shape)[1:]
    profile = network.builder.create_optimization_profile()
    batches = (1, min(OPTIMAL_BATCH, max_batch), max_batch)
    profile.set_shape(tensor.name, *(trt.Dims((batch, *face)) for batch in batches))
    return profile


def _sizes(dimensions: 'trt.Dims') -> tuple[int, ...]:
    return tuple(dimensions[index] for index in range(len(dimensions)))


def _allow_precision(
    trt: Any, config: Any, network: 'trt.INetworkDefinition', precision: str
) -> None:
    """Set the precision for TensorRT 8.6, whose networks are weakly typed."""
    if precision == INT8:
        config.set_flag(trt.BuilderFlag.INT8)
    if precision != FP16:
        return
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    is_tail = False
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        is_tail = is_tail or layer.type == trt.LayerType.REDUCE
        if is_tail and layer.num_outputs and layer.get_output(0).dtype == trt.DataType.FLOAT:
            layer.precision = trt.DataType.FLOAT


def _logger(trt: Any) -> Any:
    """A logger that keeps TensorRT's last error for our own message."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = 'TensorRT gives no reason'

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.last = ' '.join(text.split())[:MAX_MESSAGE]

    return Logger()
