"""Have a model judge a data set, whatever class order either of them has."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dan_ros import labels as label_sets
from dan_ros.backends import Backend
from dan_ros.datasets.faces import Faces
from dan_ros.errors import DataError
from dan_ros.evaluate.metrics import Scores, measure
from dan_ros.images.files import read_picture
from dan_ros.labels import logits_to_probabilities
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import Frame

BATCH = 64


@dataclass(frozen=True)
class Evaluation:
    """A model's answers on a data set.

    Attributes:
        faces: the data set's split.
        chosen: int64 [N], the faces that were judged: all of classes that the model has.
        probabilities: float32 [N, C], in the order of `scores.labels`.
        scores: how good they are.
        left_out: number of faces by label, of the classes the model lacks.
    """

    faces: Faces
    chosen: np.ndarray
    probabilities: np.ndarray
    scores: Scores
    left_out: dict[str, int]


Judge = Callable[[np.ndarray], np.ndarray]  # numbers of faces, int64 [B] -> float32 [B, 8]


def evaluate(
    faces: Faces,
    model_labels: tuple[str, ...],
    judge: Judge,
    on_batch: Callable[[int, int], object] = lambda done, count: None,
) -> Evaluation:
    """Have every face judged and measure the answers.

    The classes are those of the model, in canonical order. Faces of a class it lacks can't be
    judged; they are left out and counted.

    Args:
        faces: with labels.
        model_labels: canonical labels of the model's classes.
        judge: `predict_crops` or `judge_photos`.
        on_batch: called after each batch with the numbers of faces done and of all.

    Raises:
        DataError: the model has none of the data set's classes.
    """
    names = tuple(label for label in label_sets.CANONICAL if label in model_labels)
    class_of = np.array([names.index(n) if n in names else -1 for n in faces.labels])
    classes = class_of[faces.classes]  # [N], -1: the model has no such class
    chosen = np.flatnonzero(classes >= 0)
    if not len(chosen):
        raise DataError(
            f'no face to judge: the model knows only {", ".join(model_labels)}, and the data has '
            'none of them'
        )
    parts = []
    for start in range(0, len(chosen), BATCH):
        parts.append(judge(chosen[start : start + BATCH]))
        on_batch(min(start + BATCH, len(chosen)), len(chosen))
    columns = list(label_sets.canonical_indices(names))
    probabilities = np.concatenate(parts)[:, columns]
    left_out = {
        label: int((faces.classes == index).sum())
        for index, label in enumerate(faces.labels)
        if label not in names and (faces.classes == index).any()
    }
    scores = measure(probabilities, classes[chosen], names)
    return Evaluation(faces, chosen, probabilities, scores, left_out)


def predict_crops(faces: Faces, backend: Backend) -> Judge:
    """Judge faces as the data set frames them, by a single look each."""
    height, width = backend.model.input_size
    if height != width:
        raise DataError(f'faces are square, but the model takes {width}x{height}')

    def judge(indices: np.ndarray) -> np.ndarray:
        batch = faces.read_rgb(indices, height)
        return logits_to_probabilities(backend.infer(batch), backend.model.labels)

    return judge


def judge_photos(faces: Faces, pipeline: ExpressionPipeline) -> Judge:
    """Judge whole pictures as the node does: find the largest face, cut it out, judge it.

    A picture without a face that is found gets a row of zeros, which counts as wrong.

    Raises:
        DataError: the faces do not lie in picture files.
    """
    if not faces.paths:
        raise DataError('faces of this data set are no pictures that a face could be found in')

    def judge(indices: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(indices), len(label_sets.CANONICAL)), np.float32)
        for row, index in zip(rows, indices, strict=True):
            picture = read_picture(faces.paths[index])
            if picture is None:
                raise DataError(f'{faces.paths[index]} can no longer be read')
            (found,) = pipeline.run([Frame(picture)])
            if found:
                row[:] = found[0].probabilities
        return rows

    return judge
