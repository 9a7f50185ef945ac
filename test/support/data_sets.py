# SPDX-License-Identifier: Apache-2.0
"""Writes small data sets for tests."""

from pathlib import Path

import cv2
import numpy as np

VOTES = np.array(
    [
        [9, 0, 0, 0, 0, 0, 0, 0, 1, 0],  # neutral; the single vote is ignored
        [0, 0, 5, 0, 0, 0, 4, 1, 0, 0],  # more votes for surprise than for fear
        [3, 0, 0, 3, 2, 2, 0, 0, 0, 0],  # a tie, which neutral wins; no absolute majority
        [2, 0, 0, 0, 0, 0, 0, 0, 8, 0],  # unknown
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],  # not a face
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],  # only single votes
        [0, 6, 0, 0, 0, 0, 0, 0, 4, 0],  # more votes for happy than for unknown
    ],
    np.uint8,
)


def write_ferplus(folder: Path, split: str = 'train', **changes: object) -> Path:
    """Write an FER+ file with `VOTES`; `changes` replace its arrays, None removes one."""
    images = np.arange(len(VOTES) * 48 * 48, dtype=np.uint32).reshape(-1, 48, 48) % 251
    content = {'images': images.astype(np.uint8), 'votes': VOTES, **changes}
    path = folder / f'ferplus_{split}.npz'
    np.savez(path, **{name: value for name, value in content.items() if value is not None})
    return path


def write_image(path: Path, color_bgr: tuple[int, int, int] = (10, 60, 200)) -> Path:
    """Write an image of one color, 30 pixels wide and 40 high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((40, 30, 3), color_bgr, np.uint8))
    return path


def write_noise(folder: Path) -> None:
    """Write FER+ files of noise: 14 training faces, 8 validation faces, three classes."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 14), ('valid', 8)):
        votes = np.zeros((count, 10), np.uint8)
        votes[np.arange(count), np.arange(count) % 3] = 7
        votes[:, 5] = 2
        images = rng.integers(0, 256, (count, 48, 48), dtype=np.uint8)
        np.savez(folder / f'ferplus_{split}.npz', images=images, votes=votes)
