"""The network on every backend and precision that opens here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from dan_ros.backends import (
    CPU_BACKENDS,
    GPU_BACKENDS,
    REGISTRY,
    Backend,
    Selection,
    choose_backend,
    cuda,
)
from dan_ros.backends.base import OnProgress
from dan_ros.backends.tensorrt.engine_builder import choose_precision
from dan_ros.bench.timer import Comparison, Limit, compare
from dan_ros.errors import BackendError, DanError
from dan_ros.model import store

BATCHES = (1, 4)
INT8, FP32 = 'int8', 'fp32'


@dataclass(frozen=True)
class Unavailable:
    """Something that can't be measured here.

    Attributes:
        what: a backend, with its model where only that does not open, or a detector.
        why: for people.
    """

    what: str
    why: str


@dataclass(frozen=True)
class Variant:
    """How the network can be run.

    Attributes:
        backend: one of `BACKENDS`.
        model: name or path.
        precision: in which it runs.
    """

    backend: str
    model: str
    precision: str

    def __str__(self) -> str:
        return f'{self.backend}, {self.model}, {self.precision}'


@dataclass
class Networks:
    """What opens here.

    Attributes:
        choice: what the node takes by default.
        default: how that runs.
        backends: all that open, the default first.
        absent: what does not open.
    """

    choice: Selection
    default: Variant
    backends: dict[Variant, Backend]
    absent: list[Unavailable] = field(default_factory=list)

    @property
    def alike(self) -> list[Variant]:
        """Those with the answers of the default: the same model, or its float or int8 twin."""
        twins = {self.default.model}
        if self.default.model in store.BUNDLED_MODELS:
            twins.update(store.BUNDLED_MODELS)
        return [way for way in self.backends if way.model in twins]

    def parameters(self, way: Variant) -> str:
        """What to set in order to run the network so."""
        settings = [f'backend.name: {way.backend}'] * (way.backend != self.default.backend)
        settings += [f'model.file: {way.model}'] * (way.model != self.default.model)
        if REGISTRY[way.backend].takes_precision and way.precision == FP32:
            settings.append(f'backend.precision: {FP32}')
        return ', '.join(settings)


def open_networks(models: Sequence[str], threads: int, on_progress: OnProgress) -> Networks:
    """Open every model on every backend.

    Args:
        models: names or paths; none stands for the bundled model, in float and int8.
        threads: CPU threads.
        on_progress: called with what is opened.

    Raises:
        DanError: the first of the models does not open as the node would open it.
    """
    model = models[0] if models else store.DEFAULT_MODEL
    choice = choose_backend('auto', model, threads, on_progress=on_progress)
    name, model = choice.backend.name, choice.backend.model_name
    default = Variant(name, model, _precisions(name, model)[0])
    networks = Networks(choice, default, {default: choice.backend})
    has_gpu = cuda.find_device() is not None
    for name in (*CPU_BACKENDS, *GPU_BACKENDS):
        if name in GPU_BACKENDS and not has_gpu:
            networks.absent.append(Unavailable(name, 'no CUDA device'))
        else:
            on_progress(f'opening {name}')
            _open_all(networks, name, models or store.BUNDLED_MODELS, threads, on_progress)
    return networks


def _precisions(backend: str, model: str) -> list[str]:
    """In which a backend can run a model, the default first."""
    precision = choose_precision('auto', store.read_model(model).content)
    if precision == INT8:
        return [INT8]
    return [precision, FP32] if REGISTRY[backend].takes_precision else [FP32]


def _open_all(
    networks: Networks, backend: str, models: Sequence[str], threads: int, on_progress: OnProgress
) -> None:
    """Every model and precision on one backend."""
    for model in models:
        for precision in _precisions(backend, model):
            way = Variant(backend, model, precision)
            if way in networks.backends:
                continue
            try:
                asked = precision if REGISTRY[backend].takes_precision else 'auto'
                selection = choose_backend(backend, model, threads, asked, on_progress=on_progress)
                opened = selection.backend
                opened.infer(np.zeros((1, *opened.model.input_size, 3), np.uint8))
            except BackendError as error:
                networks.absent.append(Unavailable(backend, str(error)))
                return
            except (DanError, ImportError) as error:
                networks.absent.append(Unavailable(str(way), str(error)))
                continue
            networks.backends[way] = opened


def compare_networks(networks: Networks, batch: int, limit: Limit) -> Comparison:
    """Each backend on so many faces at once."""
    ways: dict[str, Callable[[], object]] = {
        str(way): partial(backend.infer, _noise(backend, batch))
        for way, backend in networks.backends.items()
    }
    return compare(f'network, {batch} face(s)', ways, str(networks.default), limit)


def _noise(backend: Backend, batch: int) -> np.ndarray:
    """What faces show does not change the time: uint8 [batch, H, W, 3]."""
    shape = (batch, *backend.model.input_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
