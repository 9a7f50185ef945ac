"""Runs many faces in parts, which bounds memory."""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from dan_ros.errors import GpuMemoryError

GROW_AFTER = 100  # full parts; a larger one that fails again costs no more than one run in so many


class Batcher:
    """Runs sets of faces of any number through something that takes a limited one.

    It may be used from several threads, which wait for each other: backends run in memory of their
    own, of which there is one piece.

    What runs them is given with each set and not kept: a backend that held something which held
    the backend would keep its models in memory after the node let go of it.

    Args:
        classes: C.
        most: faces at once, at least 1.
        warm: numbers of faces that the first images should not be the first to bring.

    Attributes:
        most: faces at once, where there is memory for them.
        largest: most faces at once now, from 1 to `most`. It halves when the GPU has no memory for
            so many, and doubles again after `GROW_AFTER` parts of that size: what took the memory
            may be gone.
    """

    def __init__(self, classes: int, most: int, warm: Sequence[int] = (1,)) -> None:
        self.most = self.largest = most
        self._classes = classes
        self._warm = warm
        self._full = 0  # parts of the present size
        self._lock = threading.Lock()

    def infer(self, run: Callable[[np.ndarray], np.ndarray], faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3]; N may be 0.

        Args:
            run: float32 [n, C] of uint8 [n, H, W, 3], for 1 to `largest` of them.
            faces_rgb: all of them.

        Raises:
            GpuMemoryError: there is no memory for a single face.
        """
        with self._lock:
            parts = self._infer_parts(run, faces_rgb)
        return np.concatenate(parts) if parts else np.zeros((0, self._classes), np.float32)

    def warm_up(self, run: Callable[[np.ndarray], np.ndarray], size: tuple[int, int]) -> None:
        """Run blank faces of a size (H, W), as many as are to be warm, once each.

        Raises:
            GpuMemoryError: there is no memory for a single face.
        """
        for count in self._warm:
            self.infer(run, np.zeros((count, *size, 3), np.uint8))

    def _infer_parts(
        self, run: Callable[[np.ndarray], np.ndarray], faces_rgb: np.ndarray
    ) -> list[np.ndarray]:
        parts, start = [], 0
        while start < len(faces_rgb):
            part = faces_rgb[start : start + self.largest]
            try:
                parts.append(run(part))
            except GpuMemoryError:
                if len(part) == 1:
                    raise
                self._resize(len(part) // 2)
                continue
            start += len(part)
            self._grow_after(part)
        return parts

    def _grow_after(self, part: np.ndarray) -> None:
        if len(part) < self.largest or self.largest == self.most:
            return
        self._full += 1
        if self._full == GROW_AFTER:
            self._resize(min(self.most, 2 * self.largest))

    def _resize(self, largest: int) -> None:
        self.largest, self._full = largest, 0


def pad(faces_rgb: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The faces, uint8 [N, H, W, 3], and so many blank ones that their number is one of `sizes`.

    Args:
        faces_rgb: at most as many as the last of `sizes`.
        sizes: rising.

    >>> pad(np.ones((3, 96, 96, 3), np.uint8), (1, 2, 4)).shape
    (4, 96, 96, 3)
    """
    count = len(faces_rgb)
    size = next(size for size in sizes if size >= count)
    blank = np.zeros((size - count, *faces_rgb.shape[1:]), np.uint8)
    return np.concatenate([faces_rgb, blank]) if len(blank) else faces_rgb
