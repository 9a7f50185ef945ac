"""The progress bar of the subcommands."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar() -> Progress:
    """A bar with the time left on a terminal's standard error, nothing elsewhere; a context."""
    console = Console(stderr=True)
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.completed} of {task.total}, left'),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
