# SPDX-License-Identifier: Apache-2.0
"""The container that every data set reader returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dan_ros.images.files import readable

TRAIN, VALID = 'train', 'valid'
MAX_LISTED_SKIPS = 20  # unreadable images listed on the screen


@dataclass(frozen=True)
class Faces:
    """One split of a data set: all labels in memory, images read on demand.

    Attributes:
        labels: canonical name of the class in each column of `targets`.
        targets: float32 [N, C], rows sum to 1: one-hot, or the shares of the annotators' votes.
        classes: int64 [N], class of each face, 0 .. C - 1.
        reader: reads faces by index: (int64 [B], side in pixels) -> uint8 [B, h, w, 1 or 3], gray
            or RGB.
        native_size: side in pixels that all images have, or None if they differ.
        skipped: paths of the unreadable images, which are left out.
        paths: file of each face, N of them; () if the faces are not in separate files.
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
        """Number of faces per label; labels without faces are left out."""
        counts = np.bincount(self.classes, minlength=len(self.labels)).tolist()
        return {label: n for label, n in zip(self.labels, counts, strict=True) if n}

    def read(self, indices: np.ndarray, size: int) -> np.ndarray:
        """Read the faces `indices`, int64 [B]: uint8 [B, size, size, 1 or 3], gray or RGB."""
        return self.reader(indices, size)

    def read_rgb(self, indices: np.ndarray, size: int) -> np.ndarray:
        """Read faces as the model's input expects them: uint8 [B, size, size, 3], RGB."""
        batch = self.read(indices, size)  # [B, size, size, 1 or 3]
        return np.repeat(batch, 3, axis=3) if batch.shape[3] == 1 else np.ascontiguousarray(batch)


def summarize_skipped(skipped: Sequence[str], full_list: str) -> list[str]:
    """Describe the unreadable images in a few lines; [] if there are none.

    Args:
        skipped: paths of the images.
        full_list: name of the file that lists them all.
    """
    if not skipped:
        return []
    lines = [f'{len(skipped)} images cannot be read and are left out:']
    lines += [f'  {readable(name)}' for name in skipped[:MAX_LISTED_SKIPS]]
    if len(skipped) > MAX_LISTED_SKIPS:
        lines.append(f'  and {len(skipped) - MAX_LISTED_SKIPS} more, see {full_list}')
    return lines
