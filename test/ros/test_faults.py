# SPDX-License-Identifier: Apache-2.0
"""The faults that occur on robots, and the tests that show how the node handles them.

Each test asserts what is published, what is counted (`frames_dropped.<cause>`) and what is
diagnosed, and that the node answers the next good image. Most tests are here and use the real node
over DDS; the table says where the others are.

fault                                  | test
-------------------------------------- | --------------------------------------------------------
1 empty, short or oversized data       | test_faults.py::test_bad_images
2 a step below the row                 | test_faults.py::test_bad_images
3 padded rows                          | test_faults.py::test_unusual_images_that_are_valid
4 sizes of 0 x 0 and 2^32 - 1          | test_faults.py::test_bad_images
5 an unknown encoding                  | test_faults.py::test_bad_images
6 big-endian mono16                    | test_faults.py::test_unusual_images_that_are_valid
7 an empty or cut compressed image     | test_faults.py::test_bad_compressed_images
8 a bomb                               | test_faults.py::test_a_bomb_takes_no_memory
9 fuzzed messages                      | test_properties.py::test_images_over_dds
9 fuzzed messages                      | test_properties.py::test_compressed_images_over_dds
9 fuzzed messages                      | test_properties.py::test_bytes_that_are_no_message_over_dds
10 no face                             | test_node.py::test_nobody_gives_an_empty_array_and_no_face
11 a hundred faces                     | test_faults.py::test_a_hundred_faces
12 a face over the border              | test_faults.py::test_a_face_over_the_border
13 logits that are no numbers          | test_faults.py::test_a_model_that_gives_no_numbers_is_refused
13 logits that are no numbers          | test_faults.py::test_a_face_without_an_answer
14 QoS that does not fit               | test_faults_slow.py::test_an_incompatible_publisher
15 a camera that is silent and back    | test_node.py::test_a_silent_camera_is_a_warning_until_it_is_back
16 a looped bag under simulated time   | test_replay.py::test_a_looping_bag_resets_the_tracks
17 simulated time without /clock       | test_node.py::test_simulated_time_without_a_clock
18 images faster than inference        | test_node.py::test_the_newest_image_wins_and_every_drop_is_counted
19 an invalid transition               | test_faults.py::test_an_invalid_transition
20 a missing, half or wrong model      | test_faults.py::test_a_bad_model_fails_configure_and_mending_it_works
20 a missing, half or wrong model      | test_faults.py::test_a_bad_detector_fails_configure_and_mending_it_works
20 a missing, half or wrong model      | test_model_store.py::test_a_wrong_file_is_not_kept
21 a corrupt or foreign engine         | test_engine_cache.py::test_a_damaged_or_foreign_engine_is_set_aside_and_built_again
22 a GPU asked for and absent          | test_node.py::test_a_gpu_that_is_not_there_fails_configure_and_says_so
23 out of memory                       | test_faults_slow.py::test_too_little_memory
23 out of memory                       | test_batching.py::test_a_single_face_that_does_not_fit_is_an_error
24 SIGINT, SIGTERM in every state      | test_lifecycle_rounds.py::test_stops_in_every_state
24 SIGINT, SIGTERM during inference    | test_faults_slow.py::test_a_signal_during_inference
25 two cameras in one process          | test_node_streams.py::test_two_cameras_keep_their_headers_and_never_share_an_id
"""  # noqa: E501

import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from lifecycle_msgs.msg import Transition
from onnx import TensorProto, helper
from rclpy.serialization import serialize_message
from rclpy.utilities import get_rmw_implementation_identifier
from robot import Robot
from sensor_msgs.msg import CompressedImage, Image

from dan_ros import labels
from dan_ros.model import store

OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'
TESTS = Path(__file__).parents[1]
ROUNDS = 5  # attempts to get every image through a middleware that may lose some
PAUSE_S = 0.03  # pause between two images, so that the second does not replace the first
ROWS = [line.split('|') for line in __doc__.splitlines() if re.match(r'\d+ .*\|', line)]


def test_every_fault_has_a_test_that_exists():
    assert sorted({int(fault.split()[0]) for fault, _ in ROWS}) == list(range(1, 26))
    for _, place in ROWS:
        file, name = place.strip().split('::')
        source = next(TESTS.rglob(file)).read_text()
        assert re.search(rf'^def {name}\(', source, re.MULTILINE), place


def dropped(values: dict[str, str]) -> Counter[str]:
    """Numbers of dropped images by cause."""
    prefix = 'frames_dropped.'
    counts = {k.removeprefix(prefix): int(v) for k, v in values.items() if k.startswith(prefix)}
    return Counter(counts)


def assert_dropped(
    robot: Robot,
    make_message: Callable[[str], Any],
    causes: dict[str, str],
    good: Callable[[], Any],
) -> None:
    """Send bad images: each must be counted once under its cause, and none published.

    Args:
        robot: receives them.
        make_message: makes a bad image with a new stamp, given its name in `causes`.
        causes: the expected cause of each bad image, by name.
        good: makes a good image with a smile, which must be answered after each bad one.
    """
    for _ in range(ROUNDS):
        before = dropped(robot.values())
        robot.diagnostics.clear()
        headers = []
        for name in causes:
            message = make_message(name)
            headers.append(message.header)
            robot.publisher.publish(message)
            robot.spin(PAUSE_S)
            assert robot.send_until_answered(good()).faces[0].label == 'happy'
        sent = len(robot.diagnostics)
        robot.spin_until(lambda n=sent: len(robot.diagnostics) > n, 'the counts')
        found = dropped({v.key: v.value for v in robot.diagnostics[-1].values}) - before
        found -= Counter({cause: found[cause] for cause in ('superseded', 'lost')})
        assert not [frame for frame in robot.frames if frame.header in headers]
        if found >= Counter(causes.values()):
            break
    assert found == Counter(causes.values())
    warnings = ' '.join(s.message for s in robot.diagnostics if s.level == WARN)
    for cause in causes.values():
        assert cause in warnings
        # logged once, then only counted
        assert robot.output.count(f'frames_dropped.{cause}') <= 1 <= robot.node.output.count(cause)


# --- images ------------------------------------------------------------------------------------


def changed(**changes: Any) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        for name, value in changes.items():
            setattr(image, name, value)

    return change


def resized(bytes_more: int) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        if bytes_more > 0:
            image.data.frombytes(bytes(bytes_more))
        else:
            del image.data[bytes_more:]

    return change


BAD_IMAGES = {
    'empty data': ('bad_data', changed(data=[])),
    'a byte too few': ('bad_data', resized(-1)),
    'a byte too many': ('bad_data', resized(1)),
    'twice the data': ('bad_data', resized(230_400)),
    'step below the row': ('bad_step', changed(step=959)),
    'no step': ('bad_step', changed(step=0)),
    'step of 2^32 - 1': ('bad_data', changed(step=2**32 - 1)),
    'no pixels': ('bad_size', changed(width=0, height=0, step=0, data=[])),
    'no width': ('bad_size', changed(width=0)),
    'width of 2^32 - 1': ('bad_step', changed(width=2**32 - 1)),
    'height of 2^32 - 1': ('bad_data', changed(height=2**32 - 1)),
    'everything 2^32 - 1': ('bad_step', changed(width=2**32 - 1, height=2**32 - 1, step=2**32 - 1)),
    'unknown encoding': ('bad_encoding', changed(encoding='no_such_encoding')),
    'endless encoding': ('bad_encoding', changed(encoding='x' * 100_000)),
    'no encoding': ('bad_encoding', changed(encoding='')),
}


def test_bad_images(robot, smile):
    def bad(name: str) -> Image:
        message = robot.image(smile)
        BAD_IMAGES[name][1](message)
        return message

    causes = {name: cause for name, (cause, _) in BAD_IMAGES.items()}
    assert_dropped(robot, bad, causes, good=lambda: robot.image(smile))


def test_bytes_that_are_no_image(robot, smile):
    """A peer with another definition of the same message sends such bytes."""
    content = serialize_message(robot.image(smile))
    wrong = [b'\x00\x05' + content[2:], content[:40]]
    before = dropped(robot.values())['bad_message']
    # Cyclone DDS refuses such bytes itself, and whatever else their publisher sends.
    is_counted = 'cyclone' not in get_rmw_implementation_identifier()
    publisher = robot.new_publisher('image')
    robot.wait_for_subscriber(publisher)
    robot.spin_until(
        lambda: not is_counted or dropped(robot.values())['bad_message'] >= before + len(wrong),
        'two more bad messages',
        every=lambda: [publisher.publish(message) for message in wrong],
    )
    assert robot.show(smile).faces[0].label == 'happy'


@pytest.mark.parametrize('padding', [0, 1, 37])
@pytest.mark.parametrize(('encoding', 'big_endian'), [('bgr8', False), ('mono16', True)])
def test_unusual_images_that_are_valid(robot, smile, encoding, big_endian, padding):
    """The padding is noise, which must not be used; mono16 in the wrong byte order is noise too."""
    message = robot.image(smile)
    rows = smile.reshape(len(smile), -1)
    if encoding == 'mono16':
        gray = cv2.cvtColor(smile, cv2.COLOR_BGR2GRAY).astype(np.uint16) << 8
        noise = np.random.default_rng(0).integers(0, 256, gray.shape).astype(np.uint16)
        rows = (gray | noise).astype('>u2').view(np.uint8)
    noise = np.random.default_rng(1).integers(0, 256, (len(rows), padding), dtype=np.uint8)
    rows = np.ascontiguousarray(np.hstack([rows, noise]))
    message.encoding, message.is_bigendian, message.step = encoding, big_endian, rows.shape[1]
    del message.data[:]
    message.data.frombytes(rows.tobytes())
    (face,) = robot.send_until_answered(message).faces
    assert face.label == 'happy'
    assert robot.show(smile).faces[0].face_id == face.face_id


@pytest.fixture(scope='module')
def hundred(smile) -> np.ndarray:
    """A hundred faces, uint8 [640, 640], gray: 410 kB, small enough for any middleware."""
    face = cv2.resize(cv2.cvtColor(smile, cv2.COLOR_BGR2GRAY)[40:200, 80:240], (64, 64))
    return np.tile(face, (10, 10))


def gray_image(robot: Robot, image_gray: np.ndarray) -> Image:
    message = robot.image(image_gray[..., None])
    message.encoding, message.step = 'mono8', image_gray.shape[1]
    return message


def test_a_hundred_faces(robot, smile, hundred):
    """At most the 16 largest faces are classified; all are published, each with its own id."""
    frame = robot.send_until_answered(gray_image(robot, hundred))
    assert len(frame.faces) == 100
    assert len({face.face_id for face in frame.faces}) == 100
    classified = [face for face in frame.faces if face.label != 'unknown']
    assert 1 <= len(classified) <= 16
    robot.wait_status(
        lambda _, v: v['faces'] == '100' and int(v.get('faces_unjudged.too_many', 0)) >= 84,
        'a hundred faces, and those that were not classified',
    )
    assert robot.show(smile).faces[0].label == 'happy'


@pytest.mark.parametrize(('dx', 'dy'), [(-90, 0), (0, -75), (115, 0), (-80, -60)])
def test_a_face_over_the_border(robot, smile, dx, dy):
    """The region is clipped to the image and is not empty."""
    height, width = smile.shape[:2]
    shift = np.float32([[1, 0, dx], [0, 1, dy]])
    image = cv2.warpAffine(smile, shift, (width, height), borderValue=(120, 120, 120))
    (face,) = robot.show(image).faces
    assert face.roi.width > 0
    assert face.roi.height > 0
    assert face.roi.x_offset + face.roi.width <= width
    assert face.roi.y_offset + face.roi.height <= height
    assert robot.show(smile).faces[0].label == 'happy'


# --- compressed images --------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png_bomb(side: int, rows: bytes) -> bytes:
    """A PNG of side x side pixels that is about a thousandth of the size of its rows."""
    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(rows, 9)
    chunks = png_chunk(b'IHDR', header) + png_chunk(b'IDAT', rows) + png_chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + chunks


def jpeg_bomb(content: bytes) -> bytes:
    """A JPEG with 65535 x 65535 pixels, according to its header."""
    place = content.index(b'\xff\xc0')
    return content[: place + 5] + b'\xff' * 4 + content[place + 9 :]


BAD_PICTURES = {
    'empty': ('bad_format', lambda jpeg, png: b''),
    'another format': ('bad_format', lambda jpeg, png: b'GIF89a' + png),
    'a JPEG cut in the middle': ('bad_data', lambda jpeg, png: jpeg[: len(jpeg) // 2]),
    'a JPEG without its end': ('bad_data', lambda jpeg, png: jpeg[:-2]),
    'a JPEG cut in its header': ('bad_data', lambda jpeg, png: jpeg[:20]),
    'a PNG cut in the middle': ('bad_data', lambda jpeg, png: png[: len(png) // 2]),
    'a PNG with a hole': ('bad_data', lambda jpeg, png: png[:900] + png[1500:]),
    'a JPEG whose header claims 2^32 pixels': ('too_large', lambda jpeg, png: jpeg_bomb(jpeg)),
    'a JPEG that hides its header': ('bad_data', lambda jpeg, png: with_decoy(jpeg)),
}


def with_decoy(jpeg: bytes) -> bytes:
    """A JPEG with a false frame header of 16 x 16 before the true one; decoders skip FF 00."""
    decoy = b'\xff\xc0\x00\x11\x08\x00\x10\x00\x10\x03' + bytes(9)
    comment = b'\xff\xfe' + (2 + len(decoy)).to_bytes(2, 'big') + decoy
    return jpeg[:2] + b'\xff\x00\x00\x04' + comment + jpeg[2:]


@pytest.fixture
def compressed_robot(robot):
    """The shared node, configured for compressed images, which its `publisher` sends."""
    robot.reconfigure('image/compressed', CompressedImage, image_transport='compressed')
    return robot


def compressed(robot: Robot, content: bytes) -> CompressedImage:
    """A message with the next stamp."""
    return CompressedImage(header=robot.header(), format='jpeg', data=content)


@pytest.fixture(scope='session')
def jpeg(smile) -> bytes:
    return cv2.imencode('.jpg', smile)[1].tobytes()


def test_bad_compressed_images(compressed_robot, smile, jpeg):
    robot, png = compressed_robot, cv2.imencode('.png', smile)[1].tobytes()
    assert_dropped(
        robot,
        lambda name: compressed(robot, BAD_PICTURES[name][1](jpeg, png)),
        {name: cause for name, (cause, _) in BAD_PICTURES.items()},
        good=lambda: compressed(robot, jpeg),
    )


def test_a_bomb_takes_no_memory(compressed_robot, jpeg):
    """2^15 x 2^15 pixels, which would take 3 GiB decoded; the header is enough to refuse it."""
    robot = compressed_robot
    robot.send_until_answered(compressed(robot, jpeg))
    before_mib = peak_mib(robot)
    bomb = png_bomb(2**15, bytes(10_000_000))
    assert_dropped(
        robot,
        lambda _: compressed(robot, bomb),
        {'bomb': 'too_large'},
        good=lambda: compressed(robot, jpeg),
    )
    assert peak_mib(robot) - before_mib < 20


def peak_mib(robot: Robot) -> float:
    """The most memory that the node has ever used."""
    status = Path(f'/proc/{robot.node.pid}/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) / 1024


# --- models -------------------------------------------------------------------------------------


def save_nan_model(path: Path, always: bool) -> None:
    """Save a valid model whose logits are NaN: always, or for all faces that are not black.

    It takes the square root of the negative mean of the face.
    """
    weights = {
        'minus': np.float32(-1),
        'ones': np.ones((1, len(labels.CANONICAL)), np.float32),
        'poison': np.float32(np.nan if always else 1),
    }
    nodes = [
        helper.make_node('Cast', ['faces'], ['real'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMean', ['real'], ['mean'], axes=[1, 2, 3], keepdims=0),
        helper.make_node('Unsqueeze', ['mean', 'axis'], ['column']),
        helper.make_node('Mul', ['column', 'minus'], ['negative']),
        helper.make_node('Sqrt', ['negative'], ['root']),
        helper.make_node('Mul', ['root', 'poison'], ['poisoned']),
        helper.make_node('MatMul', ['poisoned', 'ones'], ['logits']),
    ]
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    initializers.append(onnx.numpy_helper.from_array(np.array([1], np.int64), 'axis'))
    graph = helper.make_graph(
        nodes,
        'nothing',
        [helper.make_tensor_value_info('faces', TensorProto.UINT8, ['N', 96, 96, 3])],
        [helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['N', len(labels.CANONICAL)])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)])
    model.ir_version = 8
    bundled = onnx.load(store.read_model('dan_ferplus').path)
    for entry in bundled.metadata_props:
        model.metadata_props.add(key=entry.key, value=entry.value)
    onnx.save(model, path)


def assert_configure_fails(robot: Robot, *words: str, **parameters: Any) -> None:
    """The failure is diagnosed with these words, and the node stays unconfigured."""
    robot.clean_up()
    assert robot.set_parameters(**parameters).successful
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    status, values = robot.wait_status(lambda s, _: s.level == ERROR, 'the failure')
    for word in words:
        assert word in status.message
    assert values['state'] == 'unconfigured'
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)


def assert_recovers(robot: Robot, smile: np.ndarray) -> None:
    robot.configure()
    assert robot.show(smile).faces[0].label == 'happy'
    assert robot.wait_status(lambda s, _: s.level != ERROR, 'the failure is gone')


def test_a_model_that_gives_no_numbers_is_refused(robot, tmp_path, smile):
    save_nan_model(tmp_path / 'nan.onnx', always=True)
    assert_configure_fails(robot, 'finite numbers', model__file=str(tmp_path / 'nan.onnx'))
    assert robot.set_parameters(model__file='auto').successful
    assert_recovers(robot, smile)


def test_a_face_without_an_answer(robot, tmp_path, smile, nobody):
    """The face is published as unknown and counted by its reason; no image is dropped."""
    save_nan_model(tmp_path / 'nan.onnx', always=False)
    robot.reconfigure(model__file=str(tmp_path / 'nan.onnx'))
    before = dropped(robot.values())['failed']
    (face,) = robot.show(smile).faces
    assert (face.label, face.expression, face.confidence) == ('unknown', face.UNKNOWN, 0)
    assert list(face.probabilities) == [0] * 8
    assert face.roi.width > 0
    _, values = robot.wait_status(lambda _, v: 'faces_unjudged.no_answer' in v, 'the reason')
    assert dropped(values)['failed'] == before
    assert robot.show(nobody).faces == []


@pytest.mark.parametrize('kind', ['missing', 'half'])
def test_a_bad_model_fails_configure_and_mending_it_works(robot, tmp_path, smile, kind):
    model = tmp_path / 'my_model.onnx'
    content = store.read_model('dan_ferplus').content
    if kind == 'half':
        model.write_bytes(content[: len(content) // 2])
    remedy = ['dan-ros convert'] if kind == 'missing' else []
    assert_configure_fails(robot, str(model), *remedy, model__file=str(model))
    model.write_bytes(content)
    assert_recovers(robot, smile)


def test_a_bad_detector_fails_configure_and_mending_it_works(robot, tmp_path, smile):
    """Known models are pinned by their SHA-256; one changed bit is enough."""
    model = tmp_path / 'yunet.onnx'
    content = store.read_model('yunet').content
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert_configure_fails(robot, str(model), 'SHA-256', detector__model_file=str(model))
    model.write_bytes(content)
    assert_recovers(robot, smile)


# --- QoS, transitions, memory, signals ----------------------------------------------------------


@pytest.mark.parametrize(
    'transition',
    [
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_ACTIVATE,
        77,
    ],
)
def test_an_invalid_transition(robot, smile, transition):
    assert not robot.change_state(transition)
    assert robot.state == 'active'
    assert robot.show(smile).faces[0].label == 'happy'
