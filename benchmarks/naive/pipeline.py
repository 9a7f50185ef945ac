"""The official demo's way: Haar cascade, PIL, torch eager, one face at a time, fp32 at 224.

As https://github.com/yaoing/DAN has it: the network as published, not fused, preprocessing by PIL
and a normalisation in floats. It looks at every face instead of the first alone, as everything it
is compared with does.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from dan_ros.network.dan import DAN
from dan_ros.network.fuse import IMAGENET_MEAN, IMAGENET_STD

SIZE = 224


def open_network() -> DAN:
    """The network as published, with weights that mean nothing: they cost the same."""
    torch.manual_seed(0)
    return DAN(num_class=8).eval()


class NaivePipeline:
    """Finds faces in BGR images and judges each."""

    def __init__(self) -> None:
        folder = Path(cv2.__file__).parent / 'data'
        self._cascade = cv2.CascadeClassifier(str(folder / 'haarcascade_frontalface_default.xml'))
        self._network = open_network()

    def run(self, image_bgr: np.ndarray) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
        """Box (left, top, width, height) and probabilities [8] of every face."""
        grey = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
        boxes = self._cascade.detectMultiScale(grey)
        picture = Image.fromarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB))
        return [(tuple(box), self._judge(picture, *box)) for box in boxes]

    def _judge(
        self, picture: Image.Image, left: int, top: int, width: int, height: int
    ) -> np.ndarray:
        face = preprocess(picture.crop((left, top, left + width, top + height)))
        with torch.no_grad():
            logits = self._network(face)[0]
        probabilities: np.ndarray = torch.softmax(logits, dim=1)[0].numpy()
        return probabilities


def preprocess(face: Image.Image) -> torch.Tensor:
    """A face as the network wants it: float32 [1, 3, 224, 224]."""
    values = np.asarray(face.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32) / 255
    values = (values - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    return torch.from_numpy(values.transpose(2, 0, 1))[None]
