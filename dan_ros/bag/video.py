"""An annotated video a camera."""

from pathlib import Path

import numpy as np

from dan_ros.errors import DataError
from dan_ros.opencv import cv2

CODEC = 'mp4v'  # in every build of OpenCV that writes videos
USUAL_HZ = 30.0


class Videos:
    """Writes `<camera>.mp4` for each camera; the first image decides the size.

    Args:
        folder: to write in.
        rates_hz: frames a second by camera.
    """

    def __init__(self, folder: Path, rates_hz: dict[str, float]) -> None:
        self._folder = folder
        self._rates_hz = rates_hz
        self._writers: dict[str, tuple[cv2.VideoWriter, tuple[int, int]]] = {}

    def write(self, camera: str, image_bgr: np.ndarray) -> None:
        """Append an image, uint8 [H, W, 3]; one of another size is stretched to the first's.

        Raises:
            DataError: OpenCV can't write videos here.
        """
        if camera not in self._writers:
            self._writers[camera] = self._open(camera, image_bgr.shape[1], image_bgr.shape[0])
        writer, size = self._writers[camera]
        if (image_bgr.shape[1], image_bgr.shape[0]) != size:
            image_bgr = cv2.resize(image_bgr, size)
        writer.write(image_bgr)

    def close(self) -> None:
        """Complete the files."""
        for writer, _ in self._writers.values():
            writer.release()

    def _open(
        self, camera: str, width: int, height: int
    ) -> tuple[cv2.VideoWriter, tuple[int, int]]:
        name = camera.strip('/').replace('/', '_')
        path = self._folder / f'{name}.mp4'
        if path.exists():  # /a/b_c beside /a_b/c
            path = self._folder / f'{name}_{len(self._writers) + 1}.mp4'
        size = (width + width % 2, height + height % 2)  # the codec wants even numbers
        fourcc = cv2.VideoWriter.fourcc(*CODEC)
        rate_hz = self._rates_hz.get(camera, USUAL_HZ)
        writer = cv2.VideoWriter(str(path), fourcc, rate_hz, size)
        if not writer.isOpened():
            raise DataError(f'OpenCV can not write {path}: it was built without video support')
        return writer, size
