# SPDX-License-Identifier: Apache-2.0
"""The running node shows no hidden face, and says nothing about a face until it is released."""

import importlib.util

import cv2
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool

from dan_ros.detect import open_detector
from dan_ros.msg import FaceScene, FacialExpressionEvent
from dan_ros.srv import Consent
from dan_ros.types import Frame

HAS_HRI = importlib.util.find_spec('hri_msgs') is not None
needs_messages = pytest.mark.skipif(not HAS_HRI, reason='hri_msgs is not installed')
IMAGE_TYPE = 'sensor_msgs/msg/Image'


@pytest.fixture(scope='module')
def couple(portrait):
    """A large face on the left and a smaller one on the right, uint8 [240, 320, 3]."""
    image = np.zeros((240, 320, 3), np.uint8)
    image[:, :200] = portrait[:240, 120:320]
    image[:120, 200:] = cv2.resize(portrait[30:230, 120:320], (120, 120))
    return image


def grant(robot, face_id='', granted=True, camera=''):
    request = Consent.Request(face_id=face_id, granted=granted, camera=camera)
    return robot.call(Consent, 'grant_consent', request)


def test_a_face_is_published_after_its_consent_and_until_that_is_withdrawn(
    robot, couple, nobody, pipeline
):
    robot.reconfigure(consent__required=True)
    needed = robot.received('/dan_node/consent_needed', Bool)
    pictures = robot.received('/dan_node/debug_image', Image)
    events = robot.received('/facial_expression_events', FacialExpressionEvent)
    scenes = robot.received('/facial_expression_scene', FaceScene)

    def picture_of(image):
        pictures.clear()
        robot.spin_until(lambda: pictures, 'a debug image', every=lambda: robot.show(image))
        return np.frombuffer(pictures[-1].data, np.uint8).reshape(image.shape)

    def faces_in(picture):
        return len(pipeline.find_faces(Frame(picture)))

    def wait_for_need(value, image):
        needed.clear()
        robot.spin_until(
            lambda: needed and needed[-1].data is value, 'a need', every=lambda: robot.show(image)
        )

    assert robot.show(nobody).faces == []
    wait_for_need(False, nobody)
    answer = grant(robot)
    assert (answer.success, answer.message) == (False, 'no face is in view')

    assert faces_in(couple) == 2
    assert robot.show(couple).faces == []
    assert faces_in(picture_of(couple)) == 0
    wait_for_need(True, couple)
    assert robot.values()['faces'] == '0'
    answer = grant(robot, 'abcd1')
    assert answer.message == "no face with the id 'abcd1' is in view"
    assert robot.faces == events == []
    assert not any(scene.faces or scene.face_count for scene in scenes)

    answer = grant(robot)
    assert answer.success
    (face,) = robot.show(couple).faces
    assert face.face_id == answer.face_id
    assert face.roi.x_offset < 160
    assert face.label == 'happy'
    assert faces_in(picture_of(couple)) == 1
    wait_for_need(True, couple)

    assert grant(robot, answer.face_id, granted=False).success
    assert robot.show(couple).faces == []
    robot.spin_until(lambda: events and events[-1].kind == events[-1].LEFT, 'the end')
    robot.spin_until(lambda: scenes and scenes[-1].face_count == 0, 'an empty scene')
    assert {face.face_id for face in [*robot.faces, *events]} == {answer.face_id}


@pytest.mark.parametrize('how', ['silence', 'pause'])
def test_whoever_is_in_view_after_a_break_of_the_images_is_asked_again(robot, smile, how):
    robot.reconfigure(consent__required=True)
    robot.show(smile)
    assert grant(robot).success
    assert len(robot.show(smile).faces) == 1
    if how == 'pause':
        robot.set_enabled(False)
        robot.set_enabled(True)
    else:
        robot.spin_until(lambda: not grant(robot).success, 'nobody in view')
    assert robot.show(smile).faces == []
    assert grant(robot).success
    assert len(robot.show(smile).faces) == 1


def test_no_image_of_any_topic_shows_a_hidden_face(robot, smile):
    """This includes topics that may be added later, for example for another part of REP-155."""
    robot.reconfigure(privacy__blur=True, ros4hri=HAS_HRI)
    (face,) = robot.show(smile).faces

    def image_topics():
        published = robot.client.get_publisher_names_and_types_by_node('dan_node', '/')
        return {name for name, types in published if IMAGE_TYPE in types}

    expected = {'/dan_node/debug_image'}
    if HAS_HRI:
        expected.add(f'/humans/faces/{face.face_id}/cropped')
    robot.spin_until(lambda: image_topics() >= expected, 'the topics of images')
    received = {topic: robot.received(topic, Image) for topic in image_topics()}
    robot.spin_until(lambda: all(received.values()), 'images', every=lambda: robot.show(smile))
    detector = open_detector('yunet', min_score=0.3)
    preview = robot.received('/dan_node/preview/image/compressed', CompressedImage)
    robot.spin_until(lambda: preview, 'a preview', every=lambda: robot.show(smile))
    for message in preview:
        picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
        assert detector.detect(picture) == []
    for topic, images in received.items():
        for image in images:
            pixels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, -1)
            assert detector.detect(np.ascontiguousarray(pixels[..., :3])) == [], topic


def test_without_consent_required_there_is_nothing_to_release(robot, smile):
    assert len(robot.show(smile).faces) == 1
    for granted in (True, False):
        answer = grant(robot, granted=granted)
        assert not answer.success
        assert 'consent.required is false' in answer.message
    assert len(robot.show(smile).faces) == 1


@needs_messages
def test_a_face_of_ros4hri_is_not_listed_before_its_consent(robot, smile):
    import hri_msgs.msg as hri

    robot.reconfigure(consent__required=True, ros4hri=True)
    tracked = robot.received('/humans/faces/tracked', hri.IdsList)
    robot.spin_until(lambda: tracked, 'a list', every=lambda: robot.show(smile))
    assert not any(message.ids for message in tracked)
    answer = grant(robot)
    robot.show(smile)
    robot.spin_until(lambda: list(tracked[-1].ids) == [answer.face_id], 'the face')
    assert grant(robot, granted=False).success
    robot.show(smile)
    robot.spin_until(lambda: not tracked[-1].ids, 'an empty list')


@needs_messages
def test_a_face_of_another_detector_is_released_by_the_id_of_that_detector(start, portrait):
    import hri_msgs.msg as hri

    robot = start('-p', 'input:=cropped_faces', '-p', 'consent.required:=true', wait=False)
    robot.node.wait_for_output('waiting for images on /humans/faces/<id>/cropped')
    tracked = robot.new_publisher('/humans/faces/tracked', hri.IdsList)
    cropped = robot.new_publisher('/humans/faces/abc/cropped')
    expressions = robot.received('/humans/faces/abc/expression', hri.Expression)
    needed = robot.received('/dan_node/consent_needed', Bool)

    def send():
        tracked.publish(hri.IdsList(ids=['abc']))
        cropped.publish(robot.image(portrait[63:176, 166:279]))

    robot.spin_until(lambda: needed and needed[-1].data, 'a face', every=send)
    assert expressions == []
    for granted in (True, False):
        answer = grant(robot, 'not\none', granted)
        assert (answer.success, answer.message) == (False, r"no face is in view of 'not\none'")
        answer = grant(robot, '', granted, camera='/image')
        assert (answer.success, answer.message[:30]) == (False, 'cropped faces have no camera: ')
    answer = grant(robot, 'abc')
    assert (answer.success, answer.face_id) == (True, 'abc')
    robot.spin_until(lambda: expressions, 'an expression', every=send)


def test_the_processing_is_declared_to_those_who_come_late(robot):
    privacy = pytest.importorskip('hri_privacy_msgs.msg')
    declared = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.client.create_subscription(
        privacy.PersonalDataProcessor, '/data_management', declared.append, latched
    )
    robot.spin_until(lambda: declared, 'the declaration')
    assert declared[0].data_source_node == '/dan_node'
    assert declared[0].path == ''
    assert 'Nothing is stored' in declared[0].data_purpose
