"""Images made smaller without passing over a pixel, at what linear interpolation costs."""

import numpy as np

from dan_ros.images.opencv import cv2


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Enlarge linearly, or shrink so that every pixel counts.

    Shrunk, it differs from `cv2.INTER_AREA` by one or two grey levels. That takes up to four
    times as long, since OpenCV is quick at halving alone: an image is halved while it is four times
    too large, then brought to twice the size, by less than two, and halved once more.

    Args:
        image: uint8 [H, W] or [H, W, C].
        width, height: of the result, pixels, at least 1.
    """
    rows, columns = image.shape[:2]
    while rows >= 4 * height or columns >= 4 * width:
        if rows >= 4 * height:  # of an odd number the last goes, else the others would not pair
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
    """The image itself where it has that size; at half its size, means of two by two pixels."""
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
