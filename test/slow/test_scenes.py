# SPDX-License-Identifier: Apache-2.0
"""The face finder and the tracker on images of moving faces."""

import cv2
import numpy as np
import pytest
from scenes import SCENES, SECOND, IdScore, intersection_over_union, render, visible
from test_face_finder import Watched, boxes_of
from test_tracker import DURATION_S, new_tracker

from dan_ros.faces.quality import ACCEPT_ALL
from dan_ros.pipeline import ExpressionPipeline, PipelineConfig
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline


@pytest.mark.parametrize(('scene', 'in_parts'), [('walk', 50), ('sway', 35)])
def test_no_face_of_a_scene_is_lost(pipeline, portrait, scene, in_parts):
    """A full search of every image finds the same faces."""
    watched = ExpressionPipeline(Watched(), pipeline.backend, PipelineConfig(quality=ACCEPT_ALL))
    config = VideoConfig(detector_interval=10, pipeline=watched.config)
    video = VideoPipeline(watched, config)
    actors, regions = SCENES[scene], 0
    for index in range(60):
        image = render(actors, [portrait[20:220, 120:320]] * len(actors), index / 20)
        found = video.run({'image': StampedFrame(Frame(image), index * 50_000_000)})['image']
        regions += not watched.detector.searched_full_frame
        expected = boxes_of(pipeline, image)
        assert len(found) == len(expected)
        for face in found:
            box = face.detection.box_xyxy
            assert max(intersection_over_union(box, b) for b in expected) > 0.6
    assert regions >= in_parts


@pytest.mark.parametrize('name', ['cross and hide', 'four at a table'])
def test_ids_are_stable_on_images_of_scenes(name, pipeline, portrait):
    """The real detector runs on rendered images."""
    face = portrait[43:196, 146:299]
    pictures = [face, face[:, ::-1], cv2.convertScaleAbs(face, alpha=0.8), face[:, ::-1]]
    tracker, score = new_tracker(), IdScore()
    for step in range(round(DURATION_S * 10)):
        truth = visible(SCENES[name], step / 10)
        image = render(SCENES[name], pictures, step / 10)
        boxes = [found.box_xyxy for found in pipeline.detector.detect(Frame(image).image)]
        ids = tracker.update(boxes, step * SECOND // 10)
        grown = [grow(b) for b in boxes]
        score.add(truth, list(zip(ids, grown, strict=True)))
    assert score.idf1 >= 0.95


def grow(box_xyxy: np.ndarray) -> np.ndarray:
    """The box of the actor's whole picture, estimated from the detected face."""
    centre = (box_xyxy[:2] + box_xyxy[2:]) / 2
    half = (box_xyxy[2:] - box_xyxy[:2]).max() / 2 / 0.75
    return np.concatenate([centre - half, centre + half])
