# SPDX-License-Identifier: Apache-2.0
"""The face detector YuNet, run by ONNX Runtime and decoded with NumPy.

Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023,
https://doi.org/10.1007/s11633-023-1423-y. OpenCV's own wrapper needs OpenCV 4.8 or newer; this
module works with any version.
"""

import math
from functools import lru_cache, partial
from importlib.util import find_spec

import numpy as np

from dan_ros.detect.base import Detector, DetectorConfig
from dan_ros.detect.yunet_file import IMAGE, for_images
from dan_ros.errors import BackendError, MissingPackageError, ModelError, one_line
from dan_ros.images.opencv import cv2
from dan_ros.model import store
from dan_ros.types import Face

STRIDES = (8, 16, 32)  # pixels per cell of the three output grids
TINY_PX = 128  # the second search enlarges an image whose longer side is below this
# Time limit of the download, seconds; `ros2 launch` kills a node 5 s after asking it to stop.
FETCH_TIMEOUT_S = 4.0
MAX_OVERLAP = 0.3  # intersection over union above which the box with the lower score is dropped


class YuNetDetector(Detector):
    """Finds faces of at least about 10 pixels; see `Detector`.

    YuNet was trained on faces of about 10 to 300 pixels. An image in which it finds no face is
    searched again with a border, at half its size (at twice its size if it is tiny). This also
    finds faces that fill the image: at 640 px, 149 of 150 such faces instead of 105. See
    `DetectorConfig` for the arguments.

    Raises:
        ModelError: the file is not YuNet's.
        BackendError: the GPU cannot be used.
    """

    name = 'yunet'

    def __init__(
        self, content: bytes, min_score: float = 0.6, threads: int = 0, device: str = 'cpu'
    ) -> None:
        # Some machines have no ONNX Runtime: see `open`.
        from dan_ros.backends.onnxruntime import open_session, run_session

        super().__init__(min_score)
        self.device = device
        session = open_session(for_images(content), threads, device)
        names = [f'{kind}_{stride}' for kind in ('cls', 'obj', 'bbox', 'kps') for stride in STRIDES]
        self._run = partial(run_session, session, names)

    @classmethod
    def open(cls, config: DetectorConfig) -> 'YuNetDetector':
        """Find, read and if necessary download the ONNX file.

        If ONNX Runtime is missing or does not load, OpenCV runs it.

        Raises:
            ModelError: the file is missing or damaged, and cannot be downloaded.
            BackendError: the GPU cannot be used, or neither library can.
        """
        content = _read_file(config)
        try:
            return cls(content, config.min_score, config.threads, config.device)
        except ImportError as error:
            problem = f'ONNX Runtime does not load: {one_line(error)}'
            if config.device != 'cpu':
                raise BackendError(problem) from None
        from dan_ros.detect.yunet_opencv import OpenCvYuNetDetector

        try:
            detector = OpenCvYuNetDetector(content, config.min_score, config.threads)
        except MissingPackageError as error:
            raise MissingPackageError(f'{error}; {problem}') from None
        if find_spec('onnxruntime') is not None:  # somebody installed it to be used
            detector.warning = f'YuNet runs in OpenCV, which is slower: {problem}'
        return detector

    def detect(self, image_bgr: np.ndarray) -> list[Face]:
        """Find faces in a BGR image, uint8 [H, W, 3]; the highest score comes first."""
        faces = self._detect_once(image_bgr)
        if faces:
            return faces
        scale = 2.0 if max(image_bgr.shape[:2]) < TINY_PX else 0.5
        height, width = image_bgr.shape[:2]
        size = (math.ceil(width * scale), math.ceil(height * scale))
        image = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
        border = max(size) // 8
        image = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_CONSTANT)
        return [
            Face((face.box_xyxy - border) / scale, face.score, (face.landmarks - border) / scale)
            for face in self._detect_once(image)
        ]

    def detect_in_part(self, image_bgr: np.ndarray) -> list[Face]:
        """Find faces that do not fill the image."""
        return self._detect_once(image_bgr)

    def _detect_once(self, image_bgr: np.ndarray) -> list[Face]:
        height, width = image_bgr.shape[:2]
        below, right = -height % STRIDES[-1], -width % STRIDES[-1]
        padded = image_bgr
        if below or right:
            padded = cv2.copyMakeBorder(image_bgr, 0, below, 0, right, cv2.BORDER_CONSTANT)
        outputs = self._run({IMAGE: padded[None]})
        scores, boxes, landmarks = decode(outputs, padded.shape[:2], self.min_score)
        # OpenCV before 4.8 takes lists only
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        keep = cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), self.min_score, MAX_OVERLAP)
        return [
            Face(boxes[index], float(scores[index]), landmarks[index])
            for index in np.asarray(keep, int).ravel()
        ]


def _read_file(config: DetectorConfig) -> bytes:
    if config.model_file:
        return store.read_pinned('yunet', config.model_file).content
    try:
        return store.read_model('yunet').content
    except ModelError:
        config.on_progress(f'downloading {store.KNOWN_MODELS["yunet"].url}')
        store.fetch_model('yunet', FETCH_TIMEOUT_S)
        return store.read_model('yunet').content


def decode(
    outputs: list[np.ndarray], size: tuple[int, int], min_score: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decode the network's output grids into faces.

    Each cell of a grid proposes one face with the score sqrt(class * objectness). The box is stored
    as the offset of its center from the cell and the logarithm of its size, the landmarks as
    offsets from the cell, all in strides.

    Args:
        outputs: cls [1, cells, 1], obj [1, cells, 1], bbox [1, cells, 4] and kps [1, cells, 10],
            float32, each for the strides 8, 16, 32.
        size: (height, width) of the network's input, pixels.
        min_score: lowest score of a proposal to keep, [0, 1].

    Returns:
        scores float32 [N], boxes float32 [N, 4] as left, top, right, bottom, and landmarks float32
        [N, 5, 2], in pixels of the input.
    """
    cls, obj, bbox, kps = (
        np.concatenate([grid[0] for grid in outputs[start : start + 3]]) for start in (0, 3, 6, 9)
    )
    scores = np.sqrt(cls[:, 0].clip(0, 1) * obj[:, 0].clip(0, 1))  # [cells]
    chosen = np.flatnonzero(scores >= min_score)
    corner, stride = (part[chosen] for part in _cells(size))  # [N, 2], [N, 1]
    with np.errstate(over='ignore', invalid='ignore'):  # `is_finite` below drops these
        centre = (corner + bbox[chosen, :2]) * stride
        half_size = np.exp(bbox[chosen, 2:].clip(max=10)) * stride / 2
        boxes = np.concatenate([centre - half_size, centre + half_size], axis=1)  # [N, 4]
        landmarks = (corner[:, None] + kps[chosen].reshape(-1, 5, 2)) * stride[:, None]
    is_finite = np.isfinite(boxes).all(axis=1) & np.isfinite(landmarks).all(axis=(1, 2))
    return scores[chosen][is_finite], boxes[is_finite], landmarks[is_finite]


@lru_cache(maxsize=32)  # the images of a camera have one size, regions a few sizes
def _cells(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (column, row) of each cell, float32 [cells, 2], and its stride, float32 [cells, 1]."""
    corners, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        corners.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)
