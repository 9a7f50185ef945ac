# SPDX-License-Identifier: Apache-2.0
"""Class orders, and from logits to canonical probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dan_ros import labels
from dan_ros.errors import ModelError
from dan_ros.labels import logits_to_probabilities


def test_rafdb_order_is_that_of_its_label_file():
    assert labels.canonical_indices(labels.RAFDB) == (3, 4, 5, 1, 2, 6, 0)


@pytest.mark.parametrize('label_set', labels.LABEL_SETS.values(), ids=labels.LABEL_SETS)
def test_every_label_set_is_a_permutation_of_canonical_labels(label_set):
    assert set(label_set) <= set(labels.CANONICAL)
    assert len(set(labels.canonical_indices(label_set))) == len(label_set)


@pytest.mark.parametrize('wrong', [('happy', 'joy'), ('happy', 'happy')])
def test_wrong_labels_are_refused(wrong):
    with pytest.raises(ModelError, match='joy|repeated'):
        labels.canonical_indices(wrong)


def test_a_missing_class_has_probability_zero():
    probabilities = logits_to_probabilities(np.zeros((1, 7)), labels.AFFECTNET7)
    np.testing.assert_allclose(probabilities[0], [1 / 7] * 7 + [0], rtol=1e-6)


def test_outputs_land_on_their_canonical_class():
    logits = np.full((1, 7), -10.0)
    logits[0, labels.RAFDB.index('anger')] = 10
    probabilities = logits_to_probabilities(logits, labels.RAFDB)
    assert labels.CANONICAL[probabilities[0].argmax()] == 'anger'


@given(arrays(np.float32, (3, 8), elements=st.floats(-1e4, 1e4, width=32)))
def test_probabilities_sum_to_one(logits):
    probabilities = logits_to_probabilities(logits, labels.FERPLUS)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities >= 0).all()


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_not_judged_and_spares_the_others(poison):
    logits = np.zeros((2, 8))
    logits[0, 3] = poison
    probabilities = logits_to_probabilities(logits, labels.CANONICAL)
    assert not probabilities[0].any()
    np.testing.assert_allclose(probabilities[1], 1 / 8)


def test_no_faces_give_no_rows():
    assert logits_to_probabilities(np.zeros((0, 8)), labels.CANONICAL).shape == (0, 8)
