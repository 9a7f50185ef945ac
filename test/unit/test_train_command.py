"""`dan-ros train` and what follows it: evaluate, convert, export to int8, predict."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from test_evaluate import run
from test_train_trainer import RECIPE

from dan_ros.labels import AFFECTNET8
from dan_ros.model.metadata import ModelInfo
from dan_ros.network.checkpoint import fuse_checkpoint, read_notes
from dan_ros.train.checkpoints import load_checkpoint
from dan_ros.train.recipe import find_recipe, load_recipe, recipe_to_dict


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')  # two small trainings would fight over the cores


@pytest.fixture
def recipe_file(ferplus_folder):
    path = ferplus_folder / 'small.yaml'
    content = recipe_to_dict(RECIPE)
    content['stages'] = [[2, 32]]
    path.write_text(yaml.safe_dump(content))
    return path


def train(recipe_file, *options, out='out'):
    folder = recipe_file.parent
    return run('train', recipe_file, '--data', folder, '--out', folder / out, *options)


def test_train_then_evaluate_convert_quantise(recipe_file):
    folder = recipe_file.parent
    result = train(recipe_file)
    assert result.returncode == 0, result.stderr
    assert 'best: ' in result.stdout
    assert 'epoch 2/2' in result.stderr
    weights = folder / 'out' / 'best.safetensors'
    notes = read_notes(weights)
    assert (notes['input_size'], notes['grey']) == (32, True)

    # The checkpoint says itself what it needs: no labels, no size, no normalisation are given.
    result = run('evaluate', folder, weights, '--json', '--out', folder / 'evaluation')
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert content['backend'] == 'torch'
    log = [json.loads(line) for line in (folder / 'out' / 'log.jsonl').read_text().splitlines()]
    assert content['accuracy'] == pytest.approx(max(line['accuracy'] for line in log))

    onnx_path = folder / 'model.onnx'
    assert run('convert', weights, '--fp16', '-o', onnx_path).returncode == 0
    session = onnxruntime.InferenceSession(str(onnx_path))
    info = ModelInfo.from_metadata(session.get_modelmeta().custom_metadata_map, 'x')
    assert info.labels == tuple(notes['labels'])
    assert session.get_inputs()[0].shape == ['N', 32, 32, 3]
    result = run('evaluate', folder, onnx_path, '--json', '--out', folder / 'evaluation')
    assert json.loads(result.stdout)['accuracy'] == pytest.approx(content['accuracy'], abs=0.2)

    int8_path = folder / 'int8.onnx'
    result = run('export', onnx_path, '--int8', '--calibrate', folder, '-o', int8_path)
    assert result.returncode == 0, result.stderr
    assert int8_path.stat().st_size < 0.6 * onnx_path.stat().st_size


def test_interrupted_training_says_how_to_go_on_and_does(recipe_file):
    content = yaml.safe_load(recipe_file.read_text())
    recipe_file.write_text(yaml.safe_dump({**content, 'stages': [[40, 32]]}))
    folder = recipe_file.parent
    arguments = ('train', recipe_file, '--data', folder, '--out', folder / 'out')
    process = subprocess.Popen(
        [sys.executable, '-m', 'dan_ros.cli.main', *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts its children in the background has them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not (folder / 'out' / 'last.pt').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert 'with --resume goes on from the last whole epoch' in errors
    assert 'Traceback' not in errors
    done = len(load_checkpoint(folder / 'out' / 'last.pt')['history'])
    content['stages'] = [[done + 1, 32]]  # a shorter plan, so that the test ends soon
    recipe_file.write_text(yaml.safe_dump(content))
    result = train(recipe_file, '--resume')
    assert result.returncode == 0, result.stderr
    assert f'epoch {done + 1}/{done + 1}' in result.stderr


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'learning_rat': 1}, "did you mean 'learning_rate'"),
        ({'batch_size': 99}, '14 faces to train on, fewer than batch_size 99'),
        ({'dataset': 'rafdb'}, 'list_patition_label.txt can not be read'),
    ],
)
def test_a_bad_recipe_or_data_is_one_line(recipe_file, change, words):
    content = yaml.safe_load(recipe_file.read_text())
    recipe_file.write_text(yaml.safe_dump({**content, **change}))
    result = train(recipe_file)
    assert result.returncode == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_wrong_uses_are_refused(recipe_file):
    assert "no recipe 'ferplu'" in run('train', 'ferplu', '--data', '.', '--out', 'x').stderr
    for name in ('~nobody-of-this-name/x', 'x' * 300):
        result = run('train', name, '--data', '.', '--out', 'x')
        assert result.stderr.startswith(f'Error: no recipe can be read at {name}: ')
        assert len(result.stderr.splitlines()) == 1
    assert '--start is for a new training' in train(recipe_file, '--resume', '--start', 'x').stderr
    assert 'there is no checkpoint at x.pth' in train(recipe_file, '--start', 'x.pth').stderr
    assert 'train without --resume' in train(recipe_file, '--resume').stderr


def test_recipes_of_the_package_are_found_by_name(tmp_path):
    for name in ('ferplus', 'rafdb', 'affectnet7', 'affectnet8', 'sfew'):
        assert load_recipe(find_recipe(name)).dataset == name
    own = tmp_path / 'own.yaml'
    own.write_text('dataset: folder\n')
    assert load_recipe(find_recipe(str(own))).dataset == 'folder'


def test_installed_recipes_are_found(tmp_path):
    """From the built package, seen from a folder that is not the source tree."""
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


def test_notes_give_way_to_what_is_asked_for(recipe_file):
    assert train(recipe_file).returncode == 0
    weights = recipe_file.parent / 'out' / 'best.safetensors'
    _, info = fuse_checkpoint(weights, labels=AFFECTNET8)
    assert info.labels == AFFECTNET8 != tuple(read_notes(weights)['labels'])
    assert info.input_size == (32, 32)
    fused, info = fuse_checkpoint(weights, input_size=64, grey=False)
    assert info.input_size == (64, 64)
    assert fused.stem.in_channels == 3
    assert np.isfinite(fused.stem.weight.numpy()).all()
