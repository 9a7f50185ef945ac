# SPDX-License-Identifier: Apache-2.0
"""Conversion of logits to probabilities; the only one for all backends, commands and the node."""

import math
from dataclasses import dataclass

import numpy as np

from dan_ros import labels as label_sets
from dan_ros.errors import ModelError, ParameterError
from dan_ros.model.metadata import ModelInfo, Strength
from dan_ros.probabilities.calibration import Calibration
from dan_ros.probabilities.prior import MODEL_PRIOR, Prior

BALANCED = 1.0


@dataclass(frozen=True)
class Calibrator:
    """Converts the logits z of one model to probabilities.

        p = softmax(z / T - strength * (log prior - max log prior) + log shares)

    A calibration may also have weights, which replace z by `weigh(z, weights)`.

    z / T are log-probabilities under the prior that the model learned, so the priors, which are
    also log-probabilities, are exchanged after dividing by the temperature. This is the logit
    adjustment of Menon et al. 2021, equation 9, https://arxiv.org/abs/2007.07314, with its tau
    called strength.
    The maximum matters only where each class has its own strength: a class with strength 0 then
    gets no advantage over the most frequent class.

    Attributes:
        labels: canonical label of each of the C logits.
        temperature: T, > 0 (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
        log_prior: logarithm of the prior that the model learned, [C]; () if unknown.
        strength: share of `log_prior` to subtract, [0, 1], one number or one per class;
            `Prior.strength` overrides it.
        weights: see `weigh`; () for none. They were fitted together with `log_prior`, so the prior
            `none` cancels both.
    """

    labels: tuple[str, ...]
    temperature: float = 1.0
    log_prior: tuple[float, ...] = ()
    strength: Strength = 0.0
    weights: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def create(cls, model: ModelInfo, calibration: Calibration | None = None) -> 'Calibrator':
        """Combine a model's metadata with a calibration, which replaces its temperature and prior.

        Raises:
            ModelError: the calibration was made for another model.
        """
        if calibration is None:
            return cls(model.labels, model.temperature, model.log_prior, model.prior_strength)
        if problem := calibration.problem_with(model):
            raise ModelError(problem)
        log_prior = tuple(-calibration.bias[label] for label in model.labels)
        place = [list(calibration.bias).index(label) for label in model.labels]
        rows = calibration.weights
        weights = tuple(tuple(rows[i][j] for j in place) for i in place) if rows else ()
        return cls(model.labels, calibration.temperature, log_prior, BALANCED, weights)

    def probabilities(self, logits: np.ndarray, prior: Prior = MODEL_PRIOR) -> np.ndarray:
        """Convert logits.

        Args:
            logits: float [N, C].
            prior: see `Prior`.

        Returns:
            float32 [N, 8], see `labels.logits_to_probabilities`.

        Raises:
            ParameterError: the prior cannot be used with this model, see `check`.
        """
        offset = self.offset(prior)
        if self.weights and prior.strength != 0:
            logits = weigh(logits, np.array(self.weights))
        return label_sets.logits_to_probabilities(logits, self.labels, self.temperature, offset)

    def check(self, prior: Prior) -> None:
        """Check that a prior can be used with the model.

        Raises:
            ParameterError: its own prior is needed but unknown, or all its classes have share 0.
        """
        self.offset(prior)

    def offset(self, prior: Prior) -> np.ndarray:
        """Return the offset to add to z / T, float64 [C]; minus infinity for a class with share 0.

        Raises:
            ParameterError: see `check`.
        """
        strength = self.strength if prior.strength is None else prior.strength
        offset = np.zeros(len(self.labels))
        if np.any(strength) and self.log_prior:
            offset -= prior_to_subtract(np.array(self.log_prior), strength)
        elif np.any(strength):
            raise ParameterError(
                'the model file does not say which prior the model learned, so it can only be used '
                'with the prior model or none; measure it with `dan-ros export --fit-prior`'
            )
        if not prior.shares:
            return offset
        shares = [prior.shares[index] for index in label_sets.canonical_indices(self.labels)]
        if not any(shares):
            raise ParameterError(
                f'the prior gives share 0 to all classes of the model: {", ".join(self.labels)}'
            )
        return offset + [math.log(share) if share else -math.inf for share in shares]


def weigh(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Add to the score of each class what the other logits say about it.

    The mean of the logits does not matter, as it does not for the softmax.

    Args:
        logits: float [N, C].
        weights: float [C, C]; a row for each class, a column for each logit.

    Returns:
        float [N, C].

    >>> weigh(np.array([[3.0, 1.0]]), np.array([[0.0, 0.0], [0.5, 0.0]])).tolist()
    [[3.0, 1.5]]
    """
    with np.errstate(invalid='ignore'):  # infinite logits give NaN, which is no answer
        centered = logits - logits.mean(axis=1, keepdims=True)
        return np.asarray(logits + centered @ weights.T)


def prior_to_subtract(log_prior: np.ndarray, strength: Strength) -> np.ndarray:
    """Return what to subtract from z / T, float [C] <= 0, see `Calibrator`.

    Args:
        log_prior: float [C].
        strength: one number, or one per class.
    """
    subtracted: np.ndarray = np.asarray(strength) * (log_prior - log_prior.max())
    return subtracted
