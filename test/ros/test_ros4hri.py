# SPDX-License-Identifier: Apache-2.0
"""ROS4HRI (REP-155) with the real hri_msgs, in both directions, and the error without them."""

import importlib.util

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image

HAS_MESSAGES = importlib.util.find_spec('hri_msgs') is not None
needs_messages = pytest.mark.skipif(not HAS_MESSAGES, reason='hri_msgs is not installed')


@pytest.mark.skipif(HAS_MESSAGES, reason='hri_msgs is installed')
@pytest.mark.parametrize('option', [{'ros4hri': True}, {'input': 'cropped_faces'}])
def test_without_the_messages_configuring_says_what_to_install(robot, option):
    robot.clean_up()
    assert robot.set_parameters(**option).successful
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert 'hri-msgs' in robot.output
    assert robot.state == 'unconfigured'


@needs_messages
def test_faces_are_published_and_removed(robot, smile, nobody):
    import hri_msgs.msg as hri

    robot.reconfigure(ros4hri=True, tracker__max_missed_s=0.2)
    tracked = robot.received('/humans/faces/tracked', hri.IdsList)
    frame = robot.show(smile)
    (face,) = frame.faces
    robot.spin_until(lambda: tracked and list(tracked[-1].ids) == [face.face_id], 'the id')
    kinds = {
        'roi': hri.NormalizedRegionOfInterest2D,
        'cropped': Image,
        'landmarks': hri.FacialLandmarks,
        'expression': hri.Expression,
    }
    received = {
        name: robot.received(f'/humans/faces/{face.face_id}/{name}', kind)
        for name, kind in kinds.items()
    }
    robot.spin_until(lambda: all(received.values()), 'all topics', every=lambda: robot.show(smile))
    expression, roi = received['expression'][-1], received['roi'][-1]
    assert (expression.expression, expression.confidence > 0.7) == ('happy', True)
    assert roi.xmin == pytest.approx(face.roi.x_offset / 320, abs=0.01)
    assert roi.ymax == pytest.approx((face.roi.y_offset + face.roi.height) / 240, abs=0.01)
    landmarks = received['landmarks'][-1].landmarks
    assert landmarks[30].x == pytest.approx(face.landmarks[2].x / 320, abs=0.01)
    assert [i for i, point in enumerate(landmarks) if point.c > 0] == [30, 48, 54, 68, 69]
    picture = received['cropped'][-1]
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
def test_nobody_stays_listed_when_no_images_come(robot, smile, how):
    import hri_msgs.msg as hri

    robot.reconfigure(ros4hri=True)
    tracked = robot.received('/humans/faces/tracked', hri.IdsList)
    robot.spin_until(lambda: tracked and tracked[-1].ids, 'a face', every=lambda: robot.show(smile))
    if how == 'pause':
        assert robot.set_enabled(False).success
    robot.spin_until(lambda: not tracked[-1].ids, 'an empty list')


@needs_messages
def test_faces_of_another_detector_get_their_expression(start, portrait):
    import hri_msgs.msg as hri

    robot = start('-p', 'input:=cropped_faces', wait=False)
    robot.node.wait_for_output('waiting for images on /humans/faces/<id>/cropped')
    tracked = robot.new_publisher('/humans/faces/tracked', hri.IdsList)
    cropped = {n: robot.new_publisher(f'/humans/faces/{n}/cropped') for n in ('abc12', 'x9')}
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
    assert 'InvalidTopicName' not in robot.output
    assert robot.faces == robot.frames == []  # only the expression is published
    robot.spin_until(
        lambda: robot.values()['faces'] == '0',
        'nobody in diagnostics',
        every=lambda: send(ids=()),
    )
    expressions.clear()
    for _ in range(5):
        send(ids=())
        robot.spin(0.1)
    assert expressions == []
    assert robot.state == 'active'
