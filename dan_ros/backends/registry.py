# SPDX-License-Identifier: Apache-2.0
"""The table of inference backends. A new backend is one `register` call here."""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from dan_ros.errors import BackendError, DanError, MissingPackageError, one_line

if TYPE_CHECKING:
    from dan_ros.backends.base import Backend, BackendConfig
    from dan_ros.model.store import ModelFile

CPU, GPU, SERVER = 'cpu', 'gpu', 'server'


@dataclass(frozen=True)
class BackendEntry:
    """One backend."""

    name: str  # value of `backend.name` and of `--backend`
    # 'module:callable', imported at first use and called with (ModelFile, BackendConfig); a leading
    # dot means `dan_ros.backends`.
    factory: str
    kind: str  # `CPU`, `GPU` or `SERVER`
    packages: str = ''  # pip packages it needs, separated by spaces
    extra: str = ''  # the pip extra of this package that contains them, or ''
    only_by_name: bool = False  # whether 'auto' skips it
    prefers_int8: bool = False  # whether the bundled model runs fastest as int8
    takes_precision: bool = False  # whether a float model can run in fp32 or fp16

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
        except (ImportError, OSError, RuntimeError) as error:  # libraries that do not fit
            if isinstance(error, RuntimeError) and self.kind != GPU:
                raise
            raise MissingPackageError(
                f'the backend {self.name!r} does not load: {one_line(error)}'
            ) from None
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
    'onnxruntime-gpu onnx',
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


def load_first(
    kind: str,
    load: 'Callable[[BackendEntry], Backend]',
    passed_over: tuple[type[DanError], ...] = (MissingPackageError,),
) -> 'tuple[Backend, list[str]]':
    """Load the first backend of a kind that loads; the fastest come first.

    Backends that are used only by name are left out. After an error of the types `passed_over`, the
    next backend is tried.

    Returns:
        The backend, and the errors of those before it.

    Raises:
        BackendError: none loads.
    """
    problems: list[str] = []
    for entry in REGISTRY.values():
        if entry.kind == kind and not entry.only_by_name:
            try:
                return load(entry), problems
            except passed_over as error:
                problems.append(f'{entry.name}: {error}')
    raise BackendError('; '.join(problems))
