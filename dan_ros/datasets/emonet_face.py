# SPDX-License-Identifier: Apache-2.0
"""EmoNet-Face: faces made by text-to-image models, rated by experts in 40 categories (CC BY 4.0).

Schuhmann et al. 2025, https://arxiv.org/abs/2505.20033. Published as Parquet files with an image in
the column `path` and the ratings in `label`, in two forms:

* HQ, https://huggingface.co/datasets/laion/emonet-face-hq: `[{'human-1': {'Family|Anger': 3, ...}},
  ...]`, each category from 0 to 7;
* Binary, https://huggingface.co/datasets/laion/emonet-face-binary: `[{'human-4': {'Anger': True}},
  ...]`, whether one category fits.

EmoNet-Face Big has no ratings by people and is not read.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dan_ros.datasets.base import TENTHS, FaceDataset, tenth_of, why_empty
from dan_ros.datasets.faces import Faces, in_memory
from dan_ros.errors import DataError, count_of, one_line
from dan_ros.images.decode import decode_picture
from dan_ros.images.resize import resize

LABELS = ('happy', 'sad', 'surprise', 'fear', 'disgust', 'anger', 'contempt')
# Class per category. The other 31 categories have no class: their faces look like several classes
# (Awe, Pain, Distress, Embarrassment), or show no basic expression (Concentration, Pride, Longing).
# None of the 40 categories is neutral.
CLASS_OF = MappingProxyType(
    {
        'Amusement': 'happy',
        'Elation': 'happy',
        'Contentment': 'happy',
        'Sadness': 'sad',
        'Astonishment/Surprise': 'surprise',
        'Fear': 'fear',
        'Disgust': 'disgust',
        'Anger': 'anger',
        'Contempt': 'contempt',
    }
)
MIN_RATING = 2.0  # mean rating, 0 to 7, below which a category does not count as shown
FACE_PX = 128  # side of faces held in memory, pixels; 20,000 take 1 GB


class EmoNetFace(FaceDataset):
    """EmoNet-Face HQ or Binary: Parquet files in `root` or in `root/data`.

    The class is the category with the highest mean rating (HQ), or with the largest share of
    experts who accept it, then with the most votes (Binary), if it is one of `CLASS_OF`. Other
    faces, and those with a tie, are excluded and counted. The published sets have no splits: the
    CRC-32 of an image assigns it to training (eight tenths), validation or test (one tenth each).
    """

    labels = LABELS

    def open(self, root: Path, split: str) -> Faces:
        """Read all faces of the split into memory."""
        paths = _find_parquet(root)
        if not paths:
            raise DataError(
                f'{root} has no .parquet files; give the folder of laion/emonet-face-hq or '
                'laion/emonet-face-binary'
            )
        images, classes = [], []
        excluded: Counter[str] = Counter()
        skipped: dict[str, str] = {}
        for where, content, label in _read_rows(paths):
            if tenth_of(content) not in TENTHS[split]:
                continue
            name = _category(label, where)
            if name not in CLASS_OF:
                excluded[name or 'no agreement'] += 1
                continue
            image = decode_picture(content)
            if image is None:
                skipped[where] = 'is not an image'
                continue
            images.append(resize(image, FACE_PX, FACE_PX)[..., ::-1])
            classes.append(self.labels.index(CLASS_OF[name]))
        layout = f'{count_of(len(paths), "Parquet file")} in {paths[0].parent}'
        if not images:
            raise DataError(f'{root}: {why_empty(layout, skipped)}')
        stack = np.stack(images)  # [N, 128, 128, 3]
        return Faces(
            self.labels,
            np.eye(len(self.labels), dtype=np.float32)[classes],
            np.array(classes, np.int64),
            in_memory(stack),
            native_size=FACE_PX,
            layout=layout,
            skipped=skipped,
            excluded=dict(excluded.most_common()),
        )

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for Parquet files in a folder with the set's name."""
        return 'emonet-face' in str(root.resolve()).lower() and bool(_find_parquet(root))


def _find_parquet(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix == '.parquet' else []
    return sorted(root.glob('*.parquet')) or sorted((root / 'data').glob('*.parquet'))


def _read_rows(paths: list[Path]) -> Iterator[tuple[str, bytes, str]]:
    """Yield file and row, the encoded image and the label of each face."""
    try:
        from pyarrow import parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ModuleNotFoundError:
        raise DataError(
            'EmoNet-Face needs the Python package pyarrow: `pip install pyarrow`'
        ) from None
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
            number = 0
            for batch in file.iter_batches(batch_size=64, columns=['path', 'label']):
                for row in batch.to_pylist():
                    content = (row['path'] or {}).get('bytes') or b''
                    yield f'{path}, row {number}', content, row['label']
                    number += 1
        except Exception as error:  # errors of pyarrow have no common base class
            reason = one_line(error)
            raise DataError(f'{path} is not a Parquet file of EmoNet-Face: {reason}') from None


def _category(label: str, where: str) -> str:
    """Return the category that the experts chose, or '' if they do not agree."""
    ratings: dict[str, list[float]] = defaultdict(list)
    binary = False
    try:
        for entry in ast.literal_eval(label):
            for answers in entry.values():
                for name, value in answers.items():
                    ratings[name.split('|')[-1]].append(float(value))
                    binary |= isinstance(value, bool)
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError):
        raise DataError(f'{where}: the label is not a list of ratings') from None
    means = {name: float(np.mean(values)) for name, values in ratings.items()}
    if not means:
        return ''
    best = max(means.values())
    first = [name for name, mean in means.items() if mean == best]
    if best < MIN_RATING and not (binary and best > 0.5):
        return ''
    if binary:  # several categories may be accepted by all; the one with most votes counts
        most = max(len(ratings[name]) for name in first)
        first = [name for name in first if len(ratings[name]) == most]
    return first[0] if len(first) == 1 else ''
