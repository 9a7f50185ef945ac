# SPDX-License-Identifier: Apache-2.0
"""Outputs in the messages of other packages, and the error where a package is missing."""

import importlib.util

import pytest
from lifecycle_msgs.msg import Transition

from dan_ros import labels
from dan_ros.ros.outputs import OUTPUTS

MISSING = [name for name in OUTPUTS if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(not MISSING, reason='all packages are installed')
def test_without_a_package_configuring_says_what_to_install(robot):
    robot.clean_up()
    assert robot.set_parameters(**{f'publish__{MISSING[0]}': True}).successful
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert f'ros-$ROS_DISTRO-{MISSING[0].replace("_", "-")}' in robot.output
    assert robot.state == 'unconfigured'


def test_detections_agree_with_the_expressions(robot, smile, nobody):
    vision = pytest.importorskip('vision_msgs.msg')
    robot.reconfigure(publish__vision_msgs=True)
    received = robot.received('/image/detections', vision.Detection2DArray)
    robot.spin_until(lambda: received, 'detections', every=lambda: robot.show(smile))
    (face,) = (frame := robot.show(smile)).faces
    robot.spin_until(lambda: received[-1].header == frame.header, 'the detection')
    (detection,) = received[-1].detections
    assert detection.header == frame.header
    assert detection.id == face.face_id
    center, roi = detection.bbox.center.position, face.roi
    assert center.x - detection.bbox.size_x / 2 == pytest.approx(roi.x_offset, abs=1)
    assert center.y + detection.bbox.size_y / 2 == pytest.approx(roi.y_offset + roi.height, abs=1)
    scores = {h.hypothesis.class_id: h.hypothesis.score for h in detection.results}
    expected = dict(zip(labels.CANONICAL, face.probabilities, strict=True))
    assert scores == pytest.approx({k: p for k, p in expected.items() if p > 0})
    assert detection.results[0].hypothesis.class_id == face.label == 'happy'
    assert sorted(scores.values(), reverse=True) == list(scores.values())

    assert robot.set_parameters(expression__min_confidence=1.0).successful
    robot.spin_until(
        lambda: received[-1].detections and not received[-1].detections[0].results,
        'no hypothesis about an unknown expression',
        every=lambda: robot.show(smile),
    )
    frame = robot.show(nobody)
    robot.spin_until(lambda: received[-1].header == frame.header, 'the image without a face')
    assert received[-1].detections == []


def test_annotations_follow_their_camera(robot, smile, nobody):
    foxglove = pytest.importorskip('foxglove_msgs.msg')
    robot.reconfigure('/eye/image_raw', image_topics=['/eye/image_raw', '/other/image'],
                      publish__foxglove_msgs=True)  # fmt: skip
    received = robot.received('/eye/image_raw/annotations', foxglove.ImageAnnotations)
    other = robot.received('/other/image/annotations', foxglove.ImageAnnotations)
    robot.spin_until(lambda: received, 'annotations', every=lambda: robot.show(smile))
    (face,) = (frame := robot.show(smile)).faces
    robot.spin_until(lambda: received[-1].timestamp == frame.header.stamp, 'the annotation')
    box, landmarks = received[-1].points
    assert [p.x for p in landmarks.points] == pytest.approx([p.x for p in face.landmarks])
    assert min(p.y for p in box.points) == pytest.approx(face.roi.y_offset, abs=1)
    assert received[-1].texts[0].text == f'{face.face_id} happy {face.confidence:.0%}'
    frame = robot.show(nobody)
    robot.spin_until(lambda: received[-1].timestamp == frame.header.stamp, 'an empty annotation')
    assert (received[-1].points, received[-1].texts, other) == ([], [], [])
