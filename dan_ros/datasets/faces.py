# SPDX-License-Identifier: Apache-2.0
"""The container that every data set reader returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dan_ros.errors import count_of
from dan_ros.images.resize import resize

TRAIN, VALID, TEST = SPLITS = ('train', 'valid', 'test')
MAX_LISTED_SKIPS = 20  # number of left out images that are listed on the screen


@dataclass(frozen=True)
class Faces:
    """One split of a data set: all labels in memory, images read on demand."""

    labels: tuple[str, ...]  # canonical name of the class in each column of `targets`
    # float32 [N, C], rows sum to 1: one-hot, or the shares of the annotators' votes.
    targets: np.ndarray
    classes: np.ndarray  # int64 [N], class of each face, 0 .. C - 1
    # Reads faces by index: (int64 [B], side in pixels) -> uint8 [B, side, side, 1 or 3], gray or
    # RGB.
    read: Callable[[np.ndarray, int], np.ndarray]
    native_size: int | None = None  # side in pixels that all images have, or None if they differ
    layout: str = ''  # description of where the faces are, and in which form
    # Reason per image that is left out because it cannot be read or has no class.
    skipped: Mapping[str, str] = field(default_factory=dict)
    # Number of faces that the rules of the data set exclude, per reason.
    excluded: Mapping[str, int] = field(default_factory=dict)
    empty_folders: tuple[str, ...] = ()  # class folders without a readable image
    # Image file of each face, N of them; () if the faces are not in separate ones.
    paths: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of faces per label; labels without faces are left out."""
        return {label: count for label, count in self.all_counts.items() if count}

    @property
    def all_counts(self) -> dict[str, int]:
        """Number of faces per label of the data set."""
        counts = np.bincount(self.classes, minlength=len(self.labels)).tolist()
        return dict(zip(self.labels, counts, strict=True))

    def read_rgb(self, indices: np.ndarray, size: int) -> np.ndarray:
        """Read faces as the model's input expects them: uint8 [B, size, size, 3], RGB."""
        batch = self.read(indices, size)  # [B, size, size, 1 or 3]
        return np.repeat(batch, 3, axis=3) if batch.shape[3] == 1 else np.ascontiguousarray(batch)


def in_memory(images: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return `Faces.read` of images held in memory, uint8 [N, h, w] or [N, h, w, 3]."""

    def read(indices: np.ndarray, size: int) -> np.ndarray:
        resized = [resize(image, size, size) for image in images[indices]]
        return np.stack(resized).reshape(len(indices), size, size, -1)

    return read


def summarize(dataset: str, split: str, faces: Faces) -> list[str]:
    """Describe a data set in a few lines: source, faces per class, exclusions."""
    lines = [
        f'data set {dataset}, split {split}: {faces.layout}',
        f'{count_of(len(faces), "face")}: {_name_counts(faces.all_counts)}',
    ]
    if faces.excluded:
        lines.append(f'excluded by the rules of {dataset}: {_name_counts(faces.excluded)}')
    if faces.empty_folders:
        lines.append(f'without a face: {", ".join(faces.empty_folders)}')
    return lines


def summarize_skipped(skipped: Mapping[str, str], full_list: str = '') -> list[str]:
    """Describe in a few lines which images are left out and why; [] if there are none."""
    listed = [f'{path}: {reason}' for path, reason in skipped.items()]
    return list_paths('left out as unusable', listed, full_list)


def list_paths(what: str, paths: Sequence[str], full_list: str = '') -> list[str]:
    """Count images and name the first `MAX_LISTED_SKIPS`; [] if there are none."""
    if not paths:
        return []
    lines = [f'{count_of(len(paths), "image")} {what}:']
    lines += [f'  {path}' for path in paths[:MAX_LISTED_SKIPS]]
    if len(paths) > MAX_LISTED_SKIPS:
        where = f', see {full_list}' if full_list else ''
        lines.append(f'  and {len(paths) - MAX_LISTED_SKIPS} more{where}')
    return lines


def _name_counts(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{name} {count}' for name, count in counts.items())
