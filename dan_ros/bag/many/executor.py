# SPDX-License-Identifier: Apache-2.0
"""Interface for running jobs, by processes of this machine or on a cluster."""

from dataclasses import dataclass
from typing import Any, Protocol

WORKER_BYTES = 1_000_000_000  # memory reserved for each worker


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    name: str  # name of the job
    outcome: dict[str, Any] | None  # see `run_job`; None if the worker died
    cause_of_death: str = ''  # in a few words, or ''


class Executor(Protocol):
    """Runs jobs, several at a time."""

    def has_room(self) -> bool:
        """Whether another job should be submitted now."""

    def submit(self, job: dict[str, Any]) -> None:
        """Start a job, which has the fields of a `Job`."""

    def wait(self, timeout_s: float) -> list[Ended]:
        """Return the jobs that ended; wait for at most `timeout_s`."""

    def close(self) -> None:
        """Stop all jobs at once."""
