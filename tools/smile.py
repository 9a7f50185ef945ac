# SPDX-License-Identifier: Apache-2.0
"""Removes the smile from the astronaut portrait of scikit-image, for pictures in docs/."""

import cv2
import numpy as np

MOUTH = np.array([[198.6, 142.8], [239.7, 143.6], [219.2, 146.2]])  # corners and center, pixels


def without_smile(portrait: np.ndarray, strength: float) -> np.ndarray:
    """Return the portrait with the corners of the mouth moved down and in; 0 changes nothing."""
    rows, columns = np.mgrid[: portrait.shape[0], : portrait.shape[1]].astype(np.float32)
    shifts = strength * np.array([[14, 24], [-14, 24], [0, -22]])
    from_x, from_y = columns.copy(), rows.copy()
    for (x, y), (right, down), width in zip(MOUTH, shifts, (8, 8, 6), strict=True):
        weight = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))
        from_x -= weight * right
        from_y -= weight * down
    return cv2.remap(
        portrait, from_x.astype(np.float32), from_y.astype(np.float32), cv2.INTER_CUBIC
    )
