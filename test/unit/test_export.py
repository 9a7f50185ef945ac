# SPDX-License-Identifier: Apache-2.0
"""`dan-ros export`: the values that it measures, copies and stores."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from model_files import write_color_model

from dan_ros.backends import open_backend
from dan_ros.datasets import catalog
from dan_ros.datasets.faces import VALID
from dan_ros.evaluate.evaluator import evaluate, predict_crops
from dan_ros.model.metadata import ModelInfo
from dan_ros.probabilities import MODEL_PRIOR, Prior


@pytest.fixture
def model(tmp_path):
    """A model that expects neutral faces."""
    path = tmp_path / 'model.onnx'
    return write_color_model(path, bias=(0, 2, 0)), path


@pytest.fixture
def faces(tmp_path):
    """100 neutral, 25 happy and 25 sad faces; their colors overlap."""
    folder, rng = tmp_path / 'faces', np.random.default_rng(0)
    for channel, (label, count) in enumerate({'happy': 25, 'neutral': 100, 'sad': 25}.items()):
        (folder / label).mkdir(parents=True)
        means = 40 + 70 * np.eye(3)[channel] + 30 * rng.normal(size=(count, 3))
        for number, color_rgb in enumerate(means.clip(0, 255)):
            image = np.full((8, 8, 3), color_rgb[::-1], np.uint8)
            cv2.imwrite(str(folder / label / f'{number}.png'), image)
    return folder


def read(path) -> ModelInfo:
    return ModelInfo.from_onnx(path.read_bytes(), path.name)


def row_of(table: str, title: str) -> list[float]:
    """Accuracy and balanced accuracy in a row of the printed table, percent."""
    (line,) = re.findall(rf'^ *{re.escape(title)} +([0-9].*)$', table, re.MULTILINE)
    return [float(cell.rstrip('%')) for cell in line.split()[:2]]


def scores(folder, path, prior=MODEL_PRIOR) -> list[float]:
    """Accuracy and balanced accuracy of a model file, percent."""
    faces = catalog.open_faces('folder', folder, VALID)
    backend = open_backend('onnxruntime', str(path))
    found = evaluate(faces, backend.model.labels, predict_crops(faces, backend, prior)).scores
    return [round(100 * value, 1) for value in (found.accuracy, found.balanced_accuracy)]


@pytest.mark.parametrize('given', [None, 0.3, 0.0])
def test_what_is_printed_about_a_prior_holds_for_the_written_file(
    run, model, faces, tmp_path, given
):
    output = tmp_path / 'new' / 'prior.onnx'
    options = [] if given is None else ['--strength', given]
    result = run(
        *('export', model[1], '--as-is', '--fit-prior', faces, '--temperature', 2, *options),
        *('-o', output),
    )
    assert result.exit_code == 0, result.stderr
    info = read(output)
    assert info.temperature == 2
    assert info.log_prior[1] == max(info.log_prior)
    assert np.exp(info.log_prior).sum() == pytest.approx(1)
    printed = row_of(result.stdout, 'chosen')
    assert printed == scores(faces, output)
    plain = row_of(result.stdout, '0')
    assert plain == scores(faces, output, Prior.parse('none'))
    if given is None:
        assert printed[1] > plain[1] + 5
        assert info.prior_strength[1] == 0
        chosen = zip(info.labels, info.prior_strength, strict=True)
        assert ', '.join(f'{label} {value:g}' for label, value in chosen) in result.stdout
    else:
        assert info.prior_strength == given
    assert 'no prior is subtracted' not in result.stdout


def test_a_prior_that_cannot_be_measured_well_is_not_subtracted(run, model, faces, tmp_path):
    """There are too few faces of the other classes."""
    for label in ('happy', 'sad'):
        for path in list((faces / label).iterdir())[19:]:
            path.unlink()
    output = tmp_path / 'prior.onnx'
    words = ('export', model[1], '--as-is', '--fit-prior', faces, '-o', output)
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    assert 'no prior is subtracted by default' in result.stdout
    assert not any(read(output).prior_strength)
    output.unlink()
    for path in (faces / 'sad').iterdir():
        path.unlink()
    result = run(*words)
    assert result.exit_code == 1
    assert 'the prior cannot be measured: no face of sad' in result.stderr
    assert not output.exists()


def test_probabilities_are_taken_from_another_model(run, model, tmp_path):
    info, path = model
    first, second = tmp_path / 'first.onnx', tmp_path / 'second.onnx'
    shares = (0.2, 0.7, 0.1)
    options = ('--temperature', 1.5, '--prior', '0.2,0.7,0.1', '--strength', 0.4)
    assert run('export', path, '--as-is', *options, '-o', first).exit_code == 0
    assert run('export', path, '--as-is', '--like', first, '-o', second).exit_code == 0
    log_prior = tuple(float(f'{value:.6g}') for value in np.log(shares))
    expected = replace(info, temperature=1.5, log_prior=log_prior, prior_strength=0.4)
    assert read(first) == read(second) == expected
    run('export', path, '--as-is', '--like', first, '--strength', 0, '-o', second)
    assert read(second) == replace(expected, prior_strength=0.0)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (('--int8',), '--int8 and --calibrate DATA must be used together'),
        (('--as-is', '--calibrate', 'x'), '--int8 and --calibrate DATA must be used together'),
        (('--fit-prior', 'x', '--prior', '0.2,0.7,0.1'), 'so leave out --prior'),
        (('--as-is', '--batch', '2'), '--batch is for --fp32 and --fp16'),
        (('--as-is', '--like', 'dan_ferplus'), '--like: that model has the classes neutral, hap'),
        (('--as-is', '--strength', '0.5'), '--strength needs a prior'),
    ],
)
def test_options_that_contradict_each_other_are_refused(run, model, tmp_path, options, words):
    output = tmp_path / 'new.onnx'
    result = run('export', model[1], *options, '-o', output)
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert not output.exists()
