# SPDX-License-Identifier: Apache-2.0
"""Inference backends, one per file; the library of each is imported at first use."""

from dataclasses import dataclass, replace

import numpy as np

from dan_ros.backends import cuda
from dan_ros.backends.base import (
    DEFAULT_CONFIG,
    PRECISIONS,
    Backend,
    BackendConfig,
    smoke_test,
)
from dan_ros.backends.kserve.config import ServerConfig
from dan_ros.backends.registry import (
    BACKENDS,
    CPU,
    CPU_BACKENDS,
    GPU,
    GPU_BACKENDS,
    REGISTRY,
    BackendEntry,
    load_first,
)
from dan_ros.errors import BackendError, ModelError
from dan_ros.model import store

__all__ = [
    'BACKENDS',
    'CPU_BACKENDS',
    'GPU_BACKENDS',
    'NO_SERVER',
    'PRECISIONS',
    'REGISTRY',
    'Backend',
    'BackendConfig',
    'Selection',
    'ServerConfig',
    'choose_backend',
    'model_for',
    'open_backend',
]


NO_SERVER = ServerConfig()


@dataclass(frozen=True)
class Selection:
    """A loaded backend and how it was chosen."""

    backend: Backend  # the loaded backend
    reason: str  # why it was chosen, a sentence
    warning: str = ''  # set if a GPU is present or requested but cannot be used; else ''


def open_backend(
    name: str = 'auto',
    model: str = store.DEFAULT_MODEL,
    threads: int = 0,
    server: ServerConfig = NO_SERVER,
) -> Backend:
    """Load a model into a backend and check that its answers are usable.

    See `choose_backend` and `BackendConfig` for arguments and errors, and `smoke_test` for the
    check.

    >>> backend = open_backend('onnxruntime', 'dan_ferplus')
    >>> backend.infer(np.zeros((2, 96, 96, 3), np.uint8)).shape
    (2, 8)
    """
    backend = choose_backend(name, model, BackendConfig(threads, server=server)).backend
    smoke_test(backend)
    return backend


def choose_backend(
    name: str = 'auto',
    model: str = store.DEFAULT_MODEL,
    config: BackendConfig = DEFAULT_CONFIG,
) -> Selection:
    """Load a model into a backend.

    Args:
        name: one of `BACKENDS`; 'auto' takes the first GPU backend that works (TensorRT, torch,
            ONNX Runtime), or the fastest that is installed on the CPU.
        model: a known model's name, the path of an ONNX file, or 'auto': the bundled model, as
            int8 where that is fastest.
        config: see `BackendConfig`.

    Raises:
        BackendError: the name is unknown, or the backend cannot be used here.
        ModelError: the model is missing, damaged or not made by this package.
    """
    if name == 'auto':
        return _choose_automatically(model, config)
    if name not in REGISTRY:
        known = ', '.join(('auto', *REGISTRY))
        raise BackendError(f'unknown backend {name!r}; the backends are {known}')
    try:
        return Selection(_load(REGISTRY[name], model, config), f'{name} was requested')
    except BackendError as error:
        if not (config.fallback and REGISTRY[name].kind == GPU):
            raise
        return _fall_back(model, config, f'{name} cannot be used: {error}')


def model_for(name: str, model: str, precision: str = 'auto') -> str:
    """The bundled model that 'auto' selects for a backend; any other model name is returned as is.

    >>> model_for('openvino', 'auto'), model_for('torch', 'auto'), model_for('torch', 'my.onnx')
    ('dan_ferplus_int8', 'dan_ferplus', 'my.onnx')
    """
    if model != store.DEFAULT_MODEL:
        return model
    use_int8 = REGISTRY[name].prefers_int8 or precision == 'int8'
    return store.INT8_MODEL if use_int8 else store.FLOAT_MODEL


def _choose_automatically(model: str, config: BackendConfig) -> Selection:
    device = cuda.find_device()
    if device is None:
        return _load_on_cpu(model, config, 'no CUDA device')
    try:
        backend, problems = load_first(
            GPU, lambda entry: _load(entry, model, config), (BackendError, ModelError)
        )
    except BackendError as error:
        return _fall_back(model, config, f'{device.name} is not used: {error}')
    return Selection(backend, '; '.join([f'fastest that works on {device.name}', *problems]))


def _load_on_cpu(model: str, config: BackendConfig, reason: str) -> Selection:
    """Load the fastest CPU backend whose package is installed."""
    backend, problems = load_first(CPU, lambda entry: _load(entry, model, config))
    return Selection(backend, '; '.join([reason, *problems, 'fastest on a CPU']))


def _fall_back(model: str, config: BackendConfig, problem: str) -> Selection:
    warning = f'the network runs on the CPU, not on a GPU: {problem}'
    on_cpu = BackendConfig(config.threads, parallel_runs=config.parallel_runs)
    return replace(_load_on_cpu(model, on_cpu, problem), warning=warning)


def _load(entry: BackendEntry, model: str, config: BackendConfig) -> Backend:
    """Load a backend; a GPU backend must also run once before it is used."""
    file = store.read_model(model_for(entry.name, model, config.precision))
    backend = entry.load(file, config)
    if entry.kind == GPU:
        backend.infer(np.zeros((1, *backend.model.input_size, 3), np.uint8))
    return backend
