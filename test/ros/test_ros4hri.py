# SPDX-License-Identifier: Apache-2.0
"""ROS4HRI (REP-155) with the real hri_msgs, in both directions, and the error without them."""

import importlib.util

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from robot import Program
from sensor_msgs.msg import CameraInfo, Image

from dan_ros.msg import FacialExpression

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

    robot.reconfigure(ros4hri=True, tracker__max_missed_s=0.2, humans__faces__width=96)
    tracked = robot.received('/humans/faces/tracked', hri.IdsList)
    frame = robot.show(smile)
    (face,) = frame.faces
    robot.spin_until(lambda: tracked and list(tracked[-1].ids) == [face.face_id], 'the id')
    kinds = {
        'roi': hri.NormalizedRegionOfInterest2D,
        'cropped': Image,
        'aligned': Image,
        'landmarks': hri.FacialLandmarks,
        'expression': hri.Expression,
        'engagement_status': hri.EngagementLevel,
    }
    received = {
        name: robot.received(f'/humans/faces/{face.face_id}/{name}', kind)
        for name, kind in kinds.items()
    }
    robot.spin_until(lambda: all(received.values()), 'all topics', every=lambda: robot.show(smile))
    expression, roi = received['expression'][-1], received['roi'][-1]
    assert (expression.expression, expression.confidence > 0.7) == ('happy', True)
    assert np.isnan([expression.valence, expression.arousal]).all()
    assert roi.xmin == pytest.approx(face.roi.x_offset / 320, abs=0.01)
    assert roi.ymax == pytest.approx((face.roi.y_offset + face.roi.height) / 240, abs=0.01)
    landmarks = received['landmarks'][-1].landmarks
    assert landmarks[30].x == pytest.approx(face.landmarks[2].x / 320, abs=0.01)
    assert [i for i, point in enumerate(landmarks) if point.c > 0] == [30, 48, 54, 68, 69]
    for name in ('cropped', 'aligned'):
        picture = received[name][-1]
        assert (picture.width, picture.height, picture.encoding) == (96, 128, 'bgr8')
        assert np.asarray(picture.data).std() > 20
        assert picture.header.frame_id == frame.header.frame_id

    assert received['engagement_status'][-1].level == hri.EngagementLevel.UNKNOWN  # no calibration

    robot.spin_until(
        lambda: tracked and not tracked[-1].ids, 'nobody', every=lambda: robot.show(nobody)
    )
    publishers = robot.client.get_publishers_info_by_topic
    robot.spin_until(
        lambda: not publishers(f'/humans/faces/{face.face_id}/expression'), 'the topics are gone'
    )


@needs_messages
def test_a_face_turned_to_a_calibrated_camera_becomes_engaged(robot, smile):
    import hri_msgs.msg as hri

    robot.reconfigure(ros4hri=True)
    info = robot.new_publisher('camera_info', CameraInfo)
    robot.wait_for_subscriber(info)
    calibration = CameraInfo(height=240, width=320, distortion_model='plumb_bob')
    calibration.k = [300.0, 0, 160, 0, 300, 120, 0, 0, 1]
    robot.spin_until(
        lambda: robot.show(smile).faces[0].pose,
        'a pose',
        every=lambda: info.publish(calibration),
    )
    (face,) = robot.show(smile).faces
    levels = robot.received(f'/humans/faces/{face.face_id}/engagement_status', hri.EngagementLevel)
    robot.spin_until(
        lambda: levels and levels[-1].level == hri.EngagementLevel.ENGAGED,
        'the engagement',
        every=lambda: robot.show(smile),
        period_s=0.0,
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

    options = ('-p', 'input:=cropped_faces', '-p', 'valence_from_expression:=true')
    robot = start(*options, wait=False)
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
    assert message.valence > 0.4
    assert message.arousal > 0.2
    robot.spin_until(
        lambda: {n for n, _ in expressions} == {'abc12', 'x9'},
        'the other face',
        every=lambda: send(('abc12', 'x9', 'no/topic', 'é', 'a' * 300)),
    )
    assert 'InvalidTopicName' not in robot.output
    assert robot.faces == robot.frames == []  # the node publishes only the expression
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


@needs_messages
def test_the_faces_of_a_dead_detector_are_forgotten(start, portrait):
    import hri_msgs.msg as hri

    robot = start('-p', 'input:=cropped_faces', wait=False)
    robot.node.wait_for_output('waiting for images on /humans/faces/<id>/cropped')
    tracked = robot.new_publisher('/humans/faces/tracked', hri.IdsList)
    cropped = robot.new_publisher('/humans/faces/abc/cropped')
    publishers = robot.client.get_publishers_info_by_topic
    image = robot.image(portrait[63:176, 166:279])
    robot.spin_until(
        lambda: robot.diagnostics and robot.values()['faces'] == '1',
        'a face',
        every=lambda: (tracked.publish(hri.IdsList(ids=['abc'])), cropped.publish(image)),
    )
    status, _ = robot.wait_status(
        lambda s, v: 'no list of faces' in s.message and v['faces'] == '0', 'silence'
    )
    assert status.level == b'\x01'
    assert not publishers('/humans/faces/abc/expression')
    robot.spin_until(
        lambda: publishers('/humans/faces/abc/expression'),
        'the face is back',
        every=lambda: tracked.publish(hri.IdsList(ids=['abc'])),
    )


@needs_messages
def test_of_two_nodes_one_publishes_faces_and_the_other_waits(start, smile, tmp_path):
    import hri_msgs.msg as hri

    first = start(
        '-p', 'ros4hri:=true', '-r', '__ns:=/left', name='/left/dan_node', topic='/left/image'
    )
    lists = first.received('/humans/faces/tracked', hri.IdsList)
    first.spin_until(lambda: lists and lists[-1].ids, 'a face', every=lambda: first.show(smile))
    second = Program(
        'dan_node', '-p', 'ros4hri:=true', '-r', '__ns:=/right', '-r', 'image:=/left/image',
        log=tmp_path / 'second', domain=first.domain,
    )  # fmt: skip
    second.wait_for_output('active: waiting for images')
    faces = first.received('/right/facial_expression', FacialExpression)
    warning = '/left/dan_node publishes /humans/faces/tracked, so this node does not'
    first.spin_until(lambda: warning in second.output, 'a warning', every=lambda: first.show(smile))
    lists.clear()
    faces.clear()
    first.spin_until(lambda: len(faces) > 20, 'faces', every=lambda: first.show(smile))
    assert len({tuple(message.ids) for message in lists}) == 1
    assert first.change_state(Transition.TRANSITION_DEACTIVATE)
    first.spin_until(
        lambda: lists[-1].ids and lists[-1].ids[0] == faces[-1].face_id,
        'the faces of the second node',
        every=lambda: first.publisher.publish(first.image(smile)),
    )
    assert second.stop() == 0
