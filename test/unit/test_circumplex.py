# SPDX-License-Identifier: Apache-2.0
"""Valence and arousal from the probabilities of expressions."""

import numpy as np
import pytest

from dan_ros import labels
from dan_ros.circumplex import PLACES, valence_arousal


@pytest.mark.parametrize('label', PLACES)
def test_a_certain_expression_is_at_its_place(label):
    certain = np.eye(len(labels.CANONICAL))[labels.CANONICAL.index(label)]
    assert valence_arousal(certain) == PLACES[label]


def test_what_has_no_place_is_nan_and_never_zero():
    contempt = np.eye(len(labels.CANONICAL))[labels.CANONICAL.index('contempt')]
    assert np.isnan(valence_arousal(contempt)).all()
    assert np.isnan(valence_arousal(np.zeros(len(labels.CANONICAL)))).all()


def test_a_share_of_contempt_does_not_pull_to_the_origin():
    mixed = np.array([0, 0.7, 0, 0, 0, 0, 0, 0.3])
    assert valence_arousal(mixed) == pytest.approx(PLACES['happy'])
