"""How pixels are prepared for a network: (x / 255 - mean) / std for each of red, green, blue."""

from collections.abc import Sequence

MEAN_RANGE = (0.0, 1.0)  # that of what is averaged
STD_RANGE = (0.001, 10.0)  # 1/255 leaves values in 0 .. 255, 1 leaves them in 0 .. 1


def check_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse a normalisation that no network was trained with.

    Args:
        mean, std: of colours in [0, 1], one for each of three channels.

    Raises:
        ValueError: a number is missing, not finite, or outside its range.
    """
    for name, values, (low, high) in (('mean', mean, MEAN_RANGE), ('std', std, STD_RANGE)):
        if len(values) != 3 or not all(low <= value <= high for value in values):
            found = ', '.join(f'{value:g}' for value in values)
            raise ValueError(
                f'{name} has to be three numbers from {low:g} to {high:g}, of colours in 0 .. 1, '
                f'not {found}; divide those of colours in 0 .. 255 by 255'
            )
