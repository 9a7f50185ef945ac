# SPDX-License-Identifier: Apache-2.0
"""Valence and arousal derived from the probabilities of expressions.

The circumplex model of affect (Russell 1980, https://doi.org/10.1037/h0077714) places emotions in
a plane: valence, from unpleasant to pleasant, and arousal, from calm to excited. This module does
not measure either one in a face. It averages the published coordinates of the classes.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from dan_ros import labels

# Valence and arousal, each in [-1, 1]: mean ratings of the words happy, sad, surprised, fearful,
# disgusted and angry, in Russell and Mehrabian 1977, "Evidence for a three-factor theory of
# emotions", table of 151 terms, https://doi.org/10.1016/0092-6566(77)90037-X. Neutral is the origin
# of the circumplex. The table has no entry for contempt.
PLACES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        'neutral': (0.0, 0.0),
        'happy': (0.81, 0.51),
        'sad': (-0.63, -0.27),
        'surprise': (0.40, 0.67),
        'fear': (-0.64, 0.60),
        'disgust': (-0.60, 0.35),
        'anger': (-0.51, 0.59),
    }
)
_COLUMNS = [labels.CANONICAL.index(label) for label in PLACES]
_PLACES = np.array(list(PLACES.values()))  # [7, 2]

UNKNOWN = (math.nan, math.nan)


def valence_arousal(probabilities: np.ndarray) -> tuple[float, float]:
    """Compute the expectation of valence and arousal over the classes with coordinates.

    Args:
        probabilities: float [8], indexed like `labels.CANONICAL`.

    Returns:
        Valence and arousal, each in [-1, 1]. Both are NaN if the face was not classified, or if
        contempt, which has no coordinates, is the most likely class.

    >>> valence_arousal(np.array([0.5, 0.5, 0, 0, 0, 0, 0, 0]))
    (0.405, 0.255)
    """
    if int(probabilities.argmax()) not in _COLUMNS or not probabilities.any():
        return UNKNOWN
    weights = np.asarray(probabilities, np.float64)[_COLUMNS]
    valence, arousal = weights @ _PLACES / weights.sum()
    return float(valence), float(arousal)
