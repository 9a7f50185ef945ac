# SPDX-License-Identifier: Apache-2.0
"""Small JPEG copies of images, for display."""

import numpy as np

from dan_ros.images.encodings import to_bgr
from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize
from dan_ros.types import Frame

MAX_SIDE_PX = 800  # longer side of a preview, pixels
QUALITY = 80  # of JPEG, [0, 100]


def to_preview(frame: Frame) -> bytes:
    """Encode an image, whose private parts are hidden, as JPEG of at most `MAX_SIDE_PX`.

    Example:
        >>> to_preview(Frame(np.zeros((4, 4), np.uint8), 'mono8'))[:2].hex()
        'ffd8'
    """
    width, height = frame.size
    scale = min(1.0, MAX_SIDE_PX / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale > 0.5:  # interpolation then uses every pixel, and is several times as fast
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_LINEAR)
    else:
        small = resize(frame.image, *size)
    image_bgr = np.ascontiguousarray(to_bgr(small, frame.encoding))
    encoded: np.ndarray = cv2.imencode('.jpg', image_bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return encoded.tobytes()
