# SPDX-License-Identifier: Apache-2.0
"""Tells the cameras of a bag from depth images and from copies of a camera, by their images.

A copy is an annotated or rectified image of a camera. It has the header of the image that it was
made from.
"""

import posixpath
import re
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from dan_ros.bag.reader import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    IMAGE_KINDS,
    Bag,
    Record,
    Topic,
    record_to_frame,
)
from dan_ros.errors import DataError, FrameError
from dan_ros.faces.camera_model import info_topic
from dan_ros.images.encodings import to_bgr
from dan_ros.images.opencv import cv2
from dan_ros.messages import stamp_to_ns

# Types of pixels that are distances, labels or vectors, not brightness or color.
NOT_LIGHT = re.compile(r'(8S|16S|32S|32F|64F)C\d*|16UC1?')
DEBUG_IMAGE = 'debug_image'  # last part of the name of the node's annotated images
RESULTS = 'dan_ros/msg/FacialExpressionArray'  # type of the node's results
SAMPLES = 10  # images of a topic that are looked at
MAX_SAMPLES = 300  # images of all topics that are looked at, to find those of one topic
LEAD_NS = 1_000_000_000  # an image may be recorded this long after the copies made from it
PREVIEW_SIDE_PX = 160
MIN_CONTRAST = 20  # between neighboring pixels, gray levels
MAX_DIFFERENCE = 12  # between equal pixels, gray levels; compression changes them a little
MIN_EQUAL = 0.6  # share of equal pixels in an annotated copy
COARSE_SIZE = (16, 12)  # of images that show the same, however they are rectified, pixels
MIN_CORRELATION = 0.8  # of such images


@dataclass(frozen=True)
class _Sample:
    """An image of a topic.

    Attributes:
        header: stamp, nanoseconds, and frame id.
        delay_ns: from stamp to bag time.
        encoding: of the pixels; '' if unknown.
        preview: uint8 [h, w], gray, a part of the pixels; None if the image cannot be decoded.
    """

    header: tuple[int, str]
    delay_ns: int
    encoding: str
    preview: np.ndarray | None


@dataclass
class CameraChoice:
    """The image topics to process.

    Attributes:
        topics: one per camera.
        left_out: reason per image topic that shows no other camera, by name.
    """

    topics: list[Topic]
    left_out: dict[str, str] = field(default_factory=dict)


def choose_image_topics(bag: Bag, names: tuple[str, ...]) -> CameraChoice:
    """Choose the image topics to process.

    Args:
        bag: a bag with images.
        names: names of topics. () stands for all cameras, with the raw topic of a camera that also
            has a compressed one, and without depth images and copies.

    Raises:
        DataError: the bag has no images of a camera, or one of `names` is not an image topic of it.
    """
    images = {n: t for n, t in bag.topics.items() if t.kind in IMAGE_KINDS}
    for name in names:
        if name not in images:
            raise DataError(f'{bag.path} has no images on {name}; it has {_list_topics(bag)}')
    if names:
        return CameraChoice([images[name] for name in dict.fromkeys(names)])
    if not images:
        raise DataError(f'{bag.path} has no images; it has {_list_topics(bag)}')
    choice = _Cameras(bag, _one_per_camera(list(images.values()))).choose()
    if not choice.topics:
        reasons = '; '.join(f'{name}: {reason}' for name, reason in choice.left_out.items())
        raise DataError(f'{bag.path} has no images of a camera ({reasons}); choose with --topic')
    return choice


def _list_topics(bag: Bag) -> str:
    text = ', '.join(f'{t.name} ({t.kind})' for t in bag.topics.values()) or 'no topics'
    if 'serialized as ros1' in text:
        text += '; ROS 1 recorded it: convert its .bag file with `rosbags-convert`'
    return text


def _one_per_camera(images: list[Topic]) -> list[Topic]:
    """Return the raw topic of each camera, or the compressed one if it has no raw images."""
    chosen: dict[str, Topic] = {}
    for topic in sorted(images, key=lambda topic: topic.kind != IMAGE):
        earlier = chosen.get(topic.camera)
        if earlier is None or (earlier.count == 0 and topic.count):
            chosen[topic.camera] = topic
    return list(chosen.values())
