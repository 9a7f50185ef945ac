# SPDX-License-Identifier: Apache-2.0
"""Base classes of the data set readers.

A reader of image files only lists them (`ImageDataset.list_images`); this module checks that each
image can be decoded, and crops and resizes it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dan_ros.datasets.faces import TRAIN, VALID, Faces
from dan_ros.errors import DataError
from dan_ros.images.files import read_picture
from dan_ros.images.resize import resize

READ_THREADS = 8  # threads that decode every image once when a data set is opened
# Names of a split's folder, in order of preference.
SPLIT_FOLDERS = {TRAIN: ('train', 'training'), VALID: ('val', 'valid', 'validation', 'test')}


@dataclass(frozen=True)
class LabeledImage:
    """One face in an image file.

    Attributes:
        path: the image file.
        label: index into the data set's `labels`.
        crop: the face in the image, (left, top, width, height) in pixels; None for all of it.
    """

    path: Path
    label: int
    crop: tuple[int, int, int, int] | None = None


class FaceDataset(ABC):
    """Reader of one data set.

    Attributes:
        labels: canonical labels in the data set's own class order.
    """

    labels: tuple[str, ...]

    @abstractmethod
    def open(self, root: Path, split: str) -> Faces:
        """Open the split `TRAIN` or `VALID` of the data set in `root`.

        Raises:
            DataError: a file is missing, damaged or empty.
        """

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Return whether the files in `root` can only be of this data set.

        Args:
            root: an existing folder or file.
            model_labels: labels of the model to evaluate, for data sets that exist with seven and
                with eight classes.
        """
        return False


class ImageDataset(FaceDataset):
    """A data set that consists of image files."""

    @abstractmethod
    def list_images(self, root: Path, split: str) -> list[LabeledImage]:
        """List the images of one split; arguments and errors as in `open`."""

    def open(self, root: Path, split: str) -> Faces:
        """Decode every image once and leave out the unreadable ones."""
        images = self.list_images(root, split)
        with ThreadPoolExecutor(READ_THREADS) as threads:
            readable = list(threads.map(lambda image: read_picture(image.path) is not None, images))
        skipped = tuple(str(i.path) for i, good in zip(images, readable, strict=True) if not good)
        images = [image for image, good in zip(images, readable, strict=True) if good]
        if not images:
            raise DataError(f'{root}: {_why_empty(skipped)}; check the folder and the data set')
        classes = np.array([image.label for image in images], np.int64)
        targets = np.eye(len(self.labels), dtype=np.float32)[classes]

        def read(indices: np.ndarray, size: int) -> np.ndarray:
            return np.stack([_read_face(images[index], size) for index in indices])

        paths = tuple(image.path for image in images)
        return Faces(self.labels, targets, classes, read, skipped=skipped, paths=paths)


def _why_empty(skipped: Sequence[str]) -> str:
    if not skipped:
        return 'no images found'
    return f'none of its {len(skipped)} images can be read (the first is {skipped[0]})'


def _read_face(image: LabeledImage, size: int) -> np.ndarray:
    """Read one face: uint8 [size, size, 3], RGB."""
    pixels = read_picture(image.path)
    if pixels is None:
        raise DataError(f'{image.path} can no longer be read; it was readable at the start')
    if image.crop is not None:
        left, top, width, height = image.crop
        face = pixels[max(top, 0) : top + height, max(left, 0) : left + width]
        pixels = face if face.size else pixels
    return resize(pixels, size, size)[:, :, ::-1]


def subfolders(root: Path) -> list[Path]:
    """Visible folders in `root`, sorted by name; [] if `root` is a file."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith('.'))


def split_folder(root: Path, split: str) -> Path:
    """Find a split's folder, such as train, Train_Aligned_Faces or val.

    `VALID` falls back to the test folder.

    Raises:
        DataError: there is no such folder.
    """
    names = SPLIT_FOLDERS[split]
    for name in names:
        for folder in subfolders(root):
            if folder.name.lower() == name or folder.name.lower().startswith(f'{name}_'):
                return folder
    raise DataError(f'{root} has no folder {" or ".join(names)}')


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 text file.

    Raises:
        DataError: the file is missing or is not text.
    """
    try:
        return path.read_text(encoding='utf-8-sig').splitlines()
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror}') from None
    except UnicodeDecodeError:
        raise DataError(f'{path} is not a UTF-8 text file') from None
