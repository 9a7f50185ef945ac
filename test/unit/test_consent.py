# SPDX-License-Identifier: Apache-2.0
"""Only released faces are classified, returned and shown, and only while they stay in view."""

import cv2
import numpy as np
import pytest

from dan_ros.errors import ConsentError
from dan_ros.faces.blur import blur_faces
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.tracking.consent import ConsentRegistry, Granted
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline

LEFT, RIGHT = '/left', '/right'
FRAME_NS = 100_000_000


@pytest.fixture
def registry():
    """Two cameras; a face of the left one is missing in the last frame."""
    registry = ConsentRegistry()
    registry.update(LEFT, {'a': 10.0, 'b': 30.0}, {'a', 'b', 'missing'})
    registry.update(RIGHT, {'c': 20.0}, {'c'})
    return registry


def test_without_an_id_the_largest_face_is_released_and_a_repetition_releases_nobody_else(registry):
    for _ in range(3):
        assert registry.grant() == Granted('b', LEFT)
    assert registry.released == {'b'}
    assert registry.grant(camera=RIGHT) == Granted('c', RIGHT)
    assert registry.grant('missing') == Granted('missing', LEFT)
    assert registry.released == {'b', 'c', 'missing'}


@pytest.mark.parametrize(
    ('face_id', 'camera', 'message'),
    [
        ('d', '', "no face with the id 'd' is in view"),
        ('c', LEFT, "no face with the id 'c' is in view of '/left'"),
        ('', '/none', "no face is in view of '/none'"),
    ],
)
def test_an_unknown_face_changes_nothing(registry, face_id, camera, message):
    registry.grant('a')
    with pytest.raises(ConsentError, match=f'^{message}$'):
        registry.grant(face_id, camera)
    with pytest.raises(ConsentError, match=f'^{message}$'):
        registry.withdraw(face_id, camera)
    assert registry.released == {'a'}


def test_consent_is_withdrawn_from_one_face_or_from_all(registry):
    for face_id in ('a', 'b', 'c', 'missing'):
        registry.grant(face_id)
    registry.withdraw('a')
    assert registry.released == {'b', 'c', 'missing'}
    registry.withdraw(camera=LEFT)
    assert registry.released == {'c'}
    registry.withdraw()
    registry.withdraw()
    assert registry.released == set()


def test_consent_ends_when_a_face_leaves(registry):
    for face_id in ('a', 'c', 'missing'):
        registry.grant(face_id)
    registry.update(LEFT, {'missing': 1.0}, {'missing'})
    assert registry.released == {'c', 'missing'}
    registry.update(LEFT, {'a': 1.0}, {'a'})  # not even if the same id appears again
    assert registry.released == {'c'}
    registry.forget(RIGHT)
    assert registry.released == set()


def test_consent_is_awaited_while_a_face_in_view_is_not_released(registry):
    assert registry.is_awaited
    for face_id in ('a', 'b', 'c'):
        registry.grant(face_id)
    assert not registry.is_awaited
    registry.update(RIGHT, {'d': 1.0}, {'c', 'd'})
    assert registry.is_awaited
    registry.clear()
    assert not registry.is_awaited


class Counting:
    """A backend that counts the faces it classifies."""

    def __init__(self, backend) -> None:
        self._backend, self.model, self.count = backend, backend.model, 0

    def infer(self, faces_rgb):
        self.count += len(faces_rgb)
        return self._backend.infer(faces_rgb)


@pytest.fixture(scope='module')
def couple(portrait):
    """A large face on the left and a smaller one on the right."""
    image = np.zeros((512, 1024, 3), np.uint8)
    image[:, :512] = portrait
    image[:150, 700:850] = cv2.resize(portrait[30:230, 120:320], (150, 150))
    return image


@pytest.fixture
def video(pipeline):
    counting = ExpressionPipeline(pipeline.detector, Counting(pipeline.backend))
    return VideoPipeline(counting, VideoConfig(consent_required=True))


def run(video, image, step):
    return video.run({LEFT: StampedFrame(Frame(image), step * FRAME_NS)})[LEFT]


def faces_shown(video, image) -> int:
    return len(video.pipeline.find_faces(blur_faces(Frame(image), video.hidden_boxes(LEFT))))


def test_a_face_is_neither_classified_nor_shown_before_it_is_released(video, couple):
    assert run(video, couple, 0) == []
    assert video.pipeline.backend.count == 0
    assert video.face_ids(LEFT) == set()
    assert faces_shown(video, couple) == 0

    granted = video.consent.grant()
    (face,) = run(video, couple, 1)
    assert face.face_id == granted.face_id
    assert face.detection.box_xyxy[2] < 512  # the larger one
    assert face.raw.is_classified
    assert video.pipeline.backend.count == 1
    assert video.face_ids(LEFT) == {granted.face_id}
    assert faces_shown(video, couple) == 1

    video.consent.withdraw(granted.face_id)
    assert run(video, couple, 2) == []
    assert video.pipeline.backend.count == 1
    assert faces_shown(video, couple) == 0


def test_faces_ids_and_hidden_boxes_of_an_image_agree_when_consent_is_withdrawn_meanwhile(
    video, couple
):
    run(video, couple, 0)
    granted = video.consent.grant()
    (face,) = run(video, couple, 1)
    video.consent.withdraw()
    assert video.face_ids(LEFT) == {face.face_id} == {granted.face_id}
    assert faces_shown(video, couple) == 1
    assert run(video, couple, 2) == []
    assert video.face_ids(LEFT) == set()
    assert faces_shown(video, couple) == 0


def test_a_face_that_returns_is_unknown_again(video, couple):
    run(video, couple, 0)
    granted = video.consent.grant()
    nobody = np.zeros_like(couple)
    for step in range(1, 8):
        run(video, nobody, step)
    assert len(run(video, couple, 8)) == 1  # missed for less than a second
    for step in range(9, 22):
        run(video, nobody, step)
    assert run(video, couple, 22) == []
    with pytest.raises(ConsentError):
        video.consent.grant(granted.face_id)


def test_a_released_face_may_move(video, smile):
    run(video, smile, 0)
    video.consent.grant()
    for step in range(1, 12):
        (face,) = run(video, np.roll(smile, 12 * step, axis=1), step)
        assert face.raw.is_classified


def test_with_blur_released_faces_are_hidden_as_well(video, couple):
    video.config = VideoConfig(consent_required=True, blur=True)
    run(video, couple, 0)
    video.consent.grant()
    assert len(run(video, couple, 1)) == 1
    assert faces_shown(video, couple) == 0


def test_a_reset_forgets_consent(video, couple):
    run(video, couple, 0)
    video.consent.grant()
    video.reset()
    assert run(video, couple, 1) == []
