# SPDX-License-Identifier: Apache-2.0
"""Classification metrics; needs only numpy."""

from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 15  # number of bins, as in Guo et al. 2017, section 5


@dataclass(frozen=True)
class Scores:
    """Metrics of C classes on N faces.

    A face without a result (all probabilities are 0) counts as wrong and is in no column of
    `confusion`.
    """

    labels: tuple[str, ...]  # names of the classes
    # int64 [C, C], number of faces per true class (row) and predicted class (column).
    confusion: np.ndarray
    faces: np.ndarray  # int64 [C], number of faces per true class
    # int64 [M], number of classified faces per confidence bin; M equal bins of [0, 1].
    bin_faces: np.ndarray
    bin_confidence: np.ndarray  # float64 [M], mean confidence per bin; 0 in an empty bin
    bin_accuracy: np.ndarray  # float64 [M], accuracy per bin; 0 in an empty bin

    @property
    def accuracy(self) -> float:
        """Share of correctly classified faces, [0, 1]."""
        return float(self.confusion.trace() / max(self.faces.sum(), 1))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have faces, [0, 1]."""
        return balanced_accuracy(self.recall)

    @property
    def recall(self) -> np.ndarray:
        """Share of a class's faces that is predicted as the class, [C]; NaN without faces."""
        return _share(self.confusion.diagonal(), self.faces)

    @property
    def precision(self) -> np.ndarray:
        """Share of a class's predictions that is correct, [C]; 0 without predictions."""
        predicted = self.confusion.sum(axis=0)
        precision: np.ndarray = self.confusion.diagonal() / np.maximum(predicted, 1)
        return precision

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, [C]; NaN for a class without faces."""
        predicted = self.confusion.sum(axis=0)
        f1 = 2 * self.confusion.diagonal() / np.maximum(predicted + self.faces, 1)
        return np.where(self.faces > 0, f1, np.nan)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have faces, [0, 1]."""
        return float(self.f1[self.faces > 0].mean()) if self.faces.any() else 0.0

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, [0, 1]: mean gap between confidence and accuracy per bin.

        Guo, Pleiss, Sun, Weinberger 2017, equation 3, https://arxiv.org/abs/1706.04599.
        """
        gaps = np.abs(self.bin_confidence - self.bin_accuracy)
        return float((self.bin_faces * gaps).sum() / max(self.bin_faces.sum(), 1))


def recall_per_class(predicted: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Return the share of each class's faces that is predicted as the class; NaN without faces.

    Args:
        predicted: int [N], predicted class of each face.
        classes: int [N], true class of each face, 0 .. C - 1.
        count: number of classes, C.

    Returns:
        float64 [C].
    """
    hits = classes[predicted == classes]
    return _share(np.bincount(hits, minlength=count), np.bincount(classes, minlength=count))


def balanced_accuracy(recall: np.ndarray) -> float:
    """Return the mean recall over the classes that have faces, [0, 1]; 0 without faces.

    Args:
        recall: float [C], NaN for a class without faces.

    >>> balanced_accuracy(np.array([1.0, 0.5, np.nan]))
    0.75
    """
    return 0.0 if np.isnan(recall).all() else float(np.nanmean(recall))


def _share(hits: np.ndarray, faces: np.ndarray) -> np.ndarray:
    with np.errstate(invalid='ignore'):
        share: np.ndarray = hits / faces
    return share


def measure(probabilities: np.ndarray, classes: np.ndarray, labels: tuple[str, ...]) -> Scores:
    """Compute all metrics.

    Args:
        probabilities: float [N, C], rows sum to 1, or are all 0 for a face without a result.
        classes: int [N], true class of each face, 0 .. C - 1.
        labels: names of the C classes.

    >>> scores = measure(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]), ('happy', 'sad'))
    >>> scores.accuracy, scores.confusion.tolist()
    (0.5, [[1, 0], [1, 0]])
    """
    count = len(labels)
    probabilities = np.asarray(probabilities, np.float64)
    classified = probabilities.any(axis=1)  # [N]
    predicted, truth = probabilities[classified].argmax(axis=1), classes[classified]
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    confidence = probabilities[classified].max(axis=1)
    # Bin m contains the confidences in (m / M, (m + 1) / M].
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1
    bins = bins.clip(0, CALIBRATION_BINS - 1)
    bin_faces = np.bincount(bins, minlength=CALIBRATION_BINS)

    def bin_mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(bins, weights=values, minlength=CALIBRATION_BINS)
        return sums / np.maximum(bin_faces, 1)

    return Scores(
        labels=labels,
        confusion=confusion,
        faces=np.bincount(classes, minlength=count),
        bin_faces=bin_faces,
        bin_confidence=bin_mean(confidence),
        bin_accuracy=bin_mean((predicted == truth).astype(float)),
    )
