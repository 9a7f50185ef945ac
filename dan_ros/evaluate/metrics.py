"""Numbers that say how good answers are. Only numpy."""

from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 15  # as in Guo et al. 2017, section 5


@dataclass(frozen=True)
class Scores:
    """How well C classes were told apart on N faces.

    A face without a usable answer (its probabilities are all 0) counts as wrong; it stands in no
    column of `confusion`.

    Attributes:
        labels: names of the classes.
        confusion: int64 [C, C], faces by true class (row) and answer (column).
        faces: int64 [C], faces by true class.
        bin_faces: int64 [M], answered faces by confidence, in M equal parts of [0, 1].
        bin_confidence: float64 [M], mean confidence of each part; 0 where it has no faces.
        bin_accuracy: float64 [M], part of them that is right; 0 where it has no faces.
    """

    labels: tuple[str, ...]
    confusion: np.ndarray
    faces: np.ndarray
    bin_faces: np.ndarray
    bin_confidence: np.ndarray
    bin_accuracy: np.ndarray

    @property
    def accuracy(self) -> float:
        """Part of all faces that is right, [0, 1]."""
        return float(self.confusion.trace() / max(self.faces.sum(), 1))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have faces, [0, 1]."""
        return float(self.recall[self.faces > 0].mean()) if self.faces.any() else 0.0

    @property
    def recall(self) -> np.ndarray:
        """Of the faces of a class, the part that is recognised, [C]; NaN for one without faces."""
        with np.errstate(invalid='ignore'):
            recall: np.ndarray = self.confusion.diagonal() / self.faces
        return recall

    @property
    def precision(self) -> np.ndarray:
        """Of the answers of a class, the part that is right, [C]; 0 for one never answered."""
        answers = self.confusion.sum(axis=0)
        precision: np.ndarray = self.confusion.diagonal() / np.maximum(answers, 1)
        return precision

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, [C]; NaN for a class without faces."""
        answers = self.confusion.sum(axis=0)
        f1 = 2 * self.confusion.diagonal() / np.maximum(answers + self.faces, 1)
        return np.where(self.faces > 0, f1, np.nan)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have faces, [0, 1]."""
        return float(self.f1[self.faces > 0].mean()) if self.faces.any() else 0.0

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, [0, 1]: mean gap of confidence and accuracy over the parts.

        Guo, Pleiss, Sun, Weinberger 2017, equation 3, https://arxiv.org/abs/1706.04599.
        """
        gaps = np.abs(self.bin_confidence - self.bin_accuracy)
        return float((self.bin_faces * gaps).sum() / max(self.bin_faces.sum(), 1))


def measure(probabilities: np.ndarray, classes: np.ndarray, labels: tuple[str, ...]) -> Scores:
    """Compare answers with the truth.

    Args:
        probabilities: float [N, C], rows sum to 1, or are all 0 for a face that was not judged.
        classes: int [N], true class of each face, 0 .. C - 1.
        labels: names of the C classes.
    """
    count = len(labels)
    probabilities = np.asarray(probabilities, np.float64)
    judged = probabilities.any(axis=1)  # [N]
    answers, truth = probabilities[judged].argmax(axis=1), classes[judged]
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (truth, answers), 1)
    confidence = probabilities[judged].max(axis=1)
    # Part m holds the confidences in (m / M, (m + 1) / M].
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
        bin_accuracy=bin_mean((answers == truth).astype(float)),
    )
