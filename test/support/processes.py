# SPDX-License-Identifier: Apache-2.0
"""Processes for tests, each in its own ROS domain, with its output in a file."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PATIENCE_S = 180.0  # a loaded machine may take this long, for example to start a Ray cluster
POLL_S = 0.01
DOMAINS = range(1, 102)  # their ports are below the ephemeral ports of Linux
# UDP ports of a domain, from DDSI-RTPS 2.5, section 9.6.2.3.
DISCOVERY_PORT, PORTS_PER_DOMAIN, FIRST_PARTICIPANT = 7400, 250, 10


class RosDomain:
    """A ROS domain that no other test on this machine uses.

    The reservation is a TCP port, which the system releases when this process ends. A domain in
    which another program already runs is not used.

    Attributes:
        number: the domain id.
    """

    def __init__(self) -> None:
        for number in random.SystemRandom().sample(DOMAINS, len(DOMAINS)):
            port = DISCOVERY_PORT + PORTS_PER_DOMAIN * number
            self._reservation = socket.socket()
            try:
                self._reservation.bind(('127.0.0.1', port))
                with socket.socket(type=socket.SOCK_DGRAM) as first_participant:
                    first_participant.bind(('', port + FIRST_PARTICIPANT))
            except OSError:  # in use
                self._reservation.close()
                continue
            self.number = number
            return
        raise RuntimeError(f'all {len(DOMAINS)} ROS domains are in use')

    def close(self) -> None:
        """Release the domain."""
        self._reservation.close()

    @property
    def environment(self) -> dict[str, str]:
        """Environment for processes of this domain, which discover only local processes."""
        return {
            **os.environ,
            'PYTHONFAULTHANDLER': '1',
            'ROS_DOMAIN_ID': str(self.number),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        }


class Process:
    """A running command.

    Args:
        command: program and arguments.
        log: file for standard output and standard error.
        domain: ROS domain to run in; an unused one by default.
        variables: additional environment variables.
        options: for `subprocess.Popen`.

    Attributes:
        domain: the ROS domain.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        domain: RosDomain | None = None,
        variables: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._log = log
        self.domain = domain or RosDomain()  # reserved as long as this object lives
        with log.open('w') as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self.domain.environment, **(variables or {})},
                **options,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while the process runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """Everything the process has printed."""
        return self._log.read_text()

    def wait_for_output(self, text: str) -> None:
        """Wait until the process has printed a text."""
        self.wait_until(lambda: text in self.output, f'{text!r} in the output')

    def wait_until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a true value and return it; fail with the output when the process ends first."""
        return wait_until(condition, what, lambda: self.output, lambda: self.exit_code is not None)

    def wait(self) -> int:
        """Wait for the end of the process; return the exit code."""
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # prints where each thread is
            self._process.wait()
            raise AssertionError(f'the process did not end; output:\n{self.output}') from None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal, wait for the end of the process, and return the exit code."""
        self.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End the process at once, if it still runs."""
        self._process.kill()
        self._process.wait()


def wait_until(
    condition: Callable[[], Any],
    what: str,
    output: Callable[[], str] = lambda: '',
    has_ended: Callable[[], bool] = lambda: False,
) -> Any:
    """Wait for a true value and return it.

    Args:
        condition: called again and again until its value is true.
        what: what the test waits for, for the error message.
        output: what the process under test has printed, for the error message.
        has_ended: whether the process under test has ended.

    Raises:
        AssertionError: the process ended first, or `PATIENCE_S` passed.
    """
    end_s = time.monotonic() + PATIENCE_S
    while True:
        is_last = has_ended()
        if value := condition():
            return value
        if is_last or time.monotonic() > end_s:
            why = 'the process ended' if is_last else f'{PATIENCE_S:g} s passed'
            raise AssertionError(f'{why} before {what}; output:\n{output()}')
        time.sleep(POLL_S)
