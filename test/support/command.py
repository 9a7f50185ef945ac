# SPDX-License-Identifier: Apache-2.0
"""Runs the command `dan-ros`, inside the process of the tests or with a full disk."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from dan_ros.cli.main import main

LIMITED = (
    'import resource, sys; from dan_ros.cli.main import main\n'
    'size = int(sys.argv.pop(1)); resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); main()'
)


def run_with_file_limit(size: int, *arguments: object) -> subprocess.CompletedProcess:
    """Run `dan-ros` where no file can exceed `size` bytes: it fails as on a full disk.

    The limit holds for child processes, too, and would hold for the data file of coverage.
    """
    return subprocess.run(
        [sys.executable, '-B', '-c', LIMITED, str(size), *map(str, arguments)],
        env={k: v for k, v in os.environ.items() if not k.startswith('COVERAGE')},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@dataclass(frozen=True)
class Result:
    """Exit code and output of a command."""

    exit_code: int
    stdout: str
    stderr: str


class Command:
    """Calls the entry point with arguments, then restores its signal handlers.

    >>> run = Command(monkeypatch, capsys)  # doctest: +SKIP
    >>> run('predict', 'photo.jpg').exit_code  # doctest: +SKIP
    0
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Result:
        self._monkeypatch.setattr(sys, 'argv', ['dan-ros', *map(str, arguments)])
        handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        self._capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as stopped:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Result(int(stopped.value.code or 0), *self._capsys.readouterr())
