"""A camera for trying things out: pictures, a video or a real camera as sensor_msgs/Image.

Topic `image_raw`; parameters `source` and `rate_hz`. Without a source it shows a face that moves,
grows and shrinks: the astronaut portrait of scikit-image (NASA, public domain).
"""

import array
import itertools
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

WIDTH, HEIGHT = 640, 480
FACE_CENTRE = (223.0, 120.0)  # of the astronaut's face, pixels of the portrait
PICTURE_S = 2.0  # each picture of a folder is shown for so long
PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp')

Images = Iterator[np.ndarray | None]


class SampleCamera(Node):
    """Publishes an endless row of images at a fixed rate, stamped with the node's clock.

    Raises:
        ParameterError: the source can't be opened, or the rate is none.
    """

    NAME = 'sample_camera'

    def __init__(self) -> None:
        super().__init__(self.NAME)
        source = str(self.declare_parameter('source', '').value)
        dynamic = ParameterDescriptor(dynamic_typing=True)  # so that whole numbers pass as well
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
            self.get_logger().warning('the source gives no image', throttle_duration_sec=5)
            return
        header = Header(frame_id='sample_camera', stamp=self.get_clock().now().to_msg())
        self._publisher.publish(bgr_to_image(image, header))


def _check_rate(value: object) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0.1 <= value <= 1000:
        said = list(value) if isinstance(value, array.array) else value
        raise ParameterError(f'rate_hz can not be {said!r}: it must be a number from 0.1 to 1000')
    return float(value)


def open_source(source: str, rate_hz: float) -> Images:
    """Endless images, uint8 [H, W, 3] BGR, or None where one could not be read.

    Args:
        source: '' for the moving face, the number of a camera, a picture, a folder of pictures, or
            a video, which starts again at its end.
        rate_hz: how many are taken a second.

    Raises:
        DanError: the source is not there or can't be read.
    """
    if not source:
        return moving_face(rate_hz)
    if source.isdigit():
        return _video(int(source), f'camera {source}')
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
            return _pictures(files, rate_hz)
        if not path.is_file():
            raise DanError(f'there is no file or folder {source}')
    except OSError as error:
        raise DanError(f'{source} can not be read: {error.strerror}') from None
    except RuntimeError as error:  # ~ of a user who is not there
        raise DanError(f'{source} can not be read: {error}') from None
    if path.suffix.lower() in PICTURES:
        return _pictures([path], rate_hz)
    return _video(str(path), str(path))


def moving_face(rate_hz: float, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Images:
    """The astronaut, wandering about the image and changing size; repeats every 12 s.

    Raises:
        DanError: scikit-image, which carries the portrait, is not installed.
    """
    try:
        from skimage.data import astronaut
    except ModuleNotFoundError:
        raise DanError(
            'the sample face needs scikit-image: `pip install scikit-image`, or give a source'
        ) from None
    portrait = np.ascontiguousarray(astronaut()[..., ::-1])
    return (_place(portrait, index / rate_hz, size) for index in itertools.count())


def _place(portrait: np.ndarray, time_s: float, size: tuple[int, int]) -> np.ndarray:
    phase = 2 * np.pi * time_s / 12
    scale = 1.0 + 0.35 * np.sin(3 * phase)
    x = size[0] * (0.5 + 0.25 * np.sin(phase))
    y = size[1] * (0.42 + 0.12 * np.cos(2 * phase))
    placement = np.float32(
        [[scale, 0, x - scale * FACE_CENTRE[0]], [0, scale, y - scale * FACE_CENTRE[1]]]
    )
    return cv2.warpAffine(portrait, placement, size, borderValue=(190, 180, 175))


def _pictures(paths: list[Path], rate_hz: float) -> Images:
    pictures = [picture for path in paths if (picture := _read(path)) is not None]
    if not pictures:
        raise DanError(f'there is no readable picture ({", ".join(PICTURES)})')
    times = max(1, round(PICTURE_S * rate_hz))
    return itertools.cycle(picture for picture in pictures for _ in range(times))


def _read(path: Path) -> np.ndarray | None:
    """A picture as its EXIF data turns it, for people look at it; None for one that is none."""
    try:
        return cv2.imread(str(path))
    except cv2.error:  # too large
        return None


def _video(source: int | str, name: str) -> Images:
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        raise DanError(f'{name} can not be opened: no such camera, or not a video OpenCV can read')
    return _frames(capture)


def _frames(capture: cv2.VideoCapture) -> Images:
    while True:
        succeeded, frame = capture.read()
        yield frame if succeeded else None  # at a video's end, or a camera is away for a moment
        if not succeeded:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
