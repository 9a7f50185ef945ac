# SPDX-License-Identifier: Apache-2.0
"""The real node over time: stable labels, quality limits, compressed images, pauses, cameras."""

import itertools

import cv2
import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from robot import SMALL
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage

OK, WARN = b'\x00', b'\x01'


@pytest.fixture(scope='module')
def neutral(smile):
    """The same woman with her mouth upside down, which the network does not classify as a smile."""
    image = smile.copy()
    image[132:162, 135:190] = smile[132:162, 135:190][::-1]
    return image


def test_an_outlier_changes_only_the_raw_probabilities(robot, smile, neutral):
    robot.show(smile, 0)
    robot.show(smile, -1_000_000_000)  # an earlier stamp: all tracks end
    for _ in range(15):
        (before,) = robot.show(smile).faces
    (outlier,) = robot.show(neutral).faces
    assert (before.label, outlier.label) == ('happy', 'happy')
    assert outlier.face_id == before.face_id
    assert np.argmax(outlier.raw_probabilities) != outlier.HAPPY
    assert np.argmax(outlier.probabilities) == outlier.HAPPY
    labels = [robot.show(neutral).faces[0].label for _ in range(25)]
    changes = sum(a != b for a, b in itertools.pairwise(labels))
    assert labels[-1] != 'happy'
    assert changes == 1
    assert labels.index(labels[-1]) / 30 <= 0.6  # two half-lives


def test_smoothing_and_quality_limits_change_live(robot, smile, neutral):
    assert robot.set_parameters(smoothing__half_life_s=0.0, tracker__min_hits=2).successful
    robot.show(smile)
    assert robot.show(smile).faces[0].label == 'happy'
    (face,) = robot.show(neutral).faces
    assert face.label != 'happy'
    np.testing.assert_array_equal(face.probabilities, face.raw_probabilities)
    for change, reason in (
        ({'quality__min_side_px': 500.0}, 'too_small'),
        ({'quality__min_frontality': 1.0}, 'turned_away'),
        ({'quality__min_sharpness': 90}, 'blurred'),
    ):
        assert robot.set_parameters(**change).successful
        (face,) = robot.show(smile).faces
        assert (face.label, face.confidence, sum(face.probabilities)) == ('unknown', 0, 0)
        assert face.roi.width > 20
        key = f'faces_unjudged.{reason}'
        before = int(robot.values().get(key, 0))
        robot.show(smile)
        robot.wait_status(lambda _, v: int(v.get(key, 0)) > before, reason)  # noqa: B023
        robot.set_parameters(
            quality__min_side_px=24.0, quality__min_frontality=0.1, quality__min_sharpness=3.5
        )


def test_the_lowest_score_of_a_face_changes_live(robot, smile):
    (face,) = robot.show(smile).faces
    assert robot.set_parameters(detector__min_score=0.99).successful
    assert face.detection_confidence < 0.99
    assert robot.show(smile).faces == []
    assert robot.set_parameters(detector__min_score=0.6).successful
    assert len(robot.show(smile).faces) == 1


def test_a_face_appears_after_min_hits(robot, smile, nobody):
    assert robot.set_parameters(tracker__min_hits=3).successful
    robot.show(nobody)
    counts = [len(robot.show_once(smile).faces) for _ in range(4)]
    assert counts == [0, 0, 1, 1]


def test_compressed_images(robot, smile):
    robot.reconfigure('image/compressed', CompressedImage, image_transport='compressed')
    assert 'waiting for images on /image/compressed' in robot.output
    for suffix in ('.jpg', '.png'):
        content = cv2.imencode(suffix, smile)[1].tobytes()
        sent = CompressedImage(header=robot.header(), format=suffix[1:], data=content)
        frame = robot.send_until_answered(sent)
        (face,) = frame.faces
        assert face.label == 'happy'
        assert face.header == sent.header
        assert face.camera == frame.camera == '/image'  # the same name as with raw images


def test_a_pause_is_silent_and_ids_hold(robot, smile):
    (before,) = robot.show(smile).faces
    answer = robot.set_enabled(False)
    assert (answer.success, answer.message) == (True, 'paused')
    robot.frames.clear()
    robot.diagnostics.clear()
    robot.spin_until(  # the node has time to report silence, which it does after 2 s
        lambda: len(robot.diagnostics) >= 4,
        'four statuses',
        every=lambda: robot.publisher.publish(robot.image(smile)),
    )
    assert robot.frames == []
    _, *later = robot.diagnostics  # the first status covers the time before
    assert {status.level for status in later} == {OK}
    assert all(v.value == 'false' for s in later for v in s.values if v.key == 'enabled')
    assert robot.state == 'active'
    assert robot.set_enabled(False).success  # a second pause works too
    assert robot.set_enabled(True).message == 'enabled'
    (after,) = robot.show(smile).faces
    assert after.face_id == before.face_id


def test_stamps_that_stand_still_are_a_warning_and_ids_hold(robot, smile):
    robot.show(smile, 0)
    frames = []
    for _ in range(20):
        robot.frames.clear()  # all frames have the same header
        frames.append(robot.show(smile, 0))
    assert len({face.face_id for frame in frames for face in frame.faces}) == 1
    status, _ = robot.wait_status(lambda s, _: 'have the same stamp' in s.message, 'a warning')
    assert status.level == WARN
    assert '/image' in status.message


def test_a_pause_holds_through_the_lifecycle(robot, smile):
    robot.clean_up()
    assert robot.set_enabled(False).success
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    robot.node.wait_until(lambda: 'active: paused' in robot.output, 'it is paused')
    assert robot.set_enabled(True).success
    assert robot.show(smile).faces
    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)


def test_a_finalized_node_cannot_resume_and_says_so(start):
    robot = start()
    assert robot.change_state(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    answer = robot.set_enabled(True)
    assert not answer.success
    assert 'finalized' in answer.message


# --- several cameras ----------------------------------------------------------------------------


@pytest.fixture
def two_cameras(robot):
    """The node with two cameras, and a publisher for each."""
    robot.reconfigure('left/image', image_topics=['left/image', 'right/image'])
    right = robot.new_publisher('right/image')
    robot.wait_for_subscriber(right)
    return robot, {'/left/image': robot.publisher, '/right/image': right}


def test_two_cameras_keep_their_headers_and_never_share_an_id(two_cameras, smile):
    robot, publishers = two_cameras
    ids = {camera: set() for camera in publishers}
    for _ in range(8):
        for camera, publisher in publishers.items():
            frame = robot.send_until_answered(robot.image(smile), publisher)
            assert frame.camera == camera
            assert all(face.camera == camera for face in frame.faces)
            ids[camera] |= {face.face_id for face in frame.faces}
    assert [len(own) for own in ids.values()] == [1, 1]
    assert ids['/left/image'] != ids['/right/image']
    robot.wait_status(lambda _, v: v['faces'] == '2', 'faces of both cameras')


def test_each_camera_that_sends_bad_images_is_named(two_cameras, smile):
    robot, publishers = two_cameras
    bad = robot.image(smile)
    bad.step = 1
    for camera, publisher in publishers.items():
        robot.diagnostics.clear()
        robot.spin_until(
            lambda c=camera: any(f'bad_step of {c}' in s.message for s in robot.diagnostics),
            f'a warning about {camera}',
            every=lambda p=publisher: p.publish(bad),
        )
        assert f'dropped an image of {camera}' in robot.node.output


def test_one_silent_camera_of_two_is_named(two_cameras, smile):
    robot, _ = two_cameras

    def is_right_alone(status) -> bool:
        return 'no image for 2 s on /right/image' in status.message and 'left' not in status.message

    robot.spin_until(
        lambda: any(map(is_right_alone, robot.diagnostics)),
        'the silent camera',
        every=lambda: robot.publisher.publish(robot.image(smile)),
    )


# --- poses --------------------------------------------------------------------------------------


def calibration(robot, focal_px: float = 400.0, height: int = SMALL[1]) -> CameraInfo:
    return CameraInfo(
        header=robot.header(),
        width=SMALL[0],
        height=height,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[focal_px, 0.0, SMALL[0] / 2, 0.0, focal_px, SMALL[1] / 2, 0.0, 0.0, 1.0],
    )


def test_a_calibrated_camera_gives_poses(start, smile):
    robot = start('-r', 'image:=/eye/image_raw', topic='/eye/image_raw')
    assert list(robot.show(smile).faces[0].pose) == []
    info = robot.new_publisher('/eye/camera_info', CameraInfo)
    robot.wait_for_subscriber(info)
    robot.spin_until(
        lambda: robot.show(smile).faces[0].pose,
        'a pose',
        every=lambda: info.publish(calibration(robot)),
    )
    (face,) = robot.show(smile).faces
    (pose,) = face.pose
    # Her eyes are 46 pixels apart: 0.063 m * 400 / 46.
    assert pose.position.z == pytest.approx(0.55, abs=0.08)
    eyes_x = (face.landmarks[0].x + face.landmarks[1].x) / 2
    assert pose.position.x == pytest.approx((eyes_x - 160) / 400 * pose.position.z, abs=0.02)
    robot.spin_until(
        lambda: not robot.show(smile).faces[0].pose,
        'no pose',
        every=lambda: info.publish(calibration(robot, focal_px=0.0)),  # not calibrated
    )
    robot.node.wait_for_output('the camera_info of /eye/image_raw has no valid calibration')
    robot.spin_until(
        lambda: 'the camera_info of /eye/image_raw is for 320x180' in robot.node.output,
        'another aspect ratio',
        every=lambda: (info.publish(calibration(robot, height=180)), robot.show(smile)),
    )
    status, _ = robot.wait_status(lambda s, _: 'aspect ratios differ' in s.message, 'a warning')
    assert status.level == WARN


def test_faces_are_frames_of_tf(robot, smile):
    tf2_msgs = pytest.importorskip('tf2_msgs.msg')
    transforms = robot.received('/tf', tf2_msgs.TFMessage)
    info = robot.new_publisher('camera_info', CameraInfo)
    robot.wait_for_subscriber(info)
    robot.spin_until(
        lambda: transforms,
        'a transform',
        every=lambda: (info.publish(calibration(robot)), robot.show(smile)),
    )

    def has_transforms(frame) -> bool:
        return frame.header.stamp in [m.transforms[0].header.stamp for m in transforms]

    frame = robot.show(smile)
    (face,) = frame.faces
    robot.spin_until(lambda: has_transforms(frame), 'its transforms')
    transform, gaze = transforms[-1].transforms
    assert transform.header.frame_id == frame.header.frame_id
    assert transform.child_frame_id == f'face_{face.face_id}'
    assert transform.transform.rotation == face.pose[0].orientation
    assert transform.transform.translation.z == face.pose[0].position.z
    assert gaze.header.stamp == frame.header.stamp
    assert gaze.header.frame_id == transform.child_frame_id
    assert gaze.child_frame_id == f'gaze_{face.face_id}'
    rotation, origin = gaze.transform.rotation, gaze.transform.translation
    turn = Rotation.from_quat([rotation.x, rotation.y, rotation.z, rotation.w]).as_matrix()
    # Columns: the gaze's x (to the person's right), y (down) and z (forward) in the face's frame.
    np.testing.assert_allclose(turn, [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-9)
    assert (origin.x, origin.y, origin.z) == (0, 0, 0)
    assert robot.set_parameters(publish__tf=False).successful
    frame = robot.show(smile)
    robot.spin(0.3)
    assert not has_transforms(frame)
