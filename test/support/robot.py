"""A robot for tests: the real dan_node in a process, and a client that talks to it over DDS."""

import fcntl
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dan_ros.msg import FacialExpression, FacialExpressionArray
from dan_ros.ros.publishers import bgr_to_image

SMALL = (320, 240)  # width, height of test images: 230 kB, which any middleware carries
PATIENCE_S = 30.0
PERIOD_S = 1 / 30
MEETING_S = 0.3  # in which a service meets a new client; before, an answer may get lost
LOST_S = 3.0  # after which a message without an answer is taken for lost
DOMAINS = 100
_DOMAINS = itertools.count(os.getpid() * 37)
# Locks on the latest domains; an earlier one is free again, its robot is gone.
_RESERVED: deque[TextIO] = deque(maxlen=25)
PROGRAMS = Path(get_package_prefix('dan_ros')) / 'lib' / 'dan_ros'


class Program:
    """One of the package's executables, running; its output goes to a file.

    Attributes:
        process: the process.
    """

    def __init__(
        self,
        name: str | Path,
        *ros_arguments: str,
        log: Path,
        domain: int = 0,
        **variables: str,
    ) -> None:
        self._log = log
        with log.open('w') as output:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAMS / name), '--ros-args', *ros_arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment_of(domain or new_domain()), **variables},
            )

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._log.read_text()

    def wait_for_output(self, text: str) -> None:
        """Wait until it has printed something."""
        wait_until(lambda: text in self.output, f'{text!r} in the output', lambda: self.output)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and give the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # prints where each thread is
            self.process.wait(PATIENCE_S)
            raise AssertionError(f'it did not stop; output:\n{self.output}') from None


class Robot:
    """The node and its client, in a ROS domain of their own.

    Attributes:
        node: the process.
        domain: the ROS domain.
        faces, frames, diagnostics, pictures: messages received, oldest first.
    """

    def __init__(
        self,
        log: Path,
        *ros_arguments: str,
        topic: str = 'image',
        name: str = '',
        script: str | Path = 'dan_node',
    ) -> None:
        self.domain = new_domain()
        self.node = Program(script, *ros_arguments, log=log, domain=self.domain)
        self.faces: list[FacialExpression] = []
        self.frames: list[FacialExpressionArray] = []
        self.diagnostics: list[Any] = []
        self.pictures: list[Image] = []
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=self.domain)
        self.client = rclpy.create_node('client', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.client)
        self._full_name = name or '/dan_node'
        namespace = self._full_name.rsplit('/', 1)[0]
        self.publisher = self.new_publisher(topic)
        subscribe = self.client.create_subscription
        subscribe(FacialExpression, f'{namespace}/facial_expression', self.faces.append, 100)
        subscribe(FacialExpressionArray, f'{namespace}/facial_expressions', self.frames.append, 100)
        subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._services: dict[str, Any] = {}
        self._next_stamp_ns = 1_000_000_000

    def close(self) -> int:
        """Stop the node and give its exit code."""
        code = self.node.stop()
        self._executor.shutdown()
        self.client.destroy_node()
        rclpy.shutdown(context=self._context)
        return code

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics += [s for s in message.status if self._full_name[1:] in s.name]

    # --- images ---

    def new_publisher(self, topic: str, reliability: str = 'RELIABLE') -> Any:
        """A publisher of images; reliable, so that no test depends on a middleware's buffers."""
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[reliability])
        return self.client.create_publisher(Image, topic, qos)

    def image(self, image_bgr: np.ndarray, stamp_ns: int | None = None) -> Image:
        """A sound message; without a stamp each is 33 ms after the last."""
        if stamp_ns is None:
            self._next_stamp_ns += 33_333_333
            stamp_ns = self._next_stamp_ns
        header = Header(frame_id='optical_frame')
        header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        return bgr_to_image(image_bgr, header)

    def show(self, image_bgr: np.ndarray, **options: Any) -> FacialExpressionArray:
        """Publish an image until its result comes, and give that."""
        message = self.image(image_bgr, **options)
        return self.send_until_answered(message)

    def show_once(self, image_bgr: np.ndarray, **options: Any) -> FacialExpressionArray:
        """The same where every image counts: publish again only what must have got lost.

        The node has to know this client already: show it something that doesn't count before.
        """
        message = self.image(image_bgr, **options)
        return self.send_until_answered(message, period_s=LOST_S)

    def send_until_answered(
        self, message: Image, publisher: Any = None, period_s: float = 0.1
    ) -> FacialExpressionArray:
        """Publish a message until its result comes, and give that."""
        first = len(self.frames)
        next_s = 0.0

        def answer() -> FacialExpressionArray | None:
            return next((f for f in self.frames[first:] if f.header == message.header), None)

        def send() -> None:
            nonlocal next_s
            if time.monotonic() >= next_s:
                (publisher or self.publisher).publish(message)
                next_s = time.monotonic() + period_s

        self.spin_until(answer, 'an answer to an image', every=send)
        return answer()

    # --- waiting ---

    def spin(self, seconds: float) -> None:
        """Receive for a while."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def spin_until(
        self, is_true: Callable[[], Any], what: str, every: Callable[[], None] = lambda: None
    ) -> None:
        """Receive until something is true, doing something every 100 ms."""

        def step() -> Any:
            every()
            self.spin(0.1)
            return is_true()

        wait_until(step, what, lambda: self.node.output)

    def wait_active(self) -> None:
        """Wait until the node takes images and we know it; it may not know us yet."""
        self.node.wait_for_output('active: waiting for images')
        self.spin_until(lambda: self.publisher.get_subscription_count() > 0, 'the subscription')

    def wait_status(self, is_right: Callable[[Any, dict[str, str]], bool], what: str) -> Any:
        """Wait for a diagnostic status that is right, given it and its keys; give it."""
        self.diagnostics.clear()

        def matching() -> Any:
            pairs = ((s, {v.key: v.value for v in s.values}) for s in self.diagnostics)
            return next(((s, v) for s, v in pairs if is_right(s, v)), None)

        self.spin_until(matching, f'diagnostics: {what}')
        return matching()

    # --- services ---

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Call a service of the node."""
        if name not in self._services:
            client = self.client.create_client(kind, f'{self._full_name}/{name}')
            assert client.wait_for_service(PATIENCE_S), f'no service {name}\n{self.node.output}'
            self._services[name] = client
            self.spin(MEETING_S)
        future = self._services[name].call_async(request)
        self._executor.spin_until_future_complete(future, PATIENCE_S)
        assert future.done(), f'no answer of {name}; output:\n{self.node.output}'
        return future.result()

    def change_state(self, transition: int) -> bool:
        """Ask for a lifecycle transition; whether it succeeded."""
        request = ChangeState.Request()
        request.transition.id = transition
        return self.call(ChangeState, 'change_state', request).success

    @property
    def state(self) -> str:
        """Label of the node's lifecycle state."""
        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def set_parameters(self, **values: Any) -> Any:
        """Set parameters, __ standing for a dot; gives the result."""
        parameters = [Parameter(k.replace('__', '.'), value=v) for k, v in values.items()]
        request = SetParametersAtomically.Request(
            parameters=[parameter.to_parameter_msg() for parameter in parameters]
        )
        return self.call(SetParametersAtomically, 'set_parameters_atomically', request).result


def wait_until(is_true: Callable[[], Any], what: str, output: Callable[[], str]) -> None:
    """Wait with patience; fail with what the process printed."""
    end_s = time.monotonic() + PATIENCE_S
    while not is_true():
        if time.monotonic() > end_s:
            raise AssertionError(f'waited {PATIENCE_S:g} s for {what}; output:\n{output()}')
        time.sleep(0.01)


def environment_of(domain: int) -> dict[str, str]:
    """Environment of a process that shall meet only those of one ROS domain on this machine."""
    return {
        **os.environ,
        'PYTHONFAULTHANDLER': '1',
        'ROS_DOMAIN_ID': str(domain),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    }


def new_domain() -> int:
    """A ROS domain that no other test uses, of this run or of one beside it on this machine."""
    for _ in range(DOMAINS):
        domain = 1 + next(_DOMAINS) % DOMAINS
        path = Path(tempfile.gettempdir(), f'dan_ros_test_domain_{domain}')
        try:
            lock = path.open('w')
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody else's
            continue
        _RESERVED.append(lock)
        return domain
    raise RuntimeError(f'all {DOMAINS} ROS domains are in use')
