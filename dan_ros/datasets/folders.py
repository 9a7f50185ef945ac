# SPDX-License-Identifier: Apache-2.0
"""Data sets with one folder per class: SFEW, and your own images."""

from collections.abc import Mapping
from pathlib import Path

from dan_ros import labels as label_sets
from dan_ros.datasets.base import ImageDataset, LabeledImage, split_folder, subfolders
from dan_ros.datasets.faces import TRAIN
from dan_ros.errors import DataError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
# Canonical label per folder name in lower case.
LABEL_OF_NAME: Mapping[str, str] = {
    **{name: name for name in label_sets.CANONICAL},
    'happiness': 'happy',
    'sadness': 'sad',
    'surprised': 'surprise',
    'fearful': 'fear',
    'disgusted': 'disgust',
    'angry': 'anger',
}


class Sfew(ImageDataset):
    """SFEW 2.0 (Dhall et al. 2011, https://doi.org/10.1109/ICCVW.2011.6130508).

    Layout: `Train/Happy/*.png`, `Val/Happy/*.png`, ...
    """

    labels = label_sets.AFFECTNET7

    def list_images(self, root: Path, split: str) -> list[LabeledImage]:
        """List the images in the split's class folders."""
        return list_class_folders(split_folder(root, split), self.labels, LABEL_OF_NAME)


class ClassFolders(ImageDataset):
    """Your own images in one folder per class.

    Layout: `train/happy/*.jpg` and `val/happy/*.jpg`; evaluation also takes `happy/*.jpg`.
    """

    labels = label_sets.CANONICAL

    def list_images(self, root: Path, split: str) -> list[LabeledImage]:
        """List the images in the split's class folders."""
        if split == TRAIN or not any(_is_class(folder) for folder in subfolders(root)):
            root = split_folder(root, split)
        return list_class_folders(root, self.labels, LABEL_OF_NAME)

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for a class folder in `root` or one level below."""
        folders = subfolders(root)
        return any(_is_class(f) for folder in folders for f in (folder, *subfolders(folder)))


def list_class_folders(
    root: Path, labels: tuple[str, ...], label_of_name: Mapping[str, str]
) -> list[LabeledImage]:
    """List the images in one folder per class.

    Folders of known classes outside `labels`, such as contempt in a set of seven, are skipped.

    Args:
        root: the folder that contains the class folders.
        labels: canonical labels in class order.
        label_of_name: canonical label per folder name in lower case.

    Raises:
        DataError: the name of a folder is not a class.
    """
    images = []
    for folder in subfolders(root):
        label = label_of_name.get(folder.name.lower())
        if label is None:
            raise DataError(
                f'{folder} is not a class; valid folder names are {", ".join(label_of_name)}'
            )
        if label in labels:
            files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            images += [LabeledImage(path, labels.index(label)) for path in files]
    return images


def _is_class(folder: Path) -> bool:
    return folder.name.lower() in LABEL_OF_NAME
