# SPDX-License-Identifier: Apache-2.0
"""Splits sets of faces into batches, to limit memory."""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from dan_ros.errors import GpuMemoryError

GROW_AFTER = 100  # full batches before a larger size is tried; at most 1 % of the runs then fail

Run = Callable[[np.ndarray], np.ndarray]  # uint8 [n, H, W, 3] -> float32 [n, C]


class Batcher:
    """Runs any number of faces in batches that fit in memory. Threads take turns.

    It does not store the function that runs a batch. That would create a reference cycle with the
    backend, which would keep the model in GPU memory.

    Args:
        classes: number of logits per face, C.
        max_batch: largest batch, at least 1.

    Attributes:
        max_batch: as above.
        limit: current largest batch, 1 to `max_batch`. It halves when the GPU runs out of memory,
            and doubles after `GROW_AFTER` full batches, because the memory may be free again.
    """

    def __init__(self, classes: int, max_batch: int) -> None:
        self.max_batch = self.limit = max_batch
        self._classes = classes
        self._full_batches = 0  # since `limit` changed
        self._lock = threading.Lock()

    def infer(self, run: Run, faces_rgb: np.ndarray) -> np.ndarray:
        """Return logits, float32 [N, C], for uint8 [N, H, W, 3]; N may be 0.

        `run` is called with 1 to `limit` faces.

        Raises:
            GpuMemoryError: there is no memory for a single face.
        """
        with self._lock:
            parts = self._infer_parts(run, faces_rgb)
        return np.concatenate(parts) if parts else np.zeros((0, self._classes), np.float32)

    def _infer_parts(self, run: Run, faces_rgb: np.ndarray) -> list[np.ndarray]:
        parts, start = [], 0
        while start < len(faces_rgb):
            part = faces_rgb[start : start + self.limit]
            try:
                parts.append(run(part))
            except GpuMemoryError:
                if len(part) == 1:
                    raise
                self._set_limit(len(part) // 2)
                continue
            start += len(part)
            self._grow_after(part)
        return parts

    def _grow_after(self, part: np.ndarray) -> None:
        if len(part) < self.limit or self.limit == self.max_batch:
            return
        self._full_batches += 1
        if self._full_batches == GROW_AFTER:
            self._set_limit(min(self.max_batch, 2 * self.limit))

    def _set_limit(self, limit: int) -> None:
        self.limit, self._full_batches = limit, 0


def padded_size(count: int, sizes: Sequence[int]) -> int:
    """Return the smallest of `sizes`, in ascending order, that fits `count` faces.

    >>> padded_size(3, (1, 2, 4))
    4
    """
    return next(size for size in sizes if size >= count)


def pad(faces_rgb: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Append blank faces to uint8 [N, H, W, 3] until their number is one of `sizes`.

    >>> pad(np.ones((3, 96, 96, 3), np.uint8), (1, 2, 4)).shape
    (4, 96, 96, 3)
    """
    missing = padded_size(len(faces_rgb), sizes) - len(faces_rgb)
    blank = np.zeros((missing, *faces_rgb.shape[1:]), np.uint8)
    return np.concatenate([faces_rgb, blank]) if missing else faces_rgb
