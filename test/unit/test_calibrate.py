# SPDX-License-Identifier: Apache-2.0
"""Fitting a prior and a calibration to made logits whose answer is known."""

import numpy as np
import pytest

from dan_ros import labels
from dan_ros.calibrate.fit import Fit, Penalty, fit_bias, fit_log_prior, log_softmax
from dan_ros.calibrate.trade import LabeledLogits, false_alarms_per_hour, measure_prior

LEARNED = np.array([0.4, 0.25, 0.12, 0.1, 0.08, 0.02, 0.02, 0.01])


def make_logits(count, shares=LEARNED, sharpness=2.0, seed=0):
    """Logits of a model that is right about `LEARNED`, and classes drawn with `shares`.

    The classes are normal distributions with unit variance, so the right logits are known.
    """
    rng = np.random.default_rng(seed)
    classes = rng.choice(8, count, p=shares)
    seen = sharpness * np.eye(8)[classes] + rng.normal(size=(count, 8))
    return sharpness * seen + np.log(LEARNED), classes


def test_the_learned_prior_is_found_whatever_the_faces_are():
    for shares in (LEARNED, np.full(8, 1 / 8)):
        log_prior = fit_log_prior(*make_logits(20_000, shares))
        assert np.exp(log_prior).sum() == pytest.approx(1)
        np.testing.assert_allclose(log_prior, np.log(LEARNED), atol=0.25)


def test_many_faces_find_bias_and_temperature():
    logits, classes = make_logits(5_000, np.full(8, 1 / 8))
    fitted = fit_bias(3 * logits, classes, Fit(np.zeros(8), 1.0), Penalty(bias=10, scale=10))
    assert fitted.temperature == pytest.approx(3, rel=0.1)
    expected = -np.log(LEARNED)
    np.testing.assert_allclose(
        fitted.bias - fitted.bias.mean(), expected - expected.mean(), atol=0.3
    )


def test_no_surprise_moves_nothing_and_few_faces_move_little():
    logits, classes = make_logits(4_000, np.full(8, 1 / 8))
    start = Fit(-np.log(LEARNED), 1.0)
    few = fit_bias(logits[:16], classes[:16], start)
    assert np.abs(few.bias - start.bias).max() < 2
    assert few.temperature == pytest.approx(1, abs=0.4)


def test_a_class_without_faces_never_rises():
    logits, classes = make_logits(400, np.full(8, 1 / 8))
    keep = classes != 5
    start = Fit(np.zeros(8), 1.0)
    fitted = fit_bias(logits[keep], classes[keep], start)
    assert fitted.bias[5] <= 0


def test_extreme_logits_still_converge():
    logits, classes = make_logits(40)
    fitted = fit_bias(1e3 * logits, classes, Fit(np.zeros(8), 1.0))
    assert np.isfinite(fitted.bias).all()
    assert np.isfinite(fitted.log_probabilities(1e3 * logits)).all()


def test_taking_off_the_prior_trades_neutral_for_the_others():
    logits, classes = make_logits(4_000)
    faces = LabeledLogits(labels.CANONICAL, logits, classes)
    log_prior, strength = measure_prior(faces)
    assert 0 <= strength < 1
    none, chosen, all_of_it = (faces.trade(log_prior, s) for s in (0, strength, 1))
    assert chosen.accuracy >= none.accuracy - 0.005
    assert all_of_it.neutral < none.neutral
    assert all_of_it.others > none.others
    assert all_of_it.false_alarms > none.false_alarms


def test_false_alarms_are_counted_once_per_change():
    neutral, happy = np.eye(8)[0], np.eye(8)[1]
    assert false_alarms_per_hour([neutral] * 10) == 0
    assert false_alarms_per_hour([neutral, happy, happy, neutral, neutral]) == 360


def test_log_softmax_survives_large_numbers():
    np.testing.assert_allclose(log_softmax(np.array([[1e4, 0.0]])), [[0.0, -1e4]])
