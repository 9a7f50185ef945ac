"""The table of inference backends. A new backend is one `register` call here."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from dan_ros.errors import BackendError

if TYPE_CHECKING:
    from dan_ros.backends.base import Backend, BackendConfig
    from dan_ros.model.store import ModelFile

CPU, GPU = 'cpu', 'gpu'


@dataclass(frozen=True)
class BackendEntry:
    """One backend.

    Attributes:
        name: value of `backend.name` and of `--backend`.
        factory: 'module:callable', imported at first use and called with (ModelFile,
            BackendConfig).
        kind: `CPU` or `GPU`.
        packages: pip packages it needs, separated by spaces.
        is_automatic: whether 'auto' may choose it; 'auto' follows the order of the table.
        prefers_int8: whether the bundled model runs fastest as int8.
        takes_precision: whether a float model can run in fp32 or fp16.
    """

    name: str
    factory: str
    kind: str
    packages: str = ''
    is_automatic: bool = False
    prefers_int8: bool = False
    takes_precision: bool = False

    def load(self, file: 'ModelFile', config: 'BackendConfig') -> 'Backend':
        """Import the backend and load a model into it.

        Raises:
            BackendError: a package is missing, or the backend does not work here.
            ModelError: the model is damaged or not of this package.
        """
        try:
            backend: Backend = resolve_name(self.factory)(file, config)
        except ModuleNotFoundError as error:
            raise BackendError(
                f'the backend {self.name!r} needs the Python module {error.name!r}: '
                f'`pip install {self.packages or error.name}`'
            ) from None
        except (ImportError, OSError, RuntimeError) as error:  # GPU libraries that do not match
            if self.kind != GPU:
                raise
            raise BackendError(f'the backend {self.name!r} does not load: {error}') from None
        return backend


REGISTRY: dict[str, BackendEntry] = {}


def register(name: str, factory: str, kind: str, packages: str = '', **flags: bool) -> None:
    """Add a backend to the table; see `BackendEntry` for the arguments."""
    REGISTRY[name] = BackendEntry(name, factory, kind, packages, **flags)


register(
    'tensorrt',
    'dan_ros.backends.tensorrt.backend:TensorRTBackend',
    GPU,
    'cuda-python onnx',
    is_automatic=True,
    takes_precision=True,
)
register(
    'torch_cuda',
    'dan_ros.backends.torch_cuda:TorchCudaBackend',
    GPU,
    'torch onnx',
    is_automatic=True,
    takes_precision=True,
)
register(
    'onnxruntime_cuda',
    'dan_ros.backends.onnxruntime:OnnxRuntimeCudaBackend',
    GPU,
    'onnxruntime-gpu',
    is_automatic=True,
)
register(
    'onnxruntime_tensorrt',
    'dan_ros.backends.onnxruntime:OnnxRuntimeTensorRTBackend',
    GPU,
    'onnxruntime-gpu onnx',
)
register(
    'onnxruntime',
    'dan_ros.backends.onnxruntime:OnnxRuntimeBackend',
    CPU,
    'onnxruntime',
    is_automatic=True,
    prefers_int8=True,
)
register('torch', 'dan_ros.backends.torch:TorchBackend.read', CPU, 'torch onnx')
register(
    'openvino', 'dan_ros.backends.openvino:OpenVinoBackend', CPU, 'openvino', prefers_int8=True
)

GPU_BACKENDS = tuple(name for name, entry in REGISTRY.items() if entry.kind == GPU)
CPU_BACKENDS = tuple(name for name, entry in REGISTRY.items() if entry.kind == CPU)
BACKENDS = ('auto', *REGISTRY)
