# SPDX-License-Identifier: Apache-2.0
"""The node takes distances from a depth topic, and the assumption where there is none."""

from collections import Counter

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image

from dan_ros.errors import ParameterError
from dan_ros.messages import stamp_to_ns
from dan_ros.ros.parameters import SPECS, Settings

ASSUMED_M = pytest.approx(0.55, abs=0.08)  # distance of the face in `smile`, for eyes 63 mm apart
MEASURED_M = pytest.approx(0.36, abs=0.02)  # eyes 41 mm apart, as those of a small child
LEFT, RIGHT = '/left/image_raw', '/right/image_raw'
SECOND_NS = 1_000_000_000


def calibration() -> CameraInfo:
    info = CameraInfo(width=320, height=240, distortion_model='plumb_bob', d=[0.0] * 5)
    info.k = [400.0, 0, 160, 0, 400, 120, 0, 0, 1]
    return info


def depth_image(header, values_m: np.ndarray) -> Image:
    """32FC1 from distances [H, W]."""
    height, width = values_m.shape
    return Image(
        header=header,
        height=height,
        width=width,
        encoding='32FC1',
        step=4 * width,
        data=values_m.astype(np.float32).tobytes(),
    )


def constant(depth_m: float) -> np.ndarray:
    return np.full((240, 320), depth_m)


def test_depth_replaces_the_assumed_distance_of_its_camera(robot, smile):
    robot.reconfigure(LEFT, image_topics=[LEFT, RIGHT], depth_topics=['/left/depth', ''])
    right, depth = robot.new_publisher(RIGHT), robot.new_publisher('/left/depth')
    infos = [robot.new_publisher(f'/{side}/camera_info', CameraInfo) for side in ('left', 'right')]
    for publisher in (right, depth, *infos):
        robot.wait_for_subscriber(publisher)
    stamp_ns = robot._next_stamp_ns
    outcomes = {}  # by stamp

    def distance(values_m=None, outcome='', shift_ns=0, publisher=None):
        """Send depth and image, each a second after the last ones; return the distance."""
        nonlocal stamp_ns
        stamp_ns += SECOND_NS
        outcomes[stamp_ns] = outcome
        if values_m is not None:
            depth.publish(depth_image(robot.header(stamp_ns + shift_ns), values_m))
            robot.spin(0.1)
        image = robot.image(smile, stamp_ns)
        (face,) = robot.send_until_answered(image, publisher).faces
        return face.pose and face.pose[0].position.z

    for info in infos:
        info.publish(calibration())
    robot.spin_until(lambda: distance() and distance(publisher=right), 'poses')
    assert distance() == ASSUMED_M
    assert distance(constant(0.36), 'used') == MEASURED_M
    assert distance(publisher=right) == ASSUMED_M  # has no depth
    assert distance(constant(np.nan), 'no_value') == ASSUMED_M
    assert distance(constant(0), 'no_value') == ASSUMED_M
    assert distance(constant(4), 'implausible') == ASSUMED_M  # the wall behind
    assert distance(constant(0.36), 'used', shift_ns=60_000_000) == MEASURED_M
    assert distance(constant(0.36), shift_ns=-200_000_000) == ASSUMED_M  # late
    for _ in range(3):
        assert distance(np.full((120, 160), 0.36)) == ASSUMED_M

    warning = 'the depth images of /left/depth have 160 x 120 pixels, the images 320 x 240'
    status, values = robot.wait_status(lambda s, _: 'depth' in s.message, 'a warning')
    assert warning in status.message
    assert robot.output.count(warning) == 1
    # A loaded machine answers late; then an image is sent, and counted, again.
    answers = Counter(outcomes.get(stamp_to_ns(frame.header.stamp)) for frame in robot.frames)
    counts = {
        name: int(values[f'faces_depth.{name}']) for name in ('used', 'no_value', 'implausible')
    }
    assert counts == {name: answers[name] for name in counts}
    assert set(outcomes.values()) >= set(counts)
    assert int(values['faces_depth.no_image']) >= 5
    assert values['depth_dropped.other_size'] == '3'
    depth.publish(robot.image(smile))
    robot.node.wait_for_output("the encoding 'bgr8' is not one of 16UC1, 32FC1")
    robot.wait_status(lambda s, _: 'bgr8' in s.message, 'a warning')
    depth.publish(depth_image(robot.header(), constant(0.36)))
    robot.wait_status(lambda s, _: 'bgr8' not in s.message, 'no warning, though nobody is in view')
    assert distance(constant(0.36)) == MEASURED_M
    assert stamp_to_ns(robot.frames[-1].header.stamp) == stamp_ns


def test_there_are_as_many_depth_topics_as_cameras():
    defaults = {name: spec.default for name, spec in SPECS.items()}
    assert Settings.from_values(defaults).depths == ['']
    one = Settings.from_values({**defaults, 'depth_topics': ['/depth']})
    assert one.depths == ['/depth']
    two = {**defaults, 'image_topics': [LEFT, RIGHT]}
    assert Settings.from_values(two).depths == ['', '']
    assert Settings.from_values({**two, 'depth_topics': ['', '/d']}).depths == ['', '/d']
    with pytest.raises(ParameterError, match='^depth_topics has 1 entry, but .* is 2 '):
        Settings.from_values({**two, 'depth_topics': ['/d']}).check()


def test_results_of_camera_images_cannot_be_published_for_cropped_faces():
    values = {name: spec.default for name, spec in SPECS.items()} | {'publish.vision_msgs': True}
    Settings.from_values(values).check()
    with pytest.raises(ParameterError, match='^publish.vision_msgs needs input: images'):
        Settings.from_values({**values, 'input': 'cropped_faces'}).check()
