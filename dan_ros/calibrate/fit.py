# SPDX-License-Identifier: Apache-2.0
"""Maximum a posteriori fit of a bias per class and a temperature; needs only numpy.

Vector scaling (Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599) with one scale for
all classes, because there are few faces. All classes have the same weight, so the result fits a
balanced prior.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

MAX_STEPS = 100  # limit of Newton's method, which usually takes ten steps
TOLERANCE = 1e-8  # change of the parameters at which it stops
MIN_SCALE = 0.05  # lowest factor of 1 / temperature
FOLDS = 5  # of the cross-validation that chooses a penalty


@dataclass(frozen=True)
class Penalty:
    """How far a fit may move from its start, as standard deviations of a normal prior.

    The defaults were chosen by simulation, see docs/adr/0018-calibrate.md.

    Attributes:
        bias: standard deviation of a bias.
        scale: standard deviation of 1 / temperature, relative to its start.
    """

    bias: float = 1.0
    scale: float = 0.15


WEAK = Penalty(bias=10.0, scale=1e-6)  # keeps the temperature; for a prior of thousands of faces
WIDE = Penalty(bias=1.5)  # for a model file without the learned prior
CHOICES = tuple(Penalty(bias=width) for width in (0.5, 1.0, 2.0, 4.0))


@dataclass(frozen=True)
class Fit:
    """Fitted parameters: softmax(logits / temperature + bias).

    Attributes:
        bias: float64 [C].
        temperature: > 0.
    """

    bias: np.ndarray
    temperature: float

    def log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return log-probabilities, float64 [N, C], of logits, float [N, C]."""
        return log_softmax(np.asarray(logits, np.float64) / self.temperature + self.bias)

    def at(self, temperature: float) -> 'Fit':
        """Return a fit with another temperature and the same most likely class for all logits."""
        return Fit(self.bias * self.temperature / temperature, temperature)


def fit_bias(
    logits: np.ndarray, classes: np.ndarray, start: Fit, penalty: Penalty | None = None
) -> Fit:
    """Fit bias and temperature to labeled faces.

    A class without faces remains possible: its bias falls if faces of other classes are mistaken
    for it, and never rises.

    Args:
        logits: float [N, C], finite.
        classes: int [N], true class of each face, of at least two classes.
        start: parameters before the fit.
        penalty: see `Penalty`.
    """
    penalty = penalty or Penalty()
    count = logits.shape[1]
    z = np.asarray(logits, np.float64) / start.temperature  # [N, C]
    onehot = np.eye(count)[classes]
    weights = (1 / np.bincount(classes, minlength=count).clip(1))[classes]  # [N]
    weights *= len(z) / weights.sum()
    center = np.append(np.zeros(count), 1.0)  # change of the bias, factor of 1 / temperature
    precision = np.append(np.full(count, penalty.bias**-2), penalty.scale**-2)
    theta = center
    for _ in range(MAX_STEPS):
        p = np.exp(log_softmax(theta[-1] * z + start.bias + theta[:-1]))
        slope, curvature = _derivatives(z, p, onehot, weights)
        slope += precision * (theta - center)
        step = np.linalg.solve(curvature + np.diag(precision), slope)
        step *= min(1.0, 1.0 / np.abs(step).max())  # valid only for small steps
        theta = theta - step
        theta[-1] = max(theta[-1], MIN_SCALE)
        if np.abs(step).max() < TOLERANCE:
            break
    return Fit(start.bias + theta[:-1], start.temperature / float(theta[-1]))


def choose_penalty(
    logits: np.ndarray, classes: np.ndarray, units: np.ndarray, start: Fit, default: Penalty
) -> Penalty:
    """Choose by cross-validation how far the bias may move, see docs/adr/0018-calibrate.md.

    The choice is the smallest deviation of which the log-loss on held-out faces is within one
    standard error of the best (Hastie, Tibshirani, Friedman: The Elements of Statistical Learning,
    2nd ed., section 7.10).

    Args:
        logits: float [N, C], finite.
        classes: int [N], true class of each face, of at least two classes.
        units: int [N]; faces of the same unit are held out together.
        start: parameters before the fit.
        default: returned if no class has faces in two folds.
    """
    folds = folds_of(classes, units, FOLDS)
    spread = [len(np.unique(folds[classes == label])) for label in range(logits.shape[1])]
    is_tested = np.array(spread)[classes] > 1  # the fits lack the class of the other faces
    if not is_tested.any():
        return default
    scores = np.array([_scores(logits, classes, folds, start, penalty) for penalty in CHOICES])
    weights = is_tested / np.bincount(classes)[classes]
    weights /= weights.sum()
    losses = scores[(scores @ weights).argmax()] - scores  # [choices, N], relative to the best
    means = losses @ weights
    errors = np.sqrt((losses - means[:, None]) ** 2 @ weights**2)
    return CHOICES[int((means <= errors).argmax())]


def folds_of(classes: np.ndarray, units: np.ndarray, count: int) -> np.ndarray:
    """Return the fold of each face, int64 [N], < count; units of one class go to different folds.

    With at most `count` units, each unit is a fold.
    """
    _, first, unit_of = np.unique(units, return_index=True, return_inverse=True)
    order = np.argsort(classes[first], kind='stable')
    fold_of = np.empty(len(first), np.int64)
    fold_of[order] = np.arange(len(first)) % count
    return fold_of[unit_of]


def held_out_fits(
    folds: np.ndarray, fit: Callable[[np.ndarray], Fit]
) -> Iterator[tuple[np.ndarray, Fit]]:
    """Yield for each fold a mask of its faces, bool [N], and a fit to all others.

    Args:
        folds: int [N], fold of each face.
        fit: fits parameters to those of the faces where a mask, bool [N], is true.
    """
    for fold in np.unique(folds):
        held_out = folds == fold
        yield held_out, fit(~held_out)


def _scores(
    logits: np.ndarray, classes: np.ndarray, folds: np.ndarray, start: Fit, penalty: Penalty
) -> np.ndarray:
    """Return the log-probability of the true class of each held-out face, float64 [N]."""
    scores = np.empty(len(classes))

    def fit(mask: np.ndarray) -> Fit:
        return fit_bias(logits[mask], classes[mask], start, penalty)

    for held_out, fitted in held_out_fits(folds, fit):
        log_probabilities = fitted.log_probabilities(logits[held_out])
        scores[held_out] = log_probabilities[np.arange(held_out.sum()), classes[held_out]]
    return scores


def fit_log_prior(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Measure the prior that a model learned, as log-probabilities, float64 [C].

    Subtracting it makes the model's probabilities fit best to faces with equally many of each
    class. It is more reliable than the counts of the training faces, which ignore how often rare
    classes were sampled and how the votes were spread.

    Args:
        logits: float [N, C], of held-out faces.
        classes: int [N], true class of each face; every class must occur.
    """
    count = logits.shape[1]
    fitted = fit_bias(logits, classes, Fit(np.zeros(count), 1.0), WEAK)
    (log_prior,) = log_softmax(-fitted.bias[None])
    return np.asarray(log_prior)


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Return the log-softmax of each row, float [N, C]."""
    values = values - values.max(axis=1, keepdims=True)
    result: np.ndarray = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return result


def _derivatives(
    z: np.ndarray, p: np.ndarray, onehot: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient, [K + 1], and Hessian, [K + 1, K + 1], of the weighted cross-entropy."""
    error = weights[:, None] * (p - onehot)  # [N, K]
    slope = np.append(error.sum(axis=0), (error * z).sum())
    centered = z - (p * z).sum(axis=1, keepdims=True)  # [N, K]
    wp = weights[:, None] * p
    mixed: np.ndarray = (wp * centered).sum(axis=0)
    curvature = np.empty((len(slope), len(slope)))
    curvature[:-1, :-1] = np.diag(wp.sum(axis=0)) - wp.T @ p
    curvature[:-1, -1] = curvature[-1, :-1] = mixed
    curvature[-1, -1] = (wp * z * centered).sum()
    return slope, curvature
