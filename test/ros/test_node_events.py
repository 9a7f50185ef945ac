# SPDX-License-Identifier: Apache-2.0
"""The real node: one event for each change, the latched scene, and behaviors that listen."""

import sys
from pathlib import Path

import pytest
from lifecycle_msgs.msg import Transition
from processes import Process
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from dan_ros.msg import FaceScene, FaceState, FacialExpression, FacialExpressionEvent

EXAMPLES = Path(__file__).parents[2] / 'examples'
EVENTS, SCENE = 'facial_expression_events', 'facial_expression_scene'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MEETING_S = 0.5  # discovery time of a new subscriber
APPEARED, LEFT, CHANGED, STARTED, STOPPED = (
    getattr(FacialExpressionEvent, name)
    for name in ('APPEARED', 'LEFT', 'EXPRESSION_CHANGED', 'STARTED_LOOKING', 'STOPPED_LOOKING')
)


@pytest.fixture
def events(robot, nobody):
    """The events of the shared node; nobody is in view."""
    messages = robot.received(EVENTS, FacialExpressionEvent)
    robot.show(nobody)
    robot.spin(MEETING_S)
    messages.clear()
    return messages


def latched_scene(robot) -> FaceScene:
    """What a late subscriber receives."""
    scenes = []
    subscription = robot.client.create_subscription(FaceScene, SCENE, scenes.append, LATCHED)
    robot.spin_until(lambda: scenes, 'the last scene')
    robot.client.destroy_subscription(subscription)
    return scenes[-1]


def test_a_visit_gives_exactly_one_event_for_each_change(robot, events, smile, nobody):
    assert latched_scene(robot).face_count == 0
    for _ in range(20):
        frame = robot.show(smile)
    robot.set_parameters(attention__angle_deg=1.0)  # her head is turned by three degrees
    for _ in range(15):
        robot.show(smile)
    robot.spin_until(lambda: len(events) >= 4, 'the events of a face')
    scene = latched_scene(robot)
    assert (scene.face_count, scene.looking_count, scene.dominant_label) == (1, 0, 'happy')
    (state,) = scene.faces
    assert (state.camera, state.face_id) == ('/image', frame.faces[0].face_id)
    for _ in range(40):
        robot.show(nobody)
    robot.spin_until(lambda: len(events) >= 5, 'its departure')
    assert [e.kind for e in events] == [APPEARED, CHANGED, STARTED, STOPPED, LEFT]
    appeared, happy, started, stopped, left = events
    assert (appeared.label, appeared.looking, appeared.lasted_s) == ('unknown', False, 0)
    assert (happy.previous_label, happy.label, happy.expression) == ('unknown', 'happy', 1)
    assert happy.confidence > 0.7
    assert started.looking_at_camera > 0.9
    assert 0.4 < stopped.lasted_s < 1.2
    assert left.lasted_s == pytest.approx(34 / 30, abs=0.02)
    assert {e.face_id for e in events} == {frame.faces[0].face_id}
    assert {e.camera for e in events} == {'/image'}
    assert left.header.frame_id == frame.header.frame_id
    assert latched_scene(robot).face_count == 0


def test_the_fields_of_a_face_agree_with_its_events(robot, events, smile):
    faces = [robot.show(smile).faces[0] for _ in range(20)]
    robot.spin_until(lambda: [e for e in events if e.kind == STARTED], 'a look')
    first = next(face for face in faces if face.looking)
    (started,) = (e for e in events if e.kind == STARTED)
    assert started.header == first.header
    assert first.looking_s == pytest.approx(0.3, abs=0.04)
    assert not faces[0].looking
    assert all(face.looking_at_camera > 0.9 for face in faces)


@pytest.mark.parametrize('how', ['silence', 'pause', 'deactivate', 'step back'])
def test_a_face_leaves_once_however_its_images_end(robot, events, smile, how):
    for _ in range(3):
        robot.show(smile)
    (before,) = robot.frames[-1].faces
    if how == 'pause':
        robot.set_enabled(False)
    elif how == 'deactivate':
        assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
    elif how == 'step back':
        robot.show(smile, 5)
    robot.spin_until(lambda: [e for e in events if e.kind == LEFT], 'a departure')
    robot.spin(MEETING_S)
    (left,) = (e for e in events if e.kind == LEFT)
    assert left.face_id == before.face_id
    assert latched_scene(robot).face_count == (how == 'step back')
    if how in ('silence', 'pause'):
        robot.set_enabled(True)
        assert robot.show(smile).faces[0].looking_s == 0  # the face is new, so its time restarts


def test_the_scene_covers_all_cameras(robot, smile, nobody):
    robot.reconfigure('left/image', image_topics=['left/image', 'right/image'])
    right = robot.new_publisher('right/image')
    robot.wait_for_subscriber(right)
    robot.show(smile)
    robot.send_until_answered(robot.image(smile), right)
    # The scene follows the answer.
    robot.spin_until(lambda: latched_scene(robot).face_count == 2, 'the faces of both cameras')
    scene = latched_scene(robot)
    assert {face.camera for face in scene.faces} == {'/left/image', '/right/image'}
    assert len({face.face_id for face in scene.faces}) == scene.face_count == 2
    robot.spin_until(  # the right camera stops sending
        lambda: latched_scene(robot).face_count == 1,
        'the departure of one face',
        every=lambda: robot.show(smile),
    )
    assert [face.camera for face in latched_scene(robot).faces] == ['/left/image']


# --- examples -------------------------------------------------------------------------------------


@pytest.fixture(params=['greeter.py', 'greeter_tree.py'])
def greeter(request, robot, nobody, tmp_path):
    """The node beside an example, and what the example publishes."""
    if request.param == 'greeter_tree.py':
        pytest.importorskip('py_trees')
    # An example that starts later would greet a face of the last scene before the test listens.
    robot.spin_until(
        lambda: latched_scene(robot).face_count == 0,
        'an empty scene',
        every=lambda: robot.show(nobody),
    )
    # A killed example stays in the graph for up to 20 s, so each has its own name.
    name = Path(request.param).stem
    command = [sys.executable, EXAMPLES / request.param, '--ros-args', '-r', f'__node:={name}']
    process = Process(command, tmp_path / 'log', robot.domain)
    said, moods = robot.received('say', String), robot.received('mood', String)
    events = robot.new_publisher(EVENTS, FacialExpressionEvent)
    scenes = robot.client.create_publisher(FaceScene, SCENE, LATCHED)
    # Events and greetings are published only once, so discovery must be complete before.
    listened = EVENTS if name == 'greeter' else SCENE
    for endpoints, topic in (
        (robot.client.get_subscriptions_info_by_topic, listened),
        (robot.client.get_publishers_info_by_topic, 'say'),
    ):
        robot.spin_until(
            lambda: name in [endpoint.node_name for endpoint in endpoints(topic)],  # noqa: B023
            f'{name} on {topic}',
        )
    robot.spin(4 * MEETING_S)

    def tell(face_id: str, expression: int, label: str) -> None:
        """Publish what the node would publish about a face."""
        event = FacialExpressionEvent(kind=CHANGED, face_id=face_id, expression=expression)
        event.label = label
        events.publish(event)
        faces = [FaceState(face_id=face_id, expression=expression, label=label)]
        scenes.publish(FaceScene(face_count=1, faces=faces))

    yield robot, tell, said, moods
    process.kill()  # rclpy.spin, which every example has, sometimes misses a SIGTERM
    robot.client.destroy_publisher(scenes)


def test_an_example_greets_a_smile_once_and_is_concerned_while_somebody_is_sad(greeter, smile):
    robot, tell, said, moods = greeter
    for _ in range(15):
        (face,) = robot.show(smile).faces
    robot.spin_until(lambda: said, 'a greeting')
    for _ in range(5):
        robot.show(smile)
    for expression, label, mood in (
        (FacialExpression.SAD, 'sad', 'concerned'),
        (FacialExpression.NEUTRAL, 'neutral', 'friendly'),
    ):
        moods.clear()
        robot.spin_until(
            lambda: mood in [message.data for message in moods],  # noqa: B023
            mood,
            every=lambda: tell('f7', expression, label),  # noqa: B023
        )
    assert [message.data for message in said] == [f'Hello {face.face_id}!']
