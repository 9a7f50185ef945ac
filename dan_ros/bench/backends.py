# SPDX-License-Identifier: Apache-2.0
"""Times the network on every backend and in every precision that works on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from dan_ros.backends import (
    CPU_BACKENDS,
    GPU_BACKENDS,
    REGISTRY,
    Backend,
    BackendConfig,
    Selection,
    choose_backend,
    cuda,
)
from dan_ros.backends.registry import SERVER
from dan_ros.backends.tensorrt.engine_builder import choose_precision
from dan_ros.bench.timer import Comparison, Limit, compare
from dan_ros.errors import BackendError, DanError
from dan_ros.model import store

BATCHES = (1, 4)  # faces per call
INT8, FP32 = 'int8', 'fp32'


@dataclass(frozen=True)
class Unavailable:
    """A backend, `Variant` or detector that cannot be measured here, and the error message."""

    name: str
    reason: str


@dataclass(frozen=True)
class Variant:
    """One way to run the network."""

    backend: str  # one of `BACKENDS`
    model: str  # name or path
    precision: str  # 'fp32', 'fp16' or 'int8'

    def __str__(self) -> str:
        return f'{self.backend}, {self.model}, {self.precision}'


@dataclass
class Networks:
    """All variants that work on this machine."""

    selection: Selection  # what the node uses by default
    default: Variant  # the variant of `selection`
    backends: dict[Variant, Backend]  # the open backends, the default first
    # Variants and backends that cannot be opened.
    unavailable: list[Unavailable] = field(default_factory=list)

    @property
    def equivalent(self) -> list[Variant]:
        """Variants of the default model, or of its float or int8 version, on this machine."""
        models = {self.default.model}
        if self.default.model in store.BUNDLED_MODELS:
            models.update(store.BUNDLED_MODELS)
        return [
            variant
            for variant in self.backends
            if variant.model in models and REGISTRY[variant.backend].kind != SERVER
        ]

    def parameters(self, variant: Variant) -> str:
        """Return the parameters of the node that select a variant."""
        settings = []
        if variant.backend != self.default.backend:
            settings.append(f'backend.name: {variant.backend}')
        if variant.model != self.default.model:
            settings.append(f'model.file: {variant.model}')
        if REGISTRY[variant.backend].takes_precision and variant.precision == FP32:
            settings.append(f'backend.precision: {FP32}')
        return ', '.join(settings)


def open_networks(models: Sequence[str], config: BackendConfig) -> Networks:
    """Open every model, or by default the bundled one in float and int8, on every backend.

    Raises:
        DanError: the node could not open the first model.
    """
    model = models[0] if models else store.DEFAULT_MODEL
    selection = choose_backend('auto', model, config)
    name, model = selection.backend.name, selection.backend.model_name
    default = Variant(name, model, _precisions(name, model)[0])
    networks = Networks(selection, default, {default: selection.backend})
    has_gpu = cuda.find_device() is not None
    servers = ('kserve',) if config.server.url else ()
    for name in (*CPU_BACKENDS, *GPU_BACKENDS, *servers):
        if name in GPU_BACKENDS and not has_gpu:
            networks.unavailable.append(Unavailable(name, 'no CUDA device'))
            continue
        config.on_progress(f'opening {name}')
        default_models = (store.INT8_MODEL,) if name in servers else store.BUNDLED_MODELS
        variants = [
            Variant(name, model, precision)
            for model in models or default_models
            for precision in _precisions(name, model)
        ]
        _open_variants(networks, variants, config)
    return networks


def _precisions(backend: str, model: str) -> list[str]:
    """Return the precisions in which a backend can run a model, the default first."""
    precision = choose_precision('auto', store.read_model(model).content)
    if precision == INT8:
        return [INT8]
    return [precision, FP32] if REGISTRY[backend].takes_precision else [FP32]


def _open_variants(networks: Networks, variants: Sequence[Variant], config: BackendConfig) -> None:
    """Open the variants of one backend; stop if the backend itself does not work."""
    for variant in variants:
        if variant in networks.backends:
            continue
        try:
            networks.backends[variant] = _open(variant, config)
        except BackendError as error:
            networks.unavailable.append(Unavailable(variant.backend, str(error)))
            return
        except (DanError, ImportError) as error:
            networks.unavailable.append(Unavailable(str(variant), str(error)))


def _open(variant: Variant, config: BackendConfig) -> Backend:
    """Open a backend and run it once, because some fail only then."""
    takes_precision = REGISTRY[variant.backend].takes_precision
    config = replace(config, precision=variant.precision if takes_precision else 'auto')
    backend = choose_backend(variant.backend, variant.model, config).backend
    backend.infer(_noise(backend, 1))
    return backend


def compare_networks(networks: Networks, batch: int, limit: Limit) -> Comparison:
    """Time each variant on a batch of faces."""
    variants: dict[str, Callable[[], object]] = {
        str(variant): partial(backend.infer, _noise(backend, batch))
        for variant, backend in networks.backends.items()
    }
    return compare(f'network, {batch} face(s)', variants, limit)


def _noise(backend: Backend, batch: int) -> np.ndarray:
    """Return random faces, uint8 [batch, H, W, 3]: the time does not depend on the content."""
    shape = (batch, *backend.model.input_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
