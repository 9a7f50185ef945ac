# SPDX-License-Identifier: Apache-2.0
"""Registry of the data sets. To add one, write its reader in a new module and add it here."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dan_ros import labels as label_sets
from dan_ros.datasets.affectnet import AffectNet7, AffectNet8
from dan_ros.datasets.base import FaceDataset
from dan_ros.datasets.faces import Faces
from dan_ros.datasets.ferplus import FerPlus
from dan_ros.datasets.folders import ClassFolders, Sfew
from dan_ros.datasets.rafdb import RafDb
from dan_ros.errors import DataError

# Data sets by name; `guess_dataset` tries them in this order.
DATASETS: Mapping[str, type[FaceDataset]] = MappingProxyType(
    {
        'ferplus': FerPlus,
        'rafdb': RafDb,
        'affectnet7': AffectNet7,
        'affectnet8': AffectNet8,
        'sfew': Sfew,
        'folder': ClassFolders,
    }
)


def open_faces(dataset: str, root: Path, split: str) -> Faces:
    """Open one split of a data set.

    Unreadable images are left out and listed in `Faces.skipped`.

    Args:
        dataset: a name in `DATASETS`.
        root: the data set's folder; for FER+ and AffectNet also its `.npz` or CSV file.
        split: 'train' or 'valid'.

    Raises:
        DataError: the data set is unknown, or a file is missing, damaged or empty.
    """
    if dataset not in DATASETS:
        raise DataError(f'unknown data set {dataset!r}; available are {", ".join(DATASETS)}')
    root = Path(root)
    if not root.exists():
        raise DataError(f'there is no data at {root}; give the folder that contains {dataset}')
    return DATASETS[dataset]().open(root, split)


def guess_dataset(root: Path, model_labels: tuple[str, ...]) -> str:
    """Name of the data set at `root`, guessed from its files.

    Args:
        root: a folder or file.
        model_labels: labels of the model to evaluate; AffectNet has eight classes if they include
            contempt, otherwise seven.

    Raises:
        DataError: `root` does not exist, or matches no data set.
    """
    if not root.exists():
        raise DataError(f'there is no data at {root}; give a folder or an .npz file')
    for name, dataset in DATASETS.items():
        if dataset().matches(root, model_labels):
            return name
    raise DataError(
        f'{root} is not a known data set and has no folders named '
        f'{", ".join(label_sets.CANONICAL)}; check the path, or name the data set with --dataset'
    )
