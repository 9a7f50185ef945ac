# SPDX-License-Identifier: Apache-2.0
"""FER+ (Barsoum et al. 2016, https://arxiv.org/abs/1608.01041)."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from dan_ros import labels as label_sets
from dan_ros.datasets.base import READ_THREADS, FaceDataset, gray_faces, try_picture, why_empty
from dan_ros.datasets.csv_files import read_csv, read_table
from dan_ros.datasets.faces import TEST, TRAIN, VALID, Faces
from dan_ros.datasets.fer2013 import (
    SIDE_PX,
    USAGE,
    find_pixels,
    find_votes,
    read_emotion,
    read_pixels,
)
from dan_ros.datasets.folders import candidate_folders, is_number
from dan_ros.errors import DataError, count_of, one_line
from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize

VOTE_COLUMNS = (
    *('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt'),
    *('unknown', 'nf'),
)
LABEL_FILE = 'label.csv'
AGREED = 0.9  # share of the votes from which the annotators count as agreeing
SECOND_OPINION_FILE = 'fer2013_labels.npz'
IMAGE_FOLDERS = {TRAIN: 'fer2013train', VALID: 'fer2013valid', TEST: 'fer2013test'}
MISSING = (
    '{root} has no FER+ with the split {split}: neither ferplus_{split}.npz, nor fer2013.csv with '
    'fer2013new.csv (see github.com/microsoft/FERPlus), nor folders such as FER2013Train with '
    'label.csv'
)
NO_SECOND_OPINION = (
    '{where}: the labels of FER-2013 for the second opinion are missing; use fer2013.csv with '
    'fer2013new.csv, put fer2013_labels.npz beside ferplus_train.npz, or set second_opinion to 0'
)


@dataclass(frozen=True)
class _Content:
    """Content of the files of a split."""

    images: np.ndarray  # uint8 [N, 48, 48]
    votes: np.ndarray  # integers [N, 10]
    layout: str  # as in `Faces`
    # Number of rows without a file name, which FER+ drops; they are not among the N.
    unnamed: int = 0
    # FER-2013's own labels as N arguments of `read_emotion`; () if unknown.
    emotions: Sequence[tuple[Path, int, str]] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)  # as in `Faces`
    paths: tuple[Path, ...] = ()  # as in `Faces`


class FerPlus(FaceDataset):
    """FER+; the public test faces of FER-2013 are `VALID`, the private test faces are `TEST`.

    Three layouts are supported:

    * as distributed: `fer2013.csv` (or `icml_face_data.csv`) with the faces and `fer2013new.csv`
      with the votes, row by row;
    * `FER2013Train`, `FER2013Valid` and `FER2013Test` with images and `label.csv`, as the
      `generate_training_data.py` of FER+ makes them;
    * `ferplus_train.npz`, `ferplus_valid.npz` and `ferplus_test.npz`, or one such file: `images`,
      uint8 [N, 48, 48], and `votes`, uint8 [N, 10], in the order of `VOTE_COLUMNS`.

    The protocol is FER+'s "majority". Single votes are ignored. Faces without votes, or with
    "unknown" or "not a face" as first choice, are excluded. Validation and test also exclude
    faces without an absolute majority. The targets are the vote shares of the eight expressions,
    the class is the first choice.

    Args:
        second_opinion: weight w of FER-2013's own label in the targets of the training split,
            [0, 1]. Bayes' rule combines both: target = votes * P(label | class) ** w, normalized.
            The label matters where the votes differ, and changes nothing where they agree.
            The classes do not depend on it. The labels are in the column `emotion` of
            `fer2013.csv`, or in `fer2013_labels.npz` beside `ferplus_train.npz`: an array `train`,
            uint8 [N], of indices into `labels.FER2013`, one per row of `ferplus_train.npz`.
    """

    labels = label_sets.FERPLUS

    def __init__(self, second_opinion: float = 0.0) -> None:
        self.second_opinion = second_opinion

    def open(self, root: Path, split: str) -> Faces:
        """Read all faces of the split into memory."""
        content = _read(root, split)
        votes = np.where(content.votes == 1, 0, content.votes).astype(np.int64)  # [N, 10]
        reasons = _exclude(votes, split)
        excluded = {reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()}
        if content.unnamed:
            excluded['without a name'] = content.unnamed
        keep = ~np.any(list(reasons.values()), axis=0)  # [N]
        if not keep.any():
            raise DataError(
                f'{content.layout}: none of {count_of(len(votes), "face")} has a usable vote for '
                f'{split}'
            )
        votes = votes[keep, : len(self.labels)]
        targets = (votes / votes.sum(axis=1, keepdims=True)).astype(np.float32)  # [N, 8]
        if self.second_opinion and split == TRAIN:
            emotions = _read_second_opinion(root, content)[keep]
            targets = _weigh(targets, emotions, self.second_opinion)
        faces = gray_faces(
            self.labels, targets, votes.argmax(axis=1), content.images[keep], content.layout
        )
        paths = tuple(path for path, kept in zip(content.paths, keep, strict=False) if kept)
        return replace(faces, skipped=content.skipped, excluded=excluded, paths=paths)

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for an `.npz` file, the CSV file with the votes, or folders with `label.csv`."""
        if root.suffix == '.npz' or any(root.glob('ferplus_*.npz')) or find_votes(root):
            return True
        folders = (_find_folder(root, split) for split in IMAGE_FOLDERS)
        return any(folder and (folder / LABEL_FILE).is_file() for folder in folders)


def _exclude(votes: np.ndarray, split: str) -> dict[str, np.ndarray]:
    """Return which faces the protocol excludes, bool [N] per reason; votes are int64 [N, 10]."""
    total, most, first = votes.sum(axis=1), votes.max(axis=1), votes.argmax(axis=1)
    no_votes = total == 0
    no_expression = ~no_votes & (first >= len(label_sets.FERPLUS))
    undecided = (2 * most <= total) & ~no_votes & ~no_expression & (split != TRAIN)
    return {
        'only single votes': no_votes,
        'unknown or not a face': no_expression,
        'no absolute majority': undecided,
    }


def _weigh(targets: np.ndarray, emotions: np.ndarray, weight: float) -> np.ndarray:
    """Weigh vote shares, float32 [N, 8], with FER-2013's labels, int64 [N]: float32 [N, 8].

    The likelihoods P(label | class) are estimated from the faces that the annotators agree on; one
    additional face per label keeps them above 0.
    """
    agreed = targets.max(axis=1) >= AGREED
    counts = np.ones((len(label_sets.FER2013), targets.shape[1]))  # [7, 8]
    np.add.at(counts, emotions[agreed], targets[agreed])
    likelihoods = counts / counts.sum(axis=0)  # [7, 8]
    weighed = targets * likelihoods[emotions] ** weight  # [N, 8]
    normalized: np.ndarray = (weighed / weighed.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalized


def _read_second_opinion(root: Path, content: _Content) -> np.ndarray:
    """Read FER-2013's own labels of the training faces, int64 [N]."""
    if content.emotions:
        return np.array([read_emotion(*cell) for cell in content.emotions])
    path = (root if root.is_dir() else root.parent) / SECOND_OPINION_FILE
    if content.paths or not path.is_file():
        raise DataError(NO_SECOND_OPINION.format(where=content.layout))
    (emotions,) = _read_arrays(path, (TRAIN,), 'the labels of FER-2013 need `train`')
    count, names = len(content.votes), len(label_sets.FER2013)
    fits = emotions.shape == (count,) and np.issubdtype(emotions.dtype, np.integer)
    if not fits or emotions.min() < 0 or emotions.max() >= names:
        raise DataError(
            f'{path}: `train` is {emotions.dtype} {list(emotions.shape)}, not uint8 [{count}] from '
            f'0 to {names - 1}; it must belong to {content.layout}, row for row'
        )
    return emotions.astype(np.int64)


def _read(root: Path, split: str) -> _Content:
    """Read the split from whichever layout `root` has."""
    if root.suffix == '.npz' and root.is_file():
        return _read_npz(root)
    if (path := root / f'ferplus_{split}.npz').is_file():
        return _read_npz(path)
    pixels, votes = find_pixels(root), find_votes(root)
    if pixels and votes:
        return _read_csv_files(pixels, votes, split)
    folder = _find_folder(root, split)
    if folder:
        return _read_folder(folder, votes, split)
    raise DataError(MISSING.format(root=root, split=split))


# CSV files


def _read_csv_files(pixels: Path, votes: Path, split: str) -> _Content:
    images, rows, emotions, unnamed = [], [], [], 0
    layout = f'{pixels} with the votes of {votes}, the rows of {USAGE[split]}'
    pairs = zip_longest(read_table(pixels, ('pixels', 'usage')), _read_votes(votes))
    for line, (face, row) in enumerate(pairs, 2):
        if face is None or row is None or face[1]['usage'].lower() != row.usage:
            raise DataError(
                f'{pixels} and {votes} do not fit together: they differ in line {line}; both must '
                'be complete and in the original order'
            )
        if row.usage != USAGE[split].lower():
            continue
        if not row.name:
            unnamed += 1
            continue
        images.append(read_pixels(pixels, face[0], face[1]['pixels']))
        rows.append(row.votes)
        if 'emotion' in face[1]:
            emotions.append((pixels, face[0], face[1]['emotion']))
    if not rows:
        raise DataError(why_empty(layout, {}))
    return _Content(np.stack(images), np.array(rows), layout, unnamed, emotions)


@dataclass(frozen=True)
class _Row:
    """A row of a file with votes, which are in the order of `VOTE_COLUMNS`."""

    usage: str
    name: str
    votes: list[int]


def _read_votes(path: Path) -> Iterator[_Row]:
    """Read `fer2013new.csv`."""
    for number, row in read_table(path, ('usage', 'image name', *VOTE_COLUMNS)):
        votes = _parse_votes(path, number, [row[name] for name in VOTE_COLUMNS])
        yield _Row(row['usage'].lower(), row['image name'], votes)


def _parse_votes(path: Path, number: int, cells: list[str]) -> list[int]:
    if len(cells) != len(VOTE_COLUMNS) or not all(map(is_number, cells)):
        raise DataError(f'{path}, line {number}: expected ten vote counts, found {cells}')
    return [int(cell) for cell in cells]


# Folders of images


def _find_folder(root: Path, split: str) -> Path | None:
    """Find the split's folder of images: `root` itself, or at most two levels below."""
    if (root / LABEL_FILE).is_file():
        return root
    name = IMAGE_FOLDERS[split]
    return next((path for path in candidate_folders(root) if path.name.lower() == name), None)


def _read_folder(folder: Path, votes: Path | None, split: str) -> _Content:
    path = folder / LABEL_FILE
    if path.is_file() or votes is None:
        rows = list(_read_labels(path))
    else:
        path = votes
        usage = USAGE[split].lower()
        rows = [row for row in _read_votes(votes) if row.usage == usage and row.name]
    layout = f'images in {folder} with the votes of {path}'
    with ThreadPoolExecutor(READ_THREADS) as threads:
        read = list(threads.map(lambda row: _read_gray(folder / row.name), rows))
    skipped = {str(folder / r.name): why for r, (_, why) in zip(rows, read, strict=True) if why}
    good = [(r, image) for r, (image, _) in zip(rows, read, strict=True) if image is not None]
    if not good:
        raise DataError(why_empty(layout, skipped))
    return _Content(
        np.stack([image for _, image in good]),
        np.array([row.votes for row, _ in good]),
        layout,
        skipped=skipped,
        paths=tuple(folder / row.name for row, _ in good),
    )


def _read_labels(path: Path) -> Iterator[_Row]:
    """Read `label.csv`: a file name, in some versions a box, and the votes."""
    for number, cells in read_csv(path):
        if number == 1 and cells[-1].lower() == VOTE_COLUMNS[-1]:
            continue  # a header, which the original does not have
        yield _Row('', cells[0], _parse_votes(path, number, cells[1:][-10:]))


def _read_gray(path: Path) -> tuple[np.ndarray | None, str]:
    """Read a face: return uint8 [48, 48] and '', or None and the reason."""
    picture, reason = try_picture(path)
    if picture is None:
        return None, reason
    return resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), SIDE_PX, SIDE_PX), ''


# .npz files


def _read_npz(path: Path) -> _Content:
    """Read and check `images` and `votes`."""
    images, votes = _read_arrays(path, ('images', 'votes'), 'FER+ needs `images` and `votes`')
    square = images.ndim == 3 and images.shape[1] == images.shape[2]
    if images.dtype != np.uint8 or not square or images.shape[1] == 0:
        raise DataError(
            f'{path}: images are {images.dtype} {list(images.shape)}, not uint8 [N, 48, 48]'
        )
    shape = (len(images), len(VOTE_COLUMNS))
    if votes.shape != shape or not np.issubdtype(votes.dtype, np.integer):
        raise DataError(
            f'{path}: votes are {votes.dtype} {list(votes.shape)}, not uint8 {list(shape)}'
        )
    return _Content(images, votes, str(path))


def _read_arrays(path: Path, names: tuple[str, ...], needed: str) -> list[np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return [_read_array(path, content, name, needed) for name in names]
    except DataError:
        raise
    except Exception as error:  # numpy and zipfile raise five unrelated classes for damaged files
        raise DataError(f'{path} cannot be read as .npz ({error}); download it again') from None


def _read_array(
    path: Path, content: Mapping[str, np.ndarray], name: str, needed: str
) -> np.ndarray:
    if name not in content:
        raise DataError(f'{path}: the array {name!r} is missing; {needed}')
    try:
        array = content[name]
        if isinstance(array, np.ndarray):
            return array
        reason = 'not an array'
    except Exception as error:  # many unrelated classes, see `_read_arrays`
        reason = one_line(error)
    raise DataError(f'{path}: the array {name!r} is damaged ({reason}); download the file again')
