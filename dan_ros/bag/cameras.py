# SPDX-License-Identifier: Apache-2.0
"""Distinguishes the cameras of a bag from depth images and from copies of a camera.

A copy is an annotated or rectified image of a camera. It has the header of the image that it was
made from.
"""

import itertools
import posixpath
import re
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias

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

# Pixel types for distances, labels or vectors instead of brightness or color.
NOT_LIGHT = re.compile(r'(8S|16S|32S|32F|64F)C\d*|16UC1?')
DEBUG_IMAGE = 'debug_image'  # last part of the name of the node's annotated images
ORIGINAL = 'image_raw'  # last part of the name of a driver's images, by convention
RESULTS = 'dan_ros/msg/FacialExpressionArray'  # type of the node's results
MIN_COUNT = 0.9  # share of the compressed images below which the raw ones are incomplete
SAMPLES = 10  # images that are compared per topic
MAX_SAMPLES = 300  # images of all topics that are read to find those of one topic
LEAD_NS = 1_000_000_000  # longest time by which a copy may be recorded before its original
PREVIEW_SIDE_PX = 160  # maximum longer side of a preview
MIN_CONTRAST = 20  # difference of neighboring pixels at an edge, gray levels
MAX_DIFFERENCE = 12  # difference of pixels that count as equal in spite of compression, gray levels
MIN_EQUAL = 0.8  # share of equal pixels in an annotated copy
COARSE_SIZE = (16, 12)  # resolution at which rectified images equal their originals, pixels
MIN_CORRELATION = 0.8  # correlation of rectified images and their originals at this resolution

_Preview: TypeAlias = np.ndarray | None


@dataclass(frozen=True)
class _Sample:
    """An image of a topic."""

    header: tuple[int, str]  # stamp, nanoseconds, and frame id
    delay_ns: int  # from stamp to bag time
    encoding: str  # encoding of the pixels; '' if unknown
    # uint8 [h, w], gray, a part of the pixels; None if the image cannot be decoded.
    preview: _Preview


@dataclass
class CameraChoice:
    """The image topics to process."""

    topics: list[Topic]  # one per camera
    # Reason by name of each image topic that is not a separate camera.
    left_out: dict[str, str] = field(default_factory=dict)


def choose_image_topics(bag: Bag, names: tuple[str, ...]) -> CameraChoice:
    """Choose the image topics to process.

    Args:
        bag: a bag with images.
        names: names of topics. () stands for all cameras, with the raw topic of a camera that also
            has a compressed one, and without depth images and copies.

    Raises:
        DataError: the bag has no images of a camera, or one of `names` is not an image topic of it,
            or two of them are the raw and the compressed images of one camera.
    """
    images = {n: t for n, t in bag.topics.items() if t.kind in IMAGE_KINDS}
    for name in names:
        if name not in images:
            raise DataError(f'{bag.path} has no images on {name}; it has {_list_topics(bag)}')
    if names:
        chosen = [images[name] for name in dict.fromkeys(names)]
        for first, second in itertools.combinations(chosen, 2):
            if first.camera == second.camera:
                raise DataError(
                    f'{first.name} and {second.name} have the same images; choose one of them'
                )
        return CameraChoice(chosen)
    if not images:
        raise DataError(f'{bag.path} has no images; it has {_list_topics(bag)}')
    choice = _Cameras(bag, _one_per_camera(list(images.values()))).choose()
    if not choice.topics:
        reasons = '; '.join(f'{name}: {reason}' for name, reason in choice.left_out.items())
        raise DataError(f'{bag.path} has no images of a camera ({reasons}); choose with --topic')
    used = {topic.camera: topic for topic in choice.topics}
    for topic in images.values():
        count = used[topic.camera].count if topic.camera in used else topic.count
        if count < MIN_COUNT * topic.count:
            choice.left_out[topic.name] = (
                f'{used[topic.camera].name} is processed, although it has fewer images'
            )
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


class _Cameras:
    """Compares the image topics of a bag."""

    def __init__(self, bag: Bag, topics: list[Topic]) -> None:
        self._topics = topics
        kinds = {topic.name: topic.kind for topic in bag.topics.values()}
        self._calibrated = {
            t.name for t in topics if kinds.get(info_topic(t.camera)) == CAMERA_INFO
        }
        self._has_results = RESULTS in kinds.values()
        self._samples = _sample(bag, topics)

    def choose(self) -> CameraChoice:
        """Choose one topic per camera, the first by `_rank`."""
        choice = CameraChoice([])
        for topic in sorted(self._topics, key=self._rank):
            reason = self._reason_against(topic, choice.topics)
            if reason:
                choice.left_out[topic.name] = reason
            else:
                choice.topics.append(topic)
        choice.topics.sort(key=self._topics.index)
        return choice

    def _rank(self, topic: Topic) -> tuple[bool, bool, bool, float, bool]:
        """Return a sort key: originals come before their copies, which are made later."""
        samples = self._samples[topic.name]
        return (
            _is_debug_image(topic),
            all(sample.preview is None for sample in samples),
            topic.name not in self._calibrated,
            median(sample.delay_ns for sample in samples) if samples else 0,
            posixpath.basename(topic.camera) != ORIGINAL,
        )

    def _reason_against(self, topic: Topic, cameras: list[Topic]) -> str:
        """Return why a topic is not a separate camera; '' if it is one."""
        encodings = {sample.encoding for sample in self._samples[topic.name]}
        if encodings and all(NOT_LIGHT.fullmatch(encoding) for encoding in encodings):
            return f'its images are distances or other numbers ({", ".join(sorted(encodings))})'
        for camera in cameras:
            if self._is_copy(topic, camera):
                return f'it is a copy of {camera.name} with the same headers'
        return ''

    def _is_copy(self, topic: Topic, camera: Topic) -> bool:
        pairs = self._pairs(topic, camera)
        if len(pairs) < 2:
            return False
        is_of_camera = (
            info_topic(topic.camera) == info_topic(camera.camera)
            or _is_debug_image(topic)
            or (camera.name in self._calibrated and topic.name not in self._calibrated)
        )
        previews = [(a, b) for a, b in pairs if a is not None and b is not None]
        if is_of_camera or not previews:
            correlations = [_correlation(*pair) for pair in previews]
            return is_of_camera and median(correlations or [1.0]) >= MIN_CORRELATION
        equal = median(_equal_share(*pair) for pair in previews)
        return equal >= MIN_EQUAL and (equal < 1 or self._has_results)

    def _pairs(self, topic: Topic, camera: Topic) -> list[tuple[_Preview, _Preview]]:
        """Return the previews of images of two topics with equal headers, if most have a pair."""
        own, other = (
            {sample.header: sample.preview for sample in self._samples[t.name]}
            for t in (topic, camera)
        )
        common = own.keys() & other.keys()
        if len(common) < min(len(own), len(other)) / 2:
            return []
        return [(own[header], other[header]) for header in common]


def _is_debug_image(topic: Topic) -> bool:
    return posixpath.basename(topic.camera) == DEBUG_IMAGE


def _sample(bag: Bag, topics: list[Topic]) -> dict[str, list[_Sample]]:
    """Read the first images of each topic, and the images of the other topics at that time."""
    samples: dict[str, list[_Sample]] = {topic.name: [] for topic in topics}
    for topic in sorted(topics, key=lambda topic: topic.start_ns):
        needed = min(SAMPLES, topic.count)
        records = bag.records(samples.keys(), topic.start_ns - LEAD_NS)
        for _, record in zip(range(MAX_SAMPLES), records, strict=False):
            if len(samples[topic.name]) >= needed:
                break
            if record.message is not None:
                samples[record.topic.name].append(_to_sample(record))
    return samples


def _to_sample(record: Record) -> _Sample:
    header = record.message.header
    stamp_ns = stamp_to_ns(header.stamp)
    try:
        frame = record_to_frame(record)
        step = -(-max(frame.size) // PREVIEW_SIDE_PX)
        image_bgr = to_bgr(np.ascontiguousarray(frame.image[::step, ::step]), frame.encoding)
        preview = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    except (FrameError, MemoryError):
        preview = None
    header_key = stamp_ns, header.frame_id
    return _Sample(header_key, record.time_ns - stamp_ns, _encoding(record), preview)


def _encoding(record: Record) -> str:
    """Return the encoding of the pixels; `format` of a compressed image contains it."""
    if record.topic.kind == COMPRESSED_IMAGE:  # format such as '16UC1; png compressed'
        return str(record.message.format).split(';')[0].strip()
    return str(record.message.encoding)


def _correlation(image: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two gray images at a coarse resolution, [-1, 1].

    Images without contrast are equal to each other.
    """
    values = np.array(
        [cv2.resize(i, COARSE_SIZE, interpolation=cv2.INTER_AREA).ravel() for i in (image, other)],
        float,
    )
    values -= values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(values, axis=1)
    if norms.min() < 1:
        return float(norms.max() < 1)
    return float(values[0] @ values[1] / norms.prod())


def _equal_share(image: np.ndarray, other: np.ndarray) -> float:
    """Return the share of equal pixels in two gray images, ignoring areas without contrast."""
    if image.shape != other.shape:
        return 0.0
    difference = cv2.absdiff(image, other)
    kernel = np.ones((3, 3), np.uint8)
    contrast = np.maximum(
        *(cv2.morphologyEx(i, cv2.MORPH_GRADIENT, kernel) for i in (image, other))
    )
    looked_at = difference[contrast >= MIN_CONTRAST]
    return float((looked_at <= MAX_DIFFERENCE).mean()) if looked_at.size else 0.0
