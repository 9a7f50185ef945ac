"""Everything that goes wrong on a robot, and the test that shows how the node takes it.

Each asks what is published, what is counted (`frames_dropped.<cause>`) and what is diagnosed, and
that the next good image has its answer. Most are here, over the real node and DDS; a test that was
there before stands in the table where it is.

fault                                  | test
-------------------------------------- | --------------------------------------------------------
1 empty, short or oversized data       | test_faults.py::test_a_bad_image
2 a step below the row                 | test_faults.py::test_a_bad_image
3 padded rows                          | test_faults.py::test_odd_images_that_are_sound
4 sizes of 0 x 0 and 2^32 - 1          | test_faults.py::test_a_bad_image
5 an unknown encoding                  | test_faults.py::test_a_bad_image
6 big-endian mono16                    | test_faults.py::test_odd_images_that_are_sound
7 an empty or cut compressed image     | test_faults.py::test_a_bad_compressed_image
8 a bomb                               | test_faults.py::test_a_bomb_takes_no_memory
9 fuzzed messages                      | test_properties.py::test_images_over_dds
9 fuzzed messages                      | test_properties.py::test_compressed_images_over_dds
9 fuzzed messages                      | test_properties.py::test_bytes_that_are_no_message_over_dds
10 no face                             | test_node.py::test_nobody_gives_an_empty_array_and_no_face
11 a hundred faces                     | test_faults.py::test_a_hundred_faces
12 a face over the border              | test_faults.py::test_a_face_over_the_border
13 logits that are no numbers          | test_faults.py::test_a_model_that_gives_no_numbers_is_refused
13 logits that are no numbers          | test_faults.py::test_a_face_without_an_answer
14 QoS that does not fit               | test_faults.py::test_an_incompatible_publisher
15 a camera that is silent and back    | test_node.py::test_a_silent_camera_is_a_warning_until_it_is_back
16 a looped bag under simulated time   | test_replay.py::test_a_looping_bag_resets_tracks_and_goes_on
17 simulated time without /clock       | test_node.py::test_simulated_time_without_a_clock
18 images faster than inference        | test_node.py::test_the_newest_image_wins_and_every_drop_is_counted
19 an invalid transition               | test_faults.py::test_an_invalid_transition
20 a missing, half or wrong model      | test_faults.py::test_a_bad_model_fails_configure_and_mending_it_works
20 a missing, half or wrong model      | test_faults.py::test_a_bad_detector_fails_configure_and_mending_it_works
20 a missing, half or wrong model      | test_model_store.py::test_a_wrong_file_is_not_kept
21 a corrupt or foreign engine         | test_engine_cache.py::test_a_damaged_or_foreign_engine_is_set_aside_and_built_again
22 a GPU asked for and absent          | test_node.py::test_a_gpu_that_is_not_there_fails_configure_and_says_so
23 out of memory                       | test_faults.py::test_memory_that_does_not_suffice
23 out of memory                       | test_batching.py::test_a_single_face_that_does_not_fit_is_an_error
24 SIGINT, SIGTERM in every state      | test_lifecycle.py::test_stops_in_every_state
24 SIGINT, SIGTERM during inference    | test_faults.py::test_a_signal_during_inference
25 two cameras in one process          | test_node_streams.py::test_two_cameras_keep_their_headers_and_never_share_an_id
"""  # noqa: E501

import re
import resource
import shutil
import signal
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import psutil
import pytest
from lifecycle_msgs.msg import Transition
from onnx import TensorProto, helper
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from robot import PATIENCE_S, Robot
from sensor_msgs.msg import CompressedImage, Image

from dan_ros import labels
from dan_ros.model import store

OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'
HERE = Path(__file__).parent
ROWS = [line.split('|') for line in __doc__.splitlines() if re.match(r'\d+ .*\|', line)]


def test_every_fault_has_a_test_that_exists():
    assert sorted({int(fault.split()[0]) for fault, _ in ROWS}) == list(range(1, 26))
    for _, place in ROWS:
        file, name = place.strip().split('::')
        assert re.search(
            rf'^def {name}\(', next(HERE.parent.rglob(file)).read_text(), re.MULTILINE
        ), place


@contextmanager
def running(folder: Path, *ros_arguments: str, **options: Any) -> Iterator[Robot]:
    shared = Robot(folder / 'node.log', *ros_arguments, **options)
    try:
        shared.node.wait_for_output('waiting for images')
        yield shared
    finally:
        code = shared.close()
    assert code == 0
    assert 'Traceback' not in shared.node.output


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    """One running robot with default parameters, for tests that leave it as it was."""
    with running(tmp_path_factory.mktemp('raw')) as shared:
        yield shared


@pytest.fixture(scope='module')
def compressed_robot(tmp_path_factory):
    """The same for compressed images; its `publisher` sends those."""
    options = ('-p', 'image_transport:=compressed')
    with running(tmp_path_factory.mktemp('compressed'), *options, topic='unused') as shared:
        shared.publisher = shared.client.create_publisher(CompressedImage, 'image/compressed', 5)
        yield shared


def counts(values: dict[str, str]) -> Counter[str]:
    """Images dropped by cause."""
    prefix = 'frames_dropped.'
    return Counter(
        {k.removeprefix(prefix): int(v) for k, v in values.items() if k.startswith(prefix)}
    )


def assert_dropped(robot: Robot, message: Any, cause: str) -> None:
    """Send a message until it is counted and diagnosed; nothing may be published of it."""
    before = counts(robot.wait_status(lambda *_: True, 'any')[1])[cause]
    robot.frames.clear()
    robot.diagnostics.clear()

    def is_counted() -> bool:
        statuses = [(s, {v.key: v.value for v in s.values}) for s in robot.diagnostics]
        return any(
            s.level == WARN and cause in s.message and counts(values)[cause] > before
            for s, values in statuses
        )

    robot.spin_until(is_counted, f'{cause} counted', every=lambda: robot.publisher.publish(message))
    assert robot.frames == []
    assert robot.node.output.count(f'frames_dropped.{cause}') == 1  # named once, then counted


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


@pytest.mark.parametrize('name', BAD_IMAGES)
def test_a_bad_image(robot, smile, name):
    cause, change = BAD_IMAGES[name]
    message = robot.image(smile)
    change(message)
    assert_dropped(robot, message, cause)
    assert robot.show(smile).faces[0].label == 'happy'


def test_bytes_that_are_no_image(robot, smile):
    """A peer's message of the same name and another definition, say."""
    content = serialize_message(robot.image(smile))
    names = [b'\x00\x05' + content[2:], content[:40]]

    def send():
        for wrong in names:
            robot.publisher.publish(wrong)
        robot.spin(0.05)

    robot.diagnostics.clear()
    robot.spin_until(
        lambda: any(
            v.key == 'frames_dropped.bad_message' for s in robot.diagnostics for v in s.values
        ),
        'bad_message in diagnostics',
        every=send,
    )
    assert robot.show(smile).faces[0].label == 'happy'


@pytest.mark.parametrize('padding', [0, 1, 37])
@pytest.mark.parametrize(('encoding', 'big_endian'), [('bgr8', False), ('mono16', True)])
def test_odd_images_that_are_sound(robot, smile, encoding, big_endian, padding):
    """The padding holds noise, which must not show; read the wrong way round, mono16 is noise."""
    message = robot.image(smile)
    rows = smile.reshape(len(smile), -1)
    if encoding == 'mono16':
        grey = cv2.cvtColor(smile, cv2.COLOR_BGR2GRAY).astype(np.uint16) << 8
        noise = np.random.default_rng(0).integers(0, 256, grey.shape).astype(np.uint16)
        rows = (grey | noise).astype('>u2').view(np.uint8)
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
    """A hundred faces, uint8 [640, 640], grey: 410 kB, which any middleware carries."""
    face = cv2.resize(cv2.cvtColor(smile, cv2.COLOR_BGR2GRAY)[40:200, 80:240], (64, 64))
    return np.tile(face, (10, 10))


def grey_image(robot: Robot, image_grey: np.ndarray) -> Image:
    message = robot.image(image_grey[..., None])
    message.encoding, message.step = 'mono8', image_grey.shape[1]
    return message


def test_a_hundred_faces(robot, smile, hundred):
    """Sixteen are judged, the largest; all are published, and each has an id of its own."""
    frame = robot.send_until_answered(grey_image(robot, hundred))
    assert len(frame.faces) == 100
    assert len({face.face_id for face in frame.faces}) == 100
    judged = [face for face in frame.faces if face.label != 'unknown']
    assert 1 <= len(judged) <= 16
    _, values = robot.wait_status(lambda _, v: v['faces'] == '100', 'a hundred faces')
    assert int(values['faces_unjudged.too_many']) >= 84
    assert robot.show(smile).faces[0].label == 'happy'


@pytest.mark.parametrize(('dx', 'dy'), [(-90, 0), (0, -75), (115, 0), (-80, -60)])
def test_a_face_over_the_border(robot, smile, dx, dy):
    """The region is cut to the image, and has an area."""
    height, width = smile.shape[:2]
    shift = np.float32([[1, 0, dx], [0, 1, dy]])
    image = cv2.warpAffine(smile, shift, (width, height), borderValue=(120, 120, 120))
    for face in (faces := robot.show(image).faces):
        assert face.roi.width > 0
        assert face.roi.height > 0
        assert face.roi.x_offset + face.roi.width <= width
        assert face.roi.y_offset + face.roi.height <= height
    assert len(faces) == 1
    assert robot.show(smile).faces[0].label == 'happy'


# --- compressed images --------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png_bomb(side: int) -> bytes:
    """A sound PNG of side x side pixels, all zero, of which a thousandth is sent."""
    rows = zlib.compress(bytes(1 + 3 * side) * side, 9)
    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    chunks = png_chunk(b'IHDR', header) + png_chunk(b'IDAT', rows) + png_chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + chunks


def jpeg_bomb(content: bytes) -> bytes:
    """A JPEG whose header says 65535 x 65535."""
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
    'a JPEG that claims 2^32 pixels': ('too_large', lambda jpeg, png: jpeg_bomb(jpeg)),
    'a JPEG that hides its header': ('bad_data', lambda jpeg, png: with_decoy(jpeg)),
}


def with_decoy(jpeg: bytes) -> bytes:
    """A false start of frame, 16 x 16, before the true one; decoders pass over FF 00."""
    decoy = b'\xff\xc0\x00\x11\x08\x00\x10\x00\x10\x03' + bytes(9)
    comment = b'\xff\xfe' + (2 + len(decoy)).to_bytes(2, 'big') + decoy
    return jpeg[:2] + b'\xff\x00\x00\x04' + comment + jpeg[2:]


@pytest.mark.parametrize('name', BAD_PICTURES)
def test_a_bad_compressed_image(compressed_robot, smile, name):
    robot = compressed_robot
    cause, make = BAD_PICTURES[name]
    jpeg, png = (cv2.imencode(suffix, smile)[1].tobytes() for suffix in ('.jpg', '.png'))
    header = robot.image(smile).header
    message = CompressedImage(header=header, format='jpeg', data=make(jpeg, png))
    assert_dropped(robot, message, cause)
    assert answer_to(robot, jpeg, smile).faces[0].label == 'happy'


def answer_to(robot: Robot, content: bytes, like: np.ndarray):
    header = robot.image(like).header
    return robot.send_until_answered(CompressedImage(header=header, format='jpeg', data=content))


def test_a_bomb_takes_no_memory(compressed_robot, smile):
    """2^15 x 2^15 pixels, 3 GiB if they were decoded; refused by its header."""
    robot = compressed_robot
    jpeg = cv2.imencode('.jpg', smile)[1].tobytes()
    answer_to(robot, jpeg, smile)
    before = peak_mib(robot)
    header = robot.image(smile).header
    rows = zlib.compress(bytes(10_000_000), 9)
    size = struct.pack('>IIBBBBB', 2**15, 2**15, 8, 2, 0, 0, 0)
    chunks = png_chunk(b'IHDR', size) + png_chunk(b'IDAT', rows) + png_chunk(b'IEND', b'')
    bomb = b'\x89PNG\r\n\x1a\n' + chunks
    assert_dropped(robot, CompressedImage(header=header, format='png', data=bomb), 'too_large')
    assert peak_mib(robot) - before < 20
    assert answer_to(robot, jpeg, smile).faces[0].label == 'happy'


def peak_mib(robot: Robot) -> float:
    """The most memory that the node has ever held."""
    status = Path(f'/proc/{robot.node.process.pid}/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) / 1024


# --- models -------------------------------------------------------------------------------------


def save_model_without_numbers(path: Path, always: bool) -> None:
    """A model that fits the contract and whose logits are NaN: always, or for all but black faces.

    The mean of the face goes through a logarithm of 0, or a root of what is negative.
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


def test_a_model_that_gives_no_numbers_is_refused(start, tmp_path):
    save_model_without_numbers(tmp_path / 'nan.onnx', always=True)
    robot = start('-p', f'model.file:={tmp_path / "nan.onnx"}', wait=False)
    status, values = robot.wait_status(lambda s, _: s.level == ERROR, 'the failure')
    assert 'finite numbers' in status.message
    assert values['state'] == 'unconfigured'
    assert robot.set_parameters(model__file='auto').successful
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)


def test_a_face_without_an_answer(start, tmp_path, smile, nobody):
    """It is published as unknown, counted by its reason, and no image is dropped."""
    save_model_without_numbers(tmp_path / 'nan.onnx', always=False)
    robot = start('-p', f'model.file:={tmp_path / "nan.onnx"}')
    (face,) = robot.show(smile).faces
    assert (face.label, face.expression, face.confidence) == ('unknown', face.UNKNOWN, 0)
    assert list(face.probabilities) == [0] * 8
    assert face.roi.width > 0
    _, values = robot.wait_status(lambda _, v: 'faces_unjudged.no_answer' in v, 'the reason')
    assert values['frames_dropped.failed'] == '0'
    assert robot.show(nobody).faces == []


def mend(robot: Robot, smile: np.ndarray) -> None:
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    assert robot.show(smile).faces[0].label == 'happy'
    assert robot.wait_status(lambda s, _: s.level != ERROR, 'the failure is gone')


@pytest.mark.parametrize('kind', ['missing', 'half', 'no model', 'a folder'])
def test_a_bad_model_fails_configure_and_mending_it_works(start, tmp_path, smile, kind):
    model = tmp_path / 'my_model.onnx'
    content = store.read_model('dan_ferplus').content
    if kind == 'a folder':
        model.mkdir()
    elif kind != 'missing':
        model.write_bytes(content[: len(content) // 2] if kind == 'half' else b'no model')
    robot = start('-p', f'model.file:={model}', wait=False)
    status, _ = robot.wait_status(lambda s, _: s.level == ERROR, 'the failure')
    assert str(model) in status.message
    if kind == 'missing':
        assert 'dan-ros convert' in status.message
    assert robot.state == 'unconfigured'
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    if model.is_dir():
        model.rmdir()
    shutil.copy(store.read_model('dan_ferplus').path, model)
    mend(robot, smile)


def test_a_bad_detector_fails_configure_and_mending_it_works(start, tmp_path, smile):
    """Known models are pinned: another byte anywhere is another SHA-256."""
    model = tmp_path / 'yunet.onnx'
    content = store.read_model('yunet').content
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    robot = start('-p', f'detector.model_file:={model}', wait=False)
    status, _ = robot.wait_status(lambda s, _: s.level == ERROR, 'the failure')
    assert str(model) in status.message
    assert 'SHA-256' in status.message
    model.write_bytes(content)
    mend(robot, smile)


# --- the rest of the world ----------------------------------------------------------------------


def test_an_incompatible_publisher(start, smile):
    """It is diagnosed within 2 s after the two meet, as long as it is there; others go on."""
    robot = start('-p', 'qos.reliability:=reliable')
    robot.show(smile)
    met_s: list[float] = []
    publisher = robot.client.create_publisher(
        Image,
        'image',
        QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        event_callbacks=PublisherEventCallbacks(
            incompatible_qos=lambda _: met_s.append(time.monotonic())
        ),
    )
    robot.diagnostics.clear()
    robot.spin_until(
        lambda: any('incompatible QoS' in s.message for s in robot.diagnostics), 'the QoS'
    )
    robot.spin_until(lambda: met_s, 'the event of the publisher')
    assert time.monotonic() - met_s[0] < 2
    (status,) = [s for s in robot.diagnostics if 'incompatible QoS' in s.message][:1]
    assert status.level == WARN
    assert '/image' in status.message
    assert robot.show(smile).faces[0].label == 'happy'
    robot.wait_status(lambda s, _: 'incompatible QoS' in s.message, 'it is still there')
    robot.client.destroy_publisher(publisher)
    robot.wait_status(lambda s, _: 'incompatible QoS' not in s.message, 'it is gone')


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


def test_memory_that_does_not_suffice(start, smile):
    """The system refuses the node more: the image is dropped and named, and the next one works."""
    robot = start('-p', 'image_transport:=compressed', topic='unused', wait=False)
    robot.node.wait_for_output('waiting for images')
    robot.publisher = robot.client.create_publisher(CompressedImage, 'image/compressed', 5)
    jpeg = cv2.imencode('.jpg', smile)[1].tobytes()
    for _ in range(5):
        answer_to(robot, jpeg, smile)
    bomb = png_bomb(6_000)  # below limits.max_pixels; 108 MB decoded
    process = psutil.Process(robot.node.process.pid)
    limit = process.memory_info().vms + 60 * 2**20
    process.rlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    header = robot.image(smile).header
    message = CompressedImage(header=header, format='png', data=bomb)
    assert_dropped(robot, message, 'out_of_memory')
    assert answer_to(robot, jpeg, smile).faces[0].label == 'happy'
    process.rlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert answer_to(robot, bomb, smile).faces == []
    assert answer_to(robot, jpeg, smile).faces[0].label == 'happy'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_inference(start, hundred, number):
    """A run over a hundred faces takes a good part of a second; it ends, then the node."""
    robot = start('-p', 'max_faces:=1000', '-p', 'quality.min_side_px:=1.0')
    assert len(robot.send_until_answered(grey_image(robot, hundred)).faces) == 100
    for _ in range(10):
        robot.publisher.publish(grey_image(robot, hundred))
        robot.spin(0.02)
    started_s = time.monotonic()
    assert robot.node.stop(number) == 0
    assert time.monotonic() - started_s < PATIENCE_S / 2
    assert 'Traceback' not in robot.node.output
