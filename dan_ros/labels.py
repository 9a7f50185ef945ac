"""Expression classes: the canonical order, and the order each data set uses.

This is the only place in the package that knows class orders. Everything outside a model speaks
canonical indices, which are the constants of `FacialExpression.msg` and the output order of the
official AffectNet-8 model.
"""

from types import MappingProxyType

import numpy as np

from dan_ros.errors import ModelError

CANONICAL = ('neutral', 'happy', 'sad', 'surprise', 'fear', 'disgust', 'anger', 'contempt')
UNKNOWN = 255
UNKNOWN_LABEL = 'unknown'

AFFECTNET8 = CANONICAL
AFFECTNET7 = CANONICAL[:7]
RAFDB = ('surprise', 'fear', 'disgust', 'happy', 'sad', 'anger', 'neutral')
FERPLUS = ('neutral', 'happy', 'surprise', 'sad', 'anger', 'disgust', 'fear', 'contempt')

LABEL_SETS = MappingProxyType(
    {'affectnet8': AFFECTNET8, 'affectnet7': AFFECTNET7, 'rafdb': RAFDB, 'ferplus': FERPLUS}
)


def canonical_indices(labels: tuple[str, ...]) -> tuple[int, ...]:
    """Give the canonical index of each of a model's outputs.

    >>> canonical_indices(('surprise', 'neutral'))
    (3, 0)

    Raises:
        ModelError: a label is not canonical, or stands twice.
    """
    for label in labels:
        if label not in CANONICAL:
            raise ModelError(f'unknown label {label!r}; the labels are {", ".join(CANONICAL)}')
    if len(set(labels)) != len(labels):
        raise ModelError(f'a label stands twice in {", ".join(labels)}')
    return tuple(CANONICAL.index(label) for label in labels)


def label_of(index: int) -> str:
    """Name of a canonical index; `UNKNOWN` gives 'unknown'."""
    return UNKNOWN_LABEL if index == UNKNOWN else CANONICAL[index]


def logits_to_probabilities(logits: np.ndarray, model_labels: tuple[str, ...]) -> np.ndarray:
    """Softmax, put in the order of `CANONICAL`.

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
    probabilities = np.zeros((len(logits), len(CANONICAL)), np.float32)
    columns = list(canonical_indices(model_labels))
    probabilities[:, columns] = weights / weights.sum(axis=1, keepdims=True)
    probabilities[~usable] = 0
    return probabilities
