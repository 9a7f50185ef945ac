"""Inference backends, one a file. Each needs the ONNX file alone; their libraries load lazily."""

from typing import Protocol

import numpy as np

from dan_ros import model_store
from dan_ros.errors import BackendError
from dan_ros.model_info import ModelInfo

BACKENDS = ('auto', 'onnxruntime', 'torch')


class Backend(Protocol):
    """Runs the network on faces.

    Attributes:
        name: one of `BACKENDS`, what is really in use.
        device: where it really runs, such as 'cpu'.
        model: what the model file says of itself.
        model_name: the known name or path of the model that is really in use.
    """

    name: str
    device: str
    model: ModelInfo
    model_name: str

    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3] RGB; N may be 0."""
        ...


def open_backend(
    name: str = 'auto', model: str = model_store.DEFAULT_MODEL, threads: int = 0
) -> Backend:
    """Load a model into a backend.

    Args:
        name: one of `BACKENDS`; 'auto' is 'onnxruntime' today.
        model: a known model's name, the path of an ONNX file, or 'auto': the bundled model, as
            int8 where that runs fastest.
        threads: CPU threads; 0 leaves the choice to the backend.

    Raises:
        BackendError: the name is unknown, or its library is not installed.
        ModelError: the model is missing, damaged or not of this package.
    """
    if name not in BACKENDS:
        raise BackendError(f'unknown backend {name!r}; the backends are {", ".join(BACKENDS)}')
    if model == model_store.DEFAULT_MODEL:
        model = model_store.FLOAT_MODEL if name == 'torch' else model_store.INT8_MODEL
    file = model_store.read_model(model)
    try:
        if name == 'torch':
            from dan_ros.backends.torch import TorchBackend

            return TorchBackend.read(file, threads)
        from dan_ros.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(file, threads)
    except ModuleNotFoundError as error:
        raise BackendError(
            f'the backend {name!r} needs the Python package {error.name!r}: '
            f'install it with `pip install {error.name}`'
        ) from None
