# SPDX-License-Identifier: Apache-2.0
"""Conversion of RGB pixels to a network's input: gray, mean and standard deviation."""

from collections.abc import Sequence

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)  # gray = LUMA . RGB, ITU-R BT.601, as OpenCV's RGB2GRAY
MEAN_RANGE = (0.0, 1.0)  # limits of the mean, for pixel values scaled to 0 .. 1
STD_RANGE = (0.001, 10.0)  # 1/255 keeps values in 0 .. 255, 1 keeps them in 0 .. 1


def check_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    """Check that (x / 255 - mean) / std is a plausible normalization of RGB pixels.

    Args:
        mean, std: for pixel values scaled to 0 .. 1, one number per channel.

    Raises:
        ValueError: there are not three numbers, or one is not finite or out of range.
    """
    for name, values, (low, high) in (('mean', mean, MEAN_RANGE), ('std', std, STD_RANGE)):
        if len(values) != 3 or not all(low <= value <= high for value in values):
            found = ', '.join(f'{value:g}' for value in values)
            raise ValueError(
                f'{name} must be three numbers from {low:g} to {high:g}, for pixels in 0 .. 1, not '
                f'{found}; divide a {name} for pixels in 0 .. 255 by 255'
            )
