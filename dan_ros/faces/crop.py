"""From a face's box to the picture the network sees: the one copy of the crop rule.

The rule, `square S`: a square about the centre of the box, its side S times the longer side of the
box, stretched to the model's input. Where it leaves the image, the nearest pixel of the image is
repeated. Training and inference both cut with it; S stands in the model file.
"""

import numpy as np

from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize
from dan_ros.types import Frame

MAX_SIDE_PX = 2048  # of a copied square; a larger one is read at every so-manieth pixel

_TO_RGB = {
    'bgr8': cv2.COLOR_BGR2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    'rgba8': cv2.COLOR_RGBA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
}


def square_about(box_xyxy: np.ndarray, scale: float) -> tuple[int, int, int]:
    """Left, top and side of the square the rule cuts, in whole pixels; the side is at least 1.

    >>> square_about(np.array([10, 20, 30, 60]), 1.5)
    (-10, 10, 60)
    """
    left, top, right, bottom = (float(value) for value in box_xyxy)
    side = max(1, round(scale * max(right - left, bottom - top)))
    return round((left + right - side) / 2), round((top + bottom - side) / 2), side


def crop_face(
    frame: Frame, box_xyxy: np.ndarray, scale: float, out: np.ndarray, quarter_turns: int = 0
) -> None:
    """Cut one face into its place in a batch.

    Args:
        frame: the whole image, unreduced.
        box_xyxy: [4], the face's box in pixels of the frame.
        scale: the rule's S.
        out: uint8 [H, W, 3], is filled with the face in RGB.
        quarter_turns: number of clockwise quarter turns that set the frame upright.
    """
    height, width = out.shape[:2]
    if quarter_turns % 2:
        height, width = width, height
    patch = resize(_cut_square(frame.image, *square_about(box_xyxy, scale)), width, height)
    if frame.encoding in _TO_RGB:
        patch = cv2.cvtColor(patch, _TO_RGB[frame.encoding])
    out[...] = np.rot90(patch, -quarter_turns)


def _cut_square(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """A view where the square lies inside the image, else a copy with the border repeated."""
    height, width = image.shape[:2]
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return image[top : top + side, left : left + side]
    step = -(-side // MAX_SIDE_PX)
    rows = np.clip(np.arange(top, top + side, step), 0, height - 1)
    columns = np.clip(np.arange(left, left + side, step), 0, width - 1)
    return image[np.ix_(rows, columns)]
