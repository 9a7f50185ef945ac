# SPDX-License-Identifier: Apache-2.0
"""Bounding boxes: float [4], left, top, right, bottom, pixels."""

import numpy as np


def area(box_xyxy: np.ndarray) -> float:
    """Return the area of a box, square pixels.

    >>> area(np.array([1.0, 2.0, 3.0, 5.0]))
    6.0
    """
    left, top, right, bottom = box_xyxy.tolist()
    return float((right - left) * (bottom - top))


def overlap(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> float:
    """Return the intersection over union (IoU) of two boxes, [0, 1].

    >>> overlap(np.array([0.0, 0.0, 2.0, 2.0]), np.array([1.0, 0.0, 3.0, 2.0])) == 1 / 3
    True
    """
    left, top, right, bottom = a_xyxy.tolist()
    left_b, top_b, right_b, bottom_b = b_xyxy.tolist()
    width = min(right, right_b) - max(left, left_b)
    height = min(bottom, bottom_b) - max(top, top_b)
    shared = max(width, 0.0) * max(height, 0.0)
    union = area(a_xyxy) + area(b_xyxy) - shared
    return shared / union if union > 0 else 0.0


def is_same_place(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> bool:
    """Return whether two boxes belong to the same face: their IoU is at least 0.5."""
    return overlap(a_xyxy, b_xyxy) >= 0.5
