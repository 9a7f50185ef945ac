"""Labelled faces to train on or to judge by: FER+, RAF-DB, AffectNet, SFEW, one interface.

`open_faces(dataset, root, split)` gives a `Faces`: targets for all, pictures on demand. Pictures
that can not be decoded are left out when a folder is opened, and listed in `Faces.skipped`.
"""

import contextlib
import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dan_ros import labels as label_sets
from dan_ros.errors import DataError
from dan_ros.images.files import read_picture
from dan_ros.images.opencv import cv2
from dan_ros.images.resize import resize

TRAIN, VALID = 'train', 'valid'
PICTURE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
BOTH_SPLITS = 'affectnet.csv'  # a list that holds training and validation
FERPLUS_VOTES = 10  # eight expressions, unknown, not a face
READERS = 8  # threads that check pictures
# Class of each name that a folder may have, in lower case.
NAMED = MappingProxyType(
    {name: name for name in label_sets.CANONICAL}
    | {
        'happiness': 'happy',
        'sadness': 'sad',
        'surprised': 'surprise',
        'fearful': 'fear',
        'disgusted': 'disgust',
        'angry': 'anger',
    }
)
# AffectNet numbers its classes in the canonical order; other sets have other orders.
NUMBERED = MappingProxyType(
    {str(n): name for n, name in enumerate(label_sets.CANONICAL)} | dict(NAMED)
)
SPLIT_FOLDERS = MappingProxyType(
    {TRAIN: ('train', 'training'), VALID: ('val', 'valid', 'validation', 'test')}
)


@dataclass(frozen=True)
class Faces:
    """A data set's split.

    Attributes:
        labels: class of each column of `targets`, canonical names.
        targets: float32 [N, C], rows sum to 1; the one class, or the annotators' votes.
        classes: int64 [N], the class each face counts as.
        reader: gives faces by number: (int64 [B], side) -> uint8 [B, h, w, 1 or 3], grey or RGB.
        native_size: side in pixels that all pictures have, or None when they differ.
        skipped: pictures that could not be read, by name.
        paths: file of each face, N of them, or () where faces do not lie in files.
    """

    labels: tuple[str, ...]
    targets: np.ndarray
    classes: np.ndarray
    reader: Callable[[np.ndarray, int], np.ndarray]
    native_size: int | None = None
    skipped: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of faces by label, of the classes that have any."""
        counts = np.bincount(self.classes, minlength=len(self.labels)).tolist()
        return {label: n for label, n in zip(self.labels, counts, strict=True) if n}

    def read(self, indices: np.ndarray, size: int) -> np.ndarray:
        """Give faces `indices`, int64 [B], as uint8 [B, size, size, 1 or 3]."""
        return self.reader(indices, size)

    def read_rgb(self, indices: np.ndarray, size: int) -> np.ndarray:
        """Give faces as model files take them, uint8 [B, size, size, 3], RGB."""
        batch = self.read(indices, size)  # [B, size, size, 1 or 3]
        return np.repeat(batch, 3, axis=3) if batch.shape[3] == 1 else np.ascontiguousarray(batch)


@dataclass(frozen=True)
class _Item:
    """A picture in a file: its place, its class, and the part to cut out, (left, top, w, h)."""

    path: Path
    label: int
    crop: tuple[int, int, int, int] | None = None


def open_faces(dataset: str, root: Path, split: str) -> Faces:
    """Open one split of a data set.

    Args:
        dataset: ferplus, rafdb, affectnet7, affectnet8 or sfew; or folder, anybody's own pictures
            in one folder a class, inside a folder a split or, outside training, without splits.
        root: its folder, or for FER+ also the `.npz` file itself.
        split: 'train' or 'valid'; for RAF-DB 'valid' is its test split, as in the paper.

    Raises:
        DataError: something is missing, damaged or empty; the message names it and the remedy.
    """
    root = Path(root)
    if not root.exists():
        raise DataError(f'there is no data at {root}; give the folder that holds {dataset}')
    if dataset == 'ferplus':
        return read_ferplus(root, split)
    if dataset == 'rafdb':
        return _faces_from_files(list_rafdb(root, split), label_sets.RAFDB, root)
    if dataset == 'sfew':
        items = list_folders(_split_folder(root, split), label_sets.AFFECTNET7, NAMED)
        return _faces_from_files(items, label_sets.AFFECTNET7, root)
    if dataset == 'folder':
        own = root if split != TRAIN and _has_class_folders(root) else _split_folder(root, split)
        return _faces_from_files(
            list_folders(own, label_sets.CANONICAL, NAMED), label_sets.CANONICAL, root
        )
    if dataset in ('affectnet7', 'affectnet8'):
        labels = label_sets.LABEL_SETS[dataset]
        items = [item for item in list_affectnet(root, split) if item.label < len(labels)]
        return _faces_from_files(items, labels, root)
    raise DataError(
        f'unknown data set {dataset!r}; there are ferplus, rafdb, affectnet7, affectnet8, sfew and '
        'folder'
    )


def guess_dataset(root: Path, model_labels: tuple[str, ...]) -> str:
    """Which data set lies at `root`, by the files that only it has.

    Raises:
        DataError: nothing is there, or none that can be told.
    """
    if not root.exists():
        raise DataError(f'there is no data at {root}; give a folder or an .npz file')
    if root.suffix == '.npz' or any(root.glob('ferplus_*.npz')):
        return 'ferplus'
    if (root / 'EmoLabel').is_dir() or (root / 'basic' / 'EmoLabel').is_dir():
        return 'rafdb'
    affectnet = 'affectnet8' if 'contempt' in model_labels else 'affectnet7'
    own = ('train_set', 'val_set', 'validation.csv', 'affectnet.csv', 'Manually_Annotated')
    if root.suffix == '.csv' or any((root / name).exists() for name in own):
        return affectnet
    inside = [*_subfolders(root), *(g for f in _subfolders(root) for g in _subfolders(f))]
    if any(folder.name in NUMBERED and folder.name not in NAMED for folder in inside):
        return affectnet
    if any(folder.name.lower() in NAMED for folder in inside):
        return 'folder'
    raise DataError(
        f'{root} holds no data set that can be told by its files, nor folders called '
        f'{", ".join(label_sets.CANONICAL)}; is it the right one? If so, say --dataset'
    )


# FER+


def read_ferplus(root: Path, split: str) -> Faces:
    """Read FER+ (Barsoum et al. 2016, https://arxiv.org/abs/1608.01041) from an `.npz` file.

    The file has `images`, uint8 [N, 48, 48], and `votes`, uint8 [N, 10], counts for neutral,
    happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, not a face. `names` is
    not needed. A folder has to hold `ferplus_train.npz` and `ferplus_valid.npz`.

    Protocol, FER+'s "majority": single votes count nothing; faces without votes, or whose first
    choice is none of the eight expressions, are left out, and outside training those without an
    absolute majority too. The targets are the votes for the eight, the class is the first choice.
    """
    path = root if root.is_file() else root / f'ferplus_{split}.npz'
    images, votes = _read_npz(path)
    votes = np.where(votes == 1, 0, votes).astype(np.int64)  # [N, 10]
    first = votes.argmax(axis=1)  # [N]
    keep = (votes.sum(axis=1) > 0) & (first < len(label_sets.FERPLUS))
    if split != TRAIN:
        keep &= 2 * votes.max(axis=1) > votes.sum(axis=1)
    if not keep.any():
        raise DataError(f'{path}: none of its {len(votes)} faces has a usable vote')
    images, votes, first = images[keep], votes[keep, : len(label_sets.FERPLUS)], first[keep]
    targets = (votes / votes.sum(axis=1, keepdims=True)).astype(np.float32)  # [N, 8]

    def read(indices: np.ndarray, size: int) -> np.ndarray:
        return _resize_all(images[indices, :, :, None], size)

    return Faces(label_sets.FERPLUS, targets, first, read, native_size=images.shape[1])


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise DataError(
            f'there is no {path.name} in {path.parent}; see `read_ferplus` for its format'
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            images, votes = (_read_array(path, content, name) for name in ('images', 'votes'))
    except DataError:
        raise
    except Exception as error:  # a damaged zip raises one of five classes
        raise DataError(f'{path} can not be read as .npz ({error}); get the file anew') from None
    square = images.ndim == 3 and images.shape[1] == images.shape[2]
    if images.dtype != np.uint8 or not square or images.shape[1] == 0:
        raise DataError(
            f'{path}: images are {images.dtype} {list(images.shape)}, not uint8 [N, 48, 48]'
        )
    if votes.shape != (len(images), FERPLUS_VOTES) or not np.issubdtype(votes.dtype, np.integer):
        raise DataError(
            f'{path}: votes are {votes.dtype} {list(votes.shape)}, not uint8 [{len(images)}, 10]'
        )
    return images, votes


def _read_array(path: Path, content: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in content:
        raise DataError(f'{path} lacks the array {name!r}; FER+ needs `images` and `votes`')
    try:
        array = content[name]
        if isinstance(array, np.ndarray):
            return array
        reason = 'no array'
    except Exception as error:  # see above
        reason = ' '.join(str(error).split()) or type(error).__name__
    raise DataError(f'{path}: its array {name!r} is damaged ({reason}); get the file anew')


def _resize_all(faces: np.ndarray, size: int) -> np.ndarray:
    """uint8 [B, h, w, c] -> [B, size, size, c], bilinear."""
    if faces.shape[1:3] == (size, size):
        return faces
    resized = [cv2.resize(face, (size, size), interpolation=cv2.INTER_LINEAR) for face in faces]
    return np.stack(resized).reshape(len(faces), size, size, faces.shape[3])


# Folders and lists of files


def list_rafdb(root: Path, split: str) -> list[_Item]:
    """List RAF-DB's basic expressions, aligned faces (Li, Deng, Du 2017).

    `root` holds `EmoLabel/list_patition_label.txt`, lines of `train_00001.jpg 5`, classes 1 to 7 in
    RAF-DB's order, and `Image/aligned/train_00001_aligned.jpg`.
    """
    if not (root / 'EmoLabel').is_dir() and (root / 'basic' / 'EmoLabel').is_dir():
        root = root / 'basic'
    path = root / 'EmoLabel' / 'list_patition_label.txt'
    prefix = 'train' if split == TRAIN else 'test'
    items = []
    for number, line in enumerate(_read_lines(path), 1):
        name, _, label = line.strip().partition(' ')
        if not name:
            continue
        if label not in ('1', '2', '3', '4', '5', '6', '7'):
            raise DataError(f'{path}, line {number}: {line.strip()!r} is not a name and 1 .. 7')
        if name.startswith(prefix):
            face = root / 'Image' / 'aligned' / f'{name.partition(".")[0]}_aligned.jpg'
            items.append(_Item(face, int(label) - 1))
    return items


def list_affectnet(root: Path, split: str) -> list[_Item]:
    """List AffectNet (Mollahosseini, Hasani, Mahoor 2017), all eight classes, in its order.

    Four forms are known: one folder a class (`train/0 .. 7`, `val/...`); the release of 2021,
    `train_set/images/1.jpg` beside `train_set/annotations/1_exp.npy`; `training.csv` and
    `validation.csv` of the first release; one CSV with a column `phase` (`affectnet.csv`).
    """
    csv_path = _find_csv(root, split)
    if csv_path is not None:
        return _list_affectnet_csv(csv_path, split)
    annotations = root / f'{"train" if split == TRAIN else "val"}_set' / 'annotations'
    if annotations.is_dir():
        return list(_list_annotations(annotations))
    return list_folders(_split_folder(root, split), label_sets.AFFECTNET8, NUMBERED)


def list_folders(root: Path, labels: tuple[str, ...], known: Mapping[str, str]) -> list[_Item]:
    """List the pictures in one folder a class.

    Folders of known classes outside `labels` (contempt, where there are seven) are passed over.

    Args:
        root: holds the folders.
        labels: the classes.
        known: class of each name a folder may have, in lower case: `NAMED` or `NUMBERED`.
    """
    items = []
    for folder in _subfolders(root):
        name = known.get(folder.name.lower())
        if name is None:
            raise DataError(f'{folder} is no class; folders are called {", ".join(known)}')
        if name in labels:
            files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
            items += [_Item(path, labels.index(name)) for path in files]
    return items


def _has_class_folders(root: Path) -> bool:
    """Whether a folder in `root` has the name of a class."""
    return any(folder.name.lower() in NAMED for folder in _subfolders(root))


def _subfolders(root: Path) -> list[Path]:
    """Folders in `root` by name, but for hidden ones; none where it is a file."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith('.'))


def _split_folder(root: Path, split: str) -> Path:
    """A split's folder, such as train, Train_Aligned_Faces, val; the test split is the last."""
    names = SPLIT_FOLDERS[split]
    for name in names:
        for folder in _subfolders(root):
            if folder.name.lower() == name or folder.name.lower().startswith(f'{name}_'):
                return folder
    raise DataError(f'{root} has no folder {" or ".join(names)}')


def _find_csv(root: Path, split: str) -> Path | None:
    if root.is_file():
        return root
    own = ('training.csv', 'train.csv') if split == TRAIN else ('validation.csv', 'val.csv')
    for name in (*own, BOTH_SPLITS):
        if (root / name).is_file():
            return root / name
    return None


def _list_affectnet_csv(path: Path, split: str) -> list[_Item]:
    rows = csv.DictReader(_read_lines(path))
    columns = rows.fieldnames or []
    file_column = _first_of(columns, ('subDirectory_filePath', 'img_path', 'path', 'image'))
    label_column = _first_of(columns, ('expression', 'label'))
    if file_column is None or label_column is None:
        raise DataError(
            f'{path}: its first line has to name the columns, subDirectory_filePath (or img_path) '
            f'and expression (or label); it has {", ".join(columns) or "nothing"}'
        )
    if path.name == BOTH_SPLITS and 'phase' not in columns:
        raise DataError(
            f'{path} has no column phase that tells training from validation; add it, or split the '
            'file into training.csv and validation.csv'
        )
    items = []
    for number, row in enumerate(rows, 2):
        phase = (row.get('phase') or '').lower()
        if phase and phase.startswith('train') != (split == TRAIN):
            continue
        try:
            label = int(row[label_column])
            crop = _crop_of(row)
            picture = _find_picture(path.parent, row[file_column])
        except (TypeError, ValueError, OverflowError):
            raise DataError(f'{path}, line {number}: {dict(row)} can not be read') from None
        if 0 <= label < len(label_sets.AFFECTNET8):  # 8 to 10: none, uncertain, no face
            items.append(_Item(picture, label, crop))
    return items


def _crop_of(row: dict[str, str]) -> tuple[int, int, int, int] | None:
    names = ('face_x', 'face_y', 'face_width', 'face_height')
    if any(not row.get(name) for name in names):
        return None
    left, top, width, height = (int(float(row[name])) for name in names)
    return (left, top, width, height) if width > 0 and height > 0 else None


def _find_picture(folder: Path, name: str) -> Path:
    """AffectNet's lists name files from the folder of the pictures, which has several names."""
    for parent in ('', 'Manually_Annotated_Images', 'Manually_Annotated', 'images'):
        with contextlib.suppress(OSError):  # may not be looked at; listed as unreadable later
            if (folder / parent / name).is_file():
                return folder / parent / name
    return folder / name


def _first_of(columns: Sequence[str], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _list_annotations(folder: Path) -> Iterator[_Item]:
    for path in sorted(folder.glob('*_exp.npy')):
        try:
            label = int(np.load(path, allow_pickle=False))
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise DataError(f'{path} can not be read as one number: {error}') from None
        if 0 <= label < len(label_sets.AFFECTNET8):
            name = path.name.removesuffix('_exp.npy')
            yield _Item(folder.parent / 'images' / f'{name}.jpg', label)


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding='utf-8-sig').splitlines()
    except OSError as error:
        raise DataError(f'{path} can not be read: {error.strerror}') from None
    except UnicodeDecodeError:
        raise DataError(f'{path} is no text file') from None


# Pictures


def _faces_from_files(items: list[_Item], labels: tuple[str, ...], root: Path) -> Faces:
    """Check every picture once, leave out what can't be read, and read the rest on demand."""
    with ThreadPoolExecutor(READERS) as threads:
        readable = list(threads.map(lambda item: read_picture(item.path) is not None, items))
    skipped = tuple(str(i.path) for i, good in zip(items, readable, strict=True) if not good)
    items = [item for item, good in zip(items, readable, strict=True) if good]
    if not items:
        what = f'none of its {len(skipped)} pictures can be read' if skipped else 'no pictures'
        first = f' (the first is {skipped[0]})' if skipped else ''
        raise DataError(f'{root}: {what}{first}; is it the right folder and data set?')
    classes = np.array([item.label for item in items], np.int64)
    targets = np.eye(len(labels), dtype=np.float32)[classes]

    def read(indices: np.ndarray, size: int) -> np.ndarray:
        return np.stack([_read_face(items[index], size) for index in indices])

    paths = tuple(item.path for item in items)
    return Faces(labels, targets, classes, read, skipped=skipped, paths=paths)


def _read_face(item: _Item, size: int) -> np.ndarray:
    """uint8 [size, size, 3], RGB."""
    picture = read_picture(item.path)
    if picture is None:
        raise DataError(f'{item.path} can no longer be read; was it there when training began?')
    if item.crop is not None:
        left, top, width, height = item.crop
        cut = picture[max(top, 0) : top + height, max(left, 0) : left + width]
        picture = cut if cut.size else picture
    return resize(picture, size, size)[:, :, ::-1]
