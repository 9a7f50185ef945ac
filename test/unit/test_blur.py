# SPDX-License-Identifier: Apache-2.0
"""A hidden face cannot be found or matched, and nothing else in the image changes."""

import cv2
import numpy as np
import pytest
from recording import moving_smile, record_images, run_bag

from dan_ros.detect import open_detector
from dan_ros.faces.blur import MARGIN, blur_faces
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import FRAME_ENCODINGS, Frame
from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline

CONVERSIONS = {
    'rgb8': cv2.COLOR_BGR2RGB,
    'bgra8': cv2.COLOR_BGR2BGRA,
    'rgba8': cv2.COLOR_BGR2RGBA,
    'mono8': cv2.COLOR_BGR2GRAY,
}
CAMERA = '/image'
FRAME_NS = 33_000_000


class Blinking:
    """A detector that finds nothing while `is_blind`."""

    name, warning, min_score, is_blind = 'blinking', '', 0.6, False

    def __init__(self, detector) -> None:
        self._detector = detector

    def detect(self, image_bgr):
        return [] if self.is_blind else self._detector.detect(image_bgr)


@pytest.fixture(scope='module')
def eager_detector():
    """A detector that also finds faces with a score too low for the node."""
    return open_detector('yunet', min_score=0.3)


@pytest.mark.parametrize('encoding', FRAME_ENCODINGS)
def test_a_hidden_face_leaves_one_color(portrait, pipeline, encoding):
    code = CONVERSIONS.get(encoding)
    frame = Frame(portrait if code is None else cv2.cvtColor(portrait, code), encoding)
    original = frame.image.copy()
    (face,) = pipeline.find_faces(frame)
    hidden = blur_faces(frame, [face.box_xyxy])
    assert hidden.encoding == encoding
    np.testing.assert_array_equal(frame.image, original)

    changed = (hidden.image != original).reshape(*original.shape[:2], -1).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    left, top, right, bottom = face.box_xyxy
    x, y = MARGIN * (right - left), MARGIN * (bottom - top)
    region = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    assert region == pytest.approx((left - x, top - y, right + x, bottom + y), abs=3)
    inside = hidden.image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert (inside == inside[0, 0]).all()


def test_no_detector_finds_a_hidden_face(portrait, pipeline, eager_detector):
    frame = Frame(portrait)
    (face,) = pipeline.find_faces(frame)
    hidden = blur_faces(frame, [face.box_xyxy])
    assert eager_detector.detect(hidden.image) == []
    assert len(eager_detector.detect(portrait)) == 1


def test_boxes_may_extend_beyond_the_image(nobody):
    height, width = nobody.shape[:2]
    boxes = np.float32([[-50, -50, 20, 20], [width - 5, height - 5, width + 90, height + 90]])
    far = np.float32([[-90, -90, -50, -50], [width + 50, 0, width + 90, 50]])
    noise = np.random.default_rng(0).integers(0, 256, nobody.shape, np.uint8)
    hidden = blur_faces(Frame(noise), [*boxes, *far]).image
    assert (hidden[:20, :20] == hidden[0, 0]).all()
    assert (hidden[-5:, -5:] == hidden[-1, -1]).all()
    np.testing.assert_array_equal(hidden[60:-60, 60:-60], noise[60:-60, 60:-60])
    assert blur_faces(Frame(noise), []).image is noise


def test_a_face_that_is_missed_for_a_moment_stays_hidden(pipeline, smile, eager_detector):
    """The face may move, and only every tenth image may be searched in full."""
    detector = Blinking(pipeline.detector)
    config = VideoConfig(detector_interval=10, blur=True)
    video = VideoPipeline(ExpressionPipeline(detector, pipeline.backend), config)
    for step in range(12):
        detector.is_blind = step in (5, 6, 10)
        image = np.roll(smile, 4 * step, axis=1)
        faces = video.run({CAMERA: StampedFrame(Frame(image), step * FRAME_NS)})[CAMERA]
        assert len(faces) == (not detector.is_blind)
        hidden = blur_faces(Frame(image), video.hidden_boxes(CAMERA))
        assert eager_detector.detect(hidden.image) == []


def test_a_new_face_is_hidden_in_its_first_image(pipeline, smile, nobody):
    """The face has too few hits for an id, and most images are not searched in full."""
    config = VideoConfig(detector_interval=100, blur=True)
    video = VideoPipeline(pipeline, config)
    for step in range(3):
        video.run({CAMERA: StampedFrame(Frame(nobody), step * FRAME_NS)})
    assert video.hidden_boxes(CAMERA) == []
    video.config = VideoConfig(
        detector_interval=100, blur=True, tracker=type(config.tracker)(min_hits=3)
    )
    assert video.run({CAMERA: StampedFrame(Frame(smile), 3 * FRAME_NS)}) == {CAMERA: []}
    assert len(video.hidden_boxes(CAMERA)) == 1
    video.config = VideoConfig()
    assert video.hidden_boxes(CAMERA) == []


def test_videos_of_bags_hide_faces(tmp_path, smile, nobody, eager_detector):
    bag = record_images(tmp_path / 'in', moving_smile(smile, nobody))
    found = {}
    for options in ((), ('--blur',)):
        out = tmp_path / f'out{len(options)}'
        result = run_bag(bag, out, '--video', *options)
        assert result.exit_code == 0, result.output
        video = cv2.VideoCapture(str(out / 'camera_image_raw.mp4'))
        images = [video.read()[1] for _ in range(12)]
        found[options] = sum(bool(eager_detector.detect(image)) for image in images)
        assert 'happy' in (out / 'faces.csv').read_text()
    assert found == {(): 11, ('--blur',): 0}
