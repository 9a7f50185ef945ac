# SPDX-License-Identifier: Apache-2.0
"""Tests give the same results in any shell and home folder, and in parallel with other tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import processes
import pytest

IGNORING = """
import signal, subprocess, sys

import isolation

isolation.restore_signals()
child = 'import signal; print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)'
subprocess.run([sys.executable, '-c', child], check=True)
signal.raise_signal(signal.SIGINT)
print('goes on')
"""


def test_processes_receive_signals_that_the_shell_ignores(monkeypatch):
    """The test process itself still ignores these signals."""
    monkeypatch.setenv('PYTHONPATH', str(Path(processes.__file__).parent), prepend=os.pathsep)
    result = subprocess.run(
        [sys.executable, '-c', IGNORING],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == 'True\ngoes on\n'


def test_the_home_folder_is_temporary_and_writable():
    home = Path(os.environ['HOME'])
    assert home.name.startswith('dan_ros_test_')
    assert os.access(home, os.W_OK)
    assert Path(os.environ['XDG_CACHE_HOME']).is_relative_to(home)


def test_a_ros_domain_is_reserved_until_it_is_closed():
    domains = [processes.RosDomain() for _ in range(20)]
    numbers = {domain.number for domain in domains}
    assert len(numbers) == 20
    assert numbers <= set(processes.DOMAINS)
    for domain in domains:
        domain.close()


def test_an_end_before_the_expected_output_is_reported_at_once(tmp_path):
    process = processes.Process([sys.executable, '-c', 'print("done")'], tmp_path / 'log')
    with pytest.raises(AssertionError, match=r"(?s)ended before 'ready' in the output.*done"):
        process.wait_for_output('ready')
