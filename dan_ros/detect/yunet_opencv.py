# SPDX-License-Identifier: Apache-2.0
"""YuNet in OpenCV's own wrapper, for machines without ONNX Runtime; takes 2 to 3 times as long."""

import numpy as np

from dan_ros.detect.base import Detector
from dan_ros.detect.yunet import MAX_OVERLAP, YuNetDetector
from dan_ros.errors import MissingPackageError, ModelError
from dan_ros.images.opencv import cv2, version
from dan_ros.types import Face

MIN_VERSION = (4, 9)  # first version of OpenCV that reads YuNet from memory
MIN_SIDE_PX = 64  # with a side of 32 pixels or less, OpenCV also returns random faces


class OpenCvYuNetDetector(YuNetDetector):
    """See `YuNetDetector`; arguments and results are the same, on the CPU.

    Raises:
        MissingPackageError: OpenCV is too old.
        ModelError: the file is not YuNet's.
    """

    def __init__(self, content: bytes, min_score: float = 0.6, threads: int = 0) -> None:
        Detector.__init__(self, min_score)
        if version() < MIN_VERSION:
            raise MissingPackageError(
                'YuNet needs onnxruntime (`pip install onnxruntime`), or OpenCV 4.9 or newer'
            )
        if threads:
            cv2.setNumThreads(threads)
        model = np.frombuffer(content, np.uint8)
        try:
            self._network = cv2.FaceDetectorYN.create(
                'onnx', model, np.zeros(0, np.uint8), (32, 32), min_score, MAX_OVERLAP
            )
        except cv2.error as error:
            raise ModelError(f"YuNet's file cannot be read: {error.err}") from None

    def _detect_once(self, image_bgr: np.ndarray) -> list[Face]:
        below, right = (max(0, MIN_SIDE_PX - side) for side in image_bgr.shape[:2])
        if below or right:
            image_bgr = cv2.copyMakeBorder(image_bgr, 0, below, 0, right, cv2.BORDER_CONSTANT)
        self._network.setScoreThreshold(self.min_score)
        self._network.setInputSize(image_bgr.shape[1::-1])
        _, rows = self._network.detect(image_bgr)  # float32 [N, 15]: box, landmarks, score
        return [_to_face(row) for row in (rows if rows is not None else ())]


def _to_face(row: np.ndarray) -> Face:
    left, top, width, height = row[:4]
    box_xyxy = np.array([left, top, left + width, top + height], np.float32)
    return Face(box_xyxy, float(row[14]), row[4:14].reshape(5, 2))
