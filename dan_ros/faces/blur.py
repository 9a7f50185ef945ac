# SPDX-License-Identifier: Apache-2.0
"""Hides faces in images."""

from collections.abc import Iterable

import numpy as np

from dan_ros.images.opencv import cv2
from dan_ros.types import Frame

# Width of the hidden margin on each side, as a share of the box: it covers hair, ears and chin.
MARGIN = 0.25


def blur_faces(frame: Frame, boxes_xyxy: Iterable[np.ndarray]) -> Frame:
    """Replace each face and a margin around it by its average color.

    Each face becomes one color. Pixelation and ordinary blur leave enough detail for a network
    to recognize people (McPherson, Shokri, Shmatikov 2016, https://arxiv.org/abs/1609.00408).

    Args:
        frame: the image; it is not changed.
        boxes_xyxy: float [4] each, pixels; may extend beyond the image.

    Returns:
        A copy in the same encoding; `frame` itself if there is no box.

    >>> image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    >>> blur_faces(Frame(image, 'mono8'), [np.array([0.0, 0.0, 2.0, 2.0])]).image[0].tolist()
    [5, 5, 5, 3]
    """
    boxes = list(boxes_xyxy)
    if not boxes:
        return frame
    image = np.array(frame.image, order='C')
    for box in boxes:
        left, top, right, bottom = _with_margin(box)
        region = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if region.size:
            region[:] = np.round(cv2.mean(region)[: region[0, 0].size]).astype(np.uint8)
    return Frame(image, frame.encoding)


def _with_margin(box_xyxy: np.ndarray) -> tuple[int, int, int, int]:
    left, top, right, bottom = (float(value) for value in box_xyxy)
    x, y = MARGIN * (right - left), MARGIN * (bottom - top)
    return (
        int(np.floor(left - x)),
        int(np.floor(top - y)),
        int(np.ceil(right + x)),
        int(np.ceil(bottom + y)),
    )
