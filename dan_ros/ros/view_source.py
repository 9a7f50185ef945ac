# SPDX-License-Identifier: Apache-2.0
"""Shows a running node on the page of `dan-ros view`, from what the node itself publishes.

Pictures are the node's previews, never the images of the camera: only the node knows which faces it
must hide, and when. They are subscribed to only while a browser shows the page.
"""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import ParameterEvent
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.expand_topic_name import expand_topic_name
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import QoSProfile
from rclpy.validate_full_topic_name import validate_full_topic_name
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from dan_ros.errors import DanError, ParameterError, one_line
from dan_ros.messages import stamp_to_ns
from dan_ros.msg import FacialExpression, FacialExpressionArray, FacialExpressionEvent
from dan_ros.ros.parameters import SPECS
from dan_ros.ros.preview import original_size, preview_topic
from dan_ros.ros.qos import NEWEST_QOS
from dan_ros.ros.spin import init_rclpy
from dan_ros.view.board import Board, SeenEvent, SeenFace, ViewStatus, parameter_json

CHECK_S = 0.2  # interval at which subscriptions are opened and closed as needed, seconds
SILENT_S = 3.5  # time without diagnostics after which a node counts as gone, seconds
ANSWER_S = 5.0  # longest wait for an answer of the node, seconds
EVERY = QoSProfile(depth=100)  # for topics with several messages at once, one per face or camera
STATUS_SUFFIX = ': facial expressions'  # suffix of the name of the node's diagnostic status
ASK = 'a person in view has not been asked for consent yet, so this person is not shown'


class NodeSource:
    """Listens to one node, whose name is in the root namespace if it is relative.

    Raises:
        DanError: the name is invalid, the logs cannot be written, or the middleware does not start.
    """

    kind = 'ROS node'

    def __init__(self, name: str, board: Board) -> None:
        self.title = _full_name(name)
        self._board = board
        self._context = rclpy.Context()
        init_rclpy(args=[], context=self._context)
        try:
            self._node = rclpy.create_node(
                'dan_view', context=self._context, use_global_arguments=False
            )
        except RuntimeError as error:  # for example, no network interface is up yet
            raise DanError(f'the middleware does not start: {one_line(error)}') from None
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin, name='view', daemon=True)
        self._clients: dict[type, Any] = {
            kind: self._node.create_client(kind, f'{self.title}/{name}')
            for kind, name in (
                (GetParameters, 'get_parameters'),
                (SetParametersAtomically, 'set_parameters_atomically'),
                (SetBool, 'set_enabled'),
            )
        }
        self._previews: dict[str, Any] = {}  # subscription by camera
        self._cameras: dict[str, float] = {}  # time of its last message, monotonic, seconds
        self._heard_s = 0.0  # time of the node's last message, monotonic, seconds; 0: none yet
        self._others: set[str] = set()  # other nodes of this kind
        self._ask_s = 0.0  # when to ask for the parameters, monotonic, seconds; inf: they are known

    def start(self) -> None:
        """Subscribe, and receive in a thread."""
        namespace = self.title.rpartition('/')[0]
        subscribe = self._node.create_subscription
        subscribe(FacialExpressionArray, f'{namespace}/facial_expressions', self._on_faces, EVERY)
        subscribe(
            FacialExpressionEvent, f'{namespace}/facial_expression_events', self._on_event, EVERY
        )
        subscribe(Bool, f'{self.title}/consent_needed', self._on_consent, NEWEST_QOS)
        subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics, QoSProfile(depth=10))
        subscribe(ParameterEvent, '/parameter_events', self._on_parameters, EVERY)
        self._node.create_timer(CHECK_S, self._check)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and leave the graph."""
        self._stopping.set()
        if self._thread.is_alive():
            self._executor.wake()
            self._thread.join(timeout=2.0)
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    # --- requests of the page, from any thread ---

    def set_parameter(self, name: str, value: Any) -> str:
        """Set a parameter of the node; return why the node refuses, or ''."""
        value = _typed(name, value)
        message = Parameter(name, value=value).to_parameter_msg()
        request = SetParametersAtomically.Request(parameters=[message])
        answer = self._call(SetParametersAtomically, request)
        if answer is None:
            return self._no_answer()
        return '' if answer.result.successful else answer.result.reason or 'the node refuses'

    def set_enabled(self, is_enabled: bool) -> str:
        """Pause or resume the node; return why it refuses, or ''."""
        answer = self._call(SetBool, SetBool.Request(data=is_enabled))
        if answer is None:
            return self._no_answer()
        if answer.success and not is_enabled:
            self._board.clear()
        return '' if answer.success else answer.message or 'the node refuses'

    def _no_answer(self) -> str:
        return f'{self.title} does not answer; is it running?'

    def _call(self, kind: type, request: Any) -> Any:
        client = self._clients[kind]
        if not client.service_is_ready():
            return None
        future, is_done = client.call_async(request), threading.Event()
        future.add_done_callback(lambda _: is_done.set())
        if not is_done.wait(ANSWER_S):
            client.remove_pending_request(future)
            return None
        return future.result()

    # --- messages ---

    def _spin(self) -> None:
        while not self._stopping.is_set() and self._context.ok():
            try:
                self._executor.spin_once(timeout_sec=1.0)
            except ExternalShutdownException:
                return
            except Exception as error:  # one bad message must not end the page
                if self._context.ok():
                    self._node.get_logger().error(f'ignored: {type(error).__name__}: {error}')

    def _on_faces(self, message: FacialExpressionArray) -> None:
        self._cameras[message.camera] = time.monotonic()
        faces = [_seen_face(face) for face in message.faces]
        self._board.add_frame(message.camera, stamp_to_ns(message.header.stamp), faces)

    def _on_picture(self, camera: str, message: CompressedImage) -> None:
        size = original_size(message.format)
        if size is not None:
            stamp_ns, encode = stamp_to_ns(message.header.stamp), message.data.tobytes
            self._board.put_picture(camera, stamp_ns, size, encode)

    def _on_event(self, message: FacialExpressionEvent) -> None:
        self._board.add_event(
            SeenEvent(
                message.kind,
                message.camera,
                message.face_id,
                message.expression,
                message.previous_expression,
                message.lasted_s,
            )
        )

    def _on_consent(self, message: Bool) -> None:
        self._board.set_notice('consent', ASK if message.data else '')

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if not status.name.endswith(STATUS_SUFFIX):
                continue
            name = '/' + status.name.removesuffix(STATUS_SUFFIX)
            if name == self.title:
                self._heard_s = time.monotonic()
                self._show_status(status)
            else:
                self._others.add(name)

    def _show_status(self, status: DiagnosticStatus) -> None:
        values = {item.key: item.value for item in status.values}
        is_enabled = values.pop('enabled', 'true') == 'true'
        level = min(int.from_bytes(status.level, 'little'), 2)
        self._board.set_status(ViewStatus(level, status.message, values, is_enabled))

    def _on_parameters(self, message: ParameterEvent) -> None:
        if message.node == self.title:
            for parameter in (*message.new_parameters, *message.changed_parameters):
                value = parameter_value_to_python(parameter.value)
                self._board.change_parameter(parameter.name, _plain(value))

    # --- periodic work ---

    def _check(self) -> None:
        self._check_node()
        now_s = time.monotonic()
        is_watched = self._board.is_watched
        wanted = {c for c, s in self._cameras.items() if is_watched and now_s - s < SILENT_S}
        for camera in self._previews.keys() - wanted:
            self._node.destroy_subscription(self._previews.pop(camera))
        for camera in wanted - self._previews.keys():
            self._previews[camera] = self._node.create_subscription(
                CompressedImage,
                preview_topic(self.title, camera),
                lambda message, camera=camera: self._on_picture(camera, message),
                NEWEST_QOS,
            )

    def _check_node(self) -> None:
        if time.monotonic() - self._heard_s > SILENT_S:
            if self._heard_s:
                self._board.clear()
                self._board.set_notice('consent', '')
                self._heard_s = 0.0
            self._ask_s = 0.0
            self._board.set_status(ViewStatus(3, self._waiting()))
        elif time.monotonic() > self._ask_s and self._clients[GetParameters].service_is_ready():
            self._ask_s = time.monotonic() + ANSWER_S
            request = GetParameters.Request(names=list(SPECS))
            future = self._clients[GetParameters].call_async(request)
            future.add_done_callback(self._on_values)

    def _waiting(self) -> str:
        text = f'waiting for the node {self.title}'
        if self._others:
            names = ' or '.join(f'--node {name}' for name in sorted(self._others))
            text += f'; other nodes are running, which `dan-ros view` shows with {names}'
        return text

    def _on_values(self, future: Any) -> None:
        self._ask_s = math.inf
        self._board.set_parameters(_parameters(future.result().values))


def _parameters(values: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield the node's parameters; an older node lacks some."""
    for spec, value in zip(SPECS.values(), map(parameter_value_to_python, values), strict=False):
        if value is not None:
            yield parameter_json(spec, _plain(value))


def _plain(value: Any) -> Any:
    """Return a value for JSON; lists become text."""
    if isinstance(value, bool | int | float | str):
        return value
    return ', '.join(str(item) for item in value) if value is not None else ''


def _typed(name: str, value: Any) -> Any:
    """Return a number from the page in the parameter's type, since the page sends 1.0 as 1."""
    default = SPECS[name].default if name in SPECS else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, float) and is_number:
        return float(value)
    if type(default) is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _seen_face(face: FacialExpression) -> SeenFace:
    roi = face.roi
    return SeenFace(
        face.face_id,
        (roi.x_offset, roi.y_offset, roi.width, roi.height),
        face.expression,
        face.confidence,
        face.probabilities.tolist(),
        face.detection_confidence,
        face.looking,
        face.looking_at_camera,
    )


def _full_name(name: str) -> str:
    """Return the full name of a node.

    Raises:
        ParameterError: it is invalid.
    """
    try:
        full = expand_topic_name(name if name.startswith('/') else f'/{name}', 'dan_view', '/')
        validate_full_topic_name(full)
    except (InvalidTopicNameException, ValueError) as error:
        reason = one_line(error)
        raise ParameterError(f'--node cannot be {name!r}: {reason}') from None
    return str(full)
