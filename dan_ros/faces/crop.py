# SPDX-License-Identifier: Apache-2.0
"""Crops faces for the network, in the same way for training and inference.

The crop rule `square S`: a square around the center of the face's box, whose side is S times the
longer side of the box, resized to the model's input. Outside the image, the nearest pixel of the
image is repeated. The metadata of the model file contains S.
"""

import numpy as np

from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize
from dan_ros.types import Frame

MAX_SIDE_PX = 2048  # largest side copied in full; beyond it, only every Nth pixel is copied

_TO_RGB = {
    'bgr8': cv2.COLOR_BGR2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    'rgba8': cv2.COLOR_RGBA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
}


def square_about(box_xyxy: np.ndarray, scale: float) -> tuple[int, int, int]:
    """Return left, top and side of the crop square, whole pixels; the side is at least 1.

    >>> square_about(np.array([10, 20, 30, 60]), 1.5)
    (-10, 10, 60)
    """
    left, top, right, bottom = (float(value) for value in box_xyxy)
    side = max(1, round(scale * max(right - left, bottom - top)))
    return round((left + right - side) / 2), round((top + bottom - side) / 2), side


def crop_face(
    frame: Frame, box_xyxy: np.ndarray, scale: float, out: np.ndarray, quarter_turns: int = 0
) -> None:
    """Crop one face into its place in a batch.

    Args:
        frame: the image in its full size.
        box_xyxy: [4], box of the face, pixels of the frame.
        scale: S of the crop rule.
        out: uint8 [H, W, 3], receives the face in RGB.
        quarter_turns: clockwise rotations by 90 degrees that make the frame upright.
    """
    height, width = out.shape[:2]
    if quarter_turns % 2:
        height, width = width, height
    square = square_about(box_xyxy, scale)
    image = frame.pixels(max(height, width) / square[2])
    if image.shape[1::-1] != frame.size:  # may be a smaller copy with enough pixels
        shrink = np.divide(image.shape[1::-1], frame.size)
        square = square_about(box_xyxy * np.tile(shrink, 2), scale)
    patch = resize(_cut_square(image, *square), width, height)
    if frame.encoding in _TO_RGB:
        patch = cv2.cvtColor(patch, _TO_RGB[frame.encoding])
    out[...] = np.rot90(patch, -quarter_turns)


def _cut_square(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Return a view if the square is inside the image, otherwise a copy with repeated borders."""
    height, width = image.shape[:2]
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return image[top : top + side, left : left + side]
    step = -(-side // MAX_SIDE_PX)
    rows = np.clip(np.arange(top, top + side, step), 0, height - 1)
    columns = np.clip(np.arange(left, left + side, step), 0, width - 1)
    return image[np.ix_(rows, columns)]
