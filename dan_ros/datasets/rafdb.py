# SPDX-License-Identifier: Apache-2.0
"""RAF-DB: basic expressions, aligned faces.

Li, Deng, Du 2017, https://doi.org/10.1109/CVPR.2017.277.
"""

from pathlib import Path

from dan_ros import labels as label_sets
from dan_ros.datasets.base import ImageDataset, LabeledImage, read_lines
from dan_ros.datasets.faces import TRAIN
from dan_ros.errors import DataError

CLASS_NUMBERS = ('1', '2', '3', '4', '5', '6', '7')


class RafDb(ImageDataset):
    """RAF-DB in `root` or `root/basic`; its test split serves as `VALID`, as in the DAN paper.

    Layout: `EmoLabel/list_patition_label.txt` with lines such as `train_00001.jpg 5`, classes 1 to
    7 in RAF-DB's order, and `Image/aligned/train_00001_aligned.jpg`.
    """

    labels = label_sets.RAFDB

    def list_images(self, root: Path, split: str) -> list[LabeledImage]:
        """List the images that the label file assigns to the split."""
        if not _has_labels(root) and _has_labels(root / 'basic'):
            root = root / 'basic'
        path = root / 'EmoLabel' / 'list_patition_label.txt'
        prefix = 'train' if split == TRAIN else 'test'
        images = []
        for number, line in enumerate(read_lines(path), 1):
            name, _, label = line.strip().partition(' ')
            if not name:
                continue
            if label not in CLASS_NUMBERS:
                raise DataError(
                    f'{path}, line {number}: {line.strip()!r} is invalid; expected a file name and '
                    'a class from 1 to 7'
                )
            if name.startswith(prefix):
                face = root / 'Image' / 'aligned' / f'{name.partition(".")[0]}_aligned.jpg'
                images.append(LabeledImage(face, int(label) - 1))
        return images

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for the folder of the label file."""
        return _has_labels(root) or _has_labels(root / 'basic')


def _has_labels(root: Path) -> bool:
    return (root / 'EmoLabel').is_dir()
