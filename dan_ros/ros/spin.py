# SPDX-License-Identifier: Apache-2.0
"""Runs a node until it receives a signal.

Exit code: 0 after Ctrl-C, SIGTERM or SIGHUP, 1 if the middleware does not start, 2 for an error
that a restart cannot fix, such as an invalid parameter or a missing library, otherwise the exit
code of the node.

These signals are blocked in every thread and received by one thread that waits for them. So a
signal never interrupts a transition, and the executor wakes up at once. Threads started before
`StopSignal` do not block signals; there, Python's handler does the same a little later.
"""

import os
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dan_ros.errors import DanError
from dan_ros.ros import process_tuning

if TYPE_CHECKING:
    from rclpy.executors import Executor
    from rclpy.node import Node

SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
NO_MIDDLEWARE, BAD_USAGE = 1, 2  # exit codes
IMPATIENCE_S = 3.0  # a signal that comes this long after the first one ends the process, seconds


class StopSignal:
    """Waits for a signal in a thread; another one after 3 s ends the process."""

    def __init__(self) -> None:
        self.received = threading.Event()
        self._received_s = 0.0
        self.executor: Executor | None = None
        # A terminal that is closed sends SIGHUP; under nohup, it is ignored.
        is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._signals = SIGNALS if is_ignored else SIGNALS | {signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        for number in self._signals:  # otherwise background jobs of a shell ignore SIGINT
            signal.signal(number, lambda *_: self._stop())
        threading.Thread(target=self._wait, name='signals', daemon=True).start()

    def _wait(self) -> None:
        while True:
            signal.sigwait(self._signals)
            self._stop()

    def _stop(self) -> None:
        # A supervisor may send both signals at once or repeat one: only a later one counts.
        if self.received.is_set():
            if time.monotonic() > self._received_s + IMPATIENCE_S:
                os._exit(1)
            return
        self._received_s = time.monotonic()
        self.received.set()
        if self.executor is not None:
            self.executor.wake()


def run_until_signal(make_node: Callable[[], Any]) -> int:
    """Create a node, spin it until a signal, shut it down.

    Args:
        make_node: imports and returns the class of the node. It is called after the signal handlers
            are set, so that Ctrl-C during slow imports also stops the process cleanly. The class
            may have `start()` and `close()`, called before and after spinning, and an `exit_code`;
            a nonzero value ends the node.

    Returns:
        The exit code: 0, or the node's `exit_code`, or one of the two above with a line on stderr.
    """
    process_tuning.limit_arenas()
    process_tuning.use_one_blas_thread()
    process_tuning.skip_code_generator()
    stop = StopSignal()
    try:
        node_class = make_node()
    except ImportError as error:
        return _refuse(make_node.__name__, f'a library is missing or broken: {error}')
    import rclpy
    from rclpy.exceptions import NameValidationException, ParameterException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.utilities import remove_ros_args

    try:
        init_rclpy()
    except DanError as error:
        return _refuse(node_class.NAME, error)
    process_tuning.prepare_logging()
    # For an invalid name, rclpy warns of this before it raises an error.
    warnings.filterwarnings('ignore', 'Failed to fini rosout publisher')
    try:
        node = node_class()
    except (DanError, NameValidationException, ParameterException, ValueError) as error:
        return _refuse(node_class.NAME, error)
    except RuntimeError as error:  # for example, no network interface is up yet
        if 'invalid node name' in str(error):  # or namespace, from a rule such as __ns:=/a/
            return _refuse(node_class.NAME, error)
        return _refuse(node_class.NAME, f'the middleware does not start: {error}', NO_MIDDLEWARE)
    if ignored := remove_ros_args()[1:]:
        node.get_logger().warning(
            f'ignored: {shlex.join(ignored)}; remappings and parameters follow --ros-args'
        )
    stop.executor = executor = SingleThreadedExecutor()
    executor.add_node(node)
    if not stop.received.is_set():
        _call(node, 'start')
    process_tuning.shorten_switch_interval()
    _spin(node, executor, stop)
    _call(node, 'close')
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()
    rclpy.shutdown()
    exit_code, stop.executor = _exit_code(node), None
    del node, executor
    process_tuning.unfreeze_garbage()
    return exit_code


def init_rclpy(**options: Any) -> None:
    """Call `rclpy.init` with these options, without signal handlers.

    Raises:
        DanError: an argument of the command line is invalid, or the logs cannot be written.
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO, **options)
    except (RuntimeError, ValueError) as error:
        is_log = 'initialize logging' in str(error)
        advice = '; set ROS_LOG_DIR to a folder that can be written' if is_log else ''
        raise DanError(f'{error}{advice}') from None


def _refuse(name: str, reason: object, exit_code: int = BAD_USAGE) -> int:
    print(f'{name}:', *str(reason).split(), file=sys.stderr)  # noqa: T201
    return exit_code


def _spin(node: 'Node', executor: 'Executor', stop: StopSignal) -> None:
    while not (stop.received.is_set() or _exit_code(node)) and node.context.ok():
        try:
            executor.spin_once(timeout_sec=1.0)
        except Exception as error:  # error of a callback
            node.get_logger().error(f'ignored: {type(error).__name__}: {error}')


def _exit_code(node: Any) -> int:
    return int(getattr(node, 'exit_code', 0))


def _call(node: Any, method: str) -> None:
    getattr(node, method, lambda: None)()
