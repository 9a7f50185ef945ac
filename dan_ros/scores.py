"""From a model's logits to probabilities in canonical order."""

import numpy as np

from dan_ros import labels


def logits_to_probabilities(logits: np.ndarray, model_labels: tuple[str, ...]) -> np.ndarray:
    """Softmax, put in the order of `labels.CANONICAL`.

    Args:
        logits: float [N, C].
        model_labels: the canonical label of each of the C outputs.

    Returns:
        float32 [N, 8]; a class the model lacks is 0. A row whose logits are not all finite is all
        0: such a face was not judged.
    """
    logits = np.asarray(logits, np.float64)
    usable = np.isfinite(logits).all(axis=1)
    logits = np.where(usable[:, None], logits, 0.0)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = np.zeros((len(logits), len(labels.CANONICAL)), np.float32)
    columns = list(labels.canonical_indices(model_labels))
    probabilities[:, columns] = weights / weights.sum(axis=1, keepdims=True)
    probabilities[~usable] = 0
    return probabilities
