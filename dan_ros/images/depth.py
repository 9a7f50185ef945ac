# SPDX-License-Identifier: Apache-2.0
"""Depth images: sensor_msgs/Image with distances, as in REP-118, without ROS."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dan_ros.errors import FrameError, count_of
from dan_ros.images.encodings import ImageMessage

# Type and unit in meters by encoding; https://www.ros.org/reps/rep-0118.html.
ENCODINGS: dict[str, tuple[np.dtype[Any], float]] = {
    '16UC1': (np.dtype(np.uint16), 1e-3),
    '32FC1': (np.dtype(np.float32), 1.0),
}


@dataclass(frozen=True)
class DepthImage:
    """Distances along the optical axis.

    Attributes:
        values: uint16 or float32 [H, W], a view of the message's data. 0, NaN and infinity stand
            for pixels without a distance.
        unit_m: meters per unit of `values`.
    """

    values: np.ndarray
    unit_m: float

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.values.shape[1], self.values.shape[0]

    def median_m(self, x: float, y: float, radius: int) -> float:
        """Return the median distance in a square window, meters.

        Args:
            x: center of the window, pixels; see `types` for the coordinates.
            y: center of the window, pixels.
            radius: pixels on each side of the center.

        Returns:
            NaN if no pixel of the window has a distance.
        """
        left, top = int(np.floor(x)) - radius, int(np.floor(y)) - radius
        right, bottom = left + 2 * radius + 1, top + 2 * radius + 1
        window = self.values[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        known = np.sort(window[(window > 0) & (window < np.inf)])  # NaN is neither
        return float(known[known.size // 2]) * self.unit_m if known.size else float('nan')


def message_to_depth(message: ImageMessage) -> DepthImage:
    """Check a message and view its data as distances; nothing is copied.

    Raises:
        FrameError: the message is inconsistent, or its encoding is not a depth.
    """
    if message.encoding not in ENCODINGS:
        raise FrameError(
            'bad_encoding',
            f'the encoding {message.encoding[:40]!r} is not one of {", ".join(ENCODINGS)}',
        )
    dtype, unit_m = ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    if height < 1 or width < 1:
        raise FrameError('bad_size', f'a depth image of {width} x {height} pixels')
    if step < width * dtype.itemsize or len(message.data) < step * height:
        raise FrameError(
            'bad_data',
            f'{count_of(len(message.data), "byte")} of data with step {step}, too few for '
            f'{width} x {height} {message.encoding}',
        )
    values: np.ndarray = np.ndarray(
        (height, width),
        dtype.newbyteorder('>' if message.is_bigendian else '<'),
        message.data,
        strides=(step, dtype.itemsize),
    )
    return DepthImage(values, unit_m)
