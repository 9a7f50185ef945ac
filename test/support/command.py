# SPDX-License-Identifier: Apache-2.0
"""Runs the command `dan-ros` inside the process of the tests."""

import signal
import sys
from dataclasses import dataclass

import pytest

from dan_ros.cli.main import main


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
