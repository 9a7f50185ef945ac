# SPDX-License-Identifier: Apache-2.0
"""Data sets with one folder per class: SFEW, and your own images."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dan_ros import labels as label_sets
from dan_ros.datasets.base import (
    ImageDataset,
    LabeledImage,
    Listing,
    is_ignored,
    subfolders,
    visible_files,
)
from dan_ros.datasets.faces import TEST, TRAIN, VALID
from dan_ros.errors import DataError

# Names of a split's folder, in order of preference.
SPLIT_FOLDERS = {
    TRAIN: ('train', 'training', 'fer2013train'),
    VALID: (
        *('val', 'valid', 'validation', 'publictest', 'fer2013valid'),
        *('test', 'testing', 'privatetest'),
    ),
    TEST: ('test', 'testing', 'privatetest', 'fer2013test'),
}
FOLDER_HINTS = {TRAIN: 'train', VALID: 'val or test', TEST: 'test'}  # for error messages
LABEL_OF_NAME = label_sets.SPELLINGS  # canonical label per folder name in lower case
# A file with one of these suffixes should be an image; any other file may be one.
IMAGE_SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.gif', '.bmp', '.tif', '.tiff', '.webp', '.jp2'),
    *('.avif', '.heic', '.heif', '.pbm', '.pgm', '.ppm', '.pnm', '.svg', '.dng'),
)
DIFFUSION_FER = 'DiffusionEmotion_S'  # published folder of `diffusionfer.DiffusionFer`
HEAD_BYTES = 4096  # number of first bytes that distinguish text from images


class FolderDataset(ImageDataset):
    """Base of the data sets that have one folder per class, by name or by number.

    `VALID` falls back to the test folder; `VALID` and `TEST` also accept class folders in `root`
    itself. If a folder contains nothing but one folder, that folder is searched instead.

    Attributes:
        other_files: files that can replace the class folders, for error messages.
    """

    other_files = ''

    def list_images(self, root: Path, split: str) -> Listing:
        """List the images in the split's class folders."""
        names = self.label_of_folder
        folder = _find_class_folders(root, split, names)
        if folder is None:
            other = f', and no {self.other_files}' if self.other_files else ''
            raise DataError(f'{root} has no folder {FOLDER_HINTS[split]} with classes{other}')
        return list_class_folders(folder, self.labels, names)

    @property
    def label_of_folder(self) -> Mapping[str, str]:
        """Canonical label per folder name in lower case."""
        return {**self.numbers, **LABEL_OF_NAME}


class Sfew(FolderDataset):
    """SFEW 2.0 (Dhall et al. 2011, https://doi.org/10.1109/ICCVW.2011.6130508).

    Layout: `Train/Happy/*.png`, `Val/Happy/*.png`, ...
    """

    labels = label_sets.AFFECTNET7


class ClassFolders(FolderDataset):
    """Your own images in one folder per class.

    Layout: `train/happy/*.jpg` and `val/happy/*.jpg`; evaluation also takes `happy/*.jpg`.
    """

    labels = label_sets.CANONICAL

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for a folder with the name of a class."""
        return any(
            folder.name.lower() in LABEL_OF_NAME and DIFFUSION_FER not in folder.parts
            for folder in candidate_folders(root)
        )


def candidate_folders(root: Path) -> Iterator[Path]:
    """Yield folders that may be class folders: at most two levels below `root` or a sole folder."""
    folders = subfolders(root)
    for folder in folders:
        yield folder
        yield from candidate_folders(folder) if len(folders) == 1 else subfolders(folder)


def _find_class_folders(root: Path, split: str, names: Mapping[str, str]) -> Path | None:
    """Find the folder that contains the class folders of a split."""
    root = enter_outer_folders(root, names)
    if split != TRAIN and has_class_folders(root, names):
        return root
    for name in SPLIT_FOLDERS[split]:
        for folder in subfolders(root):
            if _is_split(folder, name):
                return enter_outer_folders(folder, names)
    return None


def _is_split(folder: Path, split_name: str) -> bool:
    """Return whether a folder has the name of a split, such as train or Train_Aligned_Faces."""
    name = folder.name.lower()
    return name == split_name or name.startswith(f'{split_name}_')


def has_class_folders(folder: Path, names: Mapping[str, str]) -> bool:
    """Return whether `folder` contains a folder with one of the names, in lower case."""
    return any(child.name.lower() in names for child in subfolders(folder))


def enter_outer_folders(folder: Path, names: Mapping[str, str]) -> Path:
    """Enter folders that contain only one folder, unless it is a class or a split."""
    splits = {name for names_of_split in SPLIT_FOLDERS.values() for name in names_of_split}
    children = subfolders(folder)
    while len(children) == 1 and children[0].name.lower() not in names:
        (child,) = children
        children = subfolders(child)
        if not children or any(_is_split(child, name) for name in splits):
            break
        folder = child
    return folder


def list_class_folders(
    root: Path, labels: tuple[str, ...], label_of_name: Mapping[str, str]
) -> Listing:
    """List the images in one folder per class and in their subfolders.

    Images of known classes outside `labels`, such as contempt in a set of seven, are excluded and
    counted. `label_of_name` has the canonical label of each name of a folder in lower case.

    Raises:
        DataError: the name of a folder is not a class, or two folders are the same class.
    """
    images: list[LabeledImage] = []
    folders: dict[str, Path] = {}
    excluded = {}
    for folder in subfolders(root):
        label = _label_of(folder, label_of_name)
        if label in folders:
            raise DataError(
                f'{folders[label]} and {folder} both mean the class {label}; put their images into '
                'one folder'
            )
        folders[label] = folder
        paths = list_image_files(folder)
        if label in labels:
            images += [LabeledImage(path, labels.index(label)) for path in paths]
        elif paths:
            excluded[f'class {label}'] = len(paths)
    loose = [path for path in sorted(root.iterdir()) if _is_loose_image(path)]
    return Listing(
        images,
        f'class folders in {root}',
        skipped={str(path): 'is not in a class folder' for path in loose},
        excluded=excluded,
        folders={label: folder for label, folder in folders.items() if label in labels},
    )


def _label_of(folder: Path, label_of_name: Mapping[str, str]) -> str:
    name = folder.name.lower()
    if name in label_of_name:
        return label_of_name[name]
    hint = ''
    if is_number(name) and not any(map(is_number, label_of_name)):
        hint = '; rename it to its class, or name the data set, as with evaluate --dataset rafdb'
    raise DataError(
        f'{folder} is not a class; valid folder names are {", ".join(label_of_name)}{hint}'
    )


def is_number(text: str) -> bool:
    """Return whether a folder's name or a cell is a plain number.

    >>> is_number('7'), is_number('happy')
    (True, False)
    """
    return re.fullmatch('[0-9]+', text) is not None


def list_image_files(folder: Path) -> list[Path]:
    """List the files in `folder` and below that may be images, whatever their suffix, sorted."""
    return sorted(path for path in visible_files(folder) if _may_be_image(path))


def _is_loose_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_ignored(path) and not path.is_dir()


def _may_be_image(path: Path) -> bool:
    """Return whether to decode a file; not devices, nor texts without an image suffix."""
    if not (path.is_file() or path.is_symlink()):
        return False
    return path.suffix.lower() in IMAGE_SUFFIXES or not _is_text(path)


def _is_text(path: Path) -> bool:
    """Return whether a file is empty or begins like text, except for images in text form (PBM)."""
    try:
        with path.open('rb') as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    return all(byte >= 9 for byte in head) and not re.match(rb'P[1-3]\s', head)
