# SPDX-License-Identifier: Apache-2.0
"""Runs jobs in processes of this machine; run as a program, this file is a worker.

A worker reads jobs from its standard input and writes outcomes to its standard output, both as
lines of JSON. It ends when its driver ends, even if the driver is killed.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from dan_ros.backends.base import available_cpus
from dan_ros.bag.many.executor import WORKER_BYTES, Ended

MEMINFO, CGROUP_LIMIT = Path('/proc/meminfo'), Path('/sys/fs/cgroup/memory.max')
# Environment variables of libraries that would otherwise start a thread per core.
THREAD_VARIABLES = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')


def default_jobs(bags: int) -> int:
    """Number of processes for a number of bags: one per core, or fewer if memory is short."""
    return max(1, min(bags, available_cpus(), free_bytes() // WORKER_BYTES))


def free_bytes() -> int:
    """Memory that new processes can use, bytes."""
    fields = dict(line.split(':') for line in MEMINFO.read_text().splitlines())
    free = int(fields['MemAvailable'].split()[0]) * 1024
    with suppress(OSError, ValueError):  # not a container, or one without a limit ('max')
        free = min(free, int(CGROUP_LIMIT.read_text()))
    return free


class ProcessExecutor:
    """Runs a job in each of `jobs` processes with `threads` CPU threads; they start when needed."""

    def __init__(self, jobs: int, threads: int) -> None:
        self._jobs, self._threads = jobs, threads
        self._idle: list[subprocess.Popen[bytes]] = []
        self._busy: dict[str, subprocess.Popen[bytes]] = {}  # process by name of its job
        self._selector = selectors.DefaultSelector()
        self._temporary = tempfile.TemporaryDirectory()  # killed workers leave files in it

    def has_room(self) -> bool:
        """Whether a process has nothing to do."""
        return len(self._busy) < self._jobs

    def submit(self, job: dict[str, Any]) -> None:
        """Give a job to an idle process, or to a new one."""
        worker = self._idle.pop() if self._idle else self._start()
        assert worker.stdin is not None
        self._busy[job['name']] = worker
        self._selector.register(worker.stdout, selectors.EVENT_READ, job['name'])  # type: ignore[arg-type]
        with suppress(BrokenPipeError):  # it died; `wait` will report it
            worker.stdin.write(json.dumps(job).encode() + b'\n')
            worker.stdin.flush()

    def wait(self, timeout_s: float) -> list[Ended]:
        """Return the jobs that ended; wait for at most `timeout_s`."""
        return [self._collect(key.data) for key, _ in self._selector.select(timeout_s)]

    def close(self) -> None:
        """Kill all processes and remove their temporary files."""
        workers = [*self._idle, *self._busy.values()]
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()
            _close_pipes(worker)
        self._idle, self._busy = [], {}
        self._selector.close()
        self._temporary.cleanup()

    def _start(self) -> subprocess.Popen[bytes]:
        changes = dict.fromkeys(THREAD_VARIABLES, str(self._threads))
        changes['TMPDIR'] = self._temporary.name
        with _interrupts_blocked():  # Ctrl-C reaches all processes, but only the driver handles it
            return subprocess.Popen(  # noqa: S603
                [sys.executable, '-m', __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **changes},
            )

    def _collect(self, name: str) -> Ended:
        """Read the outcome of a job whose process has written or has ended."""
        worker = self._busy.pop(name)
        assert worker.stdout is not None
        self._selector.unregister(worker.stdout)
        line = worker.stdout.readline()
        if line.endswith(b'\n'):
            self._idle.append(worker)
            return Ended(name, json.loads(line))
        worker.kill()
        code = worker.wait()
        _close_pipes(worker)
        return Ended(name, None, _describe_end(code))


def _describe_end(code: int) -> str:
    if code == -signal.SIGKILL:
        return 'killed, perhaps because the memory was full'
    return signal.strsignal(-code) or f'signal {-code}' if code < 0 else f'exit code {code}'


def _close_pipes(worker: subprocess.Popen[bytes]) -> None:
    for pipe in (worker.stdin, worker.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT for processes that start in the block; deliver a pending one afterwards."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _read_jobs() -> Iterator[str]:
    """Yield the lines of standard input; end the process at once when the driver has ended."""
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # end at once, also during a job

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def main() -> None:
    """Run jobs until the driver ends."""
    outcomes = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # redirect the output of libraries to standard error
    from dan_ros.bag.many.job import run_job

    for line in _read_jobs():
        outcomes.write(json.dumps(run_job(json.loads(line))) + '\n')
        outcomes.flush()


if __name__ == '__main__':
    main()
