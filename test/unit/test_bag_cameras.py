# SPDX-License-Identifier: Apache-2.0
"""Which image topics of a bag are cameras: their images decide, not their names."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from recording import (
    COMPRESSED,
    FACES,
    IMAGE,
    INFO,
    START_NS,
    TYPES,
    compressed,
    header,
    raw,
    read_bag,
    record,
    run_bag,
)

from dan_ros.annotate import annotate
from dan_ros.bag.cameras import CameraChoice, choose_image_topics
from dan_ros.bag.reader import Bag
from dan_ros.errors import DataError
from dan_ros.types import Frame

PERIOD_NS = 33_000_000
DEPTH = np.full((48, 64), 1000, np.uint16)


@dataclass
class Images:
    """A topic of images that are numbered at the full image rate.

    Attributes:
        picture: returns the image of a number.
        delay_ns: bag time minus the time of the image.
        first: number of the first image.
        every: step between the numbers.
        offset_ns: stamp minus the time of the image.
    """

    topic: str
    picture: Callable[[int], np.ndarray]
    encoding: str = 'bgr8'
    frame_id: str = 'optical'
    delay_ns: int = 0
    first: int = 0
    every: int = 1
    offset_ns: int = 0

    def messages(self, count: int):
        for number in range(self.first, count, self.every):
            time_ns = START_NS + number * PERIOD_NS
            picture, stamp_ns = self.picture(number), time_ns + self.offset_ns
            if ';' in self.encoding:
                message, kind = compressed(picture, stamp_ns), COMPRESSED
                message.format, message.header.frame_id = self.encoding, self.frame_id
            else:
                message, kind = raw(picture, stamp_ns, self.encoding, self.frame_id), IMAGE
            yield self.topic, kind, time_ns + self.delay_ns, message


def calibration(topic: str):
    unit = np.eye(3).ravel()
    roi = TYPES.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    info = TYPES.types[INFO](
        header(0), 240, 320, 'plumb_bob', np.zeros(5), unit, unit, np.zeros(12), 0, 0, roi
    )
    return topic, INFO, START_NS, info


def record_topics(path: Path, *topics: Images, others=(), count=12, storage='sqlite3') -> Path:
    messages = [message for topic in topics for message in topic.messages(count)]
    return record(path, sorted([*messages, *others], key=lambda m: m[2]), storage)


@pytest.fixture
def choose(tmp_path) -> Callable[..., CameraChoice]:
    def choose(*topics: Images, names=(), **options) -> CameraChoice:
        return choose_image_topics(Bag(record_topics(tmp_path / 'in', *topics, **options)), names)

    return choose


@pytest.fixture(scope='module')
def scene(smile):
    """A moving face."""
    return lambda number: np.roll(smile, 3 * number, axis=1)


@pytest.fixture
def elsewhere(portrait):
    """Another place without a face."""
    return lambda number: portrait[250:490, number : number + 320]


@pytest.fixture(scope='module')
def annotated(scene, pipeline):
    @functools.cache
    def draw(number: int) -> np.ndarray:
        frame = Frame(scene(number))
        return annotate(frame, pipeline.run([frame])[0])

    return draw


@pytest.fixture
def rectified(scene):
    matrix = np.array([[260, 0, 160], [0, 260, 120], [0, 0, 1.0]])
    return lambda number: cv2.undistort(scene(number), matrix, np.array([-0.3, 0.1, 0, 0, 0]))


def names(choice: CameraChoice) -> list[str]:
    return [topic.name for topic in choice.topics]


@pytest.mark.parametrize(
    ('first', 'second'),
    [
        ('/front/image_raw', '/depth_camera/image_raw'),
        ('/front/image_raw', '/debug/annotated_rect'),
        ('/a', '/robot/rectified/depth/debug'),
    ],
)
def test_a_name_makes_no_camera_a_copy(choose, scene, elsewhere, first, second):
    choice = choose(Images(first, scene), Images(second, elsewhere))
    assert names(choice) == [first, second]
    assert not choice.left_out


def test_equal_pictures_of_two_places_are_two_cameras(choose, scene):
    """Simulators produce such bags: there is no evidence that one topic is a copy of the other."""
    choice = choose(Images('/front/image_raw', scene), Images('/depth_camera/image_raw', scene))
    assert names(choice) == ['/front/image_raw', '/depth_camera/image_raw']


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1', '16SC1', '32SC1', '64FC1', '32FC2', '8SC1'])
@pytest.mark.parametrize('topic', ['/oak/stereo/image_raw', '/camera/color/image_raw'])
def test_distances_are_no_camera(choose, scene, encoding, topic):
    dtype, channels = {'32FC1': np.float32, '64FC1': np.float64, '32SC1': np.int32}, {'32FC2': 2}
    pixels = np.ones((24, 32 * channels.get(encoding, 1)), dtype.get(encoding, np.uint16))
    choice = choose(Images('/oak/rgb/image_raw', scene), Images(topic, lambda _: pixels, encoding))
    assert names(choice) == ['/oak/rgb/image_raw']
    assert encoding in choice.left_out[topic]


@pytest.mark.parametrize(
    'encoding', ['16UC1; png compressed', '16UC1; compressedDepth png', '32FC1;']
)
def test_compressed_distances_are_no_camera(choose, scene, encoding):
    choice = choose(
        Images('/cam/image_raw/compressed', scene, 'bgr8; jpeg compressed bgr8'),
        Images('/cam/range/compressed', lambda _: DEPTH.astype(np.uint8), encoding),
    )
    assert names(choice) == ['/cam/image_raw/compressed']
    assert list(choice.left_out) == ['/cam/range/compressed']


@pytest.mark.parametrize('encoding', ['mono16', 'mono8', '8UC3', 'bayer_rggb8', 'no such encoding'])
def test_every_encoding_of_light_is_a_camera(choose, encoding):
    pixels = np.full((48, 64, 3), 90, np.uint8) if encoding == '8UC3' else DEPTH
    assert names(choose(Images('/depth/image', lambda _: pixels, encoding))) == ['/depth/image']


def test_a_bag_of_distances_has_no_camera(choose):
    topic = Images('/camera/image_raw', lambda _: DEPTH, '16UC1')
    with pytest.raises(DataError, match=r'no images of a camera .*/camera/image_raw.*--topic'):
        choose(topic)


def test_what_is_named_is_chosen(choose, scene, rectified):
    topics = (
        Images('/cam/image_raw', scene),
        Images('/cam/image_rect', rectified),
        Images('/cam/depth', lambda _: DEPTH, '16UC1'),
    )
    wanted = ['/cam/depth', '/cam/image_rect']
    choice = choose(*topics, names=(*wanted, wanted[0]))
    assert names(choice) == wanted
    assert not choice.left_out


def test_a_camera_with_more_compressed_images_is_named(choose, scene):
    raw_images = Images('/cam/image_raw', scene, every=3)
    choice = choose(raw_images, Images('/cam/image_raw/compressed', scene, encoding='bgr8; jpeg'))
    assert names(choice) == ['/cam/image_raw']
    assert 'although it has fewer images' in choice.left_out['/cam/image_raw/compressed']


def test_no_camera_is_named_twice(choose, scene):
    topics = ('/cam/image_raw', '/cam/image_raw/compressed')
    cameras = (Images(topics[0], scene), Images(topics[1], scene, encoding='bgr8; jpeg'))
    with pytest.raises(DataError, match=f'{topics[1]} and {topics[0]} have the same images'):
        choose(*cameras, names=topics[::-1])


@pytest.mark.parametrize('topic', ['/cam/image_rect', '/cam/image_rect_color', '/cam/straight'])
@pytest.mark.parametrize('delay_ns', [-1, 0, 2_000_000])
def test_a_rectified_copy_is_left_out(choose, scene, rectified, topic, delay_ns):
    """The original is the one that was recorded first, or else the one named image_raw."""
    choice = choose(
        Images(topic, rectified, delay_ns=5_000_000 + delay_ns),
        Images('/cam/image_raw', scene, delay_ns=5_000_000),
    )
    original, copy = ('/cam/image_raw', topic)[:: 1 if delay_ns >= 0 else -1]
    assert names(choice) == [original]
    assert choice.left_out == {copy: f'it is a copy of {original} with the same headers'}


def test_a_rectified_copy_elsewhere_is_known_by_the_calibration(choose, scene, rectified):
    choice = choose(
        Images('/straight/image', rectified),
        Images('/cam/image_raw', scene, delay_ns=9),
        others=[calibration('/cam/camera_info')],
    )
    assert names(choice) == ['/cam/image_raw']
    assert list(choice.left_out) == ['/straight/image']


@pytest.mark.parametrize('is_covered', [True, False])
def test_images_of_a_covered_camera_are_copies_of_each_other_only(choose, scene, is_covered):
    """They have no contrast to compare."""

    def black(number: int) -> np.ndarray:
        return np.zeros((240, 320, 3), np.uint8)

    choice = choose(
        Images('/cam/image_raw', black),
        Images('/cam/image_rect', black if is_covered else scene, delay_ns=3),
        Images('/other/image_raw', black, delay_ns=4),
        Images('/small/image_raw', lambda n: scene(n)[::5, ::5], delay_ns=5),
    )
    assert list(choice.left_out) == (['/cam/image_rect'] if is_covered else [])


def test_gray_small_and_compressed_copies_are_left_out(choose, scene):
    def gray(number: int) -> np.ndarray:
        return cv2.cvtColor(scene(number), cv2.COLOR_BGR2GRAY)

    choice = choose(
        Images('/cam/image_raw', scene),
        Images('/cam/image_mono', gray, 'mono8', delay_ns=3),
        Images('/cam/small', lambda n: cv2.resize(scene(n), (160, 120)), delay_ns=4),
        Images('/cam/other/compressed', scene, 'bgr8; jpeg compressed bgr8', delay_ns=5),
    )
    assert names(choice) == ['/cam/image_raw']
    assert len(choice.left_out) == 3


def test_the_readable_images_of_a_camera_are_chosen(choose, scene):
    choice = choose(
        Images('/cam/image_raw', scene, 'bayer_of_tomorrow'),
        Images('/cam/image_color', scene, delay_ns=9),
    )
    assert names(choice) == ['/cam/image_color']


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
@pytest.mark.parametrize(
    'topic', ['/dan_node/debug_image', '/robot/my_node/debug_image', '/viewer/faces', '/cam/drawn']
)
@pytest.mark.parametrize(('first', 'every'), [(0, 1), (70, 1), (61, 3)])
def test_an_annotated_copy_is_left_out(choose, scene, annotated, storage, topic, first, every):
    """The node may have been started later, and may not have processed every image."""
    choice = choose(
        Images('/cam/image_raw', scene),
        Images(topic, annotated, delay_ns=50_000_000, first=first, every=every),
        count=90,
        storage=storage,
    )
    assert names(choice) == ['/cam/image_raw']
    assert list(choice.left_out) == [topic]


def test_an_annotated_copy_of_a_compressed_camera_is_left_out(choose, scene, annotated):
    choice = choose(
        Images('/cam/image_raw/compressed', scene, 'rgb8; jpeg compressed bgr8'),
        Images('/viewer/faces', annotated, delay_ns=1),
    )
    assert names(choice) == ['/cam/image_raw/compressed']


@pytest.mark.parametrize('topic', ['/dan_node/debug_image', '/viewer/faces'])
def test_annotated_images_without_faces_are_left_out(choose, elsewhere, topic):
    """Nothing is drawn on these images, but the bag contains the results of the node."""
    results = TYPES.types[FACES](header(START_NS), '/cam/image_raw', [])
    choice = choose(
        Images('/cam/image_raw', elsewhere),
        Images(topic, elsewhere, delay_ns=1),
        others=[('/facial_expressions', FACES, START_NS, results)],
    )
    assert names(choice) == ['/cam/image_raw']
    assert list(choice.left_out) == [topic]


@pytest.mark.parametrize(
    'other',
    [
        {'frame_id': 'right'},
        {'offset_ns': 777},
    ],
)
def test_images_with_other_headers_are_no_copy(choose, scene, other):
    topics = Images('/stereo/left', scene), Images('/stereo/right', scene, **other)
    assert names(choose(*topics)) == ['/stereo/left', '/stereo/right']


def test_two_cameras_with_equal_headers_are_two(choose, scene, elsewhere, nobody):
    """Two synchronized cameras whose driver uses the same frame id for both."""
    choice = choose(
        Images('/pair/left', scene),
        Images('/pair/right', elsewhere),
        Images('/back/image_raw', lambda _: nobody),
        Images('/side/image_raw', lambda n: np.roll(scene(n), 5, axis=0)),
        others=[calibration(f'/{name}/camera_info') for name in ('pair', 'back', 'side')],
    )
    assert len(choice.topics) == 4


def test_copies_are_named_and_selectable(tmp_path, scene, rectified, annotated):
    bag = record_topics(
        tmp_path / 'in',
        Images('/cam/image_raw', scene),
        Images('/cam/image_rect', rectified, delay_ns=1),
        Images('/dan_node/debug_image', annotated, delay_ns=2),
        count=3,
    )
    result = run_bag(bag, tmp_path / 'out')
    assert result.exit_code == 0
    assert '3 images, 3 faces, 1 id' in result.output
    for copy in ('/cam/image_rect', '/dan_node/debug_image'):
        assert f'{copy} is left out: it is a copy of /cam/image_raw' in result.output
        assert f'use --topic {copy}' in result.output
    chosen = ('--topic', '/cam/image_rect', '--topic', '/dan_node/debug_image')
    result = run_bag(bag, tmp_path / 'copies', *chosen)
    assert '6 images, 6 faces, 2 ids' in result.output
    assert 'left out' not in result.output
    assert {topic for topic, *_ in read_bag(tmp_path / 'copies')} >= {
        f'/{place}/facial_expression{s}' for place in ('cam', 'dan_node') for s in ('', 's')
    }


def test_the_help_says_that_topic_repeats():
    assert '--topic /a --topic /b' in run_bag('--help').output
