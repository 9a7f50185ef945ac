"""The real node over time: labels that hold, gates, compressed images, pausing, several cameras."""

import itertools

import cv2
import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from robot import SMALL
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_srvs.srv import SetBool

PERIOD_NS = 33_333_333


@pytest.fixture(scope='module')
def neutral(smile):
    """The same woman with her mouth upside down: not a smile, to the network."""
    image = smile.copy()
    image[132:162, 135:190] = smile[132:162, 135:190][::-1]
    return image


def compressed(robot, image_bgr: np.ndarray, suffix: str = '.jpg') -> CompressedImage:
    header = robot.image(image_bgr).header
    content = cv2.imencode(suffix, image_bgr)[1].tobytes()
    return CompressedImage(header=header, format=suffix[1:], data=content)


def set_enabled(robot, enabled: bool):
    return robot.call(SetBool, 'set_enabled', SetBool.Request(data=enabled))


def test_an_outlier_changes_raw_probabilities_alone(start, smile, neutral):
    robot = start()
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


def test_smoothing_and_gates_change_live(start, smile, neutral):
    robot = start('-p', 'smoothing.half_life_s:=0.0', '-p', 'tracker.min_hits:=2')
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
        robot.wait_status(lambda _, v, r=reason: int(v.get(f'faces_unjudged.{r}', 0)) > 0, reason)
        robot.set_parameters(
            quality__min_side_px=24.0, quality__min_frontality=0.1, quality__min_sharpness=3.5
        )


def test_a_face_appears_after_min_hits(start, smile, nobody):
    robot = start('-p', 'tracker.min_hits:=3')
    robot.show(nobody)
    counts = [len(robot.show_once(smile).faces) for _ in range(4)]
    assert counts == [0, 0, 1, 1]


def test_compressed_images(start, smile):
    robot = start('-p', 'image_transport:=compressed', topic='unused', wait=False)
    robot.node.wait_for_output('waiting for images on /image/compressed')
    publisher = robot.client.create_publisher(CompressedImage, 'image/compressed', 5)
    for suffix in ('.jpg', '.png'):
        sent = compressed(robot, smile, suffix)
        frame = robot.send_until_answered(sent, publisher)
        (face,) = frame.faces
        assert face.label == 'happy'
        assert face.header == sent.header
        assert face.camera == frame.camera == '/image'  # as with raw images


def test_pausing_is_silent_and_resuming_goes_on(start, smile):
    robot = start()
    (before,) = robot.show(smile).faces
    answer = set_enabled(robot, False)
    assert (answer.success, answer.message) == (True, 'paused')
    robot.frames.clear()
    for _ in range(10):
        robot.publisher.publish(robot.image(smile))
        robot.spin(0.05)
    assert robot.frames == []
    assert robot.state == 'active'
    status, _ = robot.wait_status(lambda _, v: v['enabled'] == 'false', 'paused')
    assert status.level == b'\x00'
    robot.spin(2.5)  # a paused node misses nobody
    assert robot.diagnostics[-1].level == b'\x00'
    assert set_enabled(robot, False).success  # twice is once
    assert set_enabled(robot, True).message == 'enabled'
    (after,) = robot.show(smile).faces
    assert after.face_id == before.face_id


def test_stamps_that_stand_still_are_a_warning_and_ids_hold(start, smile, nobody):
    robot = start()
    frames = [robot.show(smile, stamp_ns=0) for _ in range(20)]
    assert len({face.face_id for frame in frames for face in frame.faces}) == 1
    status, _ = robot.wait_status(lambda s, _: 'carry the same stamp' in s.message, 'a warning')
    assert status.level == b'\x01'
    assert '/image' in status.message


def test_pausing_holds_through_the_lifecycle(start, smile):
    robot = start('-p', 'autostart:=false', wait=False)
    robot.node.wait_for_output('')
    assert set_enabled(robot, False).success
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    robot.node.wait_for_output('active: paused')
    assert set_enabled(robot, True).success
    assert robot.show(smile).faces
    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)


def test_a_finalized_node_says_that_it_can_not_resume(start):
    robot = start()
    assert robot.change_state(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    answer = set_enabled(robot, True)
    assert not answer.success
    assert 'finalized' in answer.message


def test_two_cameras_keep_their_headers_and_never_share_an_id(start, smile):
    robot = start('-p', 'image_topics:=["left/image", "right/image"]', topic='left/image')
    right = robot.new_publisher('right/image')
    robot.spin_until(lambda: right.get_subscription_count() > 0, 'the other subscription')
    ids = {'/left/image': set(), '/right/image': set()}
    for _ in range(8):
        for publisher in (robot.publisher, right):
            frame = robot.send_until_answered(robot.image(smile), publisher)
            ids[frame.camera] |= {face.face_id for face in frame.faces}
            assert all(face.camera == frame.camera for face in frame.faces)
    assert [len(own) for own in ids.values()] == [1, 1]
    assert ids['/left/image'] != ids['/right/image']
    values = robot.wait_status(lambda _, v: v['faces'] == '2', 'faces of both cameras')[1]
    assert values['faces'] == '2'


def test_each_camera_that_sends_bad_images_is_named(start, smile):
    robot = start('-p', 'image_topics:=["left/image", "right/image"]', topic='left/image')
    right = robot.new_publisher('right/image')
    bad = robot.image(smile)
    bad.step = 1
    for publisher, camera in ((robot.publisher, '/left/image'), (right, '/right/image')):
        robot.spin_until(
            lambda c=camera: f'dropped an image of {c}' in robot.node.output,
            f'a line about {camera}',
            every=lambda p=publisher: p.publish(bad),
        )
        robot.spin_until(
            lambda c=camera: any(f'bad_step of {c}' in s.message for s in robot.diagnostics),
            f'a warning about {camera}',
            every=lambda p=publisher: p.publish(bad),
        )


def test_one_silent_camera_of_two_is_named(start, smile):
    robot = start('-p', 'image_topics:=["left/image", "right/image"]', topic='left/image')

    def send():
        robot.publisher.publish(robot.image(smile))

    robot.diagnostics.clear()
    robot.spin_until(
        lambda: any('no image for 2 s on /right/image' in s.message for s in robot.diagnostics),
        'the silent camera',
        every=send,
    )


def calibration(robot, focal_px: float = 400.0, height: int = SMALL[1]) -> CameraInfo:
    return CameraInfo(
        header=robot.image(np.zeros((1, 1, 3), np.uint8)).header,
        width=SMALL[0],
        height=height,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[focal_px, 0.0, SMALL[0] / 2, 0.0, focal_px, SMALL[1] / 2, 0.0, 0.0, 1.0],
    )


def test_a_calibrated_camera_gives_poses(start, smile):
    robot = start('-r', 'image:=/eye/image_raw', topic='/eye/image_raw')
    assert list(robot.show(smile).faces[0].pose) == []
    info = robot.client.create_publisher(CameraInfo, '/eye/camera_info', 1)
    robot.spin_until(lambda: info.get_subscription_count() > 0, 'the subscription to camera_info')
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
        every=lambda: info.publish(calibration(robot, focal_px=0.0)),  # not calibrated after all
    )
    robot.node.wait_for_output('the camera_info of /eye/image_raw is not a calibration')
    robot.spin_until(
        lambda: 'the camera_info of /eye/image_raw is for 320x180' in robot.node.output,
        'another aspect ratio',
        every=lambda: (info.publish(calibration(robot, height=180)), robot.show(smile)),
    )
    status, _ = robot.wait_status(lambda s, _: 'aspect ratios differ' in s.message, 'a warning')
    assert status.level == b'\x01'


def test_faces_are_frames_of_tf(start, smile):
    tf2_msgs = pytest.importorskip('tf2_msgs.msg')
    robot = start()
    frames = []
    robot.client.create_subscription(tf2_msgs.TFMessage, '/tf', frames.append, 10)
    info = robot.client.create_publisher(CameraInfo, 'camera_info', 1)
    robot.spin_until(lambda: info.get_subscription_count() > 0, 'the subscription to camera_info')
    info.publish(calibration(robot))
    robot.spin(0.5)
    frame = robot.show(smile)
    (face,) = frame.faces
    robot.spin_until(lambda: frames, 'a frame')
    (transform,) = frames[-1].transforms
    assert transform.header.frame_id == frame.header.frame_id
    assert transform.child_frame_id == f'face_{face.face_id}'
    assert transform.transform.rotation == face.pose[0].orientation
    assert transform.transform.translation.z == face.pose[0].position.z
    assert robot.set_parameters(publish__tf=False).successful
    robot.spin(0.3)
    frames.clear()
    robot.show(smile)
    robot.spin(0.3)
    assert frames == []
