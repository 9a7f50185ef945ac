# SPDX-License-Identifier: Apache-2.0
"""A camera node for testing: publishes pictures, a video or a real camera as sensor_msgs/Image.

It publishes on `image_raw` and has the parameters `source` and `rate_hz`. The default source is a
moving face of changing size: the astronaut portrait of scikit-image (NASA, public domain).
"""

import itertools
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dan_ros.errors import DanError, ParameterError
from dan_ros.images.opencv import cv2
from dan_ros.ros.publishers import bgr_to_image

WIDTH, HEIGHT = 640, 480  # of the images with the moving face, pixels
FACE_CENTER = (223.0, 120.0)  # x, y of the astronaut's face, pixels of the portrait
PICTURE_S = 2.0  # time per picture of a folder, seconds
PICTURE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp')

Images = Iterator[np.ndarray | None]


class SampleCamera(Node):
    """Publishes images at a fixed rate without end, stamped with the clock of the node.

    Raises:
        ParameterError: the source cannot be opened, or the rate is invalid.
    """

    NAME = 'sample_camera'

    def __init__(self) -> None:
        super().__init__(self.NAME)
        source = str(self.declare_parameter('source', '').value)
        dynamic = ParameterDescriptor(dynamic_typing=True)  # accept integers too
        rate_hz = _check_rate(self.declare_parameter('rate_hz', 30.0, dynamic).value)
        try:
            self._images = open_source(source, rate_hz)
        except DanError as error:
            raise ParameterError(f'source: {error}') from None
        self._publisher = self.create_publisher(Image, 'image_raw', qos_profile_sensor_data)
        self.create_timer(1 / rate_hz, self._publish_next)

    def _publish_next(self) -> None:
        image = next(self._images)
        if image is None:
            self.get_logger().warning(
                'cannot read an image from the source', throttle_duration_sec=5
            )
            return
        header = Header(frame_id='sample_camera', stamp=self.get_clock().now().to_msg())
        self._publisher.publish(bgr_to_image(image, header))


def _check_rate(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, int | float) and is_number and 0.1 <= value <= 1000:
        return float(value)
    shown = list(value) if isinstance(value, array) else value
    raise ParameterError(f'rate_hz cannot be {shown!r}: it must be a number from 0.1 to 1000')


def open_source(source: str, rate_hz: float) -> Images:
    """Open an endless source of images: uint8 [H, W, 3] BGR, or None for an unreadable image.

    Args:
        source: '' for the moving face, the number of a camera, or the path of a picture, a folder
            of pictures, or a video, which is repeated.
        rate_hz: number of images that are taken per second.

    Raises:
        DanError: the source is missing or cannot be read.
    """
    if not source:
        return moving_face(rate_hz)
    if source.isdigit():
        return _video(int(source), f'camera {source}')
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            files = sorted(
                file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES
            )
            return _pictures(files, rate_hz)
        if not path.is_file():
            raise DanError(f'there is no file or folder {source}')
    except OSError as error:
        raise DanError(f'{source} cannot be read: {error.strerror}') from None
    except RuntimeError as error:  # unknown user after ~
        raise DanError(f'{source} cannot be read: {error}') from None
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return _pictures([path], rate_hz)
    return _video(str(path), str(path))


def moving_face(rate_hz: float, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Images:
    """Yield images of the astronaut, who moves and changes size in a cycle of 12 s.

    Args:
        rate_hz: number of images that are taken per second.
        size: (width, height), pixels.

    Raises:
        DanError: scikit-image, which contains the portrait, is not installed.
    """
    try:
        from skimage.data import astronaut
    except ModuleNotFoundError:
        raise DanError(
            'the moving face needs scikit-image: run `pip install scikit-image` or set a source'
        ) from None
    portrait = np.ascontiguousarray(astronaut()[..., ::-1], np.uint8)  # type: ignore[no-untyped-call]
    return (_place(portrait, index / rate_hz, size) for index in itertools.count())


def _place(portrait: np.ndarray, time_s: float, size: tuple[int, int]) -> np.ndarray:
    """Return the image of the moving face at a time."""
    phase = 2 * np.pi * time_s / 12
    scale = 1.0 + 0.35 * np.sin(3 * phase)
    x = size[0] * (0.5 + 0.25 * np.sin(phase))
    y = size[1] * (0.42 + 0.12 * np.cos(2 * phase))
    placement = np.array(
        [[scale, 0, x - scale * FACE_CENTER[0]], [0, scale, y - scale * FACE_CENTER[1]]],
        np.float32,
    )
    image: np.ndarray = cv2.warpAffine(portrait, placement, size, borderValue=(190, 180, 175))
    return image


def _pictures(paths: list[Path], rate_hz: float) -> Images:
    pictures = [picture for path in paths if (picture := _read(path)) is not None]
    if not pictures:
        raise DanError(f'there is no readable picture ({", ".join(PICTURE_SUFFIXES)})')
    times = max(1, round(PICTURE_S * rate_hz))
    return itertools.cycle(picture for picture in pictures for _ in range(times))


def _read(path: Path) -> np.ndarray | None:
    """Read a picture, rotated as its EXIF data says; return None if it is invalid."""
    try:
        return cv2.imread(str(path))
    except cv2.error:  # the picture is too large
        return None


def _video(source: int | str, name: str) -> Images:
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        raise DanError(
            f'{name} cannot be opened: no such camera, or not a video that OpenCV can read'
        )
    return _frames(capture)


def _frames(capture: cv2.VideoCapture) -> Images:
    while True:
        succeeded, frame = capture.read()
        yield frame if succeeded else None  # end of a video, or camera not ready
        if not succeeded:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
