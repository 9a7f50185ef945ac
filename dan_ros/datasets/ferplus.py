# SPDX-License-Identifier: Apache-2.0
"""FER+ (Barsoum et al. 2016, https://arxiv.org/abs/1608.01041) from `.npz` files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dan_ros import labels as label_sets
from dan_ros.datasets.base import FaceDataset
from dan_ros.datasets.faces import TRAIN, Faces
from dan_ros.errors import DataError
from dan_ros.images.opencv import cv2

VOTE_COLUMNS = 10  # eight expressions, unknown, not a face


class FerPlus(FaceDataset):
    """FER+: `ferplus_train.npz` and `ferplus_valid.npz` in a folder, or one such file.

    A file has `images`, uint8 [N, 48, 48], and `votes`, uint8 [N, 10]: counts for neutral,
    happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, not a face. `names` is
    not needed.

    The protocol is FER+'s "majority". Single votes are ignored. Faces without votes, or with
    "unknown" or "not a face" as first choice, are left out. Validation also leaves out faces
    without an absolute majority. The targets are the vote shares of the eight expressions, the
    class is the first choice.
    """

    labels = label_sets.FERPLUS

    def open(self, root: Path, split: str) -> Faces:
        """Read all faces of the split into memory."""
        path = root if root.is_file() else root / f'ferplus_{split}.npz'
        images, votes = _read_npz(path)
        votes = np.where(votes == 1, 0, votes).astype(np.int64)  # [N, 10]
        first = votes.argmax(axis=1)  # [N]
        keep = (votes.sum(axis=1) > 0) & (first < len(self.labels))
        if split != TRAIN:
            keep &= 2 * votes.max(axis=1) > votes.sum(axis=1)
        if not keep.any():
            raise DataError(f'{path}: none of its {len(votes)} faces has a usable vote')
        images, votes, first = images[keep], votes[keep, : len(self.labels)], first[keep]
        targets = (votes / votes.sum(axis=1, keepdims=True)).astype(np.float32)  # [N, 8]

        def read(indices: np.ndarray, size: int) -> np.ndarray:
            return _resize_all(images[indices, :, :, None], size)

        return Faces(self.labels, targets, first, read, native_size=images.shape[1])

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for an `.npz` file."""
        return root.suffix == '.npz' or any(root.glob('ferplus_*.npz'))


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read and check `images` and `votes`."""
    if not path.is_file():
        raise DataError(
            f'{path.name} is missing in {path.parent}; `dan_ros.datasets.ferplus` describes it'
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            images, votes = (_read_array(path, content, name) for name in ('images', 'votes'))
    except DataError:
        raise
    except Exception as error:  # numpy and zipfile raise five unrelated classes for damaged files
        raise DataError(f'{path} cannot be read as .npz ({error}); download it again') from None
    square = images.ndim == 3 and images.shape[1] == images.shape[2]
    if images.dtype != np.uint8 or not square or images.shape[1] == 0:
        raise DataError(
            f'{path}: images are {images.dtype} {list(images.shape)}, not uint8 [N, 48, 48]'
        )
    if votes.shape != (len(images), VOTE_COLUMNS) or not np.issubdtype(votes.dtype, np.integer):
        raise DataError(
            f'{path}: votes are {votes.dtype} {list(votes.shape)}, not uint8 [{len(images)}, 10]'
        )
    return images, votes


def _read_array(path: Path, content: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in content:
        raise DataError(f'{path}: the array {name!r} is missing; FER+ needs `images` and `votes`')
    try:
        array = content[name]
        if isinstance(array, np.ndarray):
            return array
        reason = 'not an array'
    except Exception as error:  # as in `_read_npz`
        reason = ' '.join(str(error).split()) or type(error).__name__
    raise DataError(f'{path}: the array {name!r} is damaged ({reason}); download the file again')


def _resize_all(faces: np.ndarray, size: int) -> np.ndarray:
    """uint8 [B, h, w, c] -> [B, size, size, c], bilinear."""
    if faces.shape[1:3] == (size, size):
        return faces
    resized = [cv2.resize(face, (size, size), interpolation=cv2.INTER_LINEAR) for face in faces]
    return np.stack(resized).reshape(len(faces), size, size, faces.shape[3])
