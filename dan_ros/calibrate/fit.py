# SPDX-License-Identifier: Apache-2.0
"""Maximum a posteriori fit of a calibration; needs only numpy.

Matrix scaling (Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599) with a normal prior
around the model's own answer, because there are few faces. All classes have the same weight, so the
result fits a balanced prior.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dan_ros.probabilities.calibrator import weigh

MAX_STEPS = 100  # limit of Newton's method, which usually takes ten steps
MAX_HALVINGS = 30  # limit of the search for a step that lowers the loss
TOLERANCE = 1e-8  # change of the parameters at which it stops
MIN_SCALE = 0.05  # lowest factor of 1 / temperature
FOLDS = 5  # of the cross-validation that chooses a penalty


@dataclass(frozen=True)
class Penalty:
    """How far a fit may move from its start, as standard deviations of a normal prior.

    The defaults were chosen by simulation, see docs/adr/0018-calibrate.md.

    Attributes:
        bias: standard deviation of a bias.
        weight: standard deviation of a weight; 0 for a fit without weights.
        scale: standard deviation of 1 / temperature, relative to its start.
    """

    bias: float = 1.0
    weight: float = 0.0
    scale: float = 0.15


WEAK = Penalty(bias=10.0, scale=1e-6)  # keeps the temperature; for a prior of thousands of faces
WIDE = Penalty(bias=1.5)  # for a model file without the learned prior
CHOICES = tuple(Penalty(bias=width, weight=width / 10) for width in (0.5, 1.0, 2.0, 4.0))


@dataclass(frozen=True)
class Fit:
    """Fitted parameters, see `Calibration`.

    Attributes:
        bias: float64 [C].
        temperature: > 0.
        weights: float64 [C, C]; None for none.
    """

    bias: np.ndarray
    temperature: float
    weights: np.ndarray | None = None

    def log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return log-probabilities, float64 [N, C], of logits, float [N, C]."""
        z = np.asarray(logits, np.float64)
        if self.weights is not None:
            z = weigh(z, self.weights)
        return log_softmax(z / self.temperature + self.bias)

    def at(self, temperature: float) -> 'Fit':
        """Return a fit with another temperature and the same most likely class for all logits."""
        return Fit(self.bias * self.temperature / temperature, temperature, self.weights)


def fit_scores(
    logits: np.ndarray, classes: np.ndarray, start: Fit, penalty: Penalty | None = None
) -> Fit:
    """Fit bias, temperature and, if the penalty allows, weights to labeled faces.

    A class without faces remains possible: its bias falls if faces of other classes are mistaken
    for it, and never rises.

    Args:
        logits: float [N, C], finite.
        classes: int [N], true class of each face, of at least two classes.
        start: parameters before the fit, without weights.
        penalty: see `Penalty`.
    """
    penalty = penalty or Penalty()
    count = logits.shape[1]
    z = np.asarray(logits, np.float64) / start.temperature  # [N, C]
    x = np.ones((len(z), 1))  # [N, K], inputs of the scores besides z
    if penalty.weight:
        x = np.hstack([x, z - z.mean(axis=1, keepdims=True)])
    shares = (1 / np.bincount(classes, minlength=count).clip(1))[classes]  # [N]
    shares *= len(z) / shares.sum()
    # For each class the change of its bias and its weights, and at last the factor of z.
    by_class = np.full((count, x.shape[1]), penalty.weight and penalty.weight**-2)
    by_class[:, 0] = penalty.bias**-2
    precision = np.append(by_class, penalty.scale**-2)
    center = np.append(np.zeros(len(precision) - 1), 1.0)

    def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss, and the log-probabilities."""
        scores = theta[-1] * z + x @ theta[:-1].reshape(count, -1).T + start.bias
        log_p = log_softmax(scores)
        distance = (precision * (theta - center) ** 2).sum() / 2
        return distance - float(shares @ log_p[np.arange(len(z)), classes]), log_p

    def newton_step(theta: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        slope, curvature = _derivatives(z, x, np.exp(log_p), classes, shares)
        slope += precision * (theta - center)
        step: np.ndarray = np.linalg.solve(curvature + np.diag(precision), slope)
        return step

    theta = _minimize(evaluate, newton_step, center)
    changes, scale = theta[:-1].reshape(count, -1), float(theta[-1])
    weights = changes[:, 1:] / scale if penalty.weight else None
    return Fit(start.bias + changes[:, 0], start.temperature / scale, weights)


def choose_penalty(
    logits: np.ndarray, classes: np.ndarray, units: np.ndarray, start: Fit, default: Penalty
) -> Penalty:
    """Choose by cross-validation how far a fit may move, see docs/adr/0018-calibrate.md.

    The choice is the one with the lowest log-loss on held-out faces.

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
    return CHOICES[int((scores @ (is_tested / np.bincount(classes)[classes])).argmax())]


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
        return fit_scores(logits[mask], classes[mask], start, penalty)

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
    fitted = fit_scores(logits, classes, Fit(np.zeros(count), 1.0), WEAK)
    (log_prior,) = log_softmax(-fitted.bias[None])
    return np.asarray(log_prior)


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Return the log-softmax of each row, float [N, C]."""
    values = values - values.max(axis=1, keepdims=True)
    result: np.ndarray = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return result


def _minimize(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]],
    newton_step: Callable[[np.ndarray, np.ndarray], np.ndarray],
    theta: np.ndarray,
) -> np.ndarray:
    """Return the parameters with the lowest loss, from the start `theta`, float64 [P].

    The whole step of Newton's method is right only near the solution, so it is halved until the
    loss does not rise.
    """
    loss, log_p = evaluate(theta)
    for _ in range(MAX_STEPS):
        step, before = newton_step(theta, log_p), loss + TOLERANCE
        for _ in range(MAX_HALVINGS):
            new = theta - step
            new[-1] = max(new[-1], MIN_SCALE)
            loss, log_p = evaluate(new)
            if loss <= before:
                break
            step /= 2
        theta = new
        if np.abs(step).max() < TOLERANCE:
            break
    return theta


def _derivatives(
    z: np.ndarray, x: np.ndarray, p: np.ndarray, classes: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient, [C K + 1], and Hessian, [C K + 1, C K + 1], of the weighted cross-entropy.

    Args:
        z: float [N, C], scores that have one common factor.
        x: float [N, K], inputs that have a factor per class.
        p: float [N, C], probabilities.
        classes: int [N].
        shares: float [N], weight of each face.
    """
    count, width = p.shape[1], x.shape[1]
    error = shares[:, None] * (p - np.eye(count)[classes])
    slope = np.append((error.T @ x).ravel(), (error * z).sum())
    # The Hessian by the scores of each face, [N, C, C].
    by_score = shares[:, None, None] * (p[:, :, None] * np.eye(count) - p[:, :, None] * p[:, None])
    by_factor = np.einsum('ncd,nd->nc', by_score, z)
    pairs = (x[:, :, None] * x[:, None]).reshape(len(x), -1)
    blocks = (by_score.reshape(len(x), -1).T @ pairs).reshape(count, count, width, width)
    curvature = np.empty((len(slope), len(slope)))
    curvature[:-1, :-1] = blocks.transpose(0, 2, 1, 3).reshape(len(slope) - 1, -1)
    curvature[:-1, -1] = curvature[-1, :-1] = (by_factor.T @ x).ravel()
    curvature[-1, -1] = (by_factor * z).sum()
    return slope, curvature
