# SPDX-License-Identifier: Apache-2.0
"""Batches of an epoch, prepared ahead by threads.

All random numbers of a batch derive from (seed, epoch, number of the batch). So batches do not
depend on the number of threads, and resuming needs no saved state.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from dan_ros.datasets.faces import Faces
from dan_ros.train.augment import augmented_faces, mix, plain_faces
from dan_ros.train.recipe import Recipe

Job = TypeVar('Job')
Result = TypeVar('Result')

ORDER_STREAM = 2**31  # replaces the batch number in the seed of an epoch's order


def steps_per_epoch(faces: Faces, recipe: Recipe) -> int:
    """Return the number of full batches per epoch; the last faces of an epoch are unused."""
    return max(len(faces) // recipe.batch_size, 1)


def epoch_order(faces: Faces, recipe: Recipe, epoch: int) -> np.ndarray:
    """Draw the order of an epoch's faces, int64 [N] indices; see `Recipe.class_balance`."""
    rng = np.random.default_rng((recipe.seed, epoch, ORDER_STREAM))
    if recipe.class_balance == 0:
        return rng.permutation(len(faces))
    counts = np.bincount(faces.classes, minlength=len(faces.labels))
    weights = counts[faces.classes] ** -recipe.class_balance
    return rng.choice(len(faces), len(faces), p=weights / weights.sum())


def training_batches(
    faces: Faces, recipe: Recipe, epoch: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Prepare the augmented and mixed batches of an epoch.

    Yields:
        Normalized faces, float32 [B, 3, S, S]; targets, float32 [B, C]; and classes, int64 [B]. A
        mixed face has the class of the face with the larger share.
    """
    order = epoch_order(faces, recipe, epoch)
    size = recipe.size_at(epoch)
    read_size = min(faces.native_size or size, size)

    def load(number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng((recipe.seed, epoch, number))
        part = order[number * recipe.batch_size : (number + 1) * recipe.batch_size]
        images = faces.read(part, read_size)
        x = augmented_faces(images, size, recipe, rng, device)
        targets = torch.from_numpy(faces.targets[part]).to(device)
        classes = torch.from_numpy(faces.classes[part]).to(device)
        return *mix(x, targets, recipe.augmentation, rng), classes

    yield from _ahead(load, range(steps_per_epoch(faces, recipe)), recipe.workers)


def plain_batches(
    faces: Faces, recipe: Recipe, device: torch.device, indices: np.ndarray | None = None
) -> Iterator[torch.Tensor]:
    """Prepare batches for inference, in order: float32 [B, 3, S, S] each."""
    indices = np.arange(len(faces)) if indices is None else indices
    size = recipe.input_size
    starts = range(0, len(indices), recipe.batch_size)

    def load(start: int) -> torch.Tensor:
        images = faces.read(indices[start : start + recipe.batch_size], size)
        return plain_faces(images, size, recipe, device)

    yield from _ahead(load, starts, recipe.workers)


def _ahead(load: Callable[[Job], Result], jobs: Iterable[Job], threads: int) -> Iterator[Result]:
    """Like map(load, jobs), with at most 2 * `threads` jobs ahead."""
    if threads == 0:
        yield from map(load, jobs)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[Future[Result]] = collections.deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(load, job))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
