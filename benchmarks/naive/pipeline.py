# SPDX-License-Identifier: Apache-2.0
"""The pipeline of the official demo: Haar cascade, PIL, torch eager, fp32 at 224 pixels.

Source: https://github.com/yaoing/DAN. The network is not fused and runs once per face. Unlike the
demo, which takes only the first face, it classifies all faces, like the variants it is compared
with.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from dan_ros.model.normalization import IMAGENET_MEAN, IMAGENET_STD
from dan_ros.network.dan import DAN

SIZE = 224  # side of the network's input, pixels


def open_network() -> DAN:
    """Return the published network with random weights, which take the same time."""
    torch.manual_seed(0)
    return DAN(num_class=8).eval()


class NaivePipeline:
    """Finds and classifies the faces of BGR images."""

    def __init__(self) -> None:
        folder = Path(cv2.__file__).parent / 'data'
        self._cascade = cv2.CascadeClassifier(str(folder / 'haarcascade_frontalface_default.xml'))
        self._network = open_network()

    def run(self, image_bgr: np.ndarray) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
        """Return box (left, top, width, height) and probabilities, float32 [8], of each face."""
        gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
        boxes = self._cascade.detectMultiScale(gray)
        picture = Image.fromarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB))
        return [(tuple(box), self._classify(picture, *box)) for box in boxes]

    def _classify(
        self, picture: Image.Image, left: int, top: int, width: int, height: int
    ) -> np.ndarray:
        face = preprocess(picture.crop((left, top, left + width, top + height)))
        with torch.no_grad():
            logits = self._network(face)[0]
        probabilities: np.ndarray = torch.softmax(logits, dim=1)[0].numpy()
        return probabilities


def preprocess(face: Image.Image) -> torch.Tensor:
    """Convert a face to the input of the network, float32 [1, 3, 224, 224]."""
    values = np.asarray(face.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32) / 255
    values = (values - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    return torch.from_numpy(values.transpose(2, 0, 1))[None]
