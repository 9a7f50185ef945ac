# SPDX-License-Identifier: Apache-2.0
"""Parts of the node in this process: rare errors, and outputs in messages of other packages.

Messages of packages that are not installed are replaced by plain objects with the same fields.
"""

import gc
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from processes import RosDomain
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool

from dan_ros import labels
from dan_ros.backends import choose_backend
from dan_ros.detect.full_frame import FullFrameDetector
from dan_ros.errors import DanError
from dan_ros.faces.head_pose import HeadPose
from dan_ros.msg import FacialExpressionArray
from dan_ros.pipeline import FaceExpression
from dan_ros.probabilities import Calibrator, Prior
from dan_ros.ros import (
    data_declaration,
    diagnostics,
    models,
    outputs,
    preview,
    publishers,
    subscription_thread,
    view_source,
)
from dan_ros.ros.consent import ConsentService
from dan_ros.ros.depth import DepthStream
from dan_ros.ros.inference_thread import FrameResult, StampedMessage
from dan_ros.ros.managed_node import ManagedNode, reported
from dan_ros.ros.models import Models, load_models
from dan_ros.ros.node import DanNode
from dan_ros.ros.parameters import CROPPED_FACES, SPECS, Settings, declare_parameters
from dan_ros.ros.qos import QosMonitor, UnsupportedEventTypeError, create_with_events
from dan_ros.ros.statistics import Statistics
from dan_ros.ros.status import Status
from dan_ros.ros.subscription_thread import SubscriptionThread
from dan_ros.srv import Consent
from dan_ros.tracking.consent import ConsentRegistry
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Face, Frame
from dan_ros.view.board import Board, SeenFace

HEADER = Header(frame_id='optical')
POSE = HeadPose(np.array([0.1, 0.2, 1.5]), np.array([0.5, 0.5, 0.5, 0.5]))


class Peer:
    """A lifecycle node in this process, in its own domain, and its log."""

    def __init__(self, monkeypatch):
        self.domain, self.context, self.log = RosDomain(), rclpy.Context(), []
        rclpy.init(context=self.context, domain_id=self.domain.number)
        self.node = ManagedNode('dan_node', context=self.context)
        logger = SimpleNamespace(
            **dict.fromkeys(('info', 'warning', 'error', 'debug'), self._write)
        )
        monkeypatch.setattr(self.node, 'get_logger', lambda: logger)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def _write(self, text, **_):
        self.log.append(text)

    def spin_until(self, condition, every=lambda: None):
        end_s = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end_s, self.log
            every()
            self._executor.spin_once(timeout_sec=0.02)

    def close(self):
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        self.domain.close()


@pytest.fixture
def peer(monkeypatch):
    peer = Peer(monkeypatch)
    yield peer
    peer.close()


def tracked(face_id='a1', expression=1, pose=None):
    """A face with the probabilities 0.3 neutral and 0.6 happy and 0.1 sad."""
    face = Face(np.float32([-5, 10, 55, 80]), 0.9, np.zeros((5, 2), np.float32))
    probabilities = np.float32([0.3, 0.6, 0.1, 0, 0, 0, 0, 0])
    raw = FaceExpression(face, probabilities)
    return TrackedFace(face_id, raw, probabilities, expression, pose=pose)


def result(*faces):
    message = StampedMessage(SimpleNamespace(header=HEADER), 0, 0.0)
    return FrameResult('/image', message, Frame(np.zeros((60, 50, 3), np.uint8)), list(faces))


# --- outputs ---


def plain(name):
    return type(name, (SimpleNamespace,), {})


def test_detections_are_inside_the_image_and_the_published_label_comes_first(monkeypatch):
    names = ('Detection2DArray', 'Detection2D', 'Point2D', 'BoundingBox2D', 'Pose2D')
    names += ('ObjectHypothesisWithPose', 'ObjectHypothesis')
    monkeypatch.setattr(outputs, 'vision', SimpleNamespace(**{n: plain(n) for n in names}))
    faces = [tracked('a1', 0, POSE), tracked('a2'), tracked('a3', labels.UNKNOWN, POSE)]
    message = outputs.detections(result(*faces))
    first, second, third = message.detections
    assert (message.header, first.header, first.id, third.id) == (HEADER, HEADER, 'a1', 'a3')
    box = first.bbox
    assert (box.center.position.x, box.center.position.y) == (25, 35)
    assert (box.size_x, box.size_y) == (50, 50)
    assert [h.hypothesis.class_id for h in first.results] == ['neutral', 'happy', 'sad']
    assert [h.hypothesis.class_id for h in second.results] == ['happy', 'neutral', 'sad']
    assert [h.hypothesis.score for h in second.results] == pytest.approx([0.6, 0.3, 0.1])
    assert first.results[0].pose.pose.position.z == 1.5
    assert second.results[0].pose.pose.position.z == 0
    assert third.results == []


def test_an_output_of_another_package_is_published_while_somebody_subscribes(peer, monkeypatch):
    built = []

    def build(frame):
        built.append(frame)
        return String(data=frame.camera)

    monkeypatch.setitem(outputs.OUTPUTS, 'x', outputs.Output('/x', String, build))
    camera = outputs.CameraOutputs(peer.node, '/image', ['x'], QosMonitor(peer.node))
    camera.publish(result())
    assert built == []
    received = []
    subscription = peer.node.create_subscription(
        String, '/image/x', lambda m: received.append(m.data), 10
    )
    peer.spin_until(lambda: received, every=lambda: camera.publish(result()))
    assert set(received) == {'/image'}
    camera.close()
    assert peer.node.count_publishers('/image/x') == 0
    peer.node.destroy_subscription(subscription)


def test_faces_with_a_pose_are_frames_of_tf(peer, monkeypatch):
    sent = []
    publisher = SimpleNamespace(publish=lambda message: sent.append(message.transforms))
    monkeypatch.setattr(publishers, 'TFMessage', plain('TFMessage'))
    monkeypatch.setattr(peer.node, 'create_lifecycle_publisher', lambda *_: publisher)
    broadcaster = publishers.FaceTfBroadcaster(peer.node)
    broadcaster.publish([tracked('a1'), tracked('a2', pose=POSE)], HEADER)
    broadcaster.publish([tracked('a1')], HEADER)
    broadcaster.publish([tracked('a1', pose=POSE)], Header())  # a camera without a frame
    ((face, gaze),) = sent
    assert (face.header.frame_id, face.child_frame_id) == ('optical', 'face_a2')
    assert (gaze.header.frame_id, gaze.child_frame_id) == ('face_a2', 'gaze_a2')
    move, turn = face.transform.translation, face.transform.rotation
    assert (move.x, move.y, move.z) == (0.1, 0.2, 1.5)
    assert (turn.x, turn.y, turn.z, turn.w) == (0.5, 0.5, 0.5, 0.5)


@pytest.mark.parametrize('receiver', ['', 'grpc://gpu:8001'])
def test_the_declaration_names_the_server_that_gets_the_faces(peer, monkeypatch, receiver):
    sent = []
    publisher = SimpleNamespace(publish=sent.append)
    monkeypatch.setattr(data_declaration, 'PersonalDataProcessor', plain('X'))
    monkeypatch.setattr(peer.node, 'create_lifecycle_publisher', lambda *_: publisher)
    data_declaration.DataDeclaration(peer.node).publish(receiver)
    (message,) = sent
    assert message.data_source_node == '/dan_node'
    assert ('sent to the server grpc://gpu:8001' in message.data_purpose) == bool(receiver)
    assert message.data_purpose.startswith('Reads the facial expressions')


def test_a_debug_image_that_cannot_be_drawn_is_logged(peer, monkeypatch):
    def fail(*_):
        raise ValueError('odd box')

    output = publishers.ExpressionPublishers(peer.node, QosMonitor(peer.node))
    output.publish_debug_image(result())
    peer.node.create_subscription(Image, '/dan_node/debug_image', print, 10)
    monkeypatch.setattr(publishers, 'annotate_tracked', fail)
    peer.spin_until(lambda: peer.log, every=lambda: output.publish_debug_image(result()))
    assert set(peer.log) == {'debug image: odd box'}
    output.destroy()


def test_a_preview_that_cannot_be_drawn_is_logged_and_the_next_one_is_drawn(peer, monkeypatch):
    def draw(frame):
        if not peer.log:
            raise ValueError('odd picture')
        return b'jpeg'

    received = []
    monkeypatch.setattr(preview, 'to_preview', draw)
    publisher = preview.PreviewPublisher(peer.node, '/image', QosMonitor(peer.node))
    peer.node.create_subscription(
        CompressedImage, '/dan_node/preview/image/compressed', received.append, 10
    )
    peer.spin_until(lambda: received, every=lambda: publisher.publish(result()))
    assert peer.log == ['preview: odd picture']
    assert (received[0].data.tobytes(), received[0].header) == (b'jpeg', HEADER)
    publisher.close()


# --- errors ---


def test_messages_are_received_after_an_error_of_a_callback(peer):
    received = []

    def receive(content):
        received.append(content)
        if len(received) == 1:
            raise ValueError('odd message')

    thread = SubscriptionThread(peer.node)
    subscription = peer.node.create_subscription(
        String, '/text', receive, 10, callback_group=thread.group, raw=True
    )
    thread.start()
    publisher = peer.node.create_publisher(String, '/text', 10)
    peer.spin_until(lambda: len(received) > 1, every=lambda: publisher.publish(String(data='x')))
    thread.stop()
    peer.node.destroy_subscription(subscription)
    assert peer.log == ['ignored a message on /text: ValueError: odd message']


def test_a_wait_for_messages_that_fails_is_repeated(peer, monkeypatch):
    received, failures = [], iter(range(2))
    wait = SubscriptionThread._wait

    def fail_twice(thread, wait_set):
        if next(failures, None) is not None:
            raise RuntimeError('no memory')
        wait(thread, wait_set)

    monkeypatch.setattr(SubscriptionThread, '_wait', fail_twice)
    monkeypatch.setattr(subscription_thread, 'RETRY_S', 0.01)
    thread = SubscriptionThread(peer.node)
    subscription = peer.node.create_subscription(
        String, '/text', received.append, 10, callback_group=thread.group, raw=True
    )
    thread.start()
    publisher = peer.node.create_publisher(String, '/text', 10)
    peer.spin_until(lambda: received, every=lambda: publisher.publish(String(data='x')))
    thread.stop()
    peer.node.destroy_subscription(subscription)
    assert peer.log == ['could not wait for messages: RuntimeError: no memory'] * 2


def test_a_prior_that_the_model_cannot_use_is_a_problem_of_live_settings():
    calibrator = Calibrator(labels.CANONICAL)  # of a model that stores no prior
    models = Models(None, SimpleNamespace(pipeline=SimpleNamespace(calibrator=calibrator)))

    def problem_with(prior):
        pipeline = SimpleNamespace(prior=Prior.parse(prior))
        return models.problem_with(SimpleNamespace(video=SimpleNamespace(pipeline=pipeline)))

    assert problem_with('none') == problem_with('model') == ''
    problem = problem_with('balanced')
    assert problem.startswith('expression.prior: the model file does not say which prior')


@pytest.mark.parametrize(
    ('error', 'failure'),
    [
        (DanError('no model'), 'configure failed: no model'),
        (KeyError('x'), "configure failed: KeyError: 'x'"),
    ],
)
def test_a_transition_that_fails_is_reported_until_it_succeeds(peer, error, failure):
    errors = [error]

    @reported
    def on_configure(node, state):
        if errors:
            raise errors.pop()
        return TransitionCallbackReturn.SUCCESS

    assert on_configure(peer.node, None) == TransitionCallbackReturn.FAILURE
    assert peer.node.failure == failure
    assert peer.log[0].startswith(failure)
    assert ('Traceback' in peer.log[0]) == (not isinstance(error, DanError))
    assert on_configure(peer.node, None) == TransitionCallbackReturn.SUCCESS
    assert peer.node.failure == ''


class FailingNode:
    """A node whose transition fails just after somebody has read its state."""

    failure = ''
    _is_enabled, _stream, _models, _statistics = True, None, None, Statistics()
    _settings = SimpleNamespace(
        get=lambda: Settings.from_values({n: s.default for n, s in SPECS.items()})
    )

    @property
    def _phase(self):
        self.failure = 'configure failed: no model'
        return 'configuring'


def test_a_status_has_no_failure_with_the_state_before_it():
    status = DanNode._status(FailingNode())
    assert (status.level, status.values['state']) == (DiagnosticStatus.OK, 'configuring')


def test_diagnostics_survive_an_error(peer, monkeypatch):
    monkeypatch.setattr(diagnostics, 'PERIOD_S', 0.05)
    calls, received = [], []

    def get_status():
        calls.append(0)
        if len(calls) < 3:
            raise ValueError('odd value')
        return Status(DiagnosticStatus.OK, 'fine', {'device': 'cpu'})

    peer.node.create_subscription(DiagnosticArray, '/diagnostics', received.append, 10)
    publisher = diagnostics.DiagnosticsPublisher(peer.node, get_status)
    peer.spin_until(lambda: received)
    publisher.stop()
    assert peer.log == ['diagnostics: odd value'] * 2
    (status,) = received[0].status
    assert (status.name, status.hardware_id) == ('dan_node: facial expressions', 'cpu')


def test_a_middleware_without_events_gets_none():
    def create(events):
        if events is not None:
            raise UnsupportedEventTypeError('no events')
        return 'publisher'

    def fail(events):
        raise RuntimeError('no memory')

    node = SimpleNamespace(_parameter_overrides={'autostart': False})
    assert create_with_events(node, create, object()) == 'publisher'
    with pytest.raises(DanError, match='^cannot open a topic: no memory$'):
        create_with_events(node, fail, object())
    node._parameter_overrides['qos_overrides./image.subscription.depth'] = -1
    with pytest.raises(DanError, match='no memory. Check the parameters qos_overrides'):
        create_with_events(node, fail, object())


def test_consent_for_cropped_faces_needs_only_their_id(peer):
    video = SimpleNamespace(consent_required=True)
    settings = SimpleNamespace(video=video, input=CROPPED_FACES)
    registry = ConsentRegistry()
    registry.update('abc', {'f1': 9.0}, {'f1'})  # the id of the face names its camera
    models = None
    service = ConsentService(peer.node, lambda: settings, lambda: models)

    def ask(**request):
        return service._on_request(Consent.Request(**request), Consent.Response())

    answer = ask(face_id='abc', granted=True)
    assert (answer.success, answer.message) == (
        False,
        'the node is not configured, so no face is in view',
    )
    models = SimpleNamespace(video=SimpleNamespace(consent=registry))
    answer = ask(face_id='abc', camera='/image', granted=True)
    assert answer.message == 'cropped faces have no camera: leave it empty'
    answer = ask(face_id='abc', granted=True)
    assert (answer.success, answer.face_id) == (True, 'abc')
    assert answer.message == 'abc is published while it stays in view'
    assert registry.released == {'f1'}
    answer = ask(face_id='abc', granted=False)
    assert (answer.success, answer.message) == (True, 'abc is no longer published')
    assert registry.released == set()
    video.consent_required = False
    assert 'consent.required is false' in ask(face_id='abc', granted=True).message


# --- dan-ros view ---


def test_the_page_of_a_node_that_is_gone_is_empty(peer, monkeypatch):
    """Its services are there, but nobody answers; others publish diagnostics, too."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(peer.domain.number))
    monkeypatch.setattr(view_source, 'SILENT_S', 60.0)
    monkeypatch.setattr(view_source, 'ANSWER_S', 0.2)
    peer.node.create_service(SetBool, '~/set_enabled', lambda _, response: response)
    publisher = peer.node.create_publisher(DiagnosticArray, '/diagnostics', 10)
    values = [KeyValue(key='enabled', value='false'), KeyValue(key='fps', value='7')]
    own = DiagnosticStatus(name='dan_node: facial expressions', message='ok', values=values)
    message = DiagnosticArray(status=[DiagnosticStatus(name='arm: motor', message='hot'), own])
    board = Board()
    view = view_source.NodeSource('/dan_node', board)
    view.start()

    def status():
        return board.changes()[1]['status']

    try:
        peer.spin_until(
            lambda: status()['message'] == 'ok', every=lambda: publisher.publish(message)
        )
        assert (status()['is_enabled'], status()['values']) == (False, {'fps': '7'})
        board.add_frame('/image', 0, [SeenFace('a1', (0, 0, 9, 9), 1, 0.9, [0.0] * 8, 0.9, 0, 0)])
        board.set_notice('consent', view_source.ASK)
        peer.spin_until(lambda: peer.node.count_clients('/dan_node/set_enabled'))
        assert view.set_enabled(True) == '/dan_node does not answer; is it running?'
        monkeypatch.setattr(view_source, 'SILENT_S', 0.1)
        peer.spin_until(lambda: status()['message'] == 'waiting for the node /dan_node')
        changes = board.changes()[1]
        assert (changes['faces'], changes['notice']) == ({}, '')
    finally:
        start_s = time.monotonic()
        view.close()
    assert time.monotonic() < start_s + 1.8


def test_the_page_asks_for_the_parameters_again_if_the_answer_is_lost(peer, monkeypatch):
    """The middleware loses an answer if it has not discovered the client yet."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(peer.domain.number))
    monkeypatch.setattr(view_source, 'ANSWER_S', 0.5)
    declare_parameters(peer.node)
    (service,) = [s for s in peer.node.services if s.srv_name.endswith('/get_parameters')]
    send, answers = service.send_response, []

    def lose_the_first(response, header):
        answers.append(response)
        if len(answers) > 1:
            send(response, header)

    monkeypatch.setattr(service, 'send_response', lose_the_first)
    publisher = peer.node.create_publisher(DiagnosticArray, '/diagnostics', 10)
    own = DiagnosticArray(status=[DiagnosticStatus(name='dan_node: facial expressions')])
    board = Board()
    view = view_source.NodeSource('/dan_node', board)
    view.start()
    try:
        peer.spin_until(
            lambda: 'parameters' in board.changes()[1], every=lambda: publisher.publish(own)
        )
    finally:
        view.close()


def test_the_page_gets_the_faces_of_all_cameras(peer, monkeypatch):
    """The node publishes the arrays of all cameras at once, while the page may be busy."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(peer.domain.number))
    board, cameras, is_free = Board(), [], threading.Event()

    def add_frame(camera, *_):
        cameras.append(camera)
        is_free.wait(10)

    monkeypatch.setattr(board, 'add_frame', add_frame)
    publisher = peer.node.create_publisher(FacialExpressionArray, 'facial_expressions', 10)
    view = view_source.NodeSource('/dan_node', board)
    view.start()

    def publish(camera):
        publisher.publish(FacialExpressionArray(camera=camera))

    try:
        peer.spin_until(lambda: cameras, every=lambda: publish('/a'))
        publish('/b')
        publish('/c')
        time.sleep(0.2)  # until both have arrived
        is_free.set()
        peer.spin_until(lambda: {'/b', '/c'} <= set(cameras))
    finally:
        view.close()


def test_detector_and_network_load_side_by_side(monkeypatch):
    values = {name: spec.default for name, spec in SPECS.items()}
    values['detector.model_file'] = '/no/such'
    with pytest.raises(DanError, match='/no/such'):
        load(values)
    with monkeypatch.context() as patch:
        patch.setattr(models, 'ThreadPoolExecutor', None)  # nothing is loaded after a wrong name
        for name in ('model.file', 'expression.calibration'):
            with pytest.raises(DanError, match='/nowhere'):
                load({**values, name: '/nowhere'})
    detector = load({**values, 'input': CROPPED_FACES}).video.pipeline.detector
    assert isinstance(detector, FullFrameDetector)


def load(values):
    return load_models(Settings.from_values(values), iter('ab'), print)


def test_depth_stamped_by_another_clock_is_a_warning(peer):
    stream = DepthStream(peer.node, 'depth', Statistics(), QosMonitor(peer.node))
    image = Image(height=9, width=9, encoding='32FC1', step=36, data=bytes(324))
    stream._on_depth(serialize_message(image))
    landmarks, warning = np.zeros((5, 2)), 'the stamps of /depth are more than 0.1 s'
    for second in range(30, -1, -1):
        assert any(warning in text for text in stream.warnings()) == (second == 0)
        stream.poses([POSE], [landmarks], second * 10**9, (9, 9))
    assert not list(stream.warnings())


def test_unused_models_are_released_at_once(monkeypatch):
    backends = []

    def choose(*arguments):
        selection = choose_backend(*arguments)
        backends.append(weakref.ref(selection.backend))
        return selection

    monkeypatch.setattr(models, 'choose_backend', choose)
    domain, context = RosDomain(), rclpy.Context()
    rclpy.init(context=context, domain_id=domain.number)
    node = DanNode(context=context)
    node._diagnostics.stop()  # its thread holds the models while it makes a status
    gc.disable()
    try:
        for path, is_configured in (('/no/such', False), ('', True)):
            node.set_parameters([Parameter('detector.model_file', value=path)])
            assert (node.trigger_configure() == TransitionCallbackReturn.SUCCESS) == is_configured
            if is_configured:
                node.trigger_activate()
                node.trigger_deactivate()
                node.trigger_cleanup()
            assert backends.pop()() is None
    finally:
        gc.enable()
        node.close()
        node.destroy_node()
        rclpy.shutdown(context=context)
