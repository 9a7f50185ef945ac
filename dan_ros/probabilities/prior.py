# SPDX-License-Identifier: Apache-2.0
"""The class prior that a user chooses: how often each expression occurs."""

import math
from dataclasses import dataclass

from dan_ros import labels
from dan_ros.errors import ParameterError, count_of, shorten
from dan_ros.model.metadata import MAX_SUM_ERROR

STRENGTHS = {'model': None, 'none': 0.0, 'balanced': 1.0}  # see `Prior.strength`
HELP = (
    f'it must be {", ".join(STRENGTHS)}, or the shares of {", ".join(labels.CANONICAL)}, in this '
    'order and with sum 1'
)


@dataclass(frozen=True)
class Prior:
    """How often each expression is assumed to occur.

    Attributes:
        strength: share of the model's own prior to subtract, [0, 1]; None for the one of the model
            or its calibration.
        shares: probability of each class of `labels.CANONICAL` where the model is used; () for
            equal ones.

    Example:
        >>> Prior.parse('balanced')
        Prior(strength=1.0, shares=())
        >>> Prior.parse('0.6,0.2,0.05,0.05,0.02,0.02,0.05,0.01').shares[:2]
        (0.6, 0.2)
    """

    strength: float | None = None
    shares: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> 'Prior':
        """Parse `expression.prior` or `--prior`: one of `STRENGTHS`, or 'share, share, ...'.

        Raises:
            ParameterError: it is neither.
        """
        if text in STRENGTHS:
            return cls(STRENGTHS[text])
        try:
            shares = tuple(float(part) for part in text.strip('[] ').split(','))
        except ValueError:
            raise ParameterError(f'the prior cannot be {shorten(text)!r}: {HELP}') from None
        if problem := _problem_with(shares):
            raise ParameterError(f'the prior is not a distribution: {problem}; {HELP}')
        return cls(1.0, shares)

    def __str__(self) -> str:
        """Return the text that `parse` takes."""
        names = {strength: name for name, strength in STRENGTHS.items()}
        return ','.join(f'{s:g}' for s in self.shares) or names.get(self.strength, '')


MODEL_PRIOR = Prior()


def _problem_with(shares: tuple[float, ...]) -> str:
    """Return why numbers are not a distribution over the eight classes, or ''."""
    if len(shares) != len(labels.CANONICAL):
        return f'it has {count_of(len(shares), "number")} instead of {len(labels.CANONICAL)}'
    if not all(math.isfinite(share) and share >= 0 for share in shares):
        return 'a number is negative or not finite'
    if abs(sum(shares) - 1) > MAX_SUM_ERROR:
        return f'the sum is {sum(shares):g}'
    return ''
