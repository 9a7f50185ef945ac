# SPDX-License-Identifier: Apache-2.0
"""Makes a test run independent of the shell, the user and the home folder that start it."""

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

STOP_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def isolate(add_cleanup: Callable[[Callable[[], None]], object], worker: str = '') -> None:
    """Restore signals, and give the run an empty home folder.

    Args:
        add_cleanup: registers a function to call at the end of the run.
        worker: name of the pytest-xdist worker; each gets its own home folder.
    """
    restore_signals()
    folder = tempfile.TemporaryDirectory(prefix='dan_ros_test_', ignore_cleanup_errors=True)
    add_cleanup(folder.cleanup)
    if not worker:  # matplotlib then lists the fonts only once per run
        os.environ['MPLCONFIGDIR'] = folder.name
    os.environ.update(home_variables(Path(folder.name)))


def home_variables(home: Path) -> dict[str, str]:
    """Environment variables that keep every program's own files in one folder."""
    return {
        'HOME': str(home),
        'XDG_CACHE_HOME': str(home / 'cache'),
        'XDG_CONFIG_HOME': str(home / 'config'),
        'XDG_DATA_HOME': str(home / 'data'),
        'ROS_HOME': str(home / 'ros'),
        'ROS_LOG_DIR': str(home / 'ros' / 'log'),
    }


def restore_signals() -> None:
    """Let the processes that tests start receive signals that this process ignores.

    A shell starts background jobs with SIGINT ignored, `nohup` ignores SIGHUP, and child processes
    inherit that. A signal with a handler gets its default action back in a child process, so a
    handler that does nothing changes the child processes and not this one.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass
