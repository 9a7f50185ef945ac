# SPDX-License-Identifier: Apache-2.0
"""The commit-msg hook accepts good messages and names what is wrong with others."""

import subprocess
import sys
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[2] / 'tools' / 'check_commit_message.py'


@pytest.fixture
def check(tmp_path):
    def run(message: str) -> subprocess.CompletedProcess:
        (tmp_path / 'message').write_text(message)
        command = [sys.executable, HOOK, tmp_path / 'message']
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    'message',
    [
        'Add a detector',
        'Add a detector\n\nIt finds small faces. Tested with.\n',
        'Speed up the search for faces\n# Please enter the commit message\n',
        f'Add {"x" * 68}',
        "Merge branch 'main' into storage",
        'fixup! Add a detector',
    ],
)
def test_a_good_message_passes(check, message):
    result = check(message)
    assert (result.returncode, result.stderr) == (0, '')


@pytest.mark.parametrize(
    ('message', 'problem'),
    [
        ('Added a detector', 'starts with "Added"'),
        ('Adding a detector', 'starts with "Adding"'),
        ('add a detector', 'starts with "add"'),
        ('#', 'starts with ""'),
        ('Add a detector.', 'ends with "."'),
        (f'Add {"x" * 69}', 'has 73 characters'),
        ('Add a detector\nIt finds small faces.', 'second line'),
    ],
)
def test_a_bad_message_is_refused(check, message, problem):
    result = check(message)
    assert result.returncode == 1
    assert problem in result.stderr
    assert len(result.stderr.splitlines()) == 1
