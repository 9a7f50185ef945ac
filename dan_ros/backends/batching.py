"""Runs many faces in parts, which bounds memory."""

from collections.abc import Callable

import numpy as np

from dan_ros.errors import GpuMemoryError


class Batches:
    """Runs sets of faces of any number through something that takes a limited one.

    What runs them is given with each set and not kept: a backend that held something which held
    the backend would keep its models in memory after the node let go of it.

    Args:
        classes: C.
        largest: most faces at once.

    Attributes:
        largest: most faces at once; halves when the GPU has no memory for so many.
    """

    def __init__(self, classes: int, largest: int) -> None:
        self.largest = largest
        self._classes = classes

    def infer(self, run: Callable[[np.ndarray], np.ndarray], faces_rgb: np.ndarray) -> np.ndarray:
        """Logits, float32 [N, C], of uint8 [N, H, W, 3]; N may be 0.

        Args:
            run: float32 [n, C] of uint8 [n, H, W, 3], for 1 to `largest` of them.
            faces_rgb: all of them.

        Raises:
            GpuMemoryError: there is no memory for a single face.
        """
        parts, start = [], 0
        while start < len(faces_rgb):
            part = faces_rgb[start : start + self.largest]
            try:
                parts.append(run(part))
            except GpuMemoryError:
                if len(part) == 1:
                    raise
                self.largest = max(1, len(part) // 2)
                continue
            start += len(part)
        return np.concatenate(parts) if parts else np.zeros((0, self._classes), np.float32)
