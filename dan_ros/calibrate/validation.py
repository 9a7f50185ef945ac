# SPDX-License-Identifier: Apache-2.0
"""What a calibration will gain on faces that it has not seen, and whether that is chance."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dan_ros.calibrate.fit import Fit

DRAWS = 4000  # of the bootstrap and of the permutation test
INTERVAL = (5, 95)  # percentiles of the interval of the gain
CHANCE = 0.05  # p value below which a gain is more than chance
MAX_TRUST = 0.05  # a face whose label has a lower probability may be mislabeled ...
MIN_OTHER = 0.7  # ... if another class has a higher one


@dataclass(frozen=True)
class Validation:
    """Cross-validated results of N faces: each was classified by a fit to the others.

    Attributes:
        before, after: float64 [N, C], log-probabilities without and with calibration.
        classes: int64 [N], true classes.
        units: int64 [N], what was held out together: the person or, if unknown, the face.
    """

    before: np.ndarray
    after: np.ndarray
    classes: np.ndarray
    units: np.ndarray

    @property
    def gain(self) -> float:
        """Gain in balanced accuracy, [-1, 1]."""
        return balanced_accuracy(self.after, self.classes) - balanced_accuracy(
            self.before, self.classes
        )

    def recall(self, log_probabilities: np.ndarray) -> np.ndarray:
        """Share of correctly classified faces per class, float [C]; NaN without faces."""
        hits = log_probabilities.argmax(axis=1) == self.classes
        count = self.before.shape[1]
        with np.errstate(invalid='ignore'):
            share: np.ndarray = np.bincount(
                self.classes, weights=hits, minlength=count
            ) / np.bincount(self.classes, minlength=count)
        return share

    def interval(self) -> tuple[float, float]:
        """Bootstrap interval (90 %) of the gain: faces are drawn again within each class."""
        change = (self.after.argmax(axis=1) == self.classes) * 1.0
        change -= self.before.argmax(axis=1) == self.classes
        rng = np.random.default_rng(0)
        groups = [change[self.classes == label] for label in np.unique(self.classes)]
        means = [rng.choice(group, (DRAWS, len(group))).mean(axis=1) for group in groups]
        low, high = np.percentile(np.mean(means, axis=0), INTERVAL)
        return float(low), float(high)

    def p_value(self) -> float:
        """Probability of such a gain in likelihood, or a larger one, by chance.

        Sign-flip permutation test (Fisher 1935) on the change of the log-likelihood of each unit.
        The likelihood sees more than the accuracy, which three faces of a class cannot resolve.
        """
        rows = np.arange(len(self.classes))
        change = (self.after - self.before)[rows, self.classes]
        change /= np.bincount(self.classes)[self.classes]  # each class weighs the same
        _, unit = np.unique(self.units, return_inverse=True)
        sums = np.bincount(unit, weights=change)
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (DRAWS, len(sums)))
        reached = (signs @ sums >= sums.sum() - 1e-12).sum()
        return float((reached + 1) / (DRAWS + 1))

    def suspects(self) -> np.ndarray:
        """Faces whose label the model contradicts firmly, before and after, int64 [M]."""
        rows = np.arange(len(self.classes))
        own = np.maximum(self.before, self.after)[rows, self.classes]
        other = np.minimum(self.before.max(axis=1), self.after.max(axis=1))
        return np.flatnonzero((own < np.log(MAX_TRUST)) & (other > np.log(MIN_OTHER)))


def cross_validate(
    logits: np.ndarray,
    classes: np.ndarray,
    units: np.ndarray,
    before: Fit,
    fit: Callable[[np.ndarray, np.ndarray], Fit],
) -> Validation:
    """Classify each unit with a fit to all the others.

    Args:
        logits: float [N, C].
        classes: int [N].
        units: int [N], person of each face, or a number of its own.
        before: what the model does without calibration.
        fit: fits to logits and classes.
    """
    after = np.empty(logits.shape)
    for unit in np.unique(units):
        held_out = units == unit
        fitted = fit(logits[~held_out], classes[~held_out])
        after[held_out] = fitted.log_probabilities(logits[held_out])
    return Validation(before.log_probabilities(logits), after, classes, units)


def balanced_accuracy(log_probabilities: np.ndarray, classes: np.ndarray) -> float:
    """Mean recall over the classes that have faces."""
    hits = log_probabilities.argmax(axis=1) == classes
    return float(np.mean([hits[classes == label].mean() for label in np.unique(classes)]))
