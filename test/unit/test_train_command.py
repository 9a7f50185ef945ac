# SPDX-License-Identifier: Apache-2.0
"""`dan-ros train` and what follows it: evaluate, convert, export to int8."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from training import RECIPE, TinyDan

from dan_ros.train import trainer
from dan_ros.train.recipe import find_recipe, load_recipe


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
