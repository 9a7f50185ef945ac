# SPDX-License-Identifier: Apache-2.0
"""Base classes and shared functions of the data set readers.

The reader of a data set lists its image files (`ImageDataset.list_images`). This module checks that
each can be decoded, and crops and resizes it.
"""

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import numpy as np

from dan_ros.datasets.faces import TEST, TRAIN, VALID, Faces, in_memory
from dan_ros.errors import DataError, count_of
from dan_ros.images.files import open_picture
from dan_ros.images.resize import resize

READ_THREADS = 4  # threads that decode every image once; each holds one image in memory
# Files and folders that operating systems leave behind.
IGNORED_NAMES = ('__macosx', '@eadir', 'thumbs.db', 'ehthumbs.db', 'desktop.ini')
# Tenths of a data set without splits that serve as each split, see `tenth_of`.
TENTHS = {TRAIN: range(8), VALID: range(8, 9), TEST: range(9, 10)}


@dataclass(frozen=True)
class LabeledImage:
    """One face in an image file."""

    path: Path  # the image file
    label: int  # index into the data set's `labels`
    # The face in the image, (left, top, width, height) in pixels; None for the whole image.
    crop: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Listing:
    """The images of one split, before they are decoded."""

    images: list[LabeledImage]  # all images with a class
    layout: str  # description of where the images are
    skipped: Mapping[str, str] = field(default_factory=dict)  # reason per image without a class
    # Number of images that the rules of the data set exclude, per reason.
    excluded: Mapping[str, int] = field(default_factory=dict)
    # Folder of each class; empty if the classes are not folders.
    folders: Mapping[str, Path] = field(default_factory=dict)


def tenth_of(content: bytes) -> int:
    """Return which tenth of a data set without splits an image belongs to; see `TENTHS`."""
    return zlib.crc32(content) % 10


def numbered(labels: tuple[str, ...], first: int = 0) -> Mapping[str, str]:
    """Return the canonical label of each class number.

    >>> dict(numbered(('sad', 'happy'), first=1))
    {'1': 'sad', '2': 'happy'}
    """
    return MappingProxyType({str(number): label for number, label in enumerate(labels, first)})


class FaceDataset(ABC):
    """Reader of one data set.

    Attributes:
        labels: canonical labels in the data set's own class order.
        numbers: canonical label per class number, if the data set numbers its class folders.
    """

    labels: tuple[str, ...]
    numbers: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def open(self, root: Path, split: str) -> Faces:
        """Open the split `TRAIN`, `VALID` or `TEST` of the data set in `root`.

        Raises:
            DataError: a file is missing, damaged or empty.
        """

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Return whether the files in `root` prove that it is this data set.

        Args:
            root: an existing folder or file.
            model_labels: labels of the model to evaluate, for data sets that exist with seven and
                with eight classes.
        """
        return False


class ImageDataset(FaceDataset):
    """A data set that consists of image files."""

    @abstractmethod
    def list_images(self, root: Path, split: str) -> Listing:
        """List the images of one split; arguments and errors as in `open`."""

    def open(self, root: Path, split: str) -> Faces:
        """Decode every image once and leave out the unreadable ones."""
        listing = self.list_images(root, split)
        with ThreadPoolExecutor(READ_THREADS) as threads:
            checks = threads.map(lambda image: try_picture(image.path)[1], listing.images)
            problems = list(checks)
        checked = list(zip(listing.images, problems, strict=True))
        unreadable = {str(image.path): problem for image, problem in checked if problem}
        skipped = {**listing.skipped, **unreadable}
        images = [image for image, problem in checked if not problem]
        if not images:
            raise DataError(f'{root}: {why_empty(listing.layout, skipped)}')
        classes = np.array([image.label for image in images], np.int64)
        targets = np.eye(len(self.labels), dtype=np.float32)[classes]
        used = {self.labels[index] for index in classes}
        empty = [f'{folder} ({n})' for n, folder in listing.folders.items() if n not in used]

        def read(indices: np.ndarray, size: int) -> np.ndarray:
            return np.stack([_read_face(images[index], size) for index in indices])

        return Faces(
            self.labels,
            targets,
            classes,
            read,
            layout=listing.layout,
            skipped=skipped,
            excluded=listing.excluded,
            empty_folders=tuple(empty),
            paths=tuple(image.path for image in images),
        )


def gray_faces(
    labels: tuple[str, ...],
    targets: np.ndarray,
    classes: np.ndarray,
    images: np.ndarray,
    layout: str,
) -> Faces:
    """Return faces held in memory; arguments as in `Faces`, images are uint8 [N, side, side]."""
    native_size = images.shape[1]
    return Faces(
        labels, targets, classes, in_memory(images), native_size=native_size, layout=layout
    )


def why_empty(layout: str, skipped: Mapping[str, str]) -> str:
    """Explain that no image can be used, with the first reason."""
    if not skipped:
        return f'no images found in {layout}; check the folder and the data set'
    path, reason = next(iter(skipped.items()))
    count = count_of(len(skipped), 'image')
    return f'none of {count} can be read; the first is {path}: {reason}'


def try_picture(path: Path) -> tuple[np.ndarray | None, str]:
    """Decode an image: return uint8 [H, W, 3] BGR and '', or None and the reason."""
    try:
        return open_picture(path), ''
    except DataError as error:
        return None, str(error).removeprefix(f'{path}: ')


def _read_face(image: LabeledImage, size: int) -> np.ndarray:
    """Read one face: uint8 [size, size, 3], RGB."""
    pixels, reason = try_picture(image.path)
    if pixels is None:
        raise DataError(f'{image.path} was readable at the start, but no longer: {reason}')
    if image.crop is not None:
        left, top, width, height = image.crop
        face = pixels[max(top, 0) : top + height, max(left, 0) : left + width]
        pixels = face if face.size else pixels
    return resize(pixels, size, size)[:, :, ::-1]


def is_ignored(path: Path) -> bool:
    """Return whether a file or folder is hidden or left behind by an operating system."""
    return path.name.startswith('.') or path.name.lower() in IGNORED_NAMES


def subfolders(root: Path) -> list[Path]:
    """Return the visible folders in `root`, sorted by name; [] if `root` is a file."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:  # unlike `iterdir`, needs no system call per entry
        paths = [Path(entry.path) for entry in entries if entry.is_dir()]
    return sorted(path for path in paths if not is_ignored(path))


def visible_files(root: Path) -> Iterator[Path]:
    """Yield the visible files in `root` and below.

    Links are followed; a folder is entered once, and those around `root` are not.
    """
    entered = set(root.resolve().parents)
    for parent, folders, names in os.walk(root, onerror=_raise, followlinks=True):
        folder = Path(parent)
        if (real := folder.resolve()) in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not is_ignored(Path(name)))
        yield from (folder / name for name in names if not is_ignored(Path(name)))


def _raise(error: OSError) -> NoReturn:
    raise error


def find_file(root: Path, names: Sequence[str]) -> Path | None:
    """Find the first of the file names in `root` or one folder below."""
    paths = (folder / name for name in names for folder in (root, *subfolders(root)))
    return next((path for path in paths if path.is_file()), None)
