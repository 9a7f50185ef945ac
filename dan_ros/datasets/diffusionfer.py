# SPDX-License-Identifier: Apache-2.0
"""DiffusionFER: faces made by Stable Diffusion, seven classes (CC0).

Layout as published, https://huggingface.co/datasets/FER-Universe/DiffusionFER:
`DiffusionEmotion_S/cropped/angry/*.png` (faces) and `DiffusionEmotion_S/original/angry/*.png`
(whole pictures), with `dataset_sheet.csv` beside these two folders.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dan_ros import labels as label_sets
from dan_ros.datasets.base import TENTHS, Listing, subfolders, tenth_of
from dan_ros.datasets.folders import (
    DIFFUSION_FER,
    FolderDataset,
    has_class_folders,
    list_class_folders,
)
from dan_ros.errors import DataError, count_of

FACES_FOLDER, PICTURES_FOLDER = 'cropped', 'original'


class DiffusionFer(FolderDataset):
    """DiffusionFER in `root`, or in a subfolder; the folder `cropped` is preferred.

    The published set has no splits. The CRC-32 of a file's name assigns it to training (eight
    tenths), validation or test (one tenth each), so the split is the same in both folders.
    """

    labels = label_sets.AFFECTNET7

    def list_images(self, root: Path, split: str) -> Listing:
        """List the images of the split in the class folders."""
        folder = _find_folder(root, self.label_of_folder)
        if folder is None:
            raise DataError(
                f'{root} has no {DIFFUSION_FER}/{FACES_FOLDER} with classes such as angry; unpack '
                'its archives first'
            )
        listing = list_class_folders(folder, self.labels, self.label_of_folder)
        images = [image for image in listing.images if _tenth(image.path) in TENTHS[split]]
        tenths = count_of(len(TENTHS[split]), 'tenth')
        layout = f'{listing.layout}, {tenths} by the names of the files'
        return replace(listing, images=images, layout=layout)

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for the published folder's name."""
        return root.name == DIFFUSION_FER or any(
            folder.name == DIFFUSION_FER
            for parent in (root, *subfolders(root))
            for folder in subfolders(parent)
        )


def _find_folder(root: Path, names: Mapping[str, str]) -> Path | None:
    """Find the folder with the class folders."""
    parents = [root, *(root / name / DIFFUSION_FER for name in ('', 'DiffusionFER'))]
    folders = [parent / name for name in (FACES_FOLDER, PICTURES_FOLDER) for parent in parents]
    return next((f for f in (*folders, root) if f.is_dir() and has_class_folders(f, names)), None)


def _tenth(path: Path) -> int:
    return tenth_of(path.name.encode(errors='surrogateescape'))
