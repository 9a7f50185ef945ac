# SPDX-License-Identifier: Apache-2.0
"""Search around known faces instead of in the full frame."""

import cv2
import numpy as np
import pytest
from scenes import intersection_over_union

from dan_ros.detect import open_detector
from dan_ros.detect.face_finder import REGION_PX
from dan_ros.pipeline import ExpressionPipeline, PipelineConfig
from dan_ros.types import Frame, SearchHint


class Watched:
    """YuNet that records the size of every image it searches."""

    name, warning, min_score = 'watched', '', 0.6

    def __init__(self) -> None:
        self._yunet = open_detector('yunet')
        self.sizes: list[tuple[int, int]] = []

    def detect(self, image_bgr):
        self.sizes.append(image_bgr.shape[:2])
        return self._yunet.detect(image_bgr)

    detect_in_part = detect

    @property
    def searched_full_frame(self) -> bool:
        """Whether an image since the last call was larger than a region."""
        sizes, self.sizes = self.sizes, []
        return max(height * width for height, width in sizes) > 4 * REGION_PX**2


@pytest.fixture
def watched(pipeline):
    return ExpressionPipeline(Watched(), pipeline.backend)


@pytest.fixture
def pair(portrait) -> np.ndarray:
    """Two faces."""
    return np.hstack([portrait[:360, 40:400], portrait[:360, 40:400]])


def boxes_of(pipeline, image, predicted_boxes=()) -> list[np.ndarray]:
    hint = SearchHint(predicted_boxes=predicted_boxes)
    return [face.box_xyxy for face in pipeline.find_faces(Frame(image), hint)]


@pytest.mark.parametrize('scale', [0.6, 1.0, 3.0])
def test_a_face_is_found_again_where_it_was(watched, portrait, scale):
    image = cv2.resize(portrait, None, fx=scale, fy=scale)
    (box,) = boxes_of(watched, image)
    assert watched.detector.searched_full_frame
    moved = box + 0.15 * (box[2] - box[0])  # moved as between two images
    ((face,),) = watched.run([Frame(image)], [SearchHint(predicted_boxes=[moved])])
    assert not watched.detector.searched_full_frame
    assert intersection_over_union(face.face.box_xyxy, box) > 0.8
    ((whole,),) = watched.run([Frame(image)])
    assert face.expression() == whole.expression()
    np.testing.assert_allclose(face.face.landmarks, whole.face.landmarks, atol=8 * scale)


def test_each_of_two_faces_is_found_again(watched, pair):
    boxes = boxes_of(watched, pair)
    assert len(boxes) == 2
    watched.detector.sizes.clear()
    again = boxes_of(watched, pair, predicted_boxes=boxes)
    assert not watched.detector.searched_full_frame
    assert all(max(intersection_over_union(a, b) for b in boxes) > 0.8 for a in again)
    assert len(again) == 2


def test_if_a_face_is_missing_the_full_frame_is_searched(watched, pair):
    boxes = boxes_of(watched, pair)
    gone = pair.copy()
    gone[:, 360:] = 128
    watched.detector.sizes.clear()
    (left,) = boxes_of(watched, gone, predicted_boxes=boxes)
    assert watched.detector.searched_full_frame
    assert left[2] < 360


def test_a_face_that_jumped_is_not_lost(watched, portrait):
    (box,) = boxes_of(watched, portrait)
    jumped = np.roll(portrait, 180, axis=1)
    (found,) = boxes_of(watched, jumped, predicted_boxes=[box])
    assert found[0] > box[0] + 150


def test_two_boxes_on_one_face_are_one_face(watched, portrait):
    (box,) = boxes_of(watched, portrait)
    assert len(boxes_of(watched, portrait, predicted_boxes=[box, box + 2])) == 1
    assert watched.detector.searched_full_frame


@pytest.mark.parametrize('shift', [-2000, 2000])
def test_a_box_outside_the_image_leads_to_a_full_search(watched, portrait, shift):
    """This happens, for example, after the camera has changed its resolution."""
    (box,) = boxes_of(watched, portrait)
    np.testing.assert_array_equal(boxes_of(watched, portrait, predicted_boxes=[box + shift]), [box])


def test_a_face_at_the_border_is_found_again(watched, portrait):
    cut = portrait[:, 200:]
    (box,) = boxes_of(watched, cut)
    watched.detector.sizes.clear()
    (again,) = boxes_of(watched, cut, predicted_boxes=[box])
    assert not watched.detector.searched_full_frame
    assert intersection_over_union(again, box) > 0.7


@pytest.mark.parametrize(
    ('size', 'max_side_px', 'max_regions'),
    [((640, 480), 640, 12), ((1280, 720), 640, 9), ((1280, 720), 320, 2), ((320, 240), 320, 2)],
)
def test_regions_are_searched_only_while_that_is_cheaper(watched, size, max_side_px, max_regions):
    watched.config = PipelineConfig(max_side_px)
    width, height = size
    nobody = Frame(np.full((height, width, 3), 128, np.uint8))
    box = np.array([10, 10, 100, 120], np.float32)
    whole = (round(max_side_px * height / width), max_side_px)
    for faces in (max_regions, max_regions + 1):
        watched.detector.sizes.clear()
        watched.find_faces(nobody, SearchHint(predicted_boxes=[box] * faces))
        assert (watched.detector.sizes[0] == whole) == (faces > max_regions)


@pytest.mark.parametrize('rotation', [90, 180, 270])
def test_a_turned_camera(watched, portrait, rotation):
    watched.config = PipelineConfig(rotation=rotation)
    image = np.ascontiguousarray(np.rot90(portrait, rotation // 90))
    (whole,) = watched.find_faces(Frame(image))
    watched.detector.sizes.clear()
    (again,) = watched.find_faces(Frame(image), SearchHint(predicted_boxes=[whole.box_xyxy]))
    assert not watched.detector.searched_full_frame
    assert intersection_over_union(again.box_xyxy, whole.box_xyxy) > 0.8
    np.testing.assert_allclose(again.landmarks, whole.landmarks, atol=8)
