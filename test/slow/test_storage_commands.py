# SPDX-License-Identifier: Apache-2.0
"""Evaluations and converted models under kill -9 and on a full disk."""

import json
import signal
import subprocess
import sys

import pytest
from test_storage import EVALUATION, contents, full_disk, old_evaluation, run

from dan_ros.errors import DanError


@pytest.mark.parametrize('number', [1, 2, 3, 4, 5])
def test_an_evaluation_on_a_full_disk(ferplus_folder, old_evaluation, full_disk, number):
    """All old files are kept until all new ones are on the disk."""
    before = contents(old_evaluation)
    full_disk(number)
    arguments = ('evaluate', ferplus_folder, 'dan_ferplus', '--json', '--out', old_evaluation)
    result = run(*arguments)
    assert isinstance(result.exception, DanError)
    assert str(old_evaluation) in str(result.exception)
    assert str(result.exception).endswith('No space left on device')
    assert contents(old_evaluation) == before
    assert {path.name for path in old_evaluation.iterdir()} == EVALUATION
    assert json.loads(result.stdout)['faces'] == 8  # the work is not lost


# Kills the command when it moves file number argv[1] of the report into place.
KILLED_COMMAND = """
import os, pathlib, signal, sys
left = int(sys.argv.pop(1))
replace = pathlib.Path.replace
def replace_or_die(self, target):
    global left
    left -= not self.parent.name.startswith('.' + self.name)  # a file of the report
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
pathlib.Path.replace = replace_or_die
from dan_ros.cli.main import main
main()
"""


def test_an_evaluation_killed_while_it_takes_its_place(ferplus_folder, old_evaluation):
    """`scores.json` comes last: if it exists, all files are of one run."""
    arguments = ('evaluate', ferplus_folder, 'dan_ferplus', '--out', old_evaluation)
    command = [sys.executable, '-c', KILLED_COMMAND, '3', *map(str, arguments)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert 'scores.json' not in contents(old_evaluation)
    assert run(*arguments).exit_code == 0
    assert {path.name for path in old_evaluation.iterdir()} == EVALUATION
    assert b'old' not in contents(old_evaluation).values()


def test_a_converted_model(tmp_path, full_disk):
    import torch

    from dan_ros.network.dan import DAN

    torch.save(DAN(8).state_dict(), tmp_path / 'dan.pth')
    full_disk(1)
    arguments = ('convert', tmp_path / 'dan.pth', '--labels', 'affectnet8')
    result = run(*arguments, '-o', tmp_path / 'dan.onnx')
    assert 'No space left on device' in f'{result.exception}{result.output}'
    assert [path.name for path in tmp_path.iterdir()] == ['dan.pth']
