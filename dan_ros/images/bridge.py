# SPDX-License-Identifier: Apache-2.0
"""Convert encodings that this package does not support with cv_bridge, if it is installed."""

from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

RESULT = 'bgr8'


@cache
def load_bridge() -> Any:
    """Return a CvBridge; None if cv_bridge is missing or was built for another NumPy."""
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    except Exception:  # a module that was built for another NumPy raises more than ImportError
        return None


@lru_cache(maxsize=64)
def bytes_per_pixel(encoding: str) -> int:
    """Return the size of a pixel; 0 if cv_bridge cannot convert the encoding to bgr8.

    cv_bridge supports types without color, such as 32FC1, but cannot convert them to a picture.
    Therefore a small image is converted as a trial.
    """
    bridge = load_bridge()
    if bridge is None:
        return 0
    try:
        dtype, channels = bridge.encoding_to_dtype_with_channels(encoding)
        pixel_bytes = int(np.dtype(dtype).itemsize * channels)
        step = 2 * pixel_bytes
        trial = SimpleNamespace(height=2, width=2, encoding=encoding, is_bigendian=0, step=step)
        trial.data = bytes(2 * step)
        bridge.imgmsg_to_cv2(trial, RESULT)
    except Exception:  # CvBridgeError is a TypeError, OpenCV raises cv2.error
        return 0
    return pixel_bytes


def message_to_bgr(message: Any) -> np.ndarray:
    """Convert sensor_msgs/Image, whose geometry was checked, to uint8 [H, W, 3] BGR."""
    image = load_bridge().imgmsg_to_cv2(message, RESULT)
    return np.ascontiguousarray(image, np.uint8)
