# SPDX-License-Identifier: Apache-2.0
"""A robot for tests: the real dan_node in a process, and a client that talks to it over DDS."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from processes import Process, RosDomain
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from dan_ros.msg import FacialExpression, FacialExpressionArray
from dan_ros.ros.publishers import bgr_to_image

SMALL = (320, 240)  # width, height of test images: 230 kB, small enough for any middleware
SEND_PERIOD_S = 0.1  # interval between two attempts of `spin_until`
RESEND_S = 0.3  # time after which an image without an answer is sent again
LOST_S = 3.0  # time after which an image or a request without an answer counts as lost
READING = (GetState, GetParameters)  # services that change nothing; a lost request is repeated
MEETING_S = 0.3  # time for a service to discover a new client; an earlier answer may get lost
SPIN_S = 0.02  # longest wait for one message
PROGRAMS = Path(get_package_prefix('dan_ros')) / 'lib' / 'dan_ros'

# Transitions from each lifecycle state to `unconfigured`.
WAY_BACK = {
    State.PRIMARY_STATE_UNCONFIGURED: (),
    State.PRIMARY_STATE_INACTIVE: (Transition.TRANSITION_CLEANUP,),
    State.PRIMARY_STATE_ACTIVE: (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP),
}


class Program(Process):
    """One of the package's executables, running.

    Args:
        name: name of the executable, or path of a script.
        ros_arguments: arguments after `--ros-args`.
        log, domain, variables: see `Process`.
    """

    def __init__(
        self,
        name: str | Path,
        *ros_arguments: str,
        log: Path,
        domain: RosDomain | None = None,
        **variables: str,
    ) -> None:
        command = [sys.executable, PROGRAMS / name, '--ros-args', *ros_arguments]
        super().__init__(command, log, domain, variables)

    def wait_for_library(self, name: str) -> None:
        """Wait until a shared library is loaded, which shows the progress of the start."""
        maps = Path(f'/proc/{self.pid}/maps')
        self.wait_until(lambda: name in maps.read_text(), f'it loads {name}')


class Robot:
    """The node and its client, in their own ROS domain.

    Args:
        log: file for the node's output.
        ros_arguments: ROS arguments of the node.
        topic: topic of the images that `publisher` sends.
        name: full name of the node.
        script: a Python file to start in place of the node's executable.

    Attributes:
        node: the node's process.
        domain: the ROS domain.
        faces, frames, diagnostics: messages received, oldest first.
        publisher: publisher of images.
    """

    def __init__(
        self,
        log: Path,
        *ros_arguments: str,
        topic: str = 'image',
        name: str = '/dan_node',
        script: str | Path = 'dan_node',
    ) -> None:
        self.domain = RosDomain()
        self.node = Program(script, *ros_arguments, log=log, domain=self.domain)
        self.faces: list[FacialExpression] = []
        self.frames: list[FacialExpressionArray] = []
        self.diagnostics: list[Any] = []
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=self.domain.number)
        self.client = rclpy.create_node('client', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.client)
        self._full_name = name
        namespace = name.rsplit('/', 1)[0]
        subscribe = self.client.create_subscription
        subscribe(FacialExpression, f'{namespace}/facial_expression', self.faces.append, 100)
        subscribe(FacialExpressionArray, f'{namespace}/facial_expressions', self.frames.append, 100)
        subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.publisher = self._usual_publisher = self._create_publisher(topic)
        self._services: dict[str, Any] = {}
        self._next_stamp_ns = 1_000_000_000
        self._original_parameters: dict[str, Any] = {}
        self._additional: list[Callable[[], Any]] = []  # destroy what the current test created
        self._is_changed = False
        self._reset_at = 0  # length of the node's output at the last reset

    def close(self) -> int:
        """Stop the node and return its exit code."""
        code = self.node.stop()
        self._executor.shutdown()
        self.client.destroy_node()
        rclpy.shutdown(context=self._context)
        self.domain.close()
        return code

    @property
    def output(self) -> str:
        """What the node has printed since the last reset."""
        return self.node.output[self._reset_at :]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics += [s for s in message.status if self._full_name[1:] in s.name]

    # --- publishers and subscriptions -------------------------------------------------------------

    def new_publisher(
        self, topic: str, kind: type = Image, reliability: str = 'RELIABLE', **options: Any
    ) -> Any:
        """Create a publisher that exists until `reset`; reliable, so that no image is lost."""
        publisher = self._create_publisher(topic, kind, reliability, **options)
        self._additional.append(lambda: self.client.destroy_publisher(publisher))
        return publisher

    def _create_publisher(
        self, topic: str, kind: type = Image, reliability: str = 'RELIABLE', **options: Any
    ) -> Any:
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[reliability])
        return self.client.create_publisher(kind, topic, qos, **options)

    def received(self, topic: str, kind: type) -> list[Any]:
        """Subscribe to a topic until `reset`; the list grows with each message."""
        messages: list[Any] = []
        subscription = self.client.create_subscription(kind, topic, messages.append, 10)
        self._additional.append(lambda: self.client.destroy_subscription(subscription))
        return messages

    def wait_for_subscriber(self, publisher: Any) -> None:
        """Wait until the node receives what a publisher sends."""
        self.spin_until(publisher.get_subscription_count, f'a subscription to {publisher.topic}')

    # --- images -----------------------------------------------------------------------------------

    def header(self, stamp_ns: int | None = None) -> Header:
        """A header; without a stamp each is 33 ms later than the last."""
        if stamp_ns is None:
            self._next_stamp_ns += 33_333_333
            stamp_ns = self._next_stamp_ns
        header = Header(frame_id='optical_frame')
        header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        return header

    def image(self, image_bgr: np.ndarray, stamp_ns: int | None = None) -> Image:
        """A valid message with the next stamp, or the given one."""
        return bgr_to_image(image_bgr, self.header(stamp_ns))

    def show(self, image_bgr: np.ndarray, stamp_ns: int | None = None) -> FacialExpressionArray:
        """Publish an image until the node answers it; return the answer."""
        return self.send_until_answered(self.image(image_bgr, stamp_ns))

    def show_once(self, image_bgr: np.ndarray) -> FacialExpressionArray:
        """Publish an image that the node must not see twice; return the answer.

        The node must know this client already: call `show` before.
        """
        return self.send_until_answered(self.image(image_bgr), period_s=LOST_S)

    def send_until_answered(
        self, message: Any, publisher: Any = None, period_s: float = RESEND_S
    ) -> FacialExpressionArray:
        """Publish a message until the node answers it; return the answer."""
        first = len(self.frames)
        return self.spin_until(
            lambda: next((f for f in self.frames[first:] if f.header == message.header), None),
            'the answer to an image',
            every=lambda: (publisher or self.publisher).publish(message),
            period_s=period_s,
        )

    # --- waiting ----------------------------------------------------------------------------------

    def spin(self, seconds: float) -> None:
        """Receive messages for some time."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def spin_until(
        self,
        condition: Callable[[], Any],
        what: str,
        every: Callable[[], Any] = lambda: None,
        period_s: float = SEND_PERIOD_S,
    ) -> Any:
        """Receive messages until a condition is true; return its value.

        Args:
            condition: called after each message.
            what: what the test waits for, for the error message.
            every: called at the start and then once per period.
            period_s: the period, seconds.
        """
        next_s = time.monotonic()

        def step() -> Any:
            nonlocal next_s
            if time.monotonic() >= next_s:
                every()
                next_s = time.monotonic() + period_s
            self._executor.spin_once(timeout_sec=SPIN_S)
            return condition()

        return self.node.wait_until(step, what)

    def wait_active(self) -> None:
        """Wait until the node is active and receives the images of `publisher`."""
        self.node.wait_for_output('active: waiting for images')
        self.wait_for_subscriber(self.publisher)

    def wait_status(self, is_right: Callable[[Any, dict[str, str]], Any], what: str) -> Any:
        """Wait for a new diagnostic status that meets a condition; return it and its values by key.

        Args:
            is_right: called with each status and its values.
            what: what the test waits for, for the error message.
        """
        self.diagnostics.clear()

        def matching() -> Any:
            pairs = ((s, {v.key: v.value for v in s.values}) for s in self.diagnostics)
            return next(((s, v) for s, v in pairs if is_right(s, v)), None)

        return self.spin_until(matching, f'diagnostics: {what}')

    def values(self) -> dict[str, str]:
        """The values of the next diagnostic status, by key."""
        return self.wait_status(lambda *_: True, 'any')[1]

    # --- services ---------------------------------------------------------------------------------

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Call a service of the node and return the answer."""
        if name not in self._services:
            client = self.client.create_client(kind, f'{self._full_name}/{name}')
            self.spin_until(client.service_is_ready, f'the service {name}')
            self._services[name] = client
            self.spin(MEETING_S)
        self._is_changed |= kind not in READING
        answers: list[Any] = []
        self.spin_until(
            lambda: any(answer.done() for answer in answers),
            f'the answer of {name}',
            every=lambda: answers.append(self._services[name].call_async(request)),
            period_s=LOST_S if kind in READING else float('inf'),
        )
        return next(answer for answer in answers if answer.done()).result()

    def change_state(self, transition: int) -> bool:
        """Request a lifecycle transition; return whether it succeeded."""
        request = ChangeState.Request()
        request.transition.id = transition
        return self.call(ChangeState, 'change_state', request).success

    @property
    def state(self) -> str:
        """Label of the node's lifecycle state."""
        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def set_enabled(self, enabled: bool) -> Any:
        """Pause or resume the node; return the answer."""
        return self.call(SetBool, 'set_enabled', SetBool.Request(data=enabled))

    def set_parameters(self, **values: Any) -> Any:
        """Set parameters, with __ for a dot in their names; return the result."""
        parameters = [Parameter(k.replace('__', '.'), value=v) for k, v in values.items()]
        self._remember([p.name for p in parameters if p.name not in self._original_parameters])
        return self._set([parameter.to_parameter_msg() for parameter in parameters])

    def _remember(self, names: list[str]) -> None:
        request = GetParameters.Request(names=names)
        answers = self.call(GetParameters, 'get_parameters', request).values if names else []
        for name, value in zip(names, answers, strict=True):
            self._original_parameters[name] = ParameterMessage(name=name, value=value)

    def _set(self, messages: list[Any]) -> Any:
        request = SetParametersAtomically.Request(parameters=messages)
        return self.call(SetParametersAtomically, 'set_parameters_atomically', request).result

    # --- reset ------------------------------------------------------------------------------------

    def clean_up(self) -> None:
        """Bring the node to the state `unconfigured`."""
        state = self.call(GetState, 'get_state', GetState.Request()).current_state.id
        for transition in WAY_BACK[state]:
            assert self.change_state(transition), self.node.output

    def configure(self) -> None:
        """Configure the node, activate it, and wait until it receives images."""
        assert self.change_state(Transition.TRANSITION_CONFIGURE), self.node.output
        assert self.change_state(Transition.TRANSITION_ACTIVATE), self.node.output
        self.wait_for_subscriber(self.publisher)

    def reconfigure(self, topic: str = 'image', kind: type = Image, **parameters: Any) -> None:
        """Configure the node with other parameters; `publisher` then sends to another topic."""
        self.clean_up()
        result = self.set_parameters(**parameters)
        assert result.successful, result.reason
        if (topic, kind) != ('image', Image):
            self.publisher = self.new_publisher(topic, kind)
        self.configure()
        self.frames.clear()

    def reset(self) -> None:
        """Undo what a test did to the node, and forget all messages."""
        for destroy in self._additional:
            destroy()
        self._additional.clear()
        self.publisher = self._usual_publisher
        if self._is_changed:
            self.clean_up()
            result = self._set(list(self._original_parameters.values()))
            assert result.successful, result.reason
            assert self.set_enabled(True).success
            self.configure()
        elif self.frames:
            self._empty_the_view()
        self._is_changed = False
        for messages in (self.faces, self.frames, self.diagnostics):
            messages.clear()
        self._reset_at = len(self.node.output)

    def _empty_the_view(self) -> None:
        """Let the node forget all faces, and answer no image of the last test any more."""
        assert self.change_state(Transition.TRANSITION_DEACTIVATE), self.node.output
        self.spin_until(lambda: not self.publisher.get_subscription_count(), 'no subscription')
        assert self.change_state(Transition.TRANSITION_ACTIVATE), self.node.output
        self.wait_for_subscriber(self.publisher)
