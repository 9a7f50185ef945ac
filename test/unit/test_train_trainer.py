"""Whole small trainings: going on exactly, surviving a kill, stopping at a NaN."""

import dataclasses
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from rich.console import Console  # noqa: E402

from dan_ros import labels  # noqa: E402
from dan_ros.datasets.faces import Faces  # noqa: E402
from dan_ros.errors import TrainingError  # noqa: E402
from dan_ros.network.checkpoint import load_dan  # noqa: E402
from dan_ros.train import trainer  # noqa: E402
from dan_ros.train.checkpoints import load_checkpoint, save_checkpoint  # noqa: E402
from dan_ros.train.epoch import Objective, judge  # noqa: E402
from dan_ros.train.recipe import Augmentation, Recipe  # noqa: E402

RECIPE = Recipe(
    dataset='ferplus',
    stages=((2, 32), (1, 40)),
    num_head=2,
    grey=True,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    batch_size=6,
    optimizer='adamw',
    learning_rate=1e-3,
    schedule='cosine',
    warmup_epochs=0.5,
    clip_norm=1.0,
    average_decay=0.9,
    precision='bf16',
    workers=0,
    augmentation=Augmentation(affine_chance=1.0, noise_chance=0.5, mixup_chance=0.5),
)
KILLED_IN_THE_SECOND_EPOCH = """
import os, pathlib, signal, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import test_train_trainer as t
from dan_ros.train.progress import TrainingProgress
def step(self, epoch, step, steps):
    if (epoch, step) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
TrainingProgress.step = step
t.run(pathlib.Path({folder!r}), 'killed')
"""


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(ferplus_folder):
    return ferplus_folder


def run(folder: Path, name: str, recipe: Recipe = RECIPE, **options: object) -> dict:
    console = Console(file=sys.stderr, width=200)
    return trainer.train(recipe, folder, folder / name, device='cpu', console=console, **options)


def assert_same(one: object, two: object, where: str = '') -> None:
    """Equal to the bit, through dicts and lists; clocks aside."""
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one.keys() - {'seconds', 'faces_per_s'}:
            assert_same(one[key], two[key], f'{where}/{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for index, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_same(a, b, f'{where}/{index}')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    else:
        assert one == two, where


def test_killed_and_resumed_ends_bit_equal_to_never_stopped(folder):
    run(folder, 'whole')
    script = KILLED_IN_THE_SECOND_EPOCH.format(
        tests=str(Path(__file__).parents[1] / 'support'), folder=str(folder)
    )
    killed = subprocess.run(
        [sys.executable, '-c', script], check=False, cwd=Path(__file__).parents[2]
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(load_checkpoint(folder / 'killed' / 'last.pt')['history']) == 1
    run(folder, 'killed', resume=True)
    whole, resumed = (load_checkpoint(folder / name / 'last.pt') for name in ('whole', 'killed'))
    assert_same(whole, resumed)
    best = [(folder / name / 'best.safetensors').read_bytes() for name in ('whole', 'killed')]
    assert best[0] == best[1]
    lines = [
        json.loads(line) for line in (folder / 'killed' / 'log.jsonl').read_text().splitlines()
    ]
    assert [line['epoch'] for line in lines] == [1, 2, 3]
    assert [line['size'] for line in lines] == [32, 32, 40]
    assert {'loss', 'affinity', 'partition', 'accuracy', 'recall', 'learning_rate'} <= set(lines[0])


def test_a_log_that_a_kill_left_short_is_made_whole(folder):
    recipe = dataclasses.replace(RECIPE, stages=((2, 32),))
    run(folder, 'out', recipe)
    log = folder / 'out' / 'log.jsonl'
    whole = log.read_text()
    log.write_text(whole.splitlines(keepends=True)[0])  # killed when last.pt was there
    run(folder, 'out', recipe, resume=True)
    assert log.read_text() == whole


def test_result_is_a_checkpoint_with_official_names(folder):
    run(folder, 'out', dataclasses.replace(RECIPE, stages=((1, 32),)))
    dan = load_dan(folder / 'out' / 'best.safetensors')
    assert (dan.fc.out_features, dan.num_head) == (8, 2)
    assert not list((folder / 'out').glob('*.partial'))


def test_more_threads_change_nothing(folder):
    recipe = dataclasses.replace(RECIPE, stages=((1, 32),), average_decay=0.0, precision='fp32')
    run(folder, 'none', recipe)
    run(folder, 'three', dataclasses.replace(recipe, workers=3))
    one, two = (load_checkpoint(folder / name / 'last.pt')['dan'] for name in ('none', 'three'))
    assert_same(one, two)


def test_training_learns_its_faces(folder):
    recipe = dataclasses.replace(
        RECIPE,
        stages=((6, 32),),
        precision='fp32',
        average_decay=0.0,
        affinity_weight=0.1,
        augmentation=Augmentation(flip_chance=0, affine_chance=0, erase_chance=0),
    )
    run(folder, 'out', recipe)
    history = load_checkpoint(folder / 'out' / 'last.pt')['history']
    assert history[-1]['cross_entropy'] < 0.75 * history[0]['cross_entropy']


def test_loss_that_is_no_number_stops_and_keeps_the_last_good_epoch(folder, monkeypatch):
    poison = {'on': False}
    forward = Objective.forward

    def poisoned(self, outputs, targets):
        parts = forward(self, outputs, targets)
        return {**parts, 'loss': parts['loss'] * float('nan')} if poison['on'] else parts

    monkeypatch.setattr(Objective, 'forward', poisoned)
    monkeypatch.setattr(
        trainer.TrainingProgress, 'epoch', lambda self, line: poison.update(on=line['epoch'] == 1)
    )
    with pytest.raises(TrainingError, match=r'loss became nan in epoch 2, step 1.*keeps epoch 1'):
        run(folder, 'out')
    good = load_checkpoint(folder / 'out' / 'last.pt')
    assert len(good['history']) == 1
    assert all(value.isfinite().all() for value in good['dan'].values())
    poison['on'] = False
    monkeypatch.undo()
    assert run(folder, 'out', resume=True)['epoch'] in {1, 2, 3}


def test_a_full_disk_is_one_line_and_keeps_the_last_good_epoch(folder):
    """The limit on files lets the weights pass, but not what is needed to go on."""
    recipe = dataclasses.replace(RECIPE, stages=((1, 32),), average_decay=0.0)
    run(folder, 'out', recipe)
    path = folder / 'out' / 'last.pt'
    longer = dataclasses.replace(recipe, stages=((2, 32),))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, before[1]))
    try:
        with pytest.raises(TrainingError) as error:
            run(folder, 'out', longer, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.fullmatch(
        rf'{path} can not be written: File too large\. {path} keeps epoch 1, the last good one',
        str(error.value),
    )
    assert len(load_checkpoint(path)['history']) == 1
    assert run(folder, 'out', longer, resume=True)['epoch'] in {1, 2}


def test_logits_that_are_no_numbers_are_refused():
    faces = Faces(labels.FERPLUS, np.eye(8, dtype=np.float32), np.arange(8), None)
    with pytest.raises(TrainingError, match='no numbers'):
        judge(np.full((8, 8), np.nan, np.float32), faces)


def test_judge_by_hand():
    faces = Faces(
        ('neutral', 'happy'), np.eye(2, dtype=np.float32)[[0, 0, 1]], np.array([0, 0, 1]), None
    )
    scores = judge(np.array([[1, 0], [0, 1], [0, 1]], np.float32), faces)
    assert scores['accuracy'] == pytest.approx(2 / 3)
    assert scores['balanced_accuracy'] == pytest.approx(0.75)
    assert scores['recall'] == {'neutral': 0.5, 'happy': 1.0}
    expected = (2 * np.log(1 + np.exp(-1)) + np.log(1 + np.exp(1))) / 3
    assert scores['valid_cross_entropy'] == pytest.approx(expected)


def test_second_training_in_a_folder_is_refused(folder):
    (folder / 'out').mkdir()
    save_checkpoint(folder / 'out' / 'last.pt', {})
    with pytest.raises(TrainingError, match='holds a training already; --resume'):
        run(folder, 'out')


@pytest.mark.parametrize('content', [None, b'', b'PK\x03\x04', b'text'])
def test_missing_or_damaged_checkpoint_is_one_clear_line(folder, content):
    (folder / 'out').mkdir()
    if content is not None:
        (folder / 'out' / 'last.pt').write_bytes(content)
    with pytest.raises(TrainingError, match=r'last\.pt.*without --resume') as error:
        run(folder, 'out', resume=True)
    assert '\n' not in str(error.value)


def test_resuming_with_another_recipe_is_refused(folder):
    recipe = dataclasses.replace(RECIPE, stages=((1, 32),), optimizer='sgd', average_decay=0.0)
    run(folder, 'out', recipe)
    with pytest.raises(TrainingError, match=r'learning_rate 0\.001, the recipe has 0\.5'):
        run(folder, 'out', dataclasses.replace(recipe, learning_rate=0.5), resume=True)


def test_weights_alone_can_not_be_resumed(folder):
    (folder / 'out').mkdir()
    save_checkpoint(folder / 'out' / 'last.pt', {'model_state_dict': {}})
    with pytest.raises(TrainingError, match='no checkpoint of a training'):
        run(folder, 'out', resume=True)


def test_a_checkpoint_that_lacks_a_part_or_is_another_networks_is_one_clear_line(folder):
    recipe = dataclasses.replace(RECIPE, stages=((1, 32),), average_decay=0.0)
    run(folder, 'out', recipe)
    path = folder / 'out' / 'last.pt'
    whole = load_checkpoint(path)
    for part in ('dan', 'objective', 'optimizer', 'scaler', 'history', 'random'):
        save_checkpoint(path, {name: value for name, value in whole.items() if name != part})
        with pytest.raises(TrainingError, match=rf"last\.pt lacks '{part}'; train without"):
            run(folder, 'out', recipe, resume=True)
    save_checkpoint(path, {**whole, 'dan': {**whole['dan'], 'fc.weight': torch.zeros(3, 3)}})
    with pytest.raises(TrainingError, match=r'last\.pt does not fit.*fc\.weight') as error:
        run(folder, 'out', recipe, resume=True)
    assert '\n' not in str(error.value)


def test_resuming_with_other_faces_says_what_has_changed(folder, capsys):
    recipe = dataclasses.replace(RECIPE, stages=((1, 32),), average_decay=0.0)
    run(folder, 'out', recipe)
    run(folder, 'out', recipe, resume=True)
    assert 'Warning' not in capsys.readouterr().err
    path = folder / 'ferplus_train.npz'
    with np.load(path) as content:
        images, votes = content['images'], content['votes']
    np.savez(path, images=images[:-1], votes=votes[:-1])
    run(folder, 'out', recipe, resume=True)
    (warning,) = capsys.readouterr().err.splitlines()
    before, now = '5 neutral, 5 happy, 4 surprise', '5 neutral, 4 happy, 4 surprise'
    assert warning.startswith('Warning: the train faces are not those of before')
    assert warning.endswith(f'Before: {before}; now: {now}')
    checkpoint = load_checkpoint(folder / 'out' / 'last.pt')
    del checkpoint['faces']  # as older ones
    save_checkpoint(folder / 'out' / 'last.pt', checkpoint)
    run(folder, 'out', recipe, resume=True)
    assert capsys.readouterr().err == ''


def test_resuming_without_the_best_weights_is_refused(folder):
    """They can't be made again, and the end would name a file that is not there."""
    recipe = dataclasses.replace(RECIPE, stages=((1, 32),), average_decay=0.0)
    run(folder, 'out', recipe)
    weights = folder / 'out' / 'best.safetensors'
    kept = weights.rename(folder / 'kept.safetensors')
    with pytest.raises(TrainingError, match=r'best\.safetensors is gone, the weights of epoch 1'):
        run(folder, 'out', recipe, resume=True)
    kept.rename(weights)
    assert run(folder, 'out', recipe, resume=True)['epoch'] == 1


def test_output_that_can_not_be_a_folder(folder):
    (folder / 'out').write_text('a file')
    with pytest.raises(TrainingError, match='can not be made a folder'):
        run(folder, 'out')


def test_unreadable_pictures_are_counted_and_listed(tmp_path, capsys):
    for split, count in (('train', 8), ('val', 4)):
        for number in range(count):
            path = tmp_path / split / 'happy' / f'{number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((32, 32, 3), 20 * number, np.uint8))
    (tmp_path / 'train' / 'happy' / '3.png').unlink()
    name = b'\xff3.png'  # as an old disk or archive may have it
    (tmp_path / 'train' / 'happy' / os.fsdecode(name)).write_bytes(b'broken')
    recipe = dataclasses.replace(
        RECIPE, dataset='sfew', stages=((1, 32),), average_decay=0.0, precision='fp32', workers=2
    )
    best = run(tmp_path, 'out', recipe)
    assert best['skipped'] == 1
    assert (tmp_path / 'out' / 'skipped.txt').read_bytes().endswith(b'/' + name + b'\n')
    assert '1 pictures can not be read' in capsys.readouterr().err


def test_too_few_faces_and_wrong_devices(folder):
    with pytest.raises(TrainingError, match='14 faces to train on, fewer than batch_size 99'):
        run(folder, 'out', dataclasses.replace(RECIPE, batch_size=99))
    with pytest.raises(TrainingError, match='fp16 needs a GPU'):
        run(folder, 'out', dataclasses.replace(RECIPE, precision='fp16'))
    for name in ('abacus', 'mps', 'meta', 'cuda:x'):
        with pytest.raises(TrainingError, match='is no device'):
            trainer.train(RECIPE, folder, folder / 'out', device=name)
    with pytest.raises(TrainingError, match='torch sees .* CUDA GPUs'):
        trainer.train(RECIPE, folder, folder / 'out', device='cuda:99')


def test_one_file_for_both_splits_is_refused(folder):
    with pytest.raises(TrainingError, match='is one file'):
        run(folder / 'ferplus_train.npz', 'out')
