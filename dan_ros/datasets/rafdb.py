# SPDX-License-Identifier: Apache-2.0
"""RAF-DB: basic expressions, aligned faces.

Li, Deng, Du 2017, https://doi.org/10.1109/CVPR.2017.277.
"""

from dataclasses import replace
from pathlib import Path

from dan_ros import labels as label_sets
from dan_ros.datasets.base import LabeledImage, Listing, numbered
from dan_ros.datasets.csv_files import read_lines
from dan_ros.datasets.faces import TRAIN
from dan_ros.datasets.folders import (
    FolderDataset,
    enter_outer_folders,
    has_class_folders,
    list_class_folders,
)
from dan_ros.errors import DataError

LABEL_FILE = Path('EmoLabel', 'list_patition_label.txt')


class RafDb(FolderDataset):
    """RAF-DB in `root` or `root/basic`; its test split serves as `VALID`, as in the DAN paper.

    Two layouts are supported:

    * as distributed: `EmoLabel/list_patition_label.txt` with lines such as `train_00001.jpg 5`,
      classes 1 to 7 in RAF-DB's order, and `Image/aligned/train_00001_aligned.jpg`;
    * one folder per class number or name: `train/1 .. 7`, `test/1 .. 7`, or `1 .. 7`, where file
      names such as `train_00001_aligned.jpg` can define the split.
    """

    labels = label_sets.RAFDB
    numbers = numbered(label_sets.RAFDB, first=1)
    other_files = str(LABEL_FILE)

    def list_images(self, root: Path, split: str) -> Listing:
        """List the images of the split by the label file, the folders, or the file names."""
        prefix, other = ('train_', 'test_') if split == TRAIN else ('test_', 'train_')
        for folder in (root, root / 'basic'):
            if _has_labels(folder):
                return self._list_labels(folder, prefix)
        root = enter_outer_folders(root, self.label_of_folder)
        if not has_class_folders(root, self.label_of_folder):
            return super().list_images(root, split)
        listing = list_class_folders(root, self.labels, self.label_of_folder)
        images = [image for image in listing.images if not image.path.name.startswith(other)]
        if split == TRAIN and not any(image.path.name.startswith(prefix) for image in images):
            raise DataError(
                f'{root} has no folder train, and no images with names like train_1.jpg'
            )
        return replace(listing, images=images or listing.images)

    def _list_labels(self, root: Path, prefix: str) -> Listing:
        path = root / LABEL_FILE
        images = []
        for number, line in enumerate(read_lines(path), 1):
            if not line.strip():
                continue
            name, _, label = line.strip().partition(' ')
            if label.strip() not in self.numbers:
                raise DataError(
                    f'{path}, line {number}: {line.strip()!r} is invalid; expected a file name and '
                    'a class from 1 to 7'
                )
            if name.startswith(prefix):
                face = root / 'Image' / 'aligned' / f'{name.partition(".")[0]}_aligned.jpg'
                images.append(LabeledImage(face, int(label) - 1))
        return Listing(images, f'{path} with the images in {root / "Image" / "aligned"}')

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for the folder of the label file."""
        return _has_labels(root) or _has_labels(root / 'basic')


def _has_labels(root: Path) -> bool:
    return (root / 'EmoLabel').is_dir()
