# SPDX-License-Identifier: Apache-2.0
"""Expression classes: the canonical order, and the class order of each data set.

No other module defines class orders. Everything outside a model uses canonical indices, which are
the constants of `FacialExpression.msg` and the output order of the official AffectNet-8 model.
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
FER2013 = ('anger', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
FERPLUS = ('neutral', 'happy', 'surprise', 'sad', 'anger', 'disgust', 'fear', 'contempt')

# Canonical label per usual spelling in lower case, as in the folders of data sets.
SPELLINGS = MappingProxyType(
    {
        **{label: label for label in CANONICAL},
        'happiness': 'happy',
        'sadness': 'sad',
        'surprised': 'surprise',
        'fearful': 'fear',
        'disgusted': 'disgust',
        'angry': 'anger',
    }
)
# Further names that classifiers give to these classes.
SYNONYMS = MappingProxyType(
    {
        **SPELLINGS,
        'natural': 'neutral',
        **dict.fromkeys(('joy', 'joyful', 'smile', 'smiling'), 'happy'),
        'sorrow': 'sad',
        **dict.fromkeys(('surprising', 'astonished', 'astonishment'), 'surprise'),
        **dict.fromkeys(('afraid', 'scared'), 'fear'),
        'mad': 'anger',
        **dict.fromkeys(('contemptuous', 'scorn'), 'contempt'),
    }
)

LABEL_SETS = MappingProxyType(
    {'affectnet8': AFFECTNET8, 'affectnet7': AFFECTNET7, 'rafdb': RAFDB, 'ferplus': FERPLUS}
)


def canonical_indices(labels: tuple[str, ...]) -> tuple[int, ...]:
    """Map each of a model's outputs to its canonical index.

    >>> canonical_indices(('surprise', 'neutral'))
    (3, 0)

    Raises:
        ModelError: a label is unknown or repeated.
    """
    for label in labels:
        if label not in CANONICAL:
            raise ModelError(f'unknown label {label!r}; the labels are {", ".join(CANONICAL)}')
    if len(set(labels)) != len(labels):
        raise ModelError(f'a label is repeated in {", ".join(labels)}')
    return tuple(CANONICAL.index(label) for label in labels)


def canonical_label(name: str) -> str | None:
    """Return the canonical label of a class by any usual name, or None.

    >>> canonical_label('Happiness'), canonical_label('bored')
    ('happy', None)
    """
    return SYNONYMS.get(name.strip().lower())


def label_of(index: int) -> str:
    """Return the label of a canonical index.

    >>> label_of(1), label_of(UNKNOWN)
    ('happy', 'unknown')
    """
    return UNKNOWN_LABEL if index == UNKNOWN else CANONICAL[index]


def logits_to_probabilities(
    logits: np.ndarray,
    model_labels: tuple[str, ...],
    temperature: float = 1.0,
    offset: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Compute softmax(logits / temperature + offset), in the order of `CANONICAL`.

    `Calibrator` computes temperature and offset of a model.

    Args:
        logits: float [N, C].
        model_labels: canonical label of each of the C outputs.
        temperature: > 0.
        offset: float [C], finite for at least one class.

    Returns:
        float32 [N, 8]; 0 for classes that the model does not have. A row with a logit that is not
        finite is all 0, which means that the face was not classified.
    """
    logits = np.asarray(logits, np.float64)
    usable = np.isfinite(logits).all(axis=1)
    logits = np.where(usable[:, None], logits, 0.0) / temperature + offset
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = np.zeros((len(logits), len(CANONICAL)), np.float32)
    columns = list(canonical_indices(model_labels))
    probabilities[:, columns] = weights / weights.sum(axis=1, keepdims=True)
    probabilities[~usable] = 0
    return probabilities
