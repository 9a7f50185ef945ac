"""Expression classes: the canonical order, and the order each data set uses.

This is the only place in the package that knows class orders. Everything outside a model speaks
canonical indices, which are the constants of `FacialExpression.msg` and the output order of the
official AffectNet-8 model.
"""

from types import MappingProxyType

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
