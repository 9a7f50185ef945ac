# SPDX-License-Identifier: Apache-2.0
"""Sends odd messages to the library and to the node, and checks the results."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_messages import OddImage, odd_calibrations, odd_headers, odd_images, odd_pictures
from rclpy.serialization import serialize_message
from robot import Robot
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from dan_ros.errors import FrameError
from dan_ros.faces import quality
from dan_ros.images.compressed import check_compressed, compressed_to_frame
from dan_ros.images.encodings import check_image, image_to_frame
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import FaceExpression

MAX_PIXELS = 1_000_000
MAX_GROWTH_MIB = 64  # largest growth of the process, over any number of messages
MANY = 1_000  # number of random messages that include some of each kind
CAUSES = {'bad_encoding', 'bad_size', 'bad_step', 'bad_data', 'bad_format', 'too_large'}
PAUSE_S = 0.005  # pause between two messages to the node, seconds

Report = dict[str, Any]  # counts of a test


def examples(count: int) -> settings:
    """Settings for a number of random examples."""
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def memory_mib(pid: int | None = None) -> float:
    """Memory of a process, by default of this one."""
    return psutil.Process(pid).memory_info().rss / 2**20


# --- the library --------------------------------------------------------------------------------


class Tally:
    """Counts messages by outcome, and the growth of memory except that of hypothesis.

    Attributes:
        outcomes: numbers of messages by outcome.
        growth_mib: memory that all messages together took.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.growth_mib = 0.0
        self._before_mib = 0.0

    def begin(self) -> None:
        """Note the memory before a message."""
        self._before_mib = memory_mib()

    def count(self, outcome: str) -> None:
        """Count a message that was processed or refused."""
        self.outcomes[outcome] += 1
        self.growth_mib += memory_mib() - self._before_mib

    def count_refused(self, error: FrameError) -> None:
        """Count a refused message; its cause must be known and its text short."""
        assert error.cause in CAUSES
        assert len(str(error)) < 600
        self.count(error.cause)

    def report(self) -> Report:
        """Return the counts, after the last message."""
        assert self.growth_mib < MAX_GROWTH_MIB
        return {
            'messages': self.outcomes.total(),
            'outcomes': dict(self.outcomes),
            'memory_growth_mib': round(self.growth_mib, 1),
        }


def assert_valid(faces: list[FaceExpression]) -> None:
    """Boxes and probabilities are finite, and a face without probabilities has a known reason."""
    for face in faces:
        assert np.isfinite(face.face.box_xyxy).all()
        total = face.probabilities.sum()
        assert total == pytest.approx(1, abs=1e-4) if face.is_classified else total == 0
        assert face.is_classified or face.reason in quality.REASONS


def run_odd_images(pipeline: ExpressionPipeline, count: int, rounds: int = 1) -> Report:
    """Each image gives valid faces or a FrameError."""
    tally = Tally()

    @examples(count)
    @given(odd_images())
    def send(image: OddImage) -> None:
        tally.begin()
        try:
            check_image(image)
            frame = image_to_frame(image)
        except FrameError as error:
            tally.count_refused(error)
            return
        assert frame.size == (image.width, image.height)
        assert_valid(pipeline.run([frame])[0])
        tally.count('sound')

    for _ in range(rounds):
        send()
    if rounds * count >= MANY:
        assert tally.outcomes['sound'] > rounds * count / 4
        assert {'bad_encoding', 'bad_size', 'bad_step', 'bad_data'} <= set(tally.outcomes)
    return tally.report()


def run_odd_pictures(pipeline: ExpressionPipeline, count: int, rounds: int = 1) -> Report:
    """Each compressed image gives valid faces or a FrameError."""
    tally = Tally()

    @examples(count)
    @given(odd_pictures())
    def send(content: bytes) -> None:
        tally.begin()
        try:
            check_compressed(content, MAX_PIXELS)
            frame = compressed_to_frame(content, MAX_PIXELS)
        except FrameError as error:
            tally.count_refused(error)
            return
        width, height = frame.size
        assert width * height <= MAX_PIXELS
        assert_valid(pipeline.run([frame])[0])
        tally.count('sound')

    for _ in range(rounds):
        send()
    if rounds * count >= MANY:
        assert tally.outcomes['sound'] > rounds * count / 10
        assert {'bad_format', 'bad_data', 'too_large'} <= set(tally.outcomes)
    return tally.report()


def run_several_cameras(pipeline: ExpressionPipeline, count: int) -> None:
    """Images of several cameras in one batch each get their own valid faces."""

    @examples(count)
    @given(st.lists(odd_images(), min_size=1, max_size=4))
    def send(images: list[OddImage]) -> None:
        frames = []
        for image in images:
            try:
                frames.append(image_to_frame(image))
            except FrameError:
                continue
        found = pipeline.run(frames)
        assert len(found) == len(frames)
        for faces in found:
            assert_valid(faces)

    send()


# --- the node -----------------------------------------------------------------------------------


def send_odd_images(robot: Robot, smile: np.ndarray, count: int) -> Report:
    """Send images with odd headers and calibrations to the node."""
    robot.show(smile)
    info = robot.new_publisher('camera_info', CameraInfo)

    def send(odd: OddImage, header: Header, calibration: CameraInfo) -> None:
        info.publish(calibration)
        robot.publisher.publish(to_message(odd, header))

    report = _send(robot, send, count, odd_images(), odd_headers(), odd_calibrations())
    assert robot.show(smile).faces[0].label == 'happy'
    return report


def to_message(odd: OddImage, header: Header) -> Image:
    """The message with these fields."""
    message = Image(
        header=header,
        height=odd.height,
        width=odd.width,
        encoding=odd.encoding,
        is_bigendian=odd.is_bigendian,
        step=odd.step,
    )
    message.data.frombytes(odd.data)
    return message


def send_odd_pictures(robot: Robot, smile: np.ndarray, count: int) -> Report:
    """Send compressed images to the node, after configuring it for them."""
    robot.reconfigure('image/compressed', CompressedImage, image_transport='compressed')
    jpeg = cv2.imencode('.jpg', smile)[1].tobytes()

    def show_smile() -> Any:
        return robot.send_until_answered(CompressedImage(header=robot.header(), data=jpeg))

    def send(content: bytes, kind: str) -> None:
        robot.publisher.publish(CompressedImage(format=kind, data=content))

    show_smile()
    report = _send(robot, send, count, odd_pictures(), st.text(max_size=8))
    assert show_smile().faces[0].label == 'happy'
    return report


def send_damaged_bytes(robot: Robot, smile: np.ndarray, count: int) -> Report:
    """Send damaged bytes of a message to the node; the middleware does not deliver all of them."""
    robot.show(smile)
    good = serialize_message(robot.image(smile[:60, :80]))
    changes = st.lists(st.tuples(st.integers(4, 120), st.integers(0, 255)), max_size=4)
    lengths = st.one_of(st.just(len(good)), st.integers(4, len(good)))

    def send(changes: list[tuple[int, int]], length: int) -> None:
        content = bytearray(good)
        for place, value in changes:
            content[place] = value
        robot.publisher.publish(bytes(content[:length]))

    report = _send(robot, send, count, changes, lengths, all_arrive=False)
    assert robot.show(smile).faces[0].label == 'happy'
    return report


def _send(
    robot: Robot, send: Callable[..., None], count: int, *strategies: Any, all_arrive: bool = True
) -> Report:
    """Send examples; each must be counted once, none may raise, and memory must not grow."""
    before = _counts(robot.wait_status(_is_settled, 'no image in work')[1])
    before_mib = memory_mib(robot.node.pid)
    sent = itertools.count()

    @examples(count)
    @given(st.tuples(*strategies))
    def send_one(example: tuple[Any, ...]) -> None:
        send(*example)
        robot.spin(PAUSE_S)
        next(sent)

    send_one()
    messages = next(sent)

    def is_complete(_: Any, values: dict[str, str]) -> bool:
        counts = _counts(values) - before
        lost = counts.pop('lost', 0)
        received = counts.pop('received', 0)
        arrived = received >= 0.9 * messages - lost or not all_arrive
        return arrived and received == counts.total()

    _, values = robot.wait_status(is_complete, 'each message is counted once')
    counts = _counts(values) - before
    assert counts['failed'] == 0
    assert 'ignored:' not in robot.output  # Python prints this for exceptions that it cannot raise
    assert 'Traceback' not in robot.output
    assert values['state'] == 'active'
    growth_mib = memory_mib(robot.node.pid) - before_mib
    assert growth_mib < MAX_GROWTH_MIB
    return {
        'messages': messages,
        **{name: counts.pop(name, 0) for name in ('received', 'processed', 'lost')},
        'dropped': dict(counts),
        'memory_growth_mib': round(growth_mib, 1),
    }


def _is_settled(_: Any, values: dict[str, str]) -> bool:
    """Whether every image that arrived is counted; the node counts one after its answer."""
    counts = _counts(values)
    counts.pop('lost', 0)
    return counts.pop('received', 0) == counts.total()


def _counts(values: dict[str, str]) -> Counter[str]:
    """Numbers of images from a status: received, processed, and dropped by cause."""
    names = ('frames_received', 'frames_processed')
    found = {k: v for k, v in values.items() if k in names or k.startswith('frames_dropped.')}
    prefixes = ('frames_dropped.', 'frames_')
    for prefix in prefixes:
        found = {k.removeprefix(prefix): v for k, v in found.items()}
    return Counter({k: int(v) for k, v in found.items()})
