# SPDX-License-Identifier: Apache-2.0
"""Measures what subtracting a model's learned prior costs on neutral faces and gains on others."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dan_ros import labels
from dan_ros.calibrate.fit import fit_log_prior
from dan_ros.datasets.faces import Faces
from dan_ros.errors import DataError
from dan_ros.evaluate.metrics import balanced_accuracy, recall_per_class
from dan_ros.labels import logits_to_probabilities
from dan_ros.model.metadata import Strength
from dan_ros.probabilities.calibrator import prior_to_subtract
from dan_ros.tracking.smoother import Smoother

NEUTRAL = labels.CANONICAL.index('neutral')
HOLD_S, RATE_HZ = 2.0, 15  # simulated stream: seconds per face, frames per second
STEP = 0.05  # step between the strengths that `measure_prior` tries
MAX_LOSS = 0.005  # largest loss of accuracy that the chosen strengths may cause
MIN_NEUTRAL = 0.87  # lowest recall of neutral faces that they may cause
MIN_FACES = 20  # a class with fewer faces gets strength 0, because its cost is too uncertain
BATCH_SIZE = 64


@dataclass(frozen=True)
class Trade:
    """Results after subtracting a share of the learned prior.

    Attributes:
        accuracy, balanced: accuracy and balanced accuracy, [0, 1].
        neutral, others: recall of neutral, and mean recall of the other classes, [0, 1].
        false_alarms: per hour, see `false_alarms_per_hour`.
    """

    accuracy: float
    balanced: float
    neutral: float
    others: float
    false_alarms: float


@dataclass(frozen=True)
class LabeledLogits:
    """Logits of labeled faces.

    Attributes:
        labels: canonical label of each class of the model.
        logits: float [N, C].
        classes: int64 [N], indices into `labels`.
    """

    labels: tuple[str, ...]
    logits: np.ndarray
    classes: np.ndarray

    @classmethod
    def compute(
        cls,
        faces: Faces,
        model_labels: tuple[str, ...],
        size: int,
        infer: Callable[[np.ndarray], np.ndarray],
    ) -> 'LabeledLogits':
        """Run a model, `Backend.infer`, on the faces whose class it has.

        `size` is the side of the model's input, pixels.

        Raises:
            DataError: a class of the model has no face, or neutral is not one of them.
        """
        classes = [model_labels.index(n) if n in model_labels else -1 for n in faces.labels]
        classes_of_faces = np.array(classes)[faces.classes]
        chosen = np.flatnonzero(classes_of_faces >= 0)
        missing = set(range(len(model_labels))) - set(classes_of_faces[chosen].tolist())
        if missing or 'neutral' not in model_labels:
            names = ', '.join(model_labels[index] for index in sorted(missing)) or 'neutral'
            raise DataError(
                f'the prior cannot be measured: no face of {names}; use the validation faces of '
                'the data that the model learned from'
            )
        parts = [
            infer(faces.read_rgb(chosen[start : start + BATCH_SIZE], size))
            for start in range(0, len(chosen), BATCH_SIZE)
        ]
        return cls(model_labels, np.concatenate(parts), classes_of_faces[chosen])

    def subtract(self, log_prior: np.ndarray, strength: Strength) -> np.ndarray:
        """Return the logits after subtracting a share of a log prior, float [N, C]."""
        adjusted: np.ndarray = self.logits - prior_to_subtract(log_prior, strength)
        return adjusted

    def trade(self, log_prior: np.ndarray, strength: Strength) -> Trade:
        """Measure the results after subtracting a share of a log prior, float [C]."""
        adjusted = self.subtract(log_prior, strength)
        predicted, neutral = adjusted.argmax(axis=1), self.labels.index('neutral')
        is_neutral = self.classes == neutral
        recall = recall_per_class(predicted, self.classes, len(self.labels))
        return Trade(
            float((predicted == self.classes).mean()),
            balanced_accuracy(recall),
            float(recall[neutral]),
            balanced_accuracy(np.delete(recall, neutral)),
            false_alarms_per_hour(logits_to_probabilities(adjusted[is_neutral], self.labels)),
        )


def measure_prior(faces: LabeledLogits) -> tuple[np.ndarray, tuple[float, ...]]:
    """Measure the prior that a model learned, and choose how much of it to subtract.

    There is one strength for common classes and a larger or equal one for rare classes, which have
    less than their even share of the prior. A class with fewer than 20 faces gets strength 0. The
    rule uses only the model's own validation faces: it chooses the strengths with the highest mean
    recall of the remaining classes without neutral, among those that cost at most 0.5 percentage
    points of accuracy and keep at least 87 % of the neutral faces neutral.

    Returns:
        The logarithm of the prior, float64 [C], and the strength per class, [0, 1].
    """
    log_prior = fit_log_prior(faces.logits, faces.classes)
    count, neutral = len(log_prior), faces.labels.index('neutral')
    measurable = np.bincount(faces.classes, minlength=count) >= MIN_FACES  # [C]
    others = measurable.copy()
    others[neutral] = False
    rare = log_prior < np.log(1 / count)  # [C]
    min_accuracy = (faces.logits.argmax(axis=1) == faces.classes).mean() - MAX_LOSS
    best, highest = (0.0,) * count, 0.0
    steps = np.arange(0, 1 + STEP / 2, STEP).round(2)
    for common, of_rare in itertools.combinations_with_replacement(steps.tolist(), 2):
        strength = tuple((np.where(rare, of_rare, common) * measurable).tolist())
        predicted = faces.subtract(log_prior, strength).argmax(axis=1)
        recall = recall_per_class(predicted, faces.classes, count)
        accuracy = (predicted == faces.classes).mean()
        affordable = accuracy >= min_accuracy and recall[neutral] >= MIN_NEUTRAL
        if affordable and recall[others].sum() > highest:
            best, highest = strength, recall[others].sum()
    return log_prior, best


def false_alarms_per_hour(probabilities: Sequence[np.ndarray] | np.ndarray) -> float:
    """Count how often a stream of neutral faces is published as another expression, per hour.

    The simulation shows each face for two seconds at 15 frames per second, all in one track, as if
    one person moved. Labels are smoothed with the default settings of the node.

    Args:
        probabilities: float [N, 8], of neutral faces.
    """
    smoother, alarms, last = Smoother(), 0, NEUTRAL
    frames = round(HOLD_S * RATE_HZ)
    for index, row in enumerate(np.repeat(probabilities, frames, axis=0)):
        _, label = smoother.update(row, round(index * 1e9 / RATE_HZ))
        alarms += label != last and label not in (NEUTRAL, labels.UNKNOWN)
        last = label
    return alarms * 3600 / (len(probabilities) * HOLD_S)
