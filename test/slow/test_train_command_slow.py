# SPDX-License-Identifier: Apache-2.0
"""A training of the real network, and what `dan-ros` does with its weights."""

import json

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from data_sets import write_noise
from test_train_command import arguments, recipe_file, tiny_network, write_recipe

from dan_ros.cli.main import cli
from dan_ros.evaluate import report
from dan_ros.labels import AFFECTNET8
from dan_ros.model.metadata import ModelInfo
from dan_ros.network.checkpoint import fuse_checkpoint, load_dan, read_notes
from dan_ros.network.dan import DAN
from dan_ros.train import trainer
from dan_ros.train.checkpoints import save_weights
from dan_ros.train.progress import TrainingProgress


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with FER+ and, in `out`, a training of the real network; not to be changed."""
    folder = tmp_path_factory.mktemp('trained')
    write_noise(folder)
    result = CliRunner().invoke(
        cli, arguments(write_recipe(folder, num_head=1)), catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert 'best: ' in result.output
    assert 'epoch 2/2' in result.output
    return folder


def test_trained_weights_can_be_evaluated_converted_and_quantized(
    run, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(report, 'encode', lambda figure: b'')  # drawing takes seconds
    weights = trained / 'out' / 'best.safetensors'
    notes = read_notes(weights)
    assert (notes['input_size'], notes['grey']) == (32, True)

    # The checkpoint contains labels, size and normalization.
    result = run('evaluate', trained, weights, '--json', '--out', tmp_path / 'evaluation')
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert content['backend'] == 'torch'
    log = [json.loads(line) for line in (trained / 'out' / 'log.jsonl').read_text().splitlines()]
    assert content['accuracy'] == pytest.approx(max(line['accuracy'] for line in log))

    onnx_path = tmp_path / 'model.onnx'
    assert run('convert', weights, '--fp16', '-o', onnx_path).exit_code == 0
    session = onnxruntime.InferenceSession(str(onnx_path))
    info = ModelInfo.from_metadata(session.get_modelmeta().custom_metadata_map, 'x')
    assert info.labels == tuple(notes['labels'])
    assert session.get_inputs()[0].shape == ['N', 32, 32, 3]
    result = run('evaluate', trained, onnx_path, '--json', '--out', tmp_path / 'evaluation')
    assert json.loads(result.stdout)['accuracy'] == pytest.approx(content['accuracy'], abs=0.2)

    int8_path = tmp_path / 'int8.onnx'
    result = run('export', onnx_path, '--int8', '--calibrate', trained, '-o', int8_path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith('data set ferplus, split train: ')
    assert '\n14 faces: ' in result.stdout
    assert int8_path.stat().st_size < 0.6 * onnx_path.stat().st_size


def test_arguments_override_the_notes(trained):
    weights = trained / 'out' / 'best.safetensors'
    _, info = fuse_checkpoint(weights)
    assert info.input_size == (32, 32)
    fused, info = fuse_checkpoint(weights, input_size=64, grey=False)
    assert info.input_size == (64, 64)
    assert fused.stem.in_channels == 3
    assert np.isfinite(fused.stem.weight.numpy()).all()


def test_weights_of_two_trainings_are_averaged(run, trained, tmp_path):
    first, output = trained / 'out' / 'best.safetensors', tmp_path / 'average.safetensors'
    state, notes = load_dan(first).state_dict(), read_notes(first)
    second = tmp_path / 'second.safetensors'
    moved = {n: t + 1 if t.is_floating_point() else t + 5 for n, t in state.items()}
    save_weights(second, moved, notes)
    result = run('average', first, second, '--share', '0.25', '-o', output)
    assert result.exit_code == 0, result.stderr
    average = load_dan(output).state_dict()
    for name, tensor in state.items():
        step = 0.25 if tensor.is_floating_point() else 0
        np.testing.assert_allclose(average[name], tensor + step, rtol=1e-5, atol=1e-6)
    assert fuse_checkpoint(output)[1].labels == tuple(notes['labels'])
    assert '0.75 of (trained on ferplus' in read_notes(output)['source']

    save_weights(second, moved, {**notes, 'grey': False})
    result = run('average', first, second, '-o', output)
    assert (result.exit_code, result.stderr.count('\n')) == (1, 1)
    assert 'the first was trained with grey True, the second with False' in result.stderr
    other = {
        name: t[:3]
        if name in ('fc.weight', 'fc.bias') or (name.startswith('bn.') and t.ndim)
        else t
        for name, t in moved.items()
    }
    save_weights(second, other, notes)
    result = run('average', first, second, '-o', output)
    assert (result.exit_code, result.stderr.count('\n')) == (1, 1)
    assert 'fc.weight is [8, 512] in the first and [3, 512] in the second' in result.stderr


@pytest.mark.usefixtures('tiny_network')
def test_an_interrupted_training_says_how_to_resume(run, recipe_file, monkeypatch):
    def interrupt(self, epoch, step, steps):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, 'step', interrupt)
        result = run(*arguments(recipe_file))
    assert (result.exit_code, result.stdout) == (130, '')
    *summary, last = result.stderr.splitlines()
    assert last == 'Stopped; no epoch was completed, so nothing is saved'
    assert [line.split(': ')[0] for line in summary] == [
        'data set ferplus, split train',
        '14 faces',
        'data set ferplus, split valid',
        '8 faces',
    ]
    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, 'epoch', lambda self, line: interrupt(self, 0, 0, 0))
        result = run(*arguments(recipe_file))
    assert result.exit_code == 130
    assert 'with --resume continues after the last complete epoch' in result.stderr
    result = run(*arguments(recipe_file, '--resume'))
    assert result.exit_code == 0, result.stderr
    assert 'epoch 2/2' in result.stderr
    assert 'epoch 1/2' not in result.stderr
    assert (recipe_file.parent / 'out' / 'training.png').read_bytes().startswith(b'\x89PNG')
