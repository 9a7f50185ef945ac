# SPDX-License-Identifier: Apache-2.0
"""FER-2013 with its own labels (Goodfellow et al. 2013, https://arxiv.org/abs/1307.0414)."""

from pathlib import Path

import numpy as np

from dan_ros import labels as label_sets
from dan_ros.datasets.base import find_file, gray_faces, numbered, why_empty
from dan_ros.datasets.csv_files import read_header, read_table
from dan_ros.datasets.faces import TEST, TRAIN, VALID, Faces
from dan_ros.datasets.folders import FolderDataset
from dan_ros.errors import DataError

CSV_NAMES = ('fer2013.csv', 'icml_face_data.csv')
VOTES_NAME = 'fer2013new.csv'  # the labels of FER+, which replace those of FER-2013
USAGE = {TRAIN: 'Training', VALID: 'PublicTest', TEST: 'PrivateTest'}
SIDE_PX = 48


class Fer2013(FolderDataset):
    """FER-2013; its public test faces serve as `VALID`, its private test faces as `TEST`.

    Two layouts are supported:

    * as distributed: `fer2013.csv` or `icml_face_data.csv`, with the columns emotion, pixels and
      Usage;
    * one folder per class name or number: `train/angry` or `train/0`, `validation/...`, `test/...`,
      also `Training`, `PublicTest` and `PrivateTest`.
    """

    labels = label_sets.FER2013
    numbers = numbered(label_sets.FER2013)
    other_files = 'fer2013.csv'

    def open(self, root: Path, split: str) -> Faces:
        """Read all faces of a CSV file into memory, or list the images of class folders."""
        path = find_pixels(root)
        if path is None:
            return super().open(root, split)
        images, classes = [], []
        for number, row in read_table(path, ('emotion', 'pixels', 'usage')):
            if row['usage'].lower() == USAGE[split].lower():
                images.append(read_pixels(path, number, row['pixels']))
                classes.append(read_emotion(path, number, row['emotion']))
        layout = f'{path}, the rows of {USAGE[split]}'
        if not images:
            raise DataError(why_empty(layout, {}))
        targets = np.eye(len(self.labels), dtype=np.float32)[classes]
        return gray_faces(self.labels, targets, np.array(classes), np.stack(images), layout)

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for the CSV file, without the votes of FER+ beside it."""
        return find_pixels(root) is not None and find_votes(root) is None


def find_pixels(root: Path) -> Path | None:
    """Find the CSV file with the pixels: `root` itself, a file in it, or one beside it."""
    if root.is_dir():
        return find_file(root, CSV_NAMES)
    if 'pixels' in read_header(root):
        return root
    return find_file(root.parent, CSV_NAMES) if 'nf' in read_header(root) else None


def find_votes(root: Path) -> Path | None:
    """Find the CSV file with the votes of FER+: `root` itself, a file in it, or one beside it."""
    if root.is_dir():
        return find_file(root, (VOTES_NAME,))
    header = read_header(root)
    if 'nf' in header:
        return root
    return find_file(root.parent, (VOTES_NAME,)) if 'pixels' in header else None


def read_emotion(path: Path, number: int, text: str) -> int:
    """Read the cell with the class: an index into `labels.FER2013`.

    Raises:
        DataError: it is not a number from 0 to 6.
    """
    if text not in Fer2013.numbers:
        raise DataError(f'{path}, line {number}: emotion {text!r} is not a number from 0 to 6')
    return int(text)


def read_pixels(path: Path, number: int, text: str) -> np.ndarray:
    """Read the cell with a face: uint8 [48, 48].

    Raises:
        DataError: it does not contain 48 x 48 numbers from 0 to 255.
    """
    try:
        pixels = np.fromstring(text, np.int64, sep=' ')  # six times faster than `int` per number
    except (ValueError, DeprecationWarning):  # the type depends on the version of numpy
        pixels = np.zeros(0, np.int64)
    if pixels.size != SIDE_PX**2 or pixels.min() < 0 or pixels.max() > 255:
        raise DataError(
            f'{path}, line {number}: pixels are not {SIDE_PX} x {SIDE_PX} numbers from 0 to 255'
        )
    return pixels.astype(np.uint8).reshape(SIDE_PX, SIDE_PX)
