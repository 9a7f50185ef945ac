# SPDX-License-Identifier: Apache-2.0
"""AffectNet with seven or eight classes.

Mollahosseini, Hasani, Mahoor 2017, https://arxiv.org/abs/1708.03985.

Four layouts are supported:

* the first release: `Manually_Annotated_file_lists/training.csv` and `validation.csv`, or these
  files in `root`, and the folder `Manually_Annotated_Images`;
* the release of 2021: `train_set/images/1.jpg` and `train_set/annotations/1_exp.npy`;
* one CSV with a column `phase`: `affectnet.csv`, as the official code of DAN writes it;
* one folder per class number or name: `train/0 .. 7`, `val/0 .. 7`.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from dan_ros import labels as label_sets
from dan_ros.datasets.base import LabeledImage, Listing, numbered
from dan_ros.datasets.csv_files import read_csv
from dan_ros.datasets.faces import TEST, TRAIN, VALID
from dan_ros.datasets.folders import FolderDataset, is_number
from dan_ros.errors import DataError

CSV_OF_ALL_SPLITS = 'affectnet.csv'
CSV_NAMES = {
    TRAIN: ('training.csv', 'train.csv'),
    VALID: ('validation.csv', 'val.csv'),
    TEST: ('test.csv',),
}
CSV_FOLDER = 'Manually_Annotated_file_lists'
# The CSV files of the first release give image paths relative to one of these folders.
IMAGE_FOLDERS = (
    *('', 'Manually_Annotated_Images', 'Manually_Annotated/Manually_Annotated_Images'),
    *('Manually_Annotated', 'images'),
)
MIN_PARTS = 3  # last parts of an image's path that identify it, such as train_set/images/1.jpg
FILE_COLUMN = 'subdirectory_filepath'  # only AffectNet's first release has this column
# The validation.csv of the first release has no header.
FIRST_RELEASE = (
    *(FILE_COLUMN, 'face_x', 'face_y', 'face_width', 'face_height', 'facial_landmarks'),
    *('expression', 'valence', 'arousal'),
)
NO_BOX = ('', 'NULL')  # cells of a face without a box; one in the first release's training.csv
SET_FOLDERS = {TRAIN: 'train_set', VALID: 'val_set', TEST: 'test_set'}


class AffectNet8(FolderDataset):
    """AffectNet with all eight classes."""

    labels: tuple[str, ...] = label_sets.AFFECTNET8
    numbers = numbered(label_sets.AFFECTNET8)  # the canonical order
    other_files = 'validation.csv or affectnet.csv, and no val_set/annotations'

    def list_images(self, root: Path, split: str) -> Listing:
        """List the images of whichever layout `root` has; other classes are counted."""
        path = _find_csv(root, split)
        annotations = root / SET_FOLDERS[split] / 'annotations'
        if path is not None:
            images, layout = _list_csv(path, split), str(path)
        elif annotations.is_dir():
            images, layout = list(_list_annotations(annotations)), str(annotations.parent)
        else:
            return super().list_images(root, split)
        numbers = range(len(self.labels))
        others = Counter(image.label for image in images if image.label not in numbers)
        return Listing(
            [image for image in images if image.label in numbers],
            layout,
            excluded={f'class {number}': others[number] for number in sorted(others)},
        )

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for the files of a release."""
        if ('contempt' in self.labels) != ('contempt' in model_labels):
            return False
        paths = (_find_csv(root, split) for split in CSV_NAMES)
        annotations = (root / name / 'annotations' for name in SET_FOLDERS.values())
        return any(path and _is_own(path) for path in paths) or any(
            folder.is_dir() for folder in annotations
        )


class AffectNet7(AffectNet8):
    """AffectNet without contempt."""

    labels = label_sets.AFFECTNET7


def _find_csv(root: Path, split: str) -> Path | None:
    if root.is_file():
        return root
    names = (*CSV_NAMES[split], CSV_OF_ALL_SPLITS)
    paths = (folder / name for folder in (root, root / CSV_FOLDER) for name in names)
    return next((path for path in paths if path.is_file()), None)


def _is_own(path: Path) -> bool:
    """Return whether the CSV is AffectNet's; similar files of other data sets differ in classes."""
    if path.name == CSV_OF_ALL_SPLITS:
        return True
    try:
        return FILE_COLUMN in _read_rows(path)[0]
    except DataError:
        return False


def _read_rows(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Read the column names, in lower case, and the rows with their line numbers.

    A file without a header gets the column names of the first release.
    """
    rows = read_csv(path)
    number, first = next(rows, (1, []))
    if len(first) == len(FIRST_RELEASE) and '/' in first[0] and is_number(first[6]):
        return list(FIRST_RELEASE), chain([(number, first)], rows)
    return [cell.lower() for cell in first], rows


def _list_csv(path: Path, split: str) -> list[LabeledImage]:
    header, rows = _read_rows(path)
    file_column, label_column = _find_columns(path, header)
    folder = path.parent.parent if path.parent.name == CSV_FOLDER else path.parent
    images = []
    for number, cells in rows:
        row = dict(zip(header, cells, strict=False))
        if not _is_in_split(row.get('phase', ''), split):
            continue
        try:
            image = _find_image(folder, row[file_column])
            images.append(LabeledImage(image, int(row[label_column]), _crop(row)))
        except (KeyError, ValueError, OverflowError):
            raise DataError(f'{path}, line {number}: invalid row {row}') from None
    return images


def _is_in_split(phase: str, split: str) -> bool:
    """Return whether a row belongs to the split; rows not for training are for validation."""
    phase = phase.lower()
    if split == TEST:
        return not phase or phase.startswith('test')
    return not phase or phase.startswith('train') == (split == TRAIN)


def _find_columns(path: Path, columns: Sequence[str]) -> tuple[str, str]:
    """Return the names of the columns with the image's file and the class."""
    file_column = _first_of(columns, (FILE_COLUMN, 'img_path', 'path', 'image'))
    label_column = _first_of(columns, ('expression', 'label'))
    if file_column is None or label_column is None:
        raise DataError(
            f'{path}: the first line must name the columns subDirectory_filePath (or img_path) '
            f'and expression (or label); it has {", ".join(columns) or "none"}'
        )
    if path.name == CSV_OF_ALL_SPLITS and 'phase' not in columns:
        raise DataError(
            f'{path} has no column phase, which separates training from validation; add it, or '
            'split the file into training.csv and validation.csv'
        )
    return file_column, label_column


def _crop(row: dict[str, str]) -> tuple[int, int, int, int] | None:
    names = ('face_x', 'face_y', 'face_width', 'face_height')
    if any(row.get(name, '') in NO_BOX for name in names):
        return None
    left, top, width, height = (int(float(row[name])) for name in names)
    return (left, top, width, height) if width > 0 and height > 0 else None


def _find_image(folder: Path, name: str) -> Path:
    """Find an image; its path may begin with folders of the machine that wrote the CSV file."""
    paths = [folder / parent / name for parent in IMAGE_FOLDERS]
    parts = Path(name).parts
    paths += [folder.joinpath(*parts[start:]) for start in range(1, len(parts) - MIN_PARTS + 1)]
    for path in paths:
        with contextlib.suppress(OSError):  # an invalid name; listed as unreadable later
            if path.is_file():
                return path
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
