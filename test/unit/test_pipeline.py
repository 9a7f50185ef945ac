# SPDX-License-Identifier: Apache-2.0
"""Detectors, and the pipeline on a real face."""

import cv2
import numpy as np
import pytest
from scenes import intersection_over_union

from dan_ros import labels
from dan_ros.detect import Detector, open_detector
from dan_ros.detect.face_finder import MAX_FACES
from dan_ros.detect.full_frame import FullFrameDetector
from dan_ros.detect.haar import HaarDetector
from dan_ros.detect.yunet import decode
from dan_ros.detect.yunet_opencv import MIN_VERSION, OpenCvYuNetDetector
from dan_ros.errors import DanError, ModelError, ParameterError
from dan_ros.faces.crop import square_about
from dan_ros.images.compressed import JpegDecoder, compressed_to_frame
from dan_ros.images.opencv import version
from dan_ros.model import store
from dan_ros.pipeline import ExpressionPipeline, PipelineConfig
from dan_ros.types import Face, Frame


def with_config(pipeline: ExpressionPipeline, **config) -> ExpressionPipeline:
    """Return a pipeline with the same parts and another configuration."""
    return ExpressionPipeline(pipeline.detector, pipeline.backend, PipelineConfig(**config))


FACE = np.array([178, 63, 268, 176])  # the astronaut's, labeled by hand


@pytest.fixture(scope='module')
def yunet():
    return open_detector('yunet')


def overlap(face) -> float:
    return intersection_over_union(face.box_xyxy, FACE)


# --- detectors ----------------------------------------------------------------------------------

NEEDS_WRAPPER = pytest.mark.skipif(version() < MIN_VERSION, reason='this OpenCV is too old')


def open_any(name: str) -> Detector:
    """Open a registered detector, or YuNet in OpenCV's wrapper."""
    if name == 'opencv':
        return OpenCvYuNetDetector(store.read_model('yunet').content)
    return open_detector(name)


def test_decoding_by_hand():
    """Decode one cell: column 3, row 1 of the grid of stride 16, in an image of 64 x 32 pixels."""
    cells = {8: 32, 16: 8, 32: 2}
    outputs = [
        np.zeros((1, count, width), np.float32)
        for width in (1, 1, 4, 10)
        for count in cells.values()
    ]
    cell = 1 * 4 + 3
    outputs[1][0, cell] = 0.81  # class
    outputs[4][0, cell] = 1.0  # objectness
    outputs[7][0, cell] = (0.5, 0.25, np.log(2), np.log(1))  # centre offset, size
    outputs[10][0, cell] = np.arange(10) / 10
    scores, boxes, landmarks = decode(outputs, (32, 64), 0.5)
    np.testing.assert_allclose(scores, [0.9], rtol=1e-6)
    x, y = 3.5 * 16, 1.25 * 16
    np.testing.assert_allclose(boxes, [[x - 16, y - 8, x + 16, y + 8]], rtol=1e-6)
    np.testing.assert_allclose(landmarks[0, 1], [(3 + 0.2) * 16, (1 + 0.3) * 16], rtol=1e-6)


@NEEDS_WRAPPER
def test_same_faces_as_opencv(yunet, portrait):
    """OpenCV's own wrapper, at a size that is a multiple of 32."""
    (expected,) = open_any('opencv').detect(portrait)
    (face,) = yunet.detect(portrait)
    np.testing.assert_allclose(face.box_xyxy, expected.box_xyxy, atol=0.1)
    np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=0.1)
    assert abs(face.score - expected.score) < 1e-3


def test_of_a_wall_of_faces_the_surest_are_followed(pipeline, portrait):
    places = np.arange(400, dtype=np.float32)
    wall = [
        Face(np.array([x, x, x + 20, x + 20], np.float32), 1 - x / 1000, np.zeros((0, 2)))
        for x in places
    ]

    class Detector:
        def detect(self, image):
            return wall

    faces = ExpressionPipeline(Detector(), pipeline.backend).find_faces(Frame(portrait))
    assert len(faces) == MAX_FACES
    assert min(face.score for face in faces) == wall[MAX_FACES - 1].score


@pytest.mark.parametrize('name', ['yunet', 'haar'])
def test_every_detector_finds_the_face(name, portrait):
    faces = open_detector(name).detect(portrait)
    assert len(faces) == 1
    assert overlap(faces[0]) > 0.6
    assert 0.6 <= faces[0].score <= 1


def test_landmarks_are_where_they_are_named(yunet, portrait):
    right_eye, left_eye, nose, right_mouth, left_mouth = yunet.detect(portrait)[0].landmarks
    assert right_eye[0] < nose[0] < left_eye[0]  # the person's right is the image's left
    assert right_mouth[0] < left_mouth[0]
    assert right_eye[1] < nose[1] < right_mouth[1]


@pytest.mark.parametrize('size', [40, 90, 700, 1200])
def test_a_face_that_fills_the_image_is_found(yunet, portrait, size):
    left, top, right, bottom = FACE
    face = cv2.resize(portrait[top - 10 : bottom + 5, left - 10 : right + 10], (size, size))
    assert yunet.detect(face)


SHAPES = [
    *[(1, 1, 3), (1, 300, 3), (300, 1, 3), (31, 33, 3), (480, 640, 3)],
    *[(30, side, 3) for side in range(80, 400, 32)],
]


@pytest.mark.parametrize('name', ['yunet', pytest.param('opencv', marks=NEEDS_WRAPPER)])
def test_nobody_in_any_size(name):
    detector = open_any(name)
    for shape in 3 * SHAPES:
        assert detector.detect(np.full(shape, 90, np.uint8)) == [], shape


@pytest.mark.parametrize('name', ['yunet', 'haar', pytest.param('opencv', marks=NEEDS_WRAPPER)])
def test_the_lowest_score_can_change_at_any_time(name, portrait):
    detector = open_any(name)
    (face,) = detector.detect(portrait)
    detector.min_score = face.score + 0.01
    assert detector.detect(portrait) == []
    detector.min_score = face.score - 0.01
    assert detector.detect(portrait)


def test_without_yunet_haar_steps_in_with_a_warning(monkeypatch, tmp_path):
    known = store.KNOWN_MODELS['yunet']
    nowhere = store.KnownModel(
        'yunet', 'no_such.onnx', known.sha256, known.description, url='http://127.0.0.1:9/x'
    )
    monkeypatch.setitem(store.KNOWN_MODELS, 'yunet', nowhere)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    detector = open_detector('auto')
    assert isinstance(detector, HaarDetector)
    assert 'Haar' in detector.warning
    with pytest.raises(ModelError, match='no_such'):
        open_detector('yunet')


def test_an_unknown_detector_is_refused_with_the_known_ones():
    with pytest.raises(DanError, match='auto, yunet, haar'):
        open_detector('retina')


# --- pipeline -----------------------------------------------------------------------------------


def test_the_astronaut_smiles(pipeline, portrait):
    ((face,),) = pipeline.run([Frame(portrait)])
    assert labels.label_of(face.expression()) == 'happy'
    assert face.confidence > 0.7
    assert overlap(face.face) > 0.6


@pytest.mark.parametrize('encoding', ['rgb8', 'bgra8', 'rgba8', 'mono8'])
def test_every_encoding_gives_the_same_answer(pipeline, portrait, encoding):
    codes = {
        'rgb8': cv2.COLOR_BGR2RGB,
        'bgra8': cv2.COLOR_BGR2BGRA,
        'rgba8': cv2.COLOR_BGR2RGBA,
        'mono8': cv2.COLOR_BGR2GRAY,
    }
    ((expected,),) = pipeline.run([Frame(portrait)])
    ((face,),) = pipeline.run([Frame(cv2.cvtColor(portrait, codes[encoding]), encoding)])
    loose = encoding == 'mono8'  # the detector sees other colors, and moves the box a little
    np.testing.assert_allclose(face.probabilities, expected.probabilities, atol=0.1 if loose else 0)


@pytest.mark.parametrize('rotation', [1, 45, -90, 360])
def test_only_quarter_turns_are_rotations(rotation):
    with pytest.raises(ParameterError, match=f'rotation cannot be {rotation}'):
        PipelineConfig(rotation=rotation)


@pytest.mark.parametrize('rotation', [90, 180, 270])
def test_a_turned_camera(pipeline, portrait, rotation):
    """The camera's image is the upright one, rotated; results are in pixels of that image."""
    image = np.ascontiguousarray(np.rot90(portrait, rotation // 90))
    turned = with_config(pipeline, rotation=rotation)
    ((expected,),) = pipeline.run([Frame(portrait)])
    ((face,),) = turned.run([Frame(image)])
    np.testing.assert_allclose(face.probabilities, expected.probabilities, atol=0.02)
    marked = np.zeros(portrait.shape[:2], np.uint8)
    x, y = expected.face.landmarks[2]
    marked[int(y), int(x)] = 255
    row, column = np.argwhere(np.rot90(marked, rotation // 90))[0]
    np.testing.assert_allclose(face.face.landmarks[2], [column, row], atol=2)


def test_detection_on_a_reduced_copy_crops_from_the_full_image(pipeline, portrait):
    large = cv2.resize(portrait, None, fx=4, fy=4)
    reduced = with_config(pipeline, max_side_px=512)
    ((expected,),) = pipeline.run([Frame(portrait)])
    ((face,),) = reduced.run([Frame(large)])
    np.testing.assert_allclose(face.face.box_xyxy, expected.face.box_xyxy * 4, atol=8)
    np.testing.assert_allclose(face.probabilities, expected.probabilities, atol=0.1)


def test_faces_past_the_limit_are_found_but_not_judged(pipeline, portrait):
    small = cv2.resize(portrait, None, fx=0.5, fy=0.5)
    image = np.full((512, 800, 3), 128, np.uint8)
    image[:, :512] = portrait
    image[:256, 530:786] = small
    limited = with_config(pipeline, max_side_px=800, max_faces=1)
    ((large_face, small_face),) = limited.run([Frame(image)])
    assert large_face.is_classified
    assert not small_face.is_classified
    assert small_face.expression() == labels.UNKNOWN
    assert small_face.face.box_xyxy[0] > 530


def test_frames_keep_their_own_faces(pipeline, portrait):
    """Two cameras and an empty one in one batch."""
    empty = Frame(np.full((100, 200, 3), 60, np.uint8))
    shifted = np.roll(portrait, 100, axis=1)
    nobody, (first,), (second,) = pipeline.run([empty, Frame(portrait), Frame(shifted)])
    assert nobody == []
    np.testing.assert_allclose(second.face.box_xyxy, first.face.box_xyxy + [100, 0, 100, 0], atol=6)


def test_no_frames(pipeline):
    assert pipeline.run([]) == []


def test_the_frame_is_not_written_to(pipeline, portrait):
    locked = portrait.copy()
    locked.flags.writeable = False
    pipeline.run([Frame(locked)])
    np.testing.assert_array_equal(locked, portrait)


def test_below_the_threshold_a_face_is_unknown(pipeline, portrait):
    ((face,),) = pipeline.run([Frame(portrait)])
    assert face.expression(min_confidence=0.9999) == labels.UNKNOWN
    assert labels.label_of(labels.UNKNOWN) == 'unknown'


@pytest.mark.parametrize('size', [(100, 100), (80, 120), (120, 80)])
def test_a_whole_image_is_cut_out_as_it_is(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    (face,) = FullFrameDetector(crop_scale=0.956).detect(image)
    assert (face.score, len(face.landmarks)) == (1.0, 0)
    left, top, side = square_about(face.box_xyxy, 0.956)
    assert side == max(size)
    assert (left, top) == ((size[1] - side) / 2, (size[0] - side) / 2)


@pytest.mark.parametrize('quarter_turns', range(4))
@pytest.mark.parametrize('face_px', [80, 300])
def test_a_reduced_jpeg_gives_the_same_results(pipeline, portrait, face_px, quarter_turns):
    """A large face is classified from half of the pixels, a small one from all."""
    scale = face_px / 113
    scene = np.full((1081, 1919, 3), 90, np.uint8)
    head = cv2.resize(portrait[40:210, 150:310], None, fx=scale, fy=scale)
    scene[200 : 200 + head.shape[0], 900 : 900 + head.shape[1]] = head
    scene = np.rot90(scene, quarter_turns)
    content = cv2.imencode('.jpg', scene)[1].tobytes()
    size = scene.shape[1], scene.shape[0]
    turned = with_config(pipeline, rotation=90 * quarter_turns)

    frame = JpegDecoder().decode(content, size, max_side_px=640)
    ((reduced,),) = turned.run([frame])
    ((full,),) = turned.run([compressed_to_frame(content, 10**7)])

    assert frame.pixels(0.3).shape[1] == (-(-size[0] // 2) if face_px == 300 else size[0])
    assert intersection_over_union(reduced.face.box_xyxy, full.face.box_xyxy) > 0.9
    np.testing.assert_allclose(reduced.face.landmarks, full.face.landmarks, atol=face_px / 20)
    assert reduced.expression() == full.expression()
    np.testing.assert_allclose(reduced.probabilities, full.probabilities, atol=0.1)
