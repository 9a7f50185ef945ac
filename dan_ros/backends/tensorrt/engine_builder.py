"""ONNX -> TensorRT engine, on the calls that TensorRT 8.6, 10, 11 and TensorRT for RTX share.

What differs between them, and what is done:

* fp16. From 10 on, and in TensorRT for RTX, networks are strongly typed: the graph is rewritten in
  fp16 and built as it is written. 8.6 gets the float graph, a flag that allows fp16, and the tail
  behind the attention's sums held in fp32.
* int8. Everywhere by symmetric quantisation in the graph; 8.6 needs a flag as well.
* EXPLICIT_BATCH is asked for where it exists.
* The timing cache is kept, except by TensorRT for RTX, which has none.

Building needs a GPU, except with TensorRT for RTX, whose engines serve every RTX card.
"""

import importlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from dan_ros.backends.tensorrt import onnx_transforms
from dan_ros.errors import BackendError, ModelError
from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo

if TYPE_CHECKING:
    import tensorrt as trt

FLAVOURS = ('tensorrt', 'tensorrt_rtx')
FP32, FP16, INT8 = 'fp32', 'fp16', 'int8'
PRECISIONS = ('auto', FP32, FP16, INT8)
OPTIMAL_BATCH = 4
WORKSPACE_BYTES = 1 << 30
TELL_S = 5.0  # so often a build says that it goes on

Say = Callable[[str], object]


def import_tensorrt(flavour: str = 'auto') -> Any:
    """TensorRT, or TensorRT for RTX, whichever is installed.

    Raises:
        BackendError: it is not, or does not load.
    """
    problems = []
    for name in FLAVOURS if flavour == 'auto' else (flavour,):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:  # its libraries do not fit
            problems.append(f'{name} does not load: {error}')
            continue
        if hasattr(module, 'Builder'):  # stubs for type checkers make an empty module
            return module
    raise BackendError(
        '; '.join(problems)
        or 'TensorRT is not installed: on a Jetson it comes with JetPack (apt install '
        'python3-libnvinfer), on a desktop `pip install tensorrt`, for RTX cards also `pip install '
        'tensorrt-rtx-cu12`'
    )


def runtime_of(trt: Any) -> str:
    """Flavour and version, such as 'tensorrt 10.3.0'."""
    return f'{trt.__name__} {trt.__version__}'


def is_rtx(trt: Any) -> bool:
    """Whether it is TensorRT for RTX."""
    return bool(trt.__name__ == 'tensorrt_rtx')


def choose_precision(precision: str, content: bytes) -> str:
    """What `auto` stands for: int8 for a quantised model, else fp16.

    Raises:
        ModelError: the model has no such form.
    """
    quantised = onnx_transforms.is_quantised(content)
    if precision == 'auto':
        return INT8 if quantised else FP16
    if quantised != (precision == INT8):
        form = 'int8' if quantised else 'float weights'
        raise ModelError(
            f'precision {precision} can not be built from a model with {form}: an int8 model (see '
            '`dan-ros export --int8`) gives int8, one with float weights fp32 or fp16'
        )
    return precision


@dataclass
class Network:
    """A parsed network, and what must live as long as it does."""

    definition: 'trt.INetworkDefinition'
    builder: 'trt.Builder'
    parser: 'trt.OnnxParser'
    log: Any


def parse(trt: Any, content: bytes, precision: str) -> Network:
    """Read an ONNX file of this package in the form that a precision needs.

    Raises:
        BackendError: TensorRT can't read it; the message names the node.
        ModelError: it has no such form, or its input and output are not those of the contract.
    """
    log = _logger(trt)
    builder = trt.Builder(log)
    definition = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(definition, log)
    form = _in_form(trt, content, precision)
    if not parser.parse(form):
        nodes = onnx.load_from_string(form).graph.node
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        told = '; '.join(f'{_name_of(nodes, e.node())}: {e.desc()}' for e in errors)
        raise BackendError(
            f'{runtime_of(trt)} can not read the model: {told or log.last}. Make the file with '
            '`dan-ros convert`, or use backend.name onnxruntime_cuda, which reads any ONNX'
        )
    _check_contract(trt, definition, content)
    return Network(definition, builder, parser, log)


def build(
    trt: Any,
    content: bytes,
    precision: str,
    max_batch: int,
    timing_cache: bytes = b'',
    say: Say = lambda text: None,
) -> tuple[bytes, bytes]:
    """Build an engine.

    Args:
        trt: module of TensorRT.
        content: the ONNX file.
        precision: fp32, fp16 or int8.
        max_batch: most faces at once.
        timing_cache: of an earlier build, or b''.
        say: told every few seconds how far it is.

    Returns:
        The engine, and the timing cache; b'' where there is none.

    Raises:
        BackendError: it can't be built.
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
    with _telling(trt, config, say):
        plan = network.builder.build_serialized_network(network.definition, config)
    if plan is None:
        raise BackendError(
            f'{runtime_of(trt)} can not build an engine: {network.log.last}. Try precision fp32, a '
            'smaller batch, or backend.name onnxruntime_cuda or torch_cuda, which need no engine'
        )
    return bytes(plan), bytes(cache.serialize()) if cache else b''


def _name_of(nodes: Sequence[onnx.NodeProto], index: int) -> str:
    if not 0 <= index < len(nodes):
        return 'the graph'
    return f'node {nodes[index].name} ({nodes[index].op_type})'


def _is_strongly_typed(trt: Any) -> bool:
    return is_rtx(trt) or hasattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED')


def _network_flags(trt: Any) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    wanted = ('STRONGLY_TYPED', 'EXPLICIT_BATCH')
    return sum(1 << int(getattr(flags, name)) for name in wanted if hasattr(flags, name))


def _in_form(trt: Any, content: bytes, precision: str) -> bytes:
    content = onnx_transforms.without_log_softmax(content)
    if precision == INT8:
        return onnx_transforms.to_symmetric_int8(content)
    return (
        onnx_transforms.to_fp16(content)
        if precision == FP16 and _is_strongly_typed(trt)
        else content
    )


def _check_contract(trt: Any, network: 'trt.INetworkDefinition', content: bytes) -> None:
    info = ModelInfo.from_onnx(content, 'the model')
    found = [
        (tensor.name, tensor.dtype, _sizes(tensor.shape))
        for tensors, count in (
            (network.get_input, network.num_inputs),
            (network.get_output, network.num_outputs),
        )
        for tensor in map(tensors, range(count))
    ]
    expected = [
        (metadata.INPUT_NAME, trt.DataType.UINT8, (-1, *info.input_size, 3)),
        (metadata.OUTPUT_NAME, trt.DataType.FLOAT, (-1, len(info.labels))),
    ]
    if found != expected:
        raise ModelError(
            f'the graph takes and gives {found}, its metadata promises {expected}. A model for '
            'TensorRT has a free batch: make it anew with `dan-ros export`'
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
    """For TensorRT 8.6, whose networks are weakly typed."""
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
    """A logger that keeps TensorRT's last error, for our own message."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = 'it does not say why'

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.last = ' '.join(text.split())[:400]

    return Logger()


@contextmanager
def _telling(trt: Any, config: Any, say: Say) -> Iterator[None]:
    """Say every few seconds how long the build runs, and what it does where TensorRT tells."""
    phase = _follow_phases(trt, config)
    done = threading.Event()
    started_s = time.monotonic()

    def tell() -> None:
        while not done.wait(TELL_S):
            seconds = time.monotonic() - started_s
            say(f'building the engine, {seconds:.0f} s so far{phase()}')

    thread = threading.Thread(target=tell, name='engine build', daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _follow_phases(trt: Any, config: Any) -> Callable[[], str]:
    """Have TensorRT report its phases; gives what tells the present one."""
    if not hasattr(trt, 'IProgressMonitor'):
        return lambda: ''

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, list[int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self.phases[phase_name] = [0, num_steps]

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.phases.setdefault(phase_name, [0, 0])[0] = step + 1
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

    monitor = Monitor()
    config.progress_monitor = monitor

    def present() -> str:
        parts = [f'{name} {at} of {steps}' for name, (at, steps) in list(monitor.phases.items())]
        return ': ' + ', '.join(parts[:2]) if parts else ''

    return present
