# SPDX-License-Identifier: Apache-2.0
"""Trainings of the real network in processes that are killed or interrupted, and its learning."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')

import yaml  # noqa: E402
from rich.console import Console  # noqa: E402
from training import assert_same, change, run  # noqa: E402

from dan_ros.network.checkpoint import load_dan  # noqa: E402
from dan_ros.train import trainer  # noqa: E402
from dan_ros.train.checkpoints import load_checkpoint  # noqa: E402

SUPPORT = Path(__file__).parents[1] / 'support'
START = Path(__file__).parents[2] / 'models' / 'dan_ferplus.safetensors'
KILLED_IN_THE_SECOND_EPOCH = """
import os, pathlib, signal, sys
sys.path.insert(0, {support!r})
from dan_ros.train.progress import TrainingProgress
from training import run
def step(self, epoch, step, steps):
    if (epoch, step) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
TrainingProgress.step = step
run(pathlib.Path({folder!r}), 'killed')
"""


def test_killed_and_resumed_is_bitwise_equal_to_uninterrupted(ferplus_folder):
    folder = ferplus_folder
    run(folder, 'whole')
    script = KILLED_IN_THE_SECOND_EPOCH.format(support=str(SUPPORT), folder=str(folder))
    killed = subprocess.run([sys.executable, '-c', script], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(load_checkpoint(folder / 'killed' / 'last.pt')['history']) == 1
    run(folder, 'killed', resume=True)
    whole, resumed = (load_checkpoint(folder / name / 'last.pt') for name in ('whole', 'killed'))
    assert_same(whole, resumed)
    best = [(folder / name / 'best.safetensors').read_bytes() for name in ('whole', 'killed')]
    assert best[0] == best[1]


def test_training_learns_its_faces(ferplus_folder):
    recipe = change(
        stages=((6, 32),),
        precision='fp32',
        average_decay=0.0,
        affinity_weight=0.1,
        augmentation={'flip_chance': 0, 'affine_chance': 0, 'erase_chance': 0},
    )
    run(ferplus_folder, 'out', recipe)
    history = load_checkpoint(ferplus_folder / 'out' / 'last.pt')['history']
    assert history[-1]['cross_entropy'] < 0.75 * history[0]['cross_entropy']
    dan = load_dan(
        ferplus_folder / 'out' / 'best.safetensors'
    )  # its tensors have the official names
    assert (dan.fc.out_features, dan.num_head) == (8, 2)
    assert not list((ferplus_folder / 'out').glob('*.partial'))


def test_ctrl_c_ends_the_command_and_it_can_be_resumed(ferplus_folder):
    folder = ferplus_folder
    recipe = folder / 'long.yaml'
    recipe.write_text(yaml.safe_dump(change(stages=((40, 32),)).model_dump(mode='json')))
    process = subprocess.Popen(
        [sys.executable, '-m', 'dan_ros.cli.main', 'train']
        + [str(recipe), '--data', str(folder), '--out', str(folder / 'out')],
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background processes with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not (folder / 'out' / 'last.pt').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert 'with --resume continues after the last complete epoch' in errors
    assert 'Traceback' not in errors
    done = len(load_checkpoint(folder / 'out' / 'last.pt')['history'])
    shorter = change(stages=((done + 1, 32),))
    assert run(folder, 'out', shorter, resume=True)['epoch'] <= done + 1
    assert len(load_checkpoint(folder / 'out' / 'last.pt')['history']) == done + 1


def test_frozen_stages_keep_weights_and_statistics(ferplus_folder):
    folder = ferplus_folder
    recipe = change(stages=((1, 32), (1, 40)), frozen_stages=2)
    (folder / 'out').mkdir()
    built = trainer.Trainer(recipe, folder, folder / 'out', torch.device('cpu'), Console())
    built.begin(START)
    before = {name: value.clone() for name, value in built.learner.dan.state_dict().items()}
    frozen = {name for name in before if re.match(r'features\.[0-5]\.', name)}
    trained = {name for name in before if name.startswith('features.6.')}
    built.run()
    for network in (built.learner.dan, built.ema.module, built._network_to_validate(0)):
        after = network.state_dict()
        assert list(after) == list(before)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert frozen
        assert not changed & frozen
        assert trained <= changed
