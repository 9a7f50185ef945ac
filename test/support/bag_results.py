# SPDX-License-Identifier: Apache-2.0
"""Runs `dan-ros bag` on many bags, and compares result folders."""

from pathlib import Path
from typing import Any

from pyarrow import parquet

from dan_ros.bag.many.executor import Ended
from dan_ros.bag.many.job import run_job


class InlineExecutor:
    """Runs each job in this process when it is waited for.

    Args:
        deaths: number of times that each job's worker dies before it does anything, by name.
    """

    def __init__(self, deaths: dict[str, int] | None = None) -> None:
        self.deaths = dict(deaths or {})
        self.ran: list[str] = []
        self._jobs: list[dict[str, Any]] = []

    def has_room(self) -> bool:
        return not self._jobs

    def submit(self, job: dict[str, Any]) -> None:
        self._jobs.append(job)

    def wait(self, timeout_s: float) -> list[Ended]:
        job = self._jobs.pop()
        self.ran.append(job['name'])
        if self.deaths.get(job['name'], 0) > 0:
            self.deaths[job['name']] -= 1
            return [Ended(job['name'], None, 'killed')]
        return [Ended(job['name'], run_job(job))]

    def close(self) -> None:
        self._jobs = []


def read_results(out: Path) -> dict[str, bytes]:
    """Return the content of every file that users see, by its relative path."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob('*'))
        if path.is_file() and '.dan_ros' not in path.parts
    }


def read_frames(out: Path) -> list[tuple[str, str, int, int, str | None]]:
    """Return (bag, camera, frame, faces, dropped) of every row of the table of frames."""
    columns = ['bag', 'camera', 'frame', 'faces', 'dropped']
    rows = parquet.read_table(out / 'parquet' / 'frames', columns=columns).to_pylist()
    return sorted(tuple(row.values()) for row in rows)
