# SPDX-License-Identifier: Apache-2.0
"""Small trainings: resuming exactly, stopping at a NaN, errors in one line."""

import contextlib
import json
import os
import re
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from rich.console import Console  # noqa: E402
from training import RECIPE, SHORT, TinyDan, assert_same, change, run  # noqa: E402

from dan_ros import labels  # noqa: E402
from dan_ros.datasets.catalog import open_faces  # noqa: E402
from dan_ros.datasets.faces import Faces  # noqa: E402
from dan_ros.errors import ModelError, TrainingError  # noqa: E402
from dan_ros.network.dan import DAN  # noqa: E402
from dan_ros.train import interpolate, trainer  # noqa: E402
from dan_ros.train.checkpoints import load_checkpoint, locked_folder, save_checkpoint  # noqa: E402
from dan_ros.train.data_loader import training_batches  # noqa: E402
from dan_ros.train.epoch import Objective, validate  # noqa: E402

START = Path(__file__).parents[2] / 'models' / 'dan_ferplus.safetensors'


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch):
    monkeypatch.setattr(trainer, 'DAN', TinyDan)


@pytest.fixture
def folder(ferplus_folder):
    return ferplus_folder


def history_of(folder: Path, name: str) -> list[dict]:
    return load_checkpoint(folder / name / 'last.pt')['history']


def test_interrupted_and_resumed_is_bitwise_equal_to_uninterrupted(folder, monkeypatch):
    run(folder, 'whole')

    def interrupt(self, epoch, step, steps):
        if (epoch, step) == (1, 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer.TrainingProgress, 'step', interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(folder, 'stopped')
    assert len(history_of(folder, 'stopped')) == 1
    run(folder, 'stopped', resume=True)
    whole, resumed = (load_checkpoint(folder / name / 'last.pt') for name in ('whole', 'stopped'))
    assert_same(whole, resumed)
    best = [(folder / name / 'best.safetensors').read_bytes() for name in ('whole', 'stopped')]
    assert best[0] == best[1]
    lines = [
        json.loads(line) for line in (folder / 'stopped' / 'log.jsonl').read_text().splitlines()
    ]
    assert [line['epoch'] for line in lines] == [1, 2, 3]
    assert [line['size'] for line in lines] == [32, 32, 40]
    assert {'loss', 'affinity', 'partition', 'accuracy', 'recall', 'learning_rate'} <= set(lines[0])


def test_a_checkpoint_without_the_schedulers_entry_resumes_equally(folder):
    """Checkpoints before torch's schedulers lack `initial_lr` in the optimizer's groups."""
    one_epoch = change(stages=((1, 32),), schedule='step', warmup_epochs=0.0)
    longer = change(one_epoch, stages=((2, 32),))
    run(folder, 'new', one_epoch)
    shutil.copytree(folder / 'new', folder / 'old')
    content = load_checkpoint(folder / 'old' / 'last.pt')
    for group in content['optimizer']['param_groups']:
        del group['initial_lr']
    save_checkpoint(folder / 'old' / 'last.pt', content)
    for name in ('new', 'old'):
        run(folder, name, longer, resume=True)
    assert_same(*(load_checkpoint(folder / name / 'last.pt') for name in ('new', 'old')))


def test_a_log_that_a_kill_cut_short_is_completed(folder):
    recipe = change(stages=((2, 32),))
    run(folder, 'out', recipe)
    log = folder / 'out' / 'log.jsonl'
    whole = log.read_text()
    log.write_text(whole.splitlines(keepends=True)[0])  # killed after last.pt was written
    run(folder, 'out', recipe, resume=True)
    assert log.read_text() == whole


def test_the_start_is_printed_as_it_is_named(folder, monkeypatch, capsys):
    monkeypatch.setattr(trainer, 'load_pretrained', lambda dan, path: f'DAN from {path}')
    console = Console(stderr=True, width=200)
    built = trainer.Trainer(RECIPE, folder, folder / 'out', torch.device('cpu'), console)
    built.begin(Path('runs[best]/[/x].pth'))
    assert 'start: DAN from runs[best]/[/x].pth\n' in capsys.readouterr().err


def test_the_second_opinion_changes_targets_but_not_classes(folder):
    path = folder / 'ferplus_train.npz'
    content = dict(np.load(path))
    first = content['votes'].argmax(axis=1)  # 0 is neutral, 1 happy
    content['votes'] = 10 * np.eye(10, dtype=np.uint8)[first]
    content['votes'][first == 0] = np.array([6, 4, 0, 0, 0, 0, 0, 0, 0, 0])
    np.savez(path, **content)
    np.savez(folder / 'fer2013_labels.npz', train=np.full(len(first), 3, np.uint8))  # happy
    recipe = change(**SHORT, second_opinion=1.0, best_by='balanced_accuracy')
    built = trainer.Trainer(recipe, folder, folder / 'out', torch.device('cpu'), Console())
    plain = open_faces('ferplus', folder, 'train')
    np.testing.assert_array_equal(built.train_faces.classes, plain.classes)
    divided = built.train_faces.targets[plain.classes == 0]
    assert len(divided)
    assert (divided.argmax(axis=1) == 1).all()
    _, targets, classes = next(training_batches(built.train_faces, recipe, 0, built.device))
    assert (classes == 0).any()
    assert (targets.argmax(dim=1)[classes == 0] == 1).any()
    built.history = [
        {'accuracy': 0.9, 'balanced_accuracy': 0.5},
        {'accuracy': 0.8, 'balanced_accuracy': 0.6},
    ]
    assert built.best is built.history[1]


def test_random_weights_are_not_frozen(folder, monkeypatch):
    monkeypatch.setattr(trainer, 'DAN', DAN)
    with pytest.raises(TrainingError, match='frozen_stages 1 .* give --start'):
        run(folder, 'out', change(**SHORT, frozen_stages=1))


def test_statistics_are_measured_with_at_least_one_batch(folder, monkeypatch):
    monkeypatch.setattr(trainer, 'MAX_BATCHNORM_FACES', 1)
    recipe, cpu = change(stages=((1, 32), (1, 40))), torch.device('cpu')
    built = trainer.Trainer(recipe, folder, folder / 'out', cpu, Console())
    built.begin(None)
    buffers = dict(built._network_to_validate(0).named_buffers())
    assert all(mean.any() for name, mean in buffers.items() if name.endswith('running_mean'))


def test_the_number_of_threads_changes_nothing(folder):
    recipe = change(**SHORT, precision='fp32')
    run(folder, 'none', recipe)
    run(folder, 'three', change(recipe, workers=3))
    one, two = (load_checkpoint(folder / name / 'last.pt')['dan'] for name in ('none', 'three'))
    assert_same(one, two)


def test_a_loss_of_nan_stops_and_keeps_the_last_good_epoch(folder, monkeypatch):
    forward = Objective.forward

    def forward_nan(self, outputs, targets, classes):
        parts = forward(self, outputs, targets, classes)
        return {**parts, 'loss': parts['loss'] * float('nan')}

    def break_loss(self, line):
        patch.setattr(Objective, 'forward', forward_nan)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.TrainingProgress, 'epoch', break_loss)
        with pytest.raises(
            TrainingError, match=r'loss became nan in epoch 2, step 1.*keeps epoch 1'
        ):
            run(folder, 'out')
    good = load_checkpoint(folder / 'out' / 'last.pt')
    assert len(good['history']) == 1
    assert all(value.isfinite().all() for value in good['dan'].values())
    assert run(folder, 'out', resume=True)['epoch'] in {1, 2, 3}


def test_a_full_disk_is_one_line_and_keeps_the_last_good_epoch(folder):
    """The file size limit allows the weights, but not the checkpoint."""
    recipe = change(**SHORT)
    run(folder, 'out', recipe)
    path = folder / 'out' / 'last.pt'
    longer = change(recipe, stages=((2, 32),))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, before[1]))
    try:
        with pytest.raises(TrainingError) as error:
            run(folder, 'out', longer, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.fullmatch(
        rf'{path} cannot be written: File too large\. {path} keeps epoch 1, the last good one',
        str(error.value),
    )
    assert len(load_checkpoint(path)['history']) == 1
    assert run(folder, 'out', longer, resume=True)['epoch'] in {1, 2}


def test_logits_of_nan_are_refused():
    faces = Faces(labels.FERPLUS, np.eye(8, dtype=np.float32), np.arange(8), None)
    with pytest.raises(TrainingError, match='not finite'):
        validate(torch.full((8, 8), torch.nan), faces)


def test_validation_scores_by_hand():
    faces = Faces(
        ('neutral', 'happy'), np.eye(2, dtype=np.float32)[[0, 0, 1]], np.array([0, 0, 1]), None
    )
    scores = validate(torch.tensor([[1.0, 0], [0, 1], [0, 1]]), faces)
    assert scores['accuracy'] == pytest.approx(2 / 3)
    assert scores['balanced_accuracy'] == pytest.approx(0.75)
    assert scores['recall'] == {'neutral': 0.5, 'happy': 1.0}
    expected = (2 * np.log(1 + np.exp(-1)) + np.log(1 + np.exp(1))) / 3
    assert scores['valid_cross_entropy'] == pytest.approx(expected)


def test_second_training_in_a_folder_is_refused(folder):
    (folder / 'out').mkdir()
    save_checkpoint(folder / 'out' / 'last.pt', {})
    no_data = folder / 'missing'  # refused before the data, which may take minutes to read
    with pytest.raises(TrainingError, match='already contains a training run; .*--resume'):
        trainer.train(RECIPE, no_data, folder / 'out')
    with pytest.raises(ModelError, match='there is no checkpoint at'):
        trainer.train(RECIPE, no_data, folder / 'new', start=folder / 'start.pth')
    with pytest.raises(TrainingError, match=r'there is no checkpoint .*without --resume'):
        trainer.train(RECIPE, no_data, folder / 'new', resume=True)


@pytest.mark.parametrize('resume', [False, True])
def test_two_trainings_in_one_folder_at_once_are_refused(folder, resume):
    if resume:
        run(folder, 'out', change(RECIPE, stages=[[1, 32]]))
    (folder / 'out').mkdir(exist_ok=True)
    before = {path.name: path.read_bytes() for path in (folder / 'out').iterdir()}
    with (
        locked_folder(folder / 'out'),
        pytest.raises(TrainingError, match=r'another training run writes into .*out; '),
    ):
        run(folder, 'out', resume=resume)
    after = {path.name: path.read_bytes() for path in (folder / 'out').iterdir()}
    assert after == {'.lock': b'', **before}
    with locked_folder(folder / 'out'), pytest.raises(TrainingError, match='another training run'):
        trainer.train(RECIPE, folder / 'missing', folder / 'out', resume=resume)  # before the data
    assert run(folder, 'out', resume=resume)['epoch'] >= 1


def test_a_run_that_ends_between_the_checks_of_another_is_kept(folder, monkeypatch):
    def end_meanwhile(path: Path) -> contextlib.AbstractContextManager[None]:
        path.mkdir()
        save_checkpoint(path / 'last.pt', {})
        return contextlib.nullcontext()

    monkeypatch.setattr(trainer.checkpoints, 'locked_folder', end_meanwhile)
    with pytest.raises(TrainingError, match='already contains a training run'):
        run(folder, 'out')


def test_a_folder_that_cannot_be_locked_is_one_line(folder):
    (folder / 'out' / '.lock').mkdir(parents=True)
    with pytest.raises(TrainingError, match=r'\.lock cannot be written: Is a directory$'):
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
    recipe = change(**SHORT, optimizer='sgd')
    run(folder, 'out', recipe)
    with pytest.raises(TrainingError, match=r'learning_rate 0\.001, but the recipe has 0\.5'):
        run(folder, 'out', change(recipe, learning_rate=0.5), resume=True)


def test_weights_without_a_training_cannot_be_resumed(folder):
    (folder / 'out').mkdir()
    save_checkpoint(folder / 'out' / 'last.pt', {'model_state_dict': {}})
    with pytest.raises(TrainingError, match='not a training checkpoint'):
        run(folder, 'out', resume=True)


def test_an_incomplete_or_foreign_checkpoint_is_refused_in_one_line(folder):
    recipe = change(**SHORT)
    run(folder, 'out', recipe)
    path = folder / 'out' / 'last.pt'
    whole = load_checkpoint(path)
    for part in ('dan', 'objective', 'optimizer', 'scaler', 'history', 'random'):
        save_checkpoint(path, {name: value for name, value in whole.items() if name != part})
        with pytest.raises(TrainingError, match=rf"last\.pt: '{part}' is missing; train without"):
            run(folder, 'out', recipe, resume=True)
    save_checkpoint(path, {**whole, 'dan': {**whole['dan'], 'fc.weight': torch.zeros(3, 3)}})
    with pytest.raises(TrainingError, match=r'last\.pt does not fit.*fc\.weight') as error:
        run(folder, 'out', recipe, resume=True)
    assert '\n' not in str(error.value)


def test_resuming_with_other_faces_warns_of_the_change(folder, capsys):
    recipe = change(**SHORT)
    run(folder, 'out', recipe)
    run(folder, 'out', recipe, resume=True)
    assert 'Warning' not in capsys.readouterr().err
    path = folder / 'ferplus_train.npz'
    with np.load(path) as content:
        images, votes = content['images'], content['votes']
    np.savez(path, images=images[:-1], votes=votes[:-1])
    run(folder, 'out', recipe, resume=True)
    lines = capsys.readouterr().err.splitlines()
    (warning,) = (line for line in lines if line.startswith('Warning'))
    before, now = '5 neutral, 5 happy, 4 surprise', '5 neutral, 4 happy, 4 surprise'
    assert warning.startswith('Warning: the train faces have changed')
    assert warning.endswith(f'Before: {before}; now: {now}')
    checkpoint = load_checkpoint(folder / 'out' / 'last.pt')
    del checkpoint['faces']  # as older ones
    save_checkpoint(folder / 'out' / 'last.pt', checkpoint)
    run(folder, 'out', recipe, resume=True)
    assert 'Warning' not in capsys.readouterr().err


def test_resuming_without_the_best_weights_is_refused(folder):
    recipe = change(**SHORT)
    run(folder, 'out', recipe)
    weights = folder / 'out' / 'best.safetensors'
    kept = weights.rename(folder / 'kept.safetensors')
    with pytest.raises(TrainingError, match=r'safetensors, the weights of epoch 1, is missing'):
        run(folder, 'out', recipe, resume=True)
    kept.rename(weights)
    assert run(folder, 'out', recipe, resume=True)['epoch'] == 1


def test_output_that_cannot_be_a_folder(folder):
    (folder / 'out').write_text('a file')
    with pytest.raises(TrainingError, match='cannot create the folder'):
        run(folder, 'out')


def test_unreadable_images_are_counted_and_listed(tmp_path, capfd):
    for split, count in (('train', 8), ('val', 4)):
        for number in range(count):
            path = tmp_path / split / 'happy' / f'{number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((32, 32, 3), 20 * number, np.uint8))
    (tmp_path / 'train' / 'happy' / '3.png').unlink()
    name = b'\xff3.png'  # a name that is not UTF-8, as on old disks
    (tmp_path / 'train' / 'happy' / os.fsdecode(name)).write_bytes(b'broken')
    recipe = change(**SHORT, dataset='sfew', precision='fp32', workers=2)
    best = run(tmp_path, 'out', recipe)
    assert best['skipped'] == 1
    assert (tmp_path / 'out' / 'skipped.txt').read_bytes().endswith(b'/' + name + b'\n')
    output = capfd.readouterr().err
    assert '1 image left out as unusable' in output
    assert '7 faces: neutral 0, happy 7, sad 0' in output


def test_too_few_faces_and_wrong_devices(folder):
    with pytest.raises(TrainingError, match='14 training faces, fewer than batch_size 99'):
        run(folder, 'out', change(batch_size=99))
    with pytest.raises(TrainingError, match='fp16 needs a GPU'):
        run(folder, 'out', change(precision='fp16'))
    for name in ('abacus', 'mps', 'meta', 'cuda:x'):
        with pytest.raises(TrainingError, match='unknown device'):
            trainer.train(RECIPE, folder, folder / 'out', device=name)
    with pytest.raises(TrainingError, match='torch finds .* CUDA GPUs'):
        trainer.train(RECIPE, folder, folder / 'out', device='cuda:99')


def test_one_file_for_both_splits_is_refused(folder):
    with pytest.raises(TrainingError, match='is a file'):
        run(folder / 'ferplus_train.npz', 'out')


def test_only_equal_networks_are_averaged(monkeypatch):
    first = {'fc.weight': torch.zeros(8, 2), 'seen': torch.tensor(3)}
    networks = {
        Path('first'): first,
        Path('second'): {'fc.weight': torch.ones(8, 2), 'seen': torch.tensor(9)},
        Path('seven'): {'fc.weight': torch.ones(7, 2), 'seen': torch.tensor(9)},
        Path('other'): {**first, 'cat_head4.weight': torch.ones(1)},
    }
    monkeypatch.setattr(
        interpolate, 'load_dan', lambda path: SimpleNamespace(state_dict=lambda: networks[path])
    )
    monkeypatch.setattr(interpolate, 'read_notes', lambda path: {'labels': ['happy']})
    state, _ = interpolate.interpolate_checkpoints(Path('first'), Path('second'), 0.25)
    assert (state['fc.weight'] == 0.25).all()
    assert state['seen'] == 3
    for second, words in (
        ('seven', r'fc.weight is \[8, 2\] in the first and \[7, 2\] in the second'),
        ('other', 'cannot be averaged: only one of them has cat_head4.weight'),
    ):
        with pytest.raises(ModelError, match=words):
            interpolate.interpolate_checkpoints(Path('first'), Path(second), 0.5)
