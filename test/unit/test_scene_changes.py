# SPDX-License-Identifier: Apache-2.0
"""Faces are found in time although only parts of most images are searched."""

import cv2
import numpy as np
import pytest
from scenes import intersection_over_union

from dan_ros.detect import open_detector
from dan_ros.errors import BackendError
from dan_ros.faces.quality import QualityThresholds
from dan_ros.images.compressed import JpegDecoder
from dan_ros.pipeline import ExpressionPipeline, PipelineConfig
from dan_ros.types import Frame, SearchHint
from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline

CAMERA = '/camera/image_raw'
HEIGHT, WIDTH = 480, 640
FACE = np.s_[20:300, 60:400]  # face in the portrait, with hair and shoulders
FACE_SIDE = 113  # longer side of the face's box in the portrait, pixels
INTERVAL = 10
RNG = np.random.default_rng(0)
NO_FACE_IS_CLASSIFIED = PipelineConfig(quality=QualityThresholds(min_side_px=1e9))


class Counting:
    """YuNet that counts the pixels that it searches."""

    def __init__(self) -> None:
        self._yunet = open_detector('yunet', threads=1)
        self.min_score = 0.6
        self.pixels = 0

    def detect(self, image_bgr):
        self.pixels += image_bgr.shape[0] * image_bgr.shape[1]
        self._yunet.min_score = self.min_score
        return self._yunet.detect(image_bgr)

    def detect_in_part(self, image_bgr):
        self.pixels += image_bgr.shape[0] * image_bgr.shape[1]
        self._yunet.min_score = self.min_score
        return self._yunet.detect_in_part(image_bgr)


class Camera:
    """Runs a video pipeline on one image after the other."""

    def __init__(self, backend, interval: int = INTERVAL) -> None:
        self.detector = Counting()
        pipeline = ExpressionPipeline(self.detector, backend)
        config = VideoConfig(detector_interval=interval, pipeline=NO_FACE_IS_CLASSIFIED)
        self.video = VideoPipeline(pipeline, config)
        self._images = 0

    def boxes(self, image: np.ndarray) -> list[np.ndarray]:
        self.detector.pixels = 0
        noise = RNG.normal(0, 4, image.shape)
        noisy = (image + noise).clip(0, 255).astype(np.uint8)
        self._images += 1
        frames = {CAMERA: StampedFrame(Frame(noisy), self._images * 33_000_000)}
        return [face.detection.box_xyxy for face in self.video.run(frames)[CAMERA]]


@pytest.fixture
def camera(pipeline) -> Camera:
    return Camera(pipeline.backend)


@pytest.fixture(scope='module')
def room() -> np.ndarray:
    """Background without a face, wider than an image."""
    coarse = np.random.default_rng(1).integers(60, 200, (24, 64, 3)).astype(np.float32)
    return cv2.resize(coarse, (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def view(room: np.ndarray, left: int = 0) -> np.ndarray:
    return room[:, left : left + WIDTH].copy()


def add_face(image: np.ndarray, portrait: np.ndarray, side: int, left: int, top: int) -> None:
    scale = side / FACE_SIDE
    face = cv2.resize(portrait[FACE], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = face.shape[:2]
    image[top : top + height, left : left + width] = face


def add_bare_face(image: np.ndarray, portrait: np.ndarray, side: int, left: int, top: int) -> None:
    """Add a face without hair and shoulders, its box at `left`, `top`."""
    (face,) = open_detector('yunet', threads=1).detect(portrait)
    x, y, right, bottom = face.box_xyxy.round().astype(int)
    scale = side / max(right - x, bottom - y)
    cut = portrait[y:bottom, x:right]
    bare = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = bare.shape[:2]
    image[top : top + height, left : left + width] = bare


def test_an_empty_room_is_not_searched_again(camera, room):
    pixels = []
    for index in range(INTERVAL):
        light = 1.0 + 3 * index  # a lamp that becomes brighter
        assert camera.boxes(view(room) + light) == []
        pixels.append(camera.detector.pixels)
    assert pixels[0] >= WIDTH * HEIGHT
    assert pixels[1:] == [0] * (INTERVAL - 1)
    camera.boxes(view(room))
    assert camera.detector.pixels >= WIDTH * HEIGHT


@pytest.mark.parametrize('side', [24, 40, 60, 120])
@pytest.mark.parametrize('appears_at', [3, 4])
def test_a_new_face_is_found_at_most_one_image_late(camera, room, portrait, side, appears_at):
    add_face(people := view(room), portrait, 100, 20, 30)
    add_face(more := people.copy(), portrait, side, 330 - side // 2, 60)
    for _ in range(appears_at):
        assert len(camera.boxes(people)) == 1
    found = [len(camera.boxes(more)) for _ in range(2)]
    assert found[-1] == 2


@pytest.mark.parametrize('known', [100, 160])
@pytest.mark.parametrize('gap', [0, 4, 12, 24])
def test_a_new_face_beside_a_known_one_is_found_as_well(camera, room, portrait, known, gap):
    """A face of 40 pixels touches a larger one, or is a few pixels away."""
    add_face(people := view(room), portrait, known, 20, 30)
    (box,) = camera.boxes(people)
    add_bare_face(more := people.copy(), portrait, 40, int(box[2]) + gap, int(box[1]) + 20)
    for _ in range(2):
        camera.boxes(people)
    assert [len(camera.boxes(more)) for _ in range(2)][-1] == 2


def test_a_small_face_in_front_of_a_large_one_is_found(camera, room, portrait):
    add_face(person := view(room), portrait, 180, 20, 0)
    (box,) = camera.boxes(person)
    add_face(more := person.copy(), portrait, 56, int(box[0]) - 20, int(box[3]) - 60)
    assert len(Camera(camera.video.pipeline.backend, interval=1).boxes(more)) == 2
    camera.boxes(person)
    assert [len(camera.boxes(more)) for _ in range(2)][-1] == 2


def test_a_changed_threshold_searches_a_still_scene_again(camera, room, portrait):
    add_face(person := view(room), portrait, 100, 200, 100)
    camera.detector.min_score = 0.99
    for _ in range(3):
        assert camera.boxes(person) == []
    camera.detector.min_score = 0.5
    camera.video.search_again()
    assert len(camera.boxes(person)) == 1


def test_cameras_are_searched_in_full_at_different_times(camera, room):
    whole = []
    for index in range(3 * INTERVAL):
        camera.detector.pixels = 0
        frames = {
            name: StampedFrame(Frame(view(room).astype(np.uint8)), index * 33_000_000)
            for name in 'abc'
        }
        camera.video.run(frames)
        whole.append(camera.detector.pixels // (WIDTH * HEIGHT))
    assert max(whole[1:]) == 1
    assert sum(whole[1:]) == pytest.approx(3 * len(whole) / INTERVAL, abs=3)


def test_known_faces_of_a_reduced_jpeg_need_no_full_picture(pipeline, portrait):
    size = (1280, 960)
    picture = cv2.resize(portrait[:, :500], size)
    content = cv2.imencode('.jpg', picture)[1].tobytes()
    (whole,) = pipeline.find_faces(Frame(picture))
    frame = JpegDecoder().decode(content, size, 640)
    (found,) = pipeline.find_faces(frame, SearchHint(predicted_boxes=[whole.box_xyxy]))
    assert intersection_over_union(found.box_xyxy, whole.box_xyxy) > 0.8
    assert frame.pixels(0.5).shape[1::-1] == (640, 480)


def test_a_new_face_is_found_while_the_camera_turns(camera, room, portrait):
    delays = []
    for index in range(INTERVAL):
        image = view(room, left=12 * index)
        if index >= 3:
            add_face(image, portrait, 40, 300, 200)
        delays.append(bool(camera.boxes(image)))
    assert all(delays[4:])


def test_a_face_that_was_covered_is_found_again(camera, room, portrait):
    add_face(person := view(room), portrait, 100, 200, 100)
    (box,) = camera.boxes(person)
    camera.boxes(person)
    for _ in range(3):
        assert camera.boxes(view(room)) == []
    back = [camera.boxes(person) for _ in range(2)]
    assert intersection_over_union(back[-1][0], box) > 0.7


@pytest.mark.parametrize('missed', [3, 4])
def test_a_face_that_the_detector_misses_once_is_soon_back(
    camera, room, portrait, monkeypatch, missed
):
    """Nothing changed in its place, so only its absence tells where to search."""
    add_face(people := view(room), portrait, 100, 20, 30)
    counts = []
    for index in range(missed + 3):
        with monkeypatch.context() as patch:
            if index == missed:
                for name in ('detect', 'detect_in_part'):
                    patch.setattr(camera.detector, name, lambda image: [])
            counts.append(len(camera.boxes(people)))
    assert counts[: missed + 1] == [1] * missed + [0]
    assert counts[-1] == 1


def test_much_less_is_searched_around_a_face_that_moves(camera, room, portrait):
    pixels = []
    for index in range(2 * INTERVAL):
        add_face(image := view(room), portrait, 100, 200, 60 + 2 * index)
        assert len(camera.boxes(image)) == 1
        pixels.append(camera.detector.pixels)
    assert sum(pixels) < 0.4 * len(pixels) * WIDTH * HEIGHT


def test_interval_1_searches_every_image_in_full(pipeline, room):
    camera = Camera(pipeline.backend, interval=1)
    for _ in range(3):
        camera.boxes(view(room))
        assert camera.detector.pixels >= WIDTH * HEIGHT


def test_what_failed_is_searched_again(camera, room, portrait, monkeypatch):
    """Otherwise the new face would be missed until the next full search."""
    add_face(person := view(room), portrait, 100, 200, 100)
    for _ in range(2):
        camera.boxes(view(room))
    with monkeypatch.context() as broken:
        broken.setattr(camera.video.pipeline.backend, 'infer', lambda batch: _fail())
        with pytest.raises(BackendError):
            camera.boxes(person)
    assert len(camera.boxes(person)) == 1


def _fail():
    raise BackendError('lost')


def test_another_resolution_is_searched_in_full_and_keeps_the_ids(camera, room, portrait):
    add_face(person := view(room), portrait, 100, 200, 100)
    for _ in range(2):
        camera.boxes(person)
    ids = camera.video.face_ids(CAMERA)
    small = cv2.resize(person, (320, 240), interpolation=cv2.INTER_AREA)
    found = [len(camera.boxes(small)) for _ in range(2)]
    assert found[-1] == 1
    assert camera.video.face_ids(CAMERA) == ids
