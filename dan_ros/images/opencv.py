"""OpenCV, with its own limit on pictures set before it loads, for it reads it only then.

Everything in this package takes `cv2` from here. What a header claims is checked before decoding
anyway, see `compressed`; this holds for whatever kind of file OpenCV knows. A limit that the user
has set stays.
"""

import os

MAX_PIXELS = 250_000_000  # of a picture, decoded 0.75 GB; more than any camera gives

os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(MAX_PIXELS))

import cv2  # noqa: E402

__all__ = ['MAX_PIXELS', 'cv2', 'raise_if_out_of_memory']


def raise_if_out_of_memory(error: cv2.error) -> None:
    """Turn an error of OpenCV's into Python's own, where memory is what it lacked.

    Raises:
        MemoryError: that is what it says.
    """
    if getattr(error, 'code', 0) == cv2.Error.StsNoMem:
        raise MemoryError(error.err) from None
