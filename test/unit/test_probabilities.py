# SPDX-License-Identifier: Apache-2.0
"""From logits to probabilities: temperature, prior and calibration, the same with every backend."""

import math
from dataclasses import replace
from pathlib import Path

import click
import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from model_files import LEARNED, write_model
from onnx import helper

from dan_ros import labels
from dan_ros.backends import CPU_BACKENDS, open_backend
from dan_ros.cli import convert, export
from dan_ros.cli.common import with_probabilities
from dan_ros.cli.main import cli
from dan_ros.detect.full_frame import FullFrameDetector
from dan_ros.errors import DanError, DataError, MissingPackageError, ModelError, ParameterError
from dan_ros.model.metadata import ModelInfo
from dan_ros.pipeline import ExpressionPipeline, PipelineConfig
from dan_ros.probabilities import Calibration, Calibrator, Prior
from dan_ros.types import Frame

MODEL = ModelInfo(
    labels.FERPLUS, (96, 96), source_sha256='ab', log_prior=tuple(np.log(LEARNED)), temperature=2.0
)
LOGITS = np.array([[4.0, 1.0, -1.0, 2.0, 0.5, 0.0, -2.0, 1.0]])
ORDER = [labels.CANONICAL.index(label) for label in labels.FERPLUS]


def softmax(values):
    weights = np.exp(values - np.max(values))
    return weights / weights.sum()


def in_model_order(probabilities):
    return probabilities[0, ORDER]


@pytest.mark.parametrize(
    ('prior', 'expected'),
    [
        ('model', LOGITS[0] / 2 - 0.3 * np.log(LEARNED)),
        ('none', LOGITS[0] / 2),
        ('balanced', LOGITS[0] / 2 - np.log(LEARNED)),
    ],
)
def test_the_prior_is_exchanged_after_the_temperature(prior, expected):
    calibrator = Calibrator.create(replace(MODEL, prior_strength=0.3))
    found = in_model_order(calibrator.probabilities(LOGITS, Prior.parse(prior)))
    np.testing.assert_allclose(found, softmax(expected), atol=1e-6)


def test_each_class_may_have_its_own_strength():
    strength = (0.2,) * 6 + (0.6, 0.0)
    calibrator = Calibrator.create(replace(MODEL, prior_strength=strength))
    gap = np.log(LEARNED) - np.log(np.max(LEARNED))
    expected = softmax(LOGITS[0] / 2 - np.array(strength) * gap)
    np.testing.assert_allclose(
        in_model_order(calibrator.probabilities(LOGITS)), expected, atol=1e-6
    )
    plain = Calibrator.create(replace(MODEL, prior_strength=0.0))
    for prior in map(Prior.parse, ('none', 'balanced')):
        np.testing.assert_array_equal(
            calibrator.probabilities(LOGITS, prior), plain.probabilities(LOGITS, prior)
        )


def test_the_shares_that_the_model_learned_change_nothing():
    shares = np.zeros(8)
    shares[ORDER] = LEARNED
    calibrator = Calibrator.create(MODEL)
    chosen = calibrator.probabilities(LOGITS, Prior.parse(','.join(map(str, shares))))
    np.testing.assert_allclose(chosen, calibrator.probabilities(LOGITS), atol=1e-6)


def test_a_class_that_never_occurs_gets_nothing():
    prior = Prior.parse('0.5,0.5,0,0,0,0,0,0')
    found = Calibrator.create(MODEL).probabilities(LOGITS, prior)[0]
    assert found[:2].sum() == pytest.approx(1)
    assert not found[2:].any()


@pytest.mark.parametrize('text', ['model', 'none', 'balanced', '0.5,0.5,0,0,0,0,0,0'])
def test_a_prior_is_written_as_it_is_read(text):
    assert str(Prior.parse(text)) == text


@pytest.mark.parametrize(
    'text',
    ['', 'flat', '0.5,0.5', '1,1,1,1,1,1,1,1', '-0.5,0.5,0.5,0.5,0,0,0,0', 'nan,1,0,0,0,0,0,0'],
)
def test_what_is_no_prior_is_refused_in_one_line(text):
    with pytest.raises(ParameterError, match=r'^the prior [^\n]*neutral, happy') as error:
        Prior.parse(text)
    assert '\n' not in str(error.value)


def test_a_model_that_does_not_know_its_prior_cannot_answer_for_another():
    calibrator = Calibrator.create(replace(MODEL, log_prior=()))
    calibrator.check(Prior.parse('none'))
    calibrator.check(Prior.parse('model'))
    with pytest.raises(ParameterError, match='--fit-prior'):
        calibrator.check(Prior.parse('balanced'))


# --- the model file -----------------------------------------------------------------------------


@pytest.mark.parametrize('strength', [0.25, (0.25,) * 7 + (0.0,)])
def test_metadata_survive_the_file(strength):
    info = replace(MODEL, prior_strength=strength)
    read = ModelInfo.from_metadata(info.to_metadata(), 'x.onnx')
    assert (read.temperature, read.prior_strength) == (2.0, strength)
    assert read.log_prior == pytest.approx(info.log_prior, abs=1e-4)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('temperature', '0'),
        ('temperature', '-1'),
        ('temperature', 'nan'),
        ('temperature', 'warm'),
        ('prior', '0,0,0,0,0,0,0,0'),
        ('prior', '-1,-1'),
        ('prior', 'nan,-1,-2,-2,-2,-2,-2,-2'),
        ('prior', 'neutral'),
        ('prior_strength', '2'),
        ('prior_strength', 'nan'),
        ('prior_strength', '0.3,0.3'),
        ('prior_strength', '0,0,0,0,0,0,0,2'),
    ],
)
def test_invalid_metadata_are_refused_in_one_line(key, value):
    metadata = {**MODEL.to_metadata(), f'dan_ros.{key}': value}
    with pytest.raises(ModelError, match=r'^x\.onnx: its metadata') as error:
        ModelInfo.from_metadata(metadata, 'x.onnx')
    assert '\n' not in str(error.value)


@pytest.fixture(scope='module')
def model_file(tmp_path_factory):
    """The bundled model with a temperature and a prior."""
    path = tmp_path_factory.mktemp('model') / 'model.onnx'
    write_model(path)
    return path


@pytest.mark.parametrize('name', CPU_BACKENDS)
def test_every_backend_gives_the_same_probabilities(name, model_file, portrait):
    try:
        backend = open_backend(name, str(model_file))
    except MissingPackageError as error:
        pytest.skip(str(error))
    reference = open_backend('onnxruntime', str(model_file))
    face = Frame(np.ascontiguousarray(portrait[63:176, 166:279]))
    for prior in ('model', 'none', 'balanced', '0.3,0.1,0.1,0.1,0.1,0.1,0.1,0.1'):
        config = PipelineConfig(prior=Prior.parse(prior))
        found, expected = (
            ExpressionPipeline(FullFrameDetector(1.0), used, config).run([face])[0][0]
            for used in (backend, reference)
        )
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=0.01)
        assert found.probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_float_and_int8_version_carry_the_same_numbers(model_file, tmp_path):
    out = tmp_path / 'int8.onnx'
    words = ['dan_ferplus_int8', '--as-is', '--like', str(model_file), '--strength', '0.2']
    result = CliRunner().invoke(export.command, [*words, '-o', str(out)])
    assert result.exit_code == 0, result.output
    found, wanted = (ModelInfo.from_onnx(path.read_bytes(), '') for path in (out, model_file))
    assert found == replace(wanted, prior_strength=0.2)


@pytest.mark.parametrize('opset', [13, 18])
def test_as_is_keeps_the_opset_of_a_model_of_another_tool(tmp_path, opset):
    write_small_model(tmp_path / 'own.onnx', opset, (96, 96))
    words = [str(tmp_path / 'own.onnx'), '--as-is', '--temperature', '2']
    result = CliRunner().invoke(export.command, [*words, '-o', str(tmp_path / 'out.onnx')])
    assert result.exit_code == 0, result.output
    old, new = (onnx.load(tmp_path / name) for name in ('own.onnx', 'out.onnx'))
    assert (new.opset_import, new.ir_version) == (old.opset_import, old.ir_version)
    assert new.graph == old.graph


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('export own.onnx --as-is --fit-prior faces -o out.onnx', 'takes 64x96 pixels, but faces'),
        ('export --fit-prior faces --prior 0.5,0.5 -o out.onnx', 'leave out --prior'),
        ('calibrate faces --person anna', '--person needs --camera'),
        ('evaluate faces own.onnx --labels rafdb', '--labels is for checkpoints'),
        ('explain faces/happy/1.png --whole --labels rafdb', '--labels is for checkpoints'),
    ],
)
def test_options_that_do_not_fit_are_refused_in_words(
    tmp_path, monkeypatch, portrait, words, message
):
    monkeypatch.chdir(tmp_path)
    write_small_model(tmp_path / 'own.onnx', 17, (96, 64))
    for label in ('neutral', 'happy'):
        (tmp_path / 'faces' / label).mkdir(parents=True)
        cv2.imwrite(f'faces/{label}/1.png', portrait)
    result = CliRunner().invoke(cli, words.split())
    assert message in result.output + str(result.exception)
    assert isinstance(result.exception, DanError | SystemExit)
    assert not (tmp_path / 'out.onnx').exists()


def write_small_model(path, opset, size):
    """Write a model of two classes as another tool might: the mean color times a matrix."""
    axes = {'axes': [1, 2]} if opset < 18 else {}
    tensors = [onnx.numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), 'weights')]
    if opset >= 18:
        tensors.append(onnx.numpy_helper.from_array(np.array([1, 2]), 'axes'))
    names = ['pixels'] if axes else ['pixels', 'axes']
    nodes = [
        helper.make_node('Cast', ['faces'], ['pixels'], to=onnx.TensorProto.FLOAT),
        helper.make_node('ReduceMean', names, ['color'], keepdims=0, **axes),
        helper.make_node('MatMul', ['color', 'weights'], ['logits']),
    ]
    faces = helper.make_tensor_value_info('faces', onnx.TensorProto.UINT8, ['N', *size, 3])
    logits = helper.make_tensor_value_info('logits', onnx.TensorProto.FLOAT, ['N', 2])
    graph = helper.make_graph(nodes, 'small', [faces], [logits], tensors)
    opsets = [helper.make_opsetid('', opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=7)
    helper.set_model_props(model, ModelInfo(('neutral', 'happy'), size).to_metadata())
    onnx.save(model, path)


def test_convert_stores_what_it_is_given_and_refuses_what_is_no_distribution(tmp_path):
    checkpoint, out = Path(__file__).parents[2] / 'models/dan_ferplus.safetensors', tmp_path / 'x'
    words = [str(checkpoint), '--fp16', '-o', str(out), '--temperature', '2', '--strength', '0.5']
    shares = ','.join(map(str, LEARNED))
    result = CliRunner().invoke(convert.command, [*words, '--prior', shares])
    assert result.exit_code == 0, result.output
    info = ModelInfo.from_onnx(out.read_bytes(), '')
    assert (info.temperature, info.prior_strength) == (2, 0.5)
    assert info.log_prior == pytest.approx(np.log(LEARNED), abs=1e-4)
    for wrong in ('0.5,0.5', '0,1'):
        assert CliRunner().invoke(convert.command, [*words, '--prior', wrong]).exit_code != 0


# --- the calibration file -----------------------------------------------------------------------


def make_calibration(**changes):
    bias = {label: 0.1 * index for index, label in enumerate(labels.FERPLUS)}
    return replace(Calibration(bias, 1.2, 'ab', {'faces': 21}), **changes)


def test_a_calibration_replaces_temperature_and_prior(tmp_path):
    make_calibration().write(tmp_path / 'robot.yaml')
    calibrator = Calibrator.create(MODEL, Calibration.read(tmp_path / 'robot.yaml'))
    expected = softmax(LOGITS[0] / 1.2 + 0.1 * np.arange(8))
    np.testing.assert_allclose(
        in_model_order(calibrator.probabilities(LOGITS)), expected, atol=1e-6
    )


def test_the_weights_of_a_calibration_belong_to_its_labels(tmp_path):
    """Its labels may have another order than those of the model."""
    order = np.random.default_rng(0).permutation(8)
    weights = np.random.default_rng(1).normal(size=(8, 8)).round(4)
    names = [labels.FERPLUS[index] for index in order]
    bias = {name: 0.1 * index for name, index in zip(names, order.tolist(), strict=True)}
    rows = tuple(map(tuple, weights[np.ix_(order, order)].tolist()))
    make_calibration(bias=bias, weights=rows).write(tmp_path / 'robot.yaml')
    read = Calibration.read(tmp_path / 'robot.yaml')
    assert read.weights == rows
    found = Calibrator.create(MODEL, read).probabilities(LOGITS)
    scores = LOGITS[0] + weights @ (LOGITS[0] - LOGITS[0].mean())
    expected = softmax(scores / 1.2 + 0.1 * np.arange(8))
    np.testing.assert_allclose(in_model_order(found), expected, atol=1e-6)


@pytest.mark.parametrize('weights', [(), tuple(np.full((8, 8), 0.25).tolist())], ids=len)
def test_a_truncated_calibration_is_refused(tmp_path, weights):
    path = tmp_path / 'robot.yaml'
    make_calibration(weights=weights).write(path)
    content = path.read_text().rstrip()
    for length in range(len(content) - 250, len(content)):
        path.write_text(content[:length])
        with pytest.raises(DataError):
            Calibration.read(path)


def test_without_a_prior_a_calibration_changes_only_the_temperature(recwarn):
    """Bias and weights were fitted together, so none is used without the other."""
    rows = tuple(map(tuple, np.random.default_rng(1).normal(size=(8, 8)).tolist()))
    calibrator = Calibrator.create(MODEL, make_calibration(weights=rows))
    found = in_model_order(calibrator.probabilities(LOGITS, Prior.parse('none')))
    np.testing.assert_allclose(found, softmax(LOGITS[0] / 1.2), atol=1e-6)
    for prior in ('model', 'balanced'):
        different = in_model_order(calibrator.probabilities(LOGITS, Prior.parse(prior)))
        assert np.abs(different - found).max() > 0.1
    infinite = np.full_like(LOGITS, np.inf)
    assert not calibrator.probabilities(infinite).any()
    assert not recwarn.list


@pytest.mark.parametrize(
    'changes', [{'model_sha256': 'cd'}, {'bias': {'happy': 0.0, 'sad': 0.0}}], ids=str
)
def test_a_calibration_for_another_model_is_refused(changes):
    with pytest.raises(ModelError, match='run `dan-ros calibrate` with this model'):
        Calibrator.create(MODEL, make_calibration(**changes))


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[1, 2]',
        'a: [',
        'bias: {happy: 1.0}',
        'bias: {happy: .nan}\ntemperature: 1\nmodel_sha256: ab',
        'bias: {happy: 1.0}\ntemperature: 0\nmodel_sha256: ab',
        'bias: {joy: 1.0}\ntemperature: 1\nmodel_sha256: ab',
        'bias: {happy: 1e9}\ntemperature: 1\nmodel_sha256: ab',
        'bias: {happy: warm}\ntemperature: 1\nmodel_sha256: ab',
        'bias: {happy: yes}\ntemperature: 1\nmodel_sha256: ab',
        'bias: {happy: 1.0}\ntemperature: 2020-13-45\nmodel_sha256: ab',
        'bias: {happy: 1.0}\ntemperature: 1\nmodel_sha256: ab\nstrength: 0.5',
        'bias: {happy: 1.0}\ntemperature: 1\nmodel_sha256: ab\nnotes: 3',
        'bias: {happy: 1.0}\ntemperature: 1\nmodel_sha256: ab\nweights: 3',
        'bias: {happy: 1.0}\ntemperature: 1\nmodel_sha256: ab\nweights: 0',
        'bias: {happy: 1.0}\ntemperature: 1\nmodel_sha256: ab\nweights: [[1, 2]]',
        'bias: {happy: 1.0}\ntemperature: 1\nmodel_sha256: ab\nweights: [[.nan]]',
        'bias: {happy: 1.0}\ntemperature: 1\nmodel_sha256: ab\nweights: [[1], 2]',
        2000 * '[',
    ],
)
def test_what_is_no_calibration_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / 'robot.yaml'
    path.write_text(text)
    with pytest.raises(DataError, match='not a calibration|not valid YAML') as error:
        Calibration.read(path)
    assert '\n' not in str(error.value)
    assert 'Error' not in str(error.value)  # the name of an exception tells a user nothing


def test_a_strength_without_a_prior_is_a_wrong_option():
    with pytest.raises(click.UsageError, match='--strength needs a prior'):
        with_probabilities(replace(MODEL, log_prior=(), prior_strength=0), None, (), 0.5)


def test_a_missing_calibration_is_named(tmp_path):
    with pytest.raises(DanError, match=r'robot\.yaml cannot be read: No such file'):
        Calibration.read(tmp_path / 'robot.yaml')


def test_a_uniform_prior_in_the_file_is_like_none():
    uniform = replace(MODEL, log_prior=(math.log(1 / 8),) * 8)
    calibrator = Calibrator.create(uniform)
    np.testing.assert_allclose(
        calibrator.probabilities(LOGITS, Prior.parse('balanced')),
        calibrator.probabilities(LOGITS, Prior.parse('none')),
        atol=1e-6,
    )
