# SPDX-License-Identifier: Apache-2.0
"""`dan-ros train` and what follows it: evaluate, convert, export to int8."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import Command
from training import RECIPE, TinyDan

from dan_ros.train import trainer
from dan_ros.train.progress import TrainingProgress
from dan_ros.train.recipe import find_recipe, load_recipe


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
    content = {**RECIPE.model_dump(mode='json'), 'stages': [[2, 32]], **changes}
    path.write_text(yaml.safe_dump(content))
    return path


def arguments(recipe_file: Path, *options: object) -> list[str]:
    folder = recipe_file.parent
    words = ['train', recipe_file, '--data', folder, '--out', folder / 'out', *options]
    return [str(word) for word in words]


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
