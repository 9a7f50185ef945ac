"""ROS4HRI (REP-155) with the real hri_msgs, both ways, and what is said where they are missing."""

import importlib.util

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

HAS_MESSAGES = importlib.util.find_spec('hri_msgs') is not None
needs_messages = pytest.mark.skipif(not HAS_MESSAGES, reason='hri_msgs is not installed')


@pytest.mark.skipif(HAS_MESSAGES, reason='hri_msgs is installed')
@pytest.mark.parametrize('option', ['ros4hri:=true', 'input:=cropped_faces'])
def test_without_the_messages_configuring_says_what_to_install(start, option):
    robot = start('-p', option, wait=False)
    robot.node.wait_for_output('hri-msgs')
    assert robot.state == 'unconfigured'


def topics_of(robot) -> set[str]:
    return {n for n, _ in robot.client.get_topic_names_and_types() if n.startswith('/humans/')}


@needs_messages
def test_faces_are_published_and_removed(start, smile, nobody):
    import hri_msgs.msg as hri

    robot = start('-p', 'ros4hri:=true', '-p', 'tracker.max_missed_s:=0.2')
    tracked = []
    robot.client.create_subscription(hri.IdsList, '/humans/faces/tracked', tracked.append, 10)
    frame = robot.show(smile)
    (face,) = frame.faces
    robot.spin_until(lambda: tracked and list(tracked[-1].ids) == [face.face_id], 'the id')
    received = {}
    kinds = {
        'roi': hri.NormalizedRegionOfInterest2D,
        'cropped': Image,
        'landmarks': hri.FacialLandmarks,
        'expression': hri.Expression,
    }
    for name, kind in kinds.items():
        topic = f'/humans/faces/{face.face_id}/{name}'
        robot.client.create_subscription(kind, topic, lambda m, n=name: received.update({n: m}), 10)
    robot.spin_until(lambda: len(received) == 4, 'all topics', every=lambda: robot.show(smile))
    expression, roi = received['expression'], received['roi']
    assert (expression.expression, expression.confidence > 0.7) == ('happy', True)
    assert roi.xmin == pytest.approx(face.roi.x_offset / 320, abs=0.01)
    assert roi.ymax == pytest.approx((face.roi.y_offset + face.roi.height) / 240, abs=0.01)
    landmarks = received['landmarks'].landmarks
    assert landmarks[30].x == pytest.approx(face.landmarks[2].x / 320, abs=0.01)
    assert [i for i, point in enumerate(landmarks) if point.c > 0] == [30, 48, 54, 68, 69]
    picture = received['cropped']
    assert (picture.width, picture.height, picture.encoding) == (128, 128, 'bgr8')
    assert np.asarray(picture.data).std() > 20
    assert picture.header.frame_id == frame.header.frame_id

    robot.spin_until(
        lambda: tracked and not tracked[-1].ids, 'nobody', every=lambda: robot.show(nobody)
    )
    publishers = robot.client.get_publishers_info_by_topic
    robot.spin_until(
        lambda: not publishers(f'/humans/faces/{face.face_id}/expression'), 'the topics are gone'
    )


@needs_messages
@pytest.mark.parametrize('how', ['silence', 'pause'])
def test_nobody_stays_listed_when_no_images_come(start, smile, how):
    import hri_msgs.msg as hri

    robot = start('-p', 'ros4hri:=true')
    tracked = []
    robot.client.create_subscription(hri.IdsList, '/humans/faces/tracked', tracked.append, 10)
    robot.spin_until(lambda: tracked and tracked[-1].ids, 'a face', every=lambda: robot.show(smile))
    if how == 'pause':
        assert robot.call(SetBool, 'set_enabled', SetBool.Request(data=False)).success
    robot.spin_until(lambda: not tracked[-1].ids, 'an empty list')


@needs_messages
def test_faces_of_another_detector_get_their_expression(start, portrait):
    import hri_msgs.msg as hri

    robot = start('-p', 'input:=cropped_faces', wait=False)
    robot.node.wait_for_output('waiting for images on /humans/faces/<id>/cropped')
    create = robot.client.create_publisher
    tracked = create(hri.IdsList, '/humans/faces/tracked', 1)
    cropped = {name: create(Image, f'/humans/faces/{name}/cropped', 1) for name in ('abc12', 'x9')}
    expressions = []
    for name in cropped:
        topic = f'/humans/faces/{name}/expression'
        robot.client.create_subscription(
            hri.Expression, topic, lambda m, n=name: expressions.append((n, m)), 10
        )
    face = portrait[63:176, 166:279]

    def send(ids=('abc12',)):
        tracked.publish(hri.IdsList(ids=list(ids)))
        for name, publisher in cropped.items():
            message = robot.image(face)
            message.header.frame_id = name
            publisher.publish(message)

    robot.spin_until(lambda: expressions, 'an expression', every=send)
    name, message = expressions[-1]
    assert (name, message.header.frame_id, message.expression) == ('abc12', 'abc12', 'happy')
    robot.spin_until(
        lambda: {n for n, _ in expressions} == {'abc12', 'x9'},
        'the other face',
        every=lambda: send(('abc12', 'x9', 'no/topic', 'é', 'a' * 300)),
    )
    assert 'InvalidTopicName' not in robot.node.output
    assert robot.faces == robot.frames == []  # the expression alone
    expressions.clear()
    send(ids=())
    robot.spin(0.5)
    expressions.clear()
    for _ in range(5):
        send(ids=())
        robot.spin(0.1)
    assert expressions == []
    assert robot.state == 'active'
    robot.wait_status(lambda _, values: values['faces'] == '0', 'nobody in diagnostics')
