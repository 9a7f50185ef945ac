# SPDX-License-Identifier: Apache-2.0
"""`dan-ros train` and what follows it: evaluate, convert, export to int8."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from click.testing import CliRunner
from command import Command
from data_sets import write_noise
from training import RECIPE, TinyDan

from dan_ros.cli.main import cli
from dan_ros.evaluate import report
from dan_ros.labels import AFFECTNET8
from dan_ros.model.metadata import ModelInfo
from dan_ros.network.checkpoint import fuse_checkpoint, load_dan, read_notes
from dan_ros.train import trainer
from dan_ros.train.checkpoints import save_weights
from dan_ros.train.progress import TrainingProgress
from dan_ros.train.recipe import find_recipe, load_recipe, recipe_to_dict


@pytest.fixture
def run(monkeypatch, capsys):
    return Command(monkeypatch, capsys)


@pytest.fixture
def tiny_network(monkeypatch):
    monkeypatch.setattr(trainer, 'DAN', TinyDan)


@pytest.fixture
def recipe_file(ferplus_folder):
    return write_recipe(ferplus_folder)


def write_recipe(folder: Path, **changes: object) -> Path:
    path = folder / 'small.yaml'
    path.write_text(yaml.safe_dump({**recipe_to_dict(RECIPE), 'stages': [[2, 32]], **changes}))
    return path


def arguments(recipe_file: Path, *options: object) -> list[str]:
    folder = recipe_file.parent
    words = ['train', recipe_file, '--data', folder, '--out', folder / 'out', *options]
    return [str(word) for word in words]


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
    _, info = fuse_checkpoint(weights, labels=AFFECTNET8)
    assert info.labels == AFFECTNET8 != tuple(read_notes(weights)['labels'])
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


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'learning_rat': 1}, "did you mean 'learning_rate'"),
        ({'batch_size': 99}, '14 training faces, fewer than batch_size 99'),
        ({'dataset': 'rafdb'}, 'no EmoLabel/list_patition_label.txt'),
    ],
)
def test_an_invalid_recipe_or_data_is_one_line(run, recipe_file, change, words):
    result = run(*arguments(write_recipe(recipe_file.parent, **change)))
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures('tiny_network')
def test_wrong_arguments_are_refused(run, recipe_file):
    assert "no recipe 'ferplu'" in run('train', 'ferplu', '--data', '.', '--out', 'x').stderr
    for name in ('~nobody-of-this-name/x', 'x' * 300):
        result = run('train', name, '--data', '.', '--out', 'x')
        assert result.stderr.startswith(f'Error: the recipe {name} cannot be read: ')
        assert len(result.stderr.splitlines()) == 1
    result = run(*arguments(recipe_file, '--resume', '--start', 'x'))
    assert '--start is for a new one' in result.stderr
    result = run(*arguments(recipe_file, '--start', 'x.pth'))
    assert 'there is no checkpoint at x.pth' in result.stderr
    assert 'train without --resume' in run(*arguments(recipe_file, '--resume')).stderr


def test_recipes_of_the_package_are_found_by_name(tmp_path):
    for name in ('ferplus', 'rafdb', 'affectnet7', 'affectnet8', 'sfew'):
        assert load_recipe(find_recipe(name)).dataset == name
    own = tmp_path / 'own.yaml'
    own.write_text('dataset: folder\n')
    assert load_recipe(find_recipe(str(own))).dataset == 'folder'


def test_installed_recipes_are_found(tmp_path):
    """The built package finds its recipes from another folder than the source tree."""
    code = 'from dan_ros.train.recipe import find_recipe; print(find_recipe("sfew"))'
    source = Path(__file__).parents[2]
    places = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    places = os.pathsep.join(place for place in places if Path(place).resolve() != source)
    result = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': places},
    )
    assert result.stdout.endswith('share/dan_ros/recipes/sfew.yaml\n')
