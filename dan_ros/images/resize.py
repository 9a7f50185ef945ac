# SPDX-License-Identifier: Apache-2.0
"""Resize images without aliasing, as fast as linear interpolation."""

import numpy as np

from dan_ros.images.opencv import cv2


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Enlarge linearly, or shrink so that each pixel contributes.

    A shrunk image differs from the result of `cv2.INTER_AREA` by one or two gray levels, and takes
    a quarter of its time. OpenCV is fast at halving: the image is halved while it is at least four
    times too large, then resized to twice the target size, and halved once more.

    Args:
        image: uint8 [H, W] or [H, W, C].
        width, height: size of the result, pixels, at least 1.

    Example:
        >>> resize(np.zeros((480, 640, 3), np.uint8), 96, 72).shape
        (72, 96, 3)
    """
    rows, columns = image.shape[:2]
    while rows >= 4 * height or columns >= 4 * width:
        if rows >= 4 * height:  # drop the last row of an odd number, so that rows form pairs
            rows //= 2
            image = image[: 2 * rows]
        if columns >= 4 * width:
            columns //= 2
            image = image[:, : 2 * columns]
        image = _interpolate(image, columns, rows)
    if rows > height or columns > width:
        image = _interpolate(image, 2 * width, 2 * height)
    return _interpolate(image, width, height)


def _interpolate(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize linearly; halving averages 2 x 2 pixels. May return `image` itself."""
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
