"""Run a node until a signal: exit code 0 on Ctrl-C and SIGTERM, 2 on a bad parameter, else its own.

SIGINT and SIGTERM are blocked in every thread and taken by one that waits for them. So no signal
can interrupt half a transition, and the executor wakes at once. Threads that are older than
`StopSignal` do not block them: then Python's own handler, which is set as well, does the same a
little later.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rclpy.executors import Executor
    from rclpy.node import Node

SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
BAD_USAGE = 2
PATIENCE_S = 3.0
M_ARENA_MAX = -8  # of glibc's malloc.h
ARENAS = 2
SWITCH_S = 1e-4  # in which a thread gets its turn; Python's 5 ms are long beside an inference


class StopSignal:
    """Waits for SIGINT or SIGTERM in a thread; one that comes 3 s later ends the process."""

    def __init__(self) -> None:
        self.received = threading.Event()
        self._received_s = 0.0
        self.executor: Executor | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number in SIGNALS:  # also because a shell's background jobs ignore SIGINT
            signal.signal(number, lambda *_: self._stop())
        threading.Thread(target=self._wait, name='signals', daemon=True).start()

    def _wait(self) -> None:
        while True:
            signal.sigwait(SIGNALS)
            self._stop()

    def _stop(self) -> None:
        # A supervisor may send both signals at once, or repeat one: only a later one is impatience.
        if self.received.is_set():
            if time.monotonic() > self._received_s + PATIENCE_S:
                os._exit(1)
            return
        self._received_s = time.monotonic()
        self.received.set()
        if self.executor is not None:
            self.executor.wake()


def limit_arenas() -> None:
    """Let all threads share a few pools of memory, where the C library is glibc.

    It gives threads pools of their own, eight a core, and each keeps the most that any thread ever
    took of it. Every resuming starts a thread, so over days the process would fill them all.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None and 'MALLOC_ARENA_MAX' not in os.environ:
        mallopt(M_ARENA_MAX, ARENAS)


def run_until_signal(make_node: Callable[[], 'type[Node]'], argv: list[str] | None = None) -> int:
    """Create a node, spin it until a signal, shut it down.

    Args:
        make_node: imports and gives the node's class; called once signals are in hand, so that a
            Ctrl-C during slow imports is a clean stop as well. The class may have `start()` and
            `close()`, called before and after spinning, and an `exit_code` that ends it.
        argv: command line; that of the process if None.

    Returns:
        The exit code: 0, or 2 for a bad command line or parameter, said in one line on stderr, or
        the node's `exit_code`.
    """
    limit_arenas()
    stop = StopSignal()
    node_class = make_node()
    import rclpy
    from rclpy.exceptions import ParameterException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from dan_ros.errors import ParameterError

    try:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        node = node_class()
    except (ParameterError, ParameterException, RuntimeError, ValueError) as error:
        print(f'{node_class.NAME}: {error}'.replace('\n', ' '), file=sys.stderr)  # noqa: T201
        return BAD_USAGE
    stop.executor = executor = SingleThreadedExecutor()
    executor.add_node(node)
    if not stop.received.is_set():
        _call(node, 'start')
    sys.setswitchinterval(SWITCH_S)
    _spin(node, executor, stop)
    _call(node, 'close')
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()
    rclpy.shutdown()
    return _exit_code(node)


def _spin(node: 'Node', executor: 'Executor', stop: StopSignal) -> None:
    while not (stop.received.is_set() or _exit_code(node)) and node.context.ok():
        try:
            executor.spin_once(timeout_sec=1.0)
        except Exception as error:  # a callback's error, such as an invalid transition, on Humble
            node.get_logger().error(f'ignored: {type(error).__name__}: {error}')


def _exit_code(node: Any) -> int:
    return int(getattr(node, 'exit_code', 0))


def _call(node: Any, method: str) -> None:
    getattr(node, method, lambda: None)()
