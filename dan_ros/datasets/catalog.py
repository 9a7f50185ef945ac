# SPDX-License-Identifier: Apache-2.0
"""Registry of the data sets. To add one, write its reader in a new module and add it here."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dan_ros import labels as label_sets
from dan_ros.datasets.affectnet import AffectNet7, AffectNet8
from dan_ros.datasets.base import FaceDataset
from dan_ros.datasets.cremad import CremaD
from dan_ros.datasets.diffusionfer import DiffusionFer
from dan_ros.datasets.emonet_face import EmoNetFace
from dan_ros.datasets.faces import Faces
from dan_ros.datasets.fer2013 import Fer2013
from dan_ros.datasets.ferplus import FerPlus
from dan_ros.datasets.folders import ClassFolders, Sfew, candidate_folders, is_number
from dan_ros.datasets.rafdb import RafDb
from dan_ros.errors import DataError

MAX_SHOWN_NUMBERS = 10  # folder names listed in an error message
# Data sets by name.
DATASETS: Mapping[str, type[FaceDataset]] = MappingProxyType(
    {
        'ferplus': FerPlus,
        'rafdb': RafDb,
        'affectnet7': AffectNet7,
        'affectnet8': AffectNet8,
        'sfew': Sfew,
        'fer2013': Fer2013,
        'cremad': CremaD,
        'emonet_face': EmoNetFace,
        'diffusionfer': DiffusionFer,
        'folder': ClassFolders,
    }
)


def open_faces(dataset: str, root: Path, split: str) -> Faces:
    """Open one split of a data set.

    Images that cannot be used are left out and listed in `Faces.skipped`. Instead of its folder,
    the `.npz` or CSV file of FER+, FER-2013 and AffectNet may be given.

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
    """Return the name of the data set that the files at `root` identify.

    Numbered folders do not identify a data set, because each data set numbers its classes
    differently. AffectNet has eight classes if the labels of the model include contempt, otherwise
    seven.

    Raises:
        DataError: `root` does not exist, or matches no data set or several.
    """
    if not root.exists():
        raise DataError(f'there is no data at {root}; give a folder, a CSV file or an .npz file')
    names = [name for name, cls in DATASETS.items() if cls().matches(root, model_labels)]
    if len(names) == 1:
        return names[0]
    if names:
        raise DataError(f'{root} can be several data sets; choose one: {_choices(names)}')
    numbers = sorted({f.name for f in candidate_folders(root) if is_number(f.name)}, key=int)
    if numbers:
        raise DataError(_explain_numbers(root, numbers))
    raise DataError(
        f'{root} is not a known data set and has no folders named '
        f'{", ".join(label_sets.CANONICAL)}; check the path, or name the data set with --dataset'
    )


def _choices(names: list[str]) -> str:
    return ' or '.join(f'--dataset {name}' for name in names)


def _explain_numbers(root: Path, numbers: list[str]) -> str:
    """Describe which data sets have all these class numbers, and what one of them means in each."""
    example = numbers[len(numbers) // 2]
    fitting = [
        f'{name} ({example} is {cls.numbers[example]})'
        for name, cls in DATASETS.items()
        if cls.numbers.keys() >= set(numbers)
    ]
    shown = ', '.join(numbers[:MAX_SHOWN_NUMBERS]) + (', ...' * (len(numbers) > MAX_SHOWN_NUMBERS))
    found = f'{root} has folders named by numbers ({shown})'
    if not fitting:
        return f'{found}, which fit no known data set; name the folders by class, such as happy'
    return (
        f'{found}, which mean different classes in different data sets; choose one: '
        f'{_choices(fitting)}'
    )
