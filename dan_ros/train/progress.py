# SPDX-License-Identifier: Apache-2.0
"""Progress display of a training run."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """Context manager that shows a live bar on a terminal, and one line per epoch everywhere."""

    def __init__(self, epochs: int, first: int, console: Console) -> None:
        self.epochs = epochs
        self.console = console
        self._bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            TextColumn('{task.percentage:.0f} %, left'),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task('training', total=epochs, completed=first)
        self._began = time.monotonic()
        self._first = first

    def __enter__(self) -> 'TrainingProgress':
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Report that `step` of the `steps` of an epoch is done; epochs count from 0."""
        name = f'epoch {epoch + 1}/{self.epochs}'
        self._bar.update(self._task, completed=epoch + step / steps, description=name)

    def epoch(self, line: dict[str, Any]) -> None:
        """Print an epoch's log line."""
        done = line['epoch'] - self._first
        left_min = (time.monotonic() - self._began) / done * (self.epochs - line['epoch']) / 60
        self.console.print(
            f'epoch {line["epoch"]}/{self.epochs}  {line["size"]} px  loss {line["loss"]:.3f}  '
            f'accuracy {100 * line["accuracy"]:.2f} %  best {100 * line["best_accuracy"]:.2f} %  '
            f'balanced {100 * line["balanced_accuracy"]:.2f} %  '
            f'{line["faces_per_s"]:.0f} faces/s  {left_min:.0f} min left',
            highlight=False,
            soft_wrap=True,
        )
