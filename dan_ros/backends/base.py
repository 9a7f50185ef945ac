"""A model's answer to a blank face: one that can't be used is refused before it judges anybody."""

import os
from typing import TYPE_CHECKING

import numpy as np

from dan_ros.errors import ModelError

if TYPE_CHECKING:
    from dan_ros.backends import Backend

MAX_SHOWN_NUMBERS = 10  # of the answer, in a message


def smoke_test(backend: 'Backend') -> None:
    """Run a blank face through a backend, which warms it up as well.

    Raises:
        ModelError: the answer is not a finite number for each label.
        BackendError: see `Backend.infer`.
    """
    logits = backend.infer(np.zeros((1, *backend.model.input_size, 3), np.uint8))
    count = len(backend.model.labels)
    if logits.shape != (1, count) or not np.isfinite(logits).all():
        raise ModelError(
            f'{backend.model_name} gives {logits.ravel()[:MAX_SHOWN_NUMBERS]} for a blank face, '
            f'expected {count} finite numbers: make it anew with `dan-ros convert`, and check '
            'labels, mean and std'
        )


def available_cpus() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def node_threads() -> int:
    """How many the node takes by default for network and detector: all cores but one."""
    return max(1, available_cpus() - 1)
