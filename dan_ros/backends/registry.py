# SPDX-License-Identifier: Apache-2.0
"""The table of inference backends. A new backend is one `register` call here."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from dan_ros.errors import BackendError, MissingPackageError, one_line

if TYPE_CHECKING:
    from dan_ros.backends.base import Backend, BackendConfig
    from dan_ros.model.store import ModelFile

CPU, GPU, SERVER = 'cpu', 'gpu', 'server'


@dataclass(frozen=True)
class BackendEntry:
    """One backend.

    Attributes:
        name: value of `backend.name` and of `--backend`.
        factory: 'module:callable', imported at first use and called with (ModelFile,
            BackendConfig); a leading dot means `dan_ros.backends`.
        kind: `CPU`, `GPU` or `SERVER`.
        packages: pip packages it needs, separated by spaces.
        extra: the pip extra of this package that contains them, or ''.
        only_by_name: whether 'auto' skips it.
        prefers_int8: whether the bundled model runs fastest as int8.
        takes_precision: whether a float model can run in fp32 or fp16.
    """

    name: str
    factory: str
    kind: str
    packages: str = ''
    extra: str = ''
    only_by_name: bool = False
    prefers_int8: bool = False
    takes_precision: bool = False

    def load(self, file: 'ModelFile', config: 'BackendConfig') -> 'Backend':
        """Import the backend and load a model into it.

        Raises:
            MissingPackageError: a package is missing, does not load, or is too old.
            BackendError: the backend does not work here.
            ModelError: the model is damaged or not made by this package.
        """
        try:
            package = __package__ if self.factory.startswith('.') else ''
            backend: Backend = resolve_name(f'{package}{self.factory}')(file, config)
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f'the backend {self.name!r} needs the Python module {error.name!r}: '
                f'`pip install {self.packages or error.name}`'
                + (f' (the extra {self.extra})' if self.extra else '')
            ) from None
        except (ImportError, OSError) as error:  # a library that does not fit this machine
            raise MissingPackageError(
                f'the backend {self.name!r} does not load: {one_line(error)}'
            ) from None
        except RuntimeError as error:  # GPU libraries that do not match
            if self.kind != GPU:
                raise
            raise BackendError(f'the backend {self.name!r} does not load: {error}') from None
        return backend


REGISTRY: dict[str, BackendEntry] = {}


def register(
    name: str, factory: str, kind: str, packages: str = '', extra: str = '', **flags: bool
) -> None:
    """Add a backend to the table; see `BackendEntry` for the arguments."""
    REGISTRY[name] = BackendEntry(name, factory, kind, packages, extra, **flags)


# `auto` tries the GPU backends in this order, or takes the first CPU backend that is installed.
register(
    'tensorrt', '.tensorrt.backend:TensorRTBackend', GPU, 'cuda-python onnx', takes_precision=True
)
register('torch_cuda', '.torch_cuda:TorchCudaBackend', GPU, 'torch onnx', takes_precision=True)
register('onnxruntime_cuda', '.onnxruntime:OnnxRuntimeCudaBackend', GPU, 'onnxruntime-gpu')
register(
    'onnxruntime_tensorrt',
    '.onnxruntime:OnnxRuntimeTensorRTBackend',
    GPU,
    'onnxruntime-gpu',
    only_by_name=True,
)
register('onnxruntime', '.onnxruntime:OnnxRuntimeBackend', CPU, 'onnxruntime', prefers_int8=True)
register('torch', '.torch:TorchBackend.read', CPU, 'torch onnx', only_by_name=True)
register('openvino', '.openvino:OpenVinoBackend', CPU, 'openvino', prefers_int8=True)
register('opencv', '.opencv:OpenCvBackend', CPU, 'opencv-python-headless')

register(
    'kserve',
    '.kserve.backend:KServeBackend',
    SERVER,
    "'tritonclient[grpc,http]'",
    'fleet',
    only_by_name=True,
    prefers_int8=True,
)

GPU_BACKENDS = tuple(name for name, entry in REGISTRY.items() if entry.kind == GPU)
CPU_BACKENDS = tuple(name for name, entry in REGISTRY.items() if entry.kind == CPU)
BACKENDS = ('auto', *REGISTRY)


def load_on_cpu(file: 'ModelFile', config: 'BackendConfig') -> 'Backend':
    """Load a model file into the fastest CPU backend that is installed.

    Raises:
        MissingPackageError: none is installed.
        ModelError: the model is damaged or not made by this package.
    """
    problems = []
    for entry in REGISTRY.values():
        if entry.kind == CPU and not entry.only_by_name:
            try:
                return entry.load(file, config)
            except MissingPackageError as error:
                problems.append(str(error))
    raise MissingPackageError('; '.join(problems))
