# SPDX-License-Identifier: Apache-2.0
"""AffectNet with seven or eight classes.

Mollahosseini, Hasani, Mahoor 2017, https://arxiv.org/abs/1708.03985.

Four layouts are supported:

* one folder per class number: `train/0 .. 7`, `val/0 .. 7`;
* the release of 2021: `train_set/images/1.jpg` and `train_set/annotations/1_exp.npy`;
* the first release: `training.csv` and `validation.csv`;
* one CSV with a column `phase`: `affectnet.csv`.
"""

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dan_ros import labels as label_sets
from dan_ros.datasets.base import ImageDataset, LabeledImage, read_lines, split_folder, subfolders
from dan_ros.datasets.faces import TRAIN
from dan_ros.datasets.folders import LABEL_OF_NAME, list_class_folders
from dan_ros.errors import DataError

CSV_OF_BOTH_SPLITS = 'affectnet.csv'
OWN_FILES = ('train_set', 'val_set', 'validation.csv', CSV_OF_BOTH_SPLITS, 'Manually_Annotated')
# The CSV files of the first release give image paths relative to one of these folders.
IMAGE_FOLDERS = ('', 'Manually_Annotated_Images', 'Manually_Annotated', 'images')
# AffectNet numbers its classes in the canonical order.
LABEL_OF_NUMBER = {str(number): name for number, name in enumerate(label_sets.CANONICAL)}


class AffectNet8(ImageDataset):
    """AffectNet with all eight classes."""

    labels: tuple[str, ...] = label_sets.AFFECTNET8

    def list_images(self, root: Path, split: str) -> list[LabeledImage]:
        """List the images of whichever layout `root` has."""
        images = _list_all(root, split)
        return [image for image in images if 0 <= image.label < len(self.labels)]

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for AffectNet's files, or folders named by class numbers in `root` or below."""
        if ('contempt' in self.labels) != ('contempt' in model_labels):
            return False
        if root.suffix == '.csv' or any((root / name).exists() for name in OWN_FILES):
            return True
        folders = [f for folder in subfolders(root) for f in (folder, *subfolders(folder))]
        return any(folder.name in LABEL_OF_NUMBER for folder in folders)


class AffectNet7(AffectNet8):
    """AffectNet without contempt."""

    labels = label_sets.AFFECTNET7


def _list_all(root: Path, split: str) -> Iterable[LabeledImage]:
    """List the images with AffectNet's own class numbers; 8 to 10 are not expressions."""
    csv_path = _find_csv(root, split)
    if csv_path is not None:
        return _list_csv(csv_path, split)
    annotations = root / f'{"train" if split == TRAIN else "val"}_set' / 'annotations'
    if annotations.is_dir():
        return _list_annotations(annotations)
    names = {**LABEL_OF_NUMBER, **LABEL_OF_NAME}
    return list_class_folders(split_folder(root, split), label_sets.AFFECTNET8, names)


def _find_csv(root: Path, split: str) -> Path | None:
    if root.is_file():
        return root
    names = ('training.csv', 'train.csv') if split == TRAIN else ('validation.csv', 'val.csv')
    paths = (root / name for name in (*names, CSV_OF_BOTH_SPLITS))
    return next((path for path in paths if path.is_file()), None)


def _list_csv(path: Path, split: str) -> list[LabeledImage]:
    rows = csv.DictReader(read_lines(path))
    file_column, label_column = _find_columns(path, rows.fieldnames or [])
    images = []
    for number, row in enumerate(rows, 2):
        phase = (row.get('phase') or '').lower()
        if phase and phase.startswith('train') != (split == TRAIN):
            continue
        try:
            image = _find_image(path.parent, row[file_column])
            images.append(LabeledImage(image, int(row[label_column]), _crop(row)))
        except (TypeError, ValueError, OverflowError):
            raise DataError(f'{path}, line {number}: invalid row {dict(row)}') from None
    return images


def _find_columns(path: Path, columns: Sequence[str]) -> tuple[str, str]:
    """Names of the columns with the image's file and the class."""
    file_column = _first_of(columns, ('subDirectory_filePath', 'img_path', 'path', 'image'))
    label_column = _first_of(columns, ('expression', 'label'))
    if file_column is None or label_column is None:
        raise DataError(
            f'{path}: the first line must name the columns subDirectory_filePath (or img_path) '
            f'and expression (or label); it has {", ".join(columns) or "none"}'
        )
    if path.name == CSV_OF_BOTH_SPLITS and 'phase' not in columns:
        raise DataError(
            f'{path} has no column phase, which separates training from validation; add it, or '
            'split the file into training.csv and validation.csv'
        )
    return file_column, label_column


def _crop(row: dict[str, str]) -> tuple[int, int, int, int] | None:
    names = ('face_x', 'face_y', 'face_width', 'face_height')
    if any(not row.get(name) for name in names):
        return None
    left, top, width, height = (int(float(row[name])) for name in names)
    return (left, top, width, height) if width > 0 and height > 0 else None


def _find_image(folder: Path, name: str) -> Path:
    for parent in IMAGE_FOLDERS:
        with contextlib.suppress(OSError):  # an invalid name; listed as unreadable later
            if (folder / parent / name).is_file():
                return folder / parent / name
    return folder / name


def _first_of(columns: Sequence[str], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _list_annotations(folder: Path) -> Iterator[LabeledImage]:
    for path in sorted(folder.glob('*_exp.npy')):
        try:
            label = int(np.load(path, allow_pickle=False))
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise DataError(f'{path} does not contain one class number: {error}') from None
        name = path.name.removesuffix('_exp.npy')
        yield LabeledImage(folder.parent / 'images' / f'{name}.jpg', label)
