# SPDX-License-Identifier: Apache-2.0
"""The base class of all inference backends, and what they share."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from dan_ros.backends.batching import Batcher
from dan_ros.backends.kserve.config import ServerConfig
from dan_ros.errors import BackendError, DanError, ModelError, count_of, one_line
from dan_ros.model.metadata import ModelInfo

PRECISIONS = ('auto', 'fp32', 'fp16', 'int8')
MAX_SHOWN_NUMBERS = 10  # logits quoted in an error message

OnProgress = Callable[[str], object]


def ignore_progress(text: str) -> None:
    """Do nothing; the default for `on_progress`."""


@dataclass(frozen=True)
class BackendConfig:
    """Settings of a backend; each backend uses those that apply to it.

    Attributes:
        threads: CPU threads; 0 lets the library choose.
        precision: one of `PRECISIONS`, used on GPUs; 'auto' is int8 for an int8 model, else fp16.
        on_progress: called with one sentence before each potentially slow step.
        server: the server of the backend kserve.
        fallback: use the CPU with a warning if a requested GPU backend or server cannot be used; a
            server is used as soon as it can be.
        parallel_runs: number of parts of a batch that run at the same time; each uses `threads`.
    """

    threads: int = 0
    precision: str = 'auto'
    on_progress: OnProgress = ignore_progress
    server: ServerConfig = field(default_factory=ServerConfig)
    fallback: bool = False
    parallel_runs: int = 1


DEFAULT_CONFIG = BackendConfig()


class Backend(ABC):
    """Runs the network on faces.

    A subclass loads its model in `__init__` and implements `_run`. Threads may share a backend;
    they take turns. A backend frees its GPU memory with the last reference to it, so it must
    not be part of a reference cycle.

    Args:
        model: metadata of the model file.
        model_name: known name or path of the model.
        device: where it runs, such as 'cpu' or 'cuda:0 NVIDIA H200'.

    Attributes:
        name: its name in the registry.
        max_batch: largest number of faces that `_run` accepts.
        warm_up_batches: batch sizes that `warm_up` runs.
        model, model_name, device: as above.
        batcher: splits sets of faces into batches; `batcher.limit` is the current batch limit.
    """

    name: ClassVar[str]
    max_batch: ClassVar[int] = 32
    warm_up_batches: ClassVar[tuple[int, ...]] = (1,)

    def __init__(self, model: ModelInfo, model_name: str, device: str = 'cpu') -> None:
        self.model = model
        self.model_name = model_name
        self.device = device
        self.batcher = Batcher(len(model.labels), self.max_batch)

    @property
    def receiver(self) -> str:
        """Address to which pictures of faces are sent; '' if they stay on this machine."""
        return ''

    @property
    def warning(self) -> str:
        """The present problem of the backend, in one line, or ''."""
        return ''

    def details(self) -> dict[str, str]:
        """Return entries for the diagnostics, by key; they may replace those of attributes."""
        return {}

    def warm_up(self) -> None:
        """Do the one-time work of the first images now, such as recording CUDA graphs.

        Raises:
            GpuMemoryError: the GPU has too little memory for even one face.
            GpuLostError: this process can no longer use the GPU.
        """
        for count in self.warm_up_batches:
            self.infer(np.zeros((count, *self.model.input_size, 3), np.uint8))

    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Run the network.

        Args:
            faces_rgb: uint8 [N, H, W, 3] RGB; N may be 0.

        Returns:
            Logits, float32 [N, C], in the order of `model.labels`.

        Raises:
            BackendError: the faces have another type or size.
            GpuMemoryError: the GPU has too little memory for even one face.
            GpuLostError: this process can no longer use the GPU.
        """
        height, width = self.model.input_size
        if faces_rgb.dtype != np.uint8 or faces_rgb.shape[1:] != (height, width, 3):
            raise BackendError(
                f'the faces are {faces_rgb.dtype} {list(faces_rgb.shape)}, but {self.model_name} '
                f'takes uint8 [N, {height}, {width}, 3]'
            )
        return self.batcher.infer(self._run, np.ascontiguousarray(faces_rgb))

    @abstractmethod
    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Return logits, float32 [n, C], for contiguous uint8 [n, H, W, 3], n <= `max_batch`."""


def smoke_test(backend: Backend) -> None:
    """Run one blank face and check the answer.

    Raises:
        ModelError: the model does not run, or the answer is not one finite number per label.
        BackendError: see `Backend.infer`.
    """
    try:
        logits = backend.infer(np.zeros((1, *backend.model.input_size, 3), np.uint8))
    except DanError:
        raise
    except Exception as error:  # the exceptions of runtimes share no public base
        raise ModelError(f'{backend.model_name} does not run: {one_line(error)}') from None
    count = len(backend.model.labels)
    if logits.shape != (1, count) or not np.isfinite(logits).all():
        shown = logits.ravel()[:MAX_SHOWN_NUMBERS].round(3).tolist()
        raise ModelError(
            f'{backend.model_name} gives {shown} for a blank face, '
            f'expected {count_of(count, "finite number")}: convert the model again with '
            '`dan-ros convert` and check labels, mean and std'
        )


def available_cpus() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def node_threads() -> int:
    """Default CPU threads of the node: all cores but one, at least 1."""
    return max(1, available_cpus() - 1)


def node_parallel_runs() -> int:
    """Default `parallel_runs` of the node: 2 on two cores, otherwise 1."""
    return max(1, available_cpus() // node_threads())
