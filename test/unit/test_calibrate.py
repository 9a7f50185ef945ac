# SPDX-License-Identifier: Apache-2.0
"""Priors and calibrations: fits to synthetic logits with a known answer, and the command."""

import os
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from model_files import write_color_model, write_model
from PIL import Image
from recording import IMAGE, PERIOD_NS, START_NS, raw, record, record_images

from dan_ros import labels
from dan_ros.calibrate.calibrate import calibrate
from dan_ros.calibrate.collect import (
    FaceCutter,
    LabeledFace,
    Mark,
    faces_at_marks,
    faces_in_folder,
    frames_of_video,
    read_marks,
)
from dan_ros.calibrate.fit import (
    CHOICES,
    WEAK,
    Fit,
    Penalty,
    choose_penalty,
    fit_log_prior,
    fit_scores,
    log_softmax,
)
from dan_ros.calibrate.trade import LabeledLogits, false_alarms_per_hour, measure_prior
from dan_ros.calibrate.validation import Validation, cross_validate
from dan_ros.cli.main import EXIT_INTERRUPTED, cli
from dan_ros.errors import DataError
from dan_ros.model.metadata import ModelInfo
from dan_ros.probabilities import Calibration, Calibrator, Prior
from dan_ros.types import Frame

LEARNED = np.array([0.4, 0.25, 0.12, 0.1, 0.08, 0.02, 0.02, 0.01])


def make_logits(count, shares=LEARNED, sharpness=2.0, seed=0):
    """Logits of a model for which the prior `LEARNED` is right, and classes drawn with `shares`.

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
    fitted = fit_scores(3 * logits, classes, Fit(np.zeros(8), 1.0), Penalty(bias=10, scale=10))
    assert fitted.temperature == pytest.approx(3, rel=0.1)
    expected = -np.log(LEARNED)
    np.testing.assert_allclose(
        fitted.bias - fitted.bias.mean(), expected - expected.mean(), atol=0.3
    )


def test_no_surprise_moves_nothing_and_few_faces_move_little():
    logits, classes = make_logits(4_000, np.full(8, 1 / 8))
    start = Fit(-np.log(LEARNED), 1.0)
    few = fit_scores(logits[:16], classes[:16], start)
    assert np.abs(few.bias - start.bias).max() < 2
    assert few.temperature == pytest.approx(1, abs=0.4)


def test_a_fit_goes_as_far_as_the_faces_ask():
    start = Fit(-np.log(LEARNED), 1.0)
    default = Penalty(bias=3.0)
    shift = np.zeros(8)
    shift[0] = 12  # the camera makes everything look like class 0
    three = np.repeat(np.arange(8), 3)
    each = np.arange(24)
    usual, shifted = [], []
    for seed in range(9):
        logits, classes = make_logits(2_000, np.full(8, 1 / 8), seed=seed)
        chosen = np.concatenate([np.flatnonzero(classes == label)[:3] for label in range(8)])
        logits = logits[chosen]
        usual.append(choose_penalty(logits, three, each, start, default).bias)
        shifted.append(choose_penalty(logits + shift, three, each, start, default).bias)
        one = each[::3]  # one face of each class
        assert choose_penalty(logits[one], three[one], one, start, default) == default
    assert np.median(usual) == CHOICES[0].bias
    assert np.median(shifted) == CHOICES[2].bias


def test_weights_find_the_class_that_another_logit_betrays():
    """Here the logit of class 6 says what that of class 2 should say, and the other way round."""
    logits, classes = make_logits(3_000, np.full(8, 1 / 8))
    logits[:, [2, 6]] = logits[:, [6, 2]]
    start, few = Fit(-np.log(LEARNED), 1.0), np.arange(3_000) < 80
    recall = {}
    for weight in (0.0, 0.4):
        fitted = fit_scores(logits[few], classes[few], start, Penalty(bias=4.0, weight=weight))
        hits = fitted.log_probabilities(logits[~few]).argmax(axis=1) == classes[~few]
        recall[weight] = hits[np.isin(classes[~few], [2, 6])].mean()
    assert recall[0.0] < 0.15
    assert recall[0.4] > 0.5


def loss_of(fit: Fit, start: Fit, penalty: Penalty, logits: np.ndarray, classes: np.ndarray):
    """What `fit_scores` minimizes: the distance from the start, and the weighted cross-entropy."""
    shares = (1 / np.bincount(classes, minlength=8).clip(1))[classes]
    shares *= len(classes) / shares.sum()
    factor = start.temperature / fit.temperature
    distance = ((fit.bias - start.bias) ** 2).sum() / penalty.bias**2
    distance += ((factor - 1) / penalty.scale) ** 2
    if fit.weights is not None and penalty.weight:
        distance += ((fit.weights * factor) ** 2).sum() / penalty.weight**2
    return distance / 2 - shares @ fit.log_probabilities(logits)[np.arange(len(classes)), classes]


@pytest.mark.parametrize('penalty', [Penalty(), Penalty(bias=2.0, weight=0.2), WEAK])
def test_a_fit_is_the_best_one(penalty):
    """No small change of a parameter is better, so neither gradient nor Hessian is wrong."""
    logits, classes = make_logits(60)
    start = Fit(-np.log(LEARNED), 1.3)
    best = fit_scores(logits, classes, start, penalty)
    lowest = loss_of(best, start, penalty, logits, classes)

    def is_not_better(**changes: object) -> bool:
        return loss_of(replace(best, **changes), start, penalty, logits, classes) >= lowest

    for step in (1e-3, -1e-3):
        # Another temperature, at which weights and bias add the same to the scores.
        factor = start.temperature / best.temperature + step * penalty.scale
        scaled = best.weights
        if scaled is not None:
            scaled = scaled * (1 - step * penalty.scale / factor)
        assert is_not_better(temperature=start.temperature / factor, weights=scaled)
        for row in range(8):
            assert is_not_better(bias=best.bias + step * np.eye(8)[row])
            if best.weights is not None:
                change = np.zeros((8, 8))
                change[row, (row + 3) % 8] = step
                assert is_not_better(weights=best.weights + change)


def test_a_class_without_faces_never_rises():
    logits, classes = make_logits(400, np.full(8, 1 / 8))
    keep = classes != 5
    start = Fit(np.zeros(8), 1.0)
    fitted = fit_scores(logits[keep], classes[keep], start)
    assert fitted.bias[5] <= 0


@pytest.mark.parametrize('penalty', [Penalty(), *CHOICES])
@pytest.mark.parametrize('factor', [0.01, 30.0, 1e3])
def test_small_and_extreme_logits_still_converge(factor, penalty):
    logits, classes = make_logits(40)
    start = Fit(np.zeros(8), 1.0)
    fitted = fit_scores(factor * logits, classes, start, penalty)
    assert np.isfinite(fitted.log_probabilities(factor * logits)).all()
    loss, before = (
        loss_of(fit, start, penalty, factor * logits, classes) for fit in (fitted, start)
    )
    assert loss < before
    if penalty.weight:  # more parameters cannot be worse
        alone = fit_scores(factor * logits, classes, start, replace(penalty, weight=0.0))
        assert loss <= loss_of(alone, start, penalty, factor * logits, classes) + 1e-6


def test_subtracting_the_prior_trades_neutral_for_the_others():
    logits, classes = make_logits(300)
    faces = LabeledLogits(labels.CANONICAL, logits, classes)
    log_prior, strength = measure_prior(faces)
    assert 0 <= min(strength) <= max(strength) < 1
    none, chosen, all_of_it = (faces.trade(log_prior, s) for s in (0, strength, 1))
    assert chosen.accuracy >= none.accuracy - 0.005
    assert all_of_it.neutral < none.neutral
    assert all_of_it.others > none.others
    assert all_of_it.false_alarms > none.false_alarms


def test_strengths_are_the_best_that_accuracy_allows():
    logits, classes = make_logits(2_000, sharpness=3.0)
    too_few = (classes == 7) & (np.cumsum(classes == 7) > 19)
    faces = LabeledLogits(labels.CANONICAL, logits[~too_few], classes[~too_few])
    log_prior, strength = measure_prior(faces)

    def scores(strength):
        hits = faces.subtract(log_prior, strength).argmax(axis=1) == faces.classes
        return hits.mean(), np.mean([hits[faces.classes == index].mean() for index in range(1, 7)])

    rare = log_prior < np.log(1 / 8)
    (common,), (of_rare,) = ({*np.array(strength[:7])[mask]} for mask in (~rare[:7], rare[:7]))
    assert strength[7] == 0
    assert common <= of_rare
    accuracy, others = scores(strength)
    least, before = scores((0.0,) * 8)
    assert accuracy >= least - 0.005
    assert others > before
    for more in (0.2, 0.4, 0.6, 0.8, 1.0):
        accuracy, found = scores(tuple(more * (strength_ > 0) for strength_ in strength))
        assert found <= others or accuracy < least - 0.005


def test_false_alarms_are_counted_once_per_change():
    neutral, happy = np.eye(8)[0], np.eye(8)[1]
    assert false_alarms_per_hour([neutral] * 10) == 0
    assert false_alarms_per_hour([neutral, happy, happy, neutral, neutral]) == 360


def test_log_softmax_survives_large_numbers():
    np.testing.assert_allclose(log_softmax(np.array([[1e4, 0.0]])), [[0.0, -1e4]])


def test_the_test_of_a_gain_knows_that_the_fits_share_faces():
    """With hand-made log-probabilities, of which the sharpened changes are known."""
    gains = np.array([0.30, 0.10, 0.25, -0.05, 0.20, 0.05])
    classes = np.array([0, 0, 0, 1, 1, 1])

    def log_p(own: np.ndarray) -> np.ndarray:
        """Log-probabilities that give the true class the probability `own` when sharpened."""
        odds = np.sqrt(own / (1 - own))
        p = odds / (1 + odds)
        return np.log(np.where(np.eye(2, dtype=bool)[classes], p[:, None], 1 - p[:, None]))

    before, after = log_p(np.full(6, 0.4)), log_p(0.4 + gains)
    variance = (gains.reshape(2, 3) - gains.reshape(2, 3).mean(axis=1)[:, None]).ravel()
    variance = (variance**2).sum() / 4
    for folds, factor in ((2, 3.0), (6, 2.2)):
        validation = Validation(before, after, after, classes, folds)
        t = gains.mean() / np.sqrt(factor * variance * (1 / 3 + 1 / 3) / 4)
        draws = np.random.default_rng(1).standard_t(4, 200_000)
        assert validation.p_value == pytest.approx((draws >= t).mean(), abs=0.01)


def test_the_test_of_a_gain_compares_equal_temperatures():
    logits, classes = make_logits(40)
    before, bias = Fit(np.zeros(8), 1.0), -np.log(LEARNED)
    warm, cool = (
        cross_validate(logits, classes, np.arange(40), before, lambda _, t=t: Fit(bias / t, t))
        for t in (5.0, 1.0)
    )
    assert np.abs(warm.after - cool.after).max() > 0.1
    np.testing.assert_allclose(warm.after_alike, cool.after_alike)


# --- the command --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """The bundled float model with a prior, on which calibrations are fitted."""
    path = tmp_path_factory.mktemp('model') / 'model.onnx'
    return write_model(path), path


def made_faces(info, counts, persons=tuple('abcdefg'), seed=0):
    """Faces and logits of a camera on which every face looks more neutral than it is."""
    rng = np.random.default_rng(seed)
    names = [label for label, count in counts.items() for _ in range(count)]
    classes = np.array([info.labels.index(name) for name in names], int)
    logits = 4 * np.eye(8)[classes] + rng.normal(size=(len(names), 8))
    logits[:, info.labels.index('neutral')] += 4
    crop = np.zeros((96, 96, 3), np.uint8)
    faces = [
        LabeledFace(crop, name, persons[index % len(persons)], f'{index}.jpg')
        for index, name in enumerate(names)
    ]
    return faces, logits


SEVEN = dict.fromkeys(labels.AFFECTNET7, 3)
FULL = dict.fromkeys(labels.CANONICAL, 3)


def test_three_faces_of_a_class_undo_a_shift_and_this_is_no_chance(model):
    result = calibrate(*made_faces(model[0], SEVEN), model[0])
    notes = result.calibration.notes
    assert notes['held_out'] == 'each person'
    assert notes['gain'] > 0.1
    assert notes['gain_interval'][0] > 0
    assert 'significant' in result.summary
    assert 'no face of contempt' in result.warnings[0]


def test_the_price_in_neutral_faces_is_named(model):
    info = model[0]
    faces, logits = made_faces(info, {**FULL, 'neutral': 40})
    assert not calibrate(faces, logits, info).warnings
    logits[:40, info.labels.index('sad')] += 3  # now some neutral faces look a little sad
    logits[:40, info.labels.index('neutral')] -= 1.5
    (warning,) = calibrate(faces, logits, info).warnings
    found = re.fullmatch(r'(\d+)% instead of (\d+)% of .* set .* to ([\d.,]+)', warning)
    assert int(found[1]) < int(found[2])
    assert Prior.parse(found[3]).shares[0] == 0.3


def test_a_calibration_has_the_weights_of_its_fit(model):
    """Three logits change places in a circle, so the weights are not symmetric."""
    info = model[0]
    logits, classes = make_logits(2_000, np.full(8, 1 / 8))
    logits[:, [2, 5, 6]] = logits[:, [5, 6, 2]]
    faces = [
        LabeledFace(np.zeros((96, 96, 3), np.uint8), info.labels[index], '', '')
        for index in classes[:100]
    ]
    calibration = calibrate(faces, logits[:100], info).calibration
    assert np.abs(calibration.weights).max() > 0.1

    def recall(calibration: Calibration) -> float:
        found = Calibrator.create(info, calibration).probabilities(logits[100:])
        names = [labels.CANONICAL[index] for index in found.argmax(axis=1)]
        hits = np.array(names) == np.array(info.labels)[classes[100:]]
        return hits[np.isin(classes[100:], [2, 5, 6])].mean()

    others = ((), tuple(zip(*calibration.weights, strict=True)))  # none, transposed
    assert recall(calibration) > 0.5
    assert all(recall(replace(calibration, weights=weights)) < 0.35 for weights in others)


def test_logits_that_are_not_finite_are_refused(model):
    faces, logits = made_faces(model[0], FULL)[:2]
    logits = np.array(logits)
    logits[0, 0] = np.nan
    with pytest.raises(DataError, match='does not give finite numbers'):
        calibrate(faces, logits, model[0])


def test_neutral_without_faces_gets_the_place_of_a_balanced_prior(model):
    """All the faces are taken for neutral, so a fit would move it without limit."""
    info = model[0]
    others = [label for label in SEVEN if label != 'neutral']
    result = calibrate(*made_faces(info, {**SEVEN, 'neutral': 0}), info)
    bias, prior = result.calibration.bias, dict(zip(info.labels, info.log_prior, strict=True))
    distance = bias['neutral'] - np.mean([bias[label] for label in others])
    expected = np.mean([prior[label] for label in others]) - prior['neutral']
    assert distance == pytest.approx(expected, abs=0.01)
    assert result.warnings[0].startswith('no face of neutral: nothing is fitted for it')


def test_labels_without_meaning_are_called_chance_or_worse(model):
    verdicts = []
    for seed in range(20):
        faces, logits = made_faces(model[0], SEVEN, seed=seed)
        logits = np.random.default_rng(seed).permutation(logits)
        verdicts.append(calibrate(faces, logits, model[0]).verdict)
    assert sum('significant' in verdict for verdict in verdicts) <= 3


def test_labels_that_do_not_fit_the_pictures_are_said(model):
    faces, logits = made_faces(model[0], SEVEN)
    turned = np.roll(logits, 1, axis=0)  # most faces get the logits of another class
    wrong = calibrate(faces, np.random.default_rng(1).permutation(turned), model[0])
    assert any('the labels do not fit the pictures' in line for line in wrong.warnings)
    right = calibrate(faces, logits, model[0])
    assert not any('do not fit' in line for line in right.warnings)


def test_one_person_and_unknown_persons_are_said(model):
    (one,) = calibrate(*made_faces(model[0], FULL, ['anna']), model[0]).warnings
    assert 'one person (anna)' in one
    (unknown,) = calibrate(*made_faces(model[0], FULL, ['']), model[0]).warnings
    assert 'unknown who' in unknown
    result = calibrate(*made_faces(model[0], {**FULL, 'sad': 2}, ['anna', '', 'ben']), model[0])
    few, some = result.warnings
    assert few == 'fewer than 3 faces of sad: add some'
    words = 'the person of some faces is unknown, such as 1.jpg, so each face was held out '
    assert some == f'{words}separately'
    assert result.calibration.notes['held_out'] == 'each face'


def test_two_persons_get_the_fit_that_was_validated(model, monkeypatch):
    """With one of them held out, nothing is left to choose a penalty by."""
    chosen = []

    def choose(*args):
        chosen.append(choose_penalty(*args))
        return chosen[-1]

    monkeypatch.setattr('dan_ros.calibrate.calibrate.choose_penalty', choose)
    calibrate(*made_faces(model[0], FULL, ['anna', 'ben']), model[0])
    assert not chosen
    calibrate(*made_faces(model[0], FULL, ['anna', 'ben', 'carl']), model[0])
    assert len(chosen) == 4  # three persons held out, and the fit that is written


def test_many_faces_are_held_out_in_groups(model):
    result = calibrate(*made_faces(model[0], dict.fromkeys(labels.CANONICAL, 8), ['']), model[0])
    assert result.calibration.notes['held_out'] == '50 groups of faces'
    assert result.validation.gain > 0.1


def test_a_mislabeled_face_is_named(model):
    faces, logits = made_faces(model[0], FULL)
    logits[4] = 12 * np.eye(8)[model[0].labels.index('sad')]  # labeled happy
    (warning,) = calibrate(faces, logits, model[0]).warnings
    assert '4.jpg is labeled happy' in warning
    assert 'sad' in warning


@pytest.mark.parametrize('counts', [{}, {'happy': 5}])
def test_too_few_classes_are_refused(model, counts):
    with pytest.raises(DataError, match='at least two classes'):
        calibrate(*made_faces(model[0], counts), model[0])


@pytest.fixture
def faces_folder(tmp_path, portrait):
    """Three smiles labeled happy and three labeled surprise, with the names of two people."""
    folder = tmp_path / 'faces'
    for index, gain in enumerate((1.0, 0.8, 1.2)):
        for label, image in (('happy', portrait), ('surprised', portrait[:, ::-1])):
            path = folder / label / ('anna', 'ben')[index % 2] / f'{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), (gain * image).clip(0, 255).astype(np.uint8))
    return folder


def test_a_folder_becomes_a_file_that_predict_takes(
    run, model, faces_folder, portrait_file, tmp_path
):
    nobody = np.full((99, 99, 3), 9, np.uint8)
    cv2.imwrite(str(faces_folder / 'happy' / 'anna' / 'nobody.png'), nobody)
    (faces_folder / 'happy' / 'ben' / 'broken.jpg').write_bytes(b'\xff\xd8\xff')
    shutil.copy(faces_folder / 'happy/anna/0.png', faces_folder / 'happy/anna/copy.png')
    out = tmp_path / 'robot.yaml'
    result = run('calibrate', faces_folder, '--model', model[1], '-o', out, '--force')
    assert result.exit_code == 0, result.stderr
    for words in ('nobody.png', 'broken.jpg', '1 picture left out as copies', 'no face of neutral'):
        assert words in result.stderr
    assert 'persons: 2' in result.stdout
    assert Calibration.read(out).notes['faces'] == {'happy': 3, 'surprise': 3}
    assert cv2.imread(str(out.with_suffix('.png'))).std() > 10
    options = ('--model', model[1], '--calibration', out, '--json')
    assert run('predict', portrait_file, *options).exit_code == 0


def test_a_bag_and_a_video_with_marks_are_read(run, model, portrait, tmp_path):
    images = [(portrait * (0.6 + 0.02 * index)).astype(np.uint8) for index in range(20)]
    bag = record_images(tmp_path / 'bag', images, compression='file') / 'bag.db3.zstd'
    video = cv2.VideoWriter(
        str(tmp_path / 'video.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 10, (512, 512)
    )
    for image in images:
        video.write(np.ascontiguousarray(image))
    video.release()
    marks = tmp_path / 'marks.csv'
    marks.write_text('start,end,label,person\n0,0.95,happy,anna\n1.0,1.9,surprise,ben\n')
    for number, data in enumerate((bag, tmp_path / 'video.avi')):
        out = tmp_path / f'{number}.yaml'
        words = ('--marks', marks, '--model', model[1], '-o', out, '--force')
        result = run('calibrate', data, *words)
        assert result.exit_code == 0, result.stderr
        assert set(Calibration.read(out).notes['faces']) == {'happy', 'surprise'}


def test_a_camera_takes_pictures_of_each_expression_that_is_not_skipped(tmp_path, portrait, model):
    camera = str(tmp_path / 'camera.avi')
    video = cv2.VideoWriter(camera, cv2.VideoWriter.fourcc(*'MJPG'), 10, (512, 512))
    for index in range(60):
        video.write((portrait * (0.6 + 0.005 * index)).astype(np.uint8))
    video.release()
    words = [
        '--camera',
        camera,
        '--model',
        str(model[1]),
        '-o',
        str(tmp_path / 'x.yaml'),
        '--force',
    ]
    answers = '\n\nq\nskip\n' + 6 * 'S\n'  # neutral and happy; two answers are not understood
    runner, folder = CliRunner(), tmp_path / 'faces'
    result = runner.invoke(cli, ['calibrate', str(folder), '--person', 'anna', *words], answers)
    assert result.exit_code == 0, result.output
    names = {'001.png', '002.png', '003.png'}
    assert {path.name for path in folder.iterdir()} == {'neutral', 'happy'}
    for label in ('neutral', 'happy'):
        assert {path.name for path in (folder / label / 'anna').iterdir()} == names
    assert 'all faces are of one person (anna)' in result.output
    result = runner.invoke(cli, ['calibrate', str(folder), '--person', '../anna', *words], answers)
    assert 'names a folder' in str(result.exception)
    (folder / 'happy' / 'anna' / '001.png').unlink()
    kept = (folder / 'happy' / 'anna' / '003.png').read_bytes()
    again = ['calibrate', str(folder), '--person', 'anna', *words]
    runner.invoke(cli, again, answers)
    assert (folder / 'happy' / 'anna' / '003.png').read_bytes() == kept
    assert runner.invoke(cli, again, '').exit_code == EXIT_INTERRUPTED  # no answer, like Ctrl-C
    (folder / 'happy').rename(folder / 'Happiness')
    assert runner.invoke(cli, again, answers).exit_code == 0
    (folder / 'drafts').mkdir()
    result = runner.invoke(cli, again, answers)
    assert 'drafts is not a class' in str(result.exception)
    assert 'Show neutral' not in result.output  # refused before anybody poses


@pytest.fixture
def color_model(tmp_path):
    path = tmp_path / 'color.onnx'
    write_color_model(path, bias=(0, 0, 0))
    return path


def write_colors(folder, colors, level=120):
    """Write a picture per letter: r, g and b are happy, neutral and sad for the color model."""
    for label, letters in colors.items():
        for number, letter in enumerate(letters):
            path = folder / label / f'{number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            image = np.full((32, 32, 3), number, np.uint8)
            image[..., 'bgr'.index(letter)] = level
            cv2.imwrite(str(path), image)


def test_a_calibration_that_makes_results_worse_is_not_written(run, color_model, tmp_path):
    """Clearly happy faces are labeled sad, so a fit turns slightly happy faces into sad ones."""
    write_colors(tmp_path / 'faces', {'sad': 'rrr', 'anger': 'g'})
    write_colors(tmp_path / 'faces', {'happy': 'rrr'}, level=9)
    shutil.copy(tmp_path / 'faces/happy/0.png', tmp_path / 'faces/sad/copy.png')
    output = tmp_path / 'robot.yaml'
    words = ('calibrate', tmp_path / 'faces', '--whole', '--model', color_model, '-o', output)
    result = run(*words)
    assert result.exit_code == 1
    assert 'makes results on held-out faces worse, so it is not written' in result.stderr
    assert 'no gain: check the labels, or add faces' in result.stdout
    assert f'{tmp_path}/faces/happy/0.png is labeled happy, but its copy' in result.stderr
    assert 'Warning: 1 face left out: the model lacks anger' in result.stderr
    assert 'the labels do not fit the pictures' in result.stderr
    assert not output.exists()
    assert run(*words, '--force').exit_code == 0
    assert set(Calibration.read(output).bias) == {'happy', 'neutral', 'sad'}


def test_a_model_that_is_right_already_gains_nothing(run, color_model, tmp_path):
    """Its file stores no prior."""
    write_colors(tmp_path / 'faces', {'happy': 'rrrr', 'neutral': 'gggg', 'sad': 'bbb'})
    output = tmp_path / 'robot.yaml'
    words = ('--whole', '--model', color_model, '-o', output)
    result = run('calibrate', tmp_path / 'faces', *words)
    assert result.exit_code == 0, result.stderr
    assert 'no gain: the model already classifies these faces correctly\n' in result.stdout
    for row in ('happy 4 100% 100%', 'neutral 4 100% 100%', 'sad 3 100% 100%'):
        assert row in re.sub(' +', ' ', result.stdout)
    assert Calibration.read(output).notes['balanced_accuracy_after'] == 1


def test_a_bag_of_several_cameras_needs_a_topic(run, color_model, tmp_path):
    times = [START_NS + index * PERIOD_NS for index in range(20)]
    messages = [
        ('/cam', IMAGE, ns, raw(np.full((32, 32, 3), (9, 9, index * 9), np.uint8), ns))
        for index, ns in enumerate(times)
    ]
    other = np.zeros((24, 24, 3), np.uint8)
    messages += [('/other', IMAGE, ns + 1, raw(other, ns + 1)) for ns in times]
    bag = record(tmp_path / 'bag', messages)
    marks = tmp_path / 'marks.csv'
    marks.write_text('start,end,label\n0.5,0.9,neutral\n1,1.9,happy\n')
    output = tmp_path / 'robot.yaml'
    options = ('--marks', marks, '--whole', '--model', color_model, '-o', output, '--force')
    result = run('calibrate', bag, *options)
    assert result.exit_code == 1
    assert 'has several cameras: choose one with --topic: /cam, /other' in result.stderr
    result = run('calibrate', bag, '--topic', '/cam', *options)
    assert result.exit_code == 0, result.stderr
    assert Calibration.read(output).notes['faces'] == {'neutral': 3, 'happy': 3}


def test_a_damaged_bag_is_named(run, color_model, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), np.uint8)
    bag = record_images(tmp_path / 'bag', images)
    (file,) = bag.glob('*.db3')
    os.truncate(file, file.stat().st_size // 2)
    marks = tmp_path / 'marks.csv'
    marks.write_text('start,end,label\n0,1,neutral\n1,3,happy\n')
    options = ('--marks', marks, '--whole', '--model', color_model, '--force')
    result = run('calibrate', bag, *options, '-o', tmp_path / 'robot.yaml')
    assert result.exit_code == 0, result.stderr
    assert f'Warning: {file} is damaged' in result.stderr


@pytest.mark.parametrize(
    ('words', 'problem'),
    [
        (('faces', '-o', 'robot.PNG'), 'give a name that ends in .yaml'),
        (('faces', '-o', '.'), "File '.' is a directory"),
        (('faces', '--person', 'anna'), '--person needs --camera'),
        (('faces', '--camera', 'short.avi', '--marks', 'x'), 'which needs no --marks'),
        (('faces', '--topic', '/image'), '--topic needs a bag with --marks'),
        (('faces', '--camera', 'none.avi'), 'camera none.avi cannot be opened: check its number'),
        (('faces', '--camera', '9' * 20), f'camera {"9" * 20} cannot be opened: check its number'),
        (('faces', '--camera', 'short.avi'), 'camera short.avi gives no more images: nothing was'),
        (('none',), 'there is no folder none; make one with a folder per class'),
        (('short.avi',), 'short.avi is not a folder of pictures; give --marks'),
        (('none', '--marks', 'x.csv'), 'there is no bag or video none'),
        (('short.avi', '--marks', 'x.csv'), 'the marks x.csv cannot be read: No such file'),
    ],
)
def test_what_cannot_be_calibrated_is_said_in_one_line(monkeypatch, tmp_path, words, problem):
    monkeypatch.chdir(tmp_path)
    video = cv2.VideoWriter('short.avi', cv2.VideoWriter.fourcc(*'MJPG'), 10, (64, 64))
    for _ in range(3):
        video.write(np.zeros((64, 64, 3), np.uint8))
    video.release()
    result = CliRunner().invoke(cli, ['calibrate', *words], '\n')
    assert result.exit_code in (1, 2)
    assert problem in (result.output if result.exit_code == 2 else str(result.exception))
    assert not list(tmp_path.glob('*.yaml'))


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', 'contains no marks'),
        ('start,end,label\n2,1,happy\n', 'mark 1: its end 1 is not after'),
        ('start,end,label\n-1,1,happy\n', 'mark 1: start and end must be .*, not -1 and 1'),
        ('- {start: 0, end: .inf, label: happy}', 'start and end must be .*, not 0 and inf'),
        ('start,end,label\n0,1,joy\n', 'mark 1: it needs start and end'),
        ('start,end\n0,1\n', 'mark 1: it needs'),
        (f'- {{start: 0, end: {400 * "9"}, label: happy}}', 'mark 1: it needs'),
        ('start: 0', 'not a YAML list'),
        ('- 2020-13-45', 'not valid YAML'),
        (500 * '[', 'nesting is too deep'),
    ],
)
def test_invalid_marks_are_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / ('marks.csv' if text.startswith('start,') or not text else 'marks.yaml')
    path.write_text(text)
    with pytest.raises(DataError, match=words) as error:
        read_marks(path)
    assert '\n' not in str(error.value)


def test_marks_of_a_spreadsheet_with_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / 'marks.csv'
    path.write_text('start,end,label\n0,1,happy\n', encoding='utf-8-sig')
    assert read_marks(path) == [Mark(0, 1, 'happy')]


def face_cutter():
    """A cutter of images that are already faces; it needs only the metadata of a model."""
    model = ModelInfo(labels.CANONICAL, (32, 32))
    return FaceCutter(SimpleNamespace(backend=SimpleNamespace(model=model)), is_whole=True)


def noise_frames(count):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (count, 32, 32, 3), np.uint8)
    return [(float(index), partial(Frame, image)) for index, image in enumerate(images)]


def test_a_mark_without_images_is_named():
    marks = [Mark(0, 3, 'happy'), Mark(90, 95, 'sad')]
    faces, problems = faces_at_marks(iter(noise_frames(4)), marks, face_cutter())
    assert {face.label for face in faces} == {'happy'}
    assert problems == [
        'no image was taken from 90 to 95 s, marked sad: the recording has none there, or too few; '
        'mark a longer time'
    ]


def test_an_image_at_the_end_of_a_mark_belongs_to_the_next_one():
    marks = [Mark(0, 3, 'happy'), Mark(3, 6, 'sad')]  # an image per second
    faces, _ = faces_at_marks(iter(noise_frames(7)), marks, face_cutter())
    found = [(face.origin, face.label) for face in faces]
    assert found == [
        ('1.00 s', 'happy'),
        ('2.00 s', 'happy'),
        ('4.00 s', 'sad'),
        ('5.00 s', 'sad'),
        ('6.00 s', 'sad'),  # no mark follows
    ]


def test_an_unreadable_image_is_left_out_and_named():
    frames = noise_frames(4)

    def refuse():
        raise DataError('OpenCV cannot decode it')

    frames[1] = (1.0, refuse)
    faces, problems = faces_at_marks(iter(frames), [Mark(0, 3, 'happy')], face_cutter())
    assert len(faces) == 2
    assert problems == ['the image at 1.00 s is left out: OpenCV cannot decode it']


def test_the_frames_of_a_video_with_a_variable_rate_have_their_own_times(tmp_path):
    first, *others = (Image.new('L', (64, 64), gray) for gray in (0, 99, 200))
    path, durations_ms = tmp_path / 'video.gif', [100, 2000, 100]
    first.save(path, save_all=True, append_images=others, duration=durations_ms)
    assert [time_s for time_s, _ in frames_of_video(path)] == pytest.approx([0.0, 0.1, 2.1])


def test_a_video_is_closed_at_an_early_stop(tmp_path):
    path = tmp_path / 'video.avi'
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10, (64, 64))
    for gray in range(5):
        video.write(np.full((64, 64, 3), gray, np.uint8))
    video.release()
    frames = frames_of_video(path)
    _, decode = next(frames)
    assert decode().size == (64, 64)
    frames.close()
    with pytest.raises(DataError, match='cannot decode'):
        decode()
    assert str(path) not in {os.path.realpath(file) for file in Path('/proc/self/fd').iterdir()}


def test_two_labels_for_one_image_are_named():
    marks = [Mark(0, 3, 'happy', 'anna'), Mark(0, 3, 'sad', 'ben')]
    cutter = face_cutter()
    faces, _ = faces_at_marks(iter(noise_frames(4)), marks, cutter)
    assert len(cutter.contradictory) == cutter.repeated == len(faces)
    assert 'labeled happy' in cutter.contradictory[0]
    assert 'labeled sad' in cutter.contradictory[0]


@pytest.mark.parametrize(
    ('pattern', 'persons'),
    [
        ('{name}_{number}.png', {'anna', 'ben'}),
        ('{name}/{number}.png', {'anna', 'ben'}),
        ('{number}.png', {''}),  # names from cameras; the same numbers occur in each class
        ('{number}_{name}.png', {''}),
        ('{name}{number}.png', {''}),
        ('IMG_{number}_{name}.png', {''}),  # names from phones and programs
        ('frame-{number}.png', {''}),
    ],
)
def test_numbers_and_words_of_cameras_are_no_persons(tmp_path, pattern, persons):
    rng = np.random.default_rng(0)
    for label in ('happy', 'sad'):
        for number, name in enumerate(('anna', 'ben')):
            path = tmp_path / label / pattern.format(name=name, number=f'{number:03d}')
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 255, (32, 32, 3), np.uint8))
    faces, _ = faces_in_folder(tmp_path, face_cutter())
    assert {face.person for face in faces} == persons


def test_a_picture_outside_the_folders_of_persons_has_none(tmp_path):
    rng = np.random.default_rng(0)
    for name in ('happy/anna/1.png', 'happy/ben/1.png', 'sad/anna/1.png', 'sad/2.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, (32, 32, 3), np.uint8))
    faces, _ = faces_in_folder(tmp_path, face_cutter())
    assert [face.person for face in faces] == ['anna', 'ben', '', 'anna']


def test_an_empty_folder_writes_nothing(run, tmp_path):
    (tmp_path / 'faces' / 'happy').mkdir(parents=True)
    result = run('calibrate', tmp_path / 'faces', '-o', tmp_path / 'robot.yaml')
    assert result.exit_code == 1
    assert 'no face that can be used' in result.stderr
    assert not (tmp_path / 'robot.yaml').exists()
