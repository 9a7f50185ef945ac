# SPDX-License-Identifier: Apache-2.0
"""Run a model on a data set and measure the results; their class orders may differ."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dan_ros import labels as label_sets
from dan_ros.backends import Backend
from dan_ros.datasets.faces import Faces
from dan_ros.errors import DataError
from dan_ros.evaluate.metrics import Scores, measure
from dan_ros.images.files import open_picture
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.probabilities import MODEL_PRIOR, Calibration, Calibrator, Prior
from dan_ros.types import Frame

BATCH_SIZE = 64

# Classifies faces of a data set: indices, int64 [B] -> probabilities, float32 [B, 8], in canonical
# order; a row of zeros for a face without a result.
Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """A model's results on a data set."""

    faces: Faces  # the data set's split
    chosen: np.ndarray  # int64 [N], indices of the evaluated faces: those whose class the model has
    probabilities: np.ndarray  # float32 [N, C], in the order of `scores.labels`
    scores: Scores  # metrics of `probabilities`
    left_out: dict[str, int]  # number of faces per label that the model does not have

    @property
    def without_result(self) -> np.ndarray:
        """Indices of the faces that were not detected or got no finite result, int64 [M]."""
        return self.chosen[~self.probabilities.any(axis=1)]


def evaluate(
    faces: Faces,
    model_labels: tuple[str, ...],
    predict: Predict,
    on_progress: Callable[[int, int], object] = lambda done, count: None,
) -> Evaluation:
    """Classify all faces and measure the results.

    The classes are those of the model, in canonical order. Faces of other classes are left out.
    `predict` is made by `predict_crops` or `predict_photos`; `on_progress` gets the numbers of
    classified faces and of all faces after each batch.

    Raises:
        DataError: the model has none of the data set's classes.
    """
    names = tuple(label for label in label_sets.CANONICAL if label in model_labels)
    class_of = np.array([names.index(n) if n in names else -1 for n in faces.labels])
    classes = class_of[faces.classes]  # [N], -1 if the model does not have the class
    chosen = np.flatnonzero(classes >= 0)
    if not len(chosen):
        raise DataError(
            f'nothing to evaluate: the model has only the classes {", ".join(model_labels)}, and '
            'no face in the data has one of them'
        )
    parts = []
    for start in range(0, len(chosen), BATCH_SIZE):
        parts.append(predict(chosen[start : start + BATCH_SIZE]))
        on_progress(min(start + BATCH_SIZE, len(chosen)), len(chosen))
    columns = list(label_sets.canonical_indices(names))
    probabilities = np.concatenate(parts)[:, columns]
    scores = measure(probabilities, classes[chosen], names)
    left_out = {label: count for label, count in faces.counts.items() if label not in names}
    return Evaluation(faces, chosen, probabilities, scores, left_out)


def predict_crops(
    faces: Faces,
    backend: Backend,
    prior: Prior = MODEL_PRIOR,
    calibration: Calibration | None = None,
) -> Predict:
    """Classify faces as the data set crops them.

    Raises:
        ModelError: the model's input is not square, or the calibration is for another model.
        ParameterError: the prior cannot be used with the model.
    """
    calibrator = Calibrator.create(backend.model, calibration)
    calibrator.check(prior)
    side = backend.model.side

    def predict(indices: np.ndarray) -> np.ndarray:
        batch = faces.read_rgb(indices, side)
        return calibrator.probabilities(backend.infer(batch), prior)

    return predict


def predict_photos(faces: Faces, pipeline: ExpressionPipeline) -> Predict:
    """Find and classify the largest face of each image, as the node does.

    An image without a detected face gets a row of zeros, which counts as wrong.

    Raises:
        DataError: the faces are not in image files.
    """
    if not faces.paths:
        raise DataError('faces of this data set are not in image files; evaluate without --detect')

    def predict(indices: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(indices), len(label_sets.CANONICAL)), np.float32)
        for row, index in zip(rows, indices, strict=True):
            (found,) = pipeline.run([Frame(open_picture(faces.paths[index]))])
            if found:
                row[:] = found[0].probabilities
        return rows

    return predict
