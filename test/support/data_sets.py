# SPDX-License-Identifier: Apache-2.0
"""Writes small data sets for tests."""

from collections.abc import Sequence
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


def write_fer_csv(
    folder: Path, faces: np.ndarray, usages: Sequence[str], emotions: Sequence[int], **options: str
) -> Path:
    """Write the faces, uint8 [N, 48, 48], as `fer2013.csv`; `options` change its form.

    Options:
        name: name of the file.
        header: names of the three columns, in any order.
        quote: character around each cell.
        start: first characters of the file, such as a byte order mark.
    """
    header = options.get('header', 'emotion,pixels,Usage')
    quote = options.get('quote', '')
    lines = [options.get('start', '') + header]
    for face, usage, emotion in zip(faces, usages, emotions, strict=True):
        pixels = ' '.join(map(str, face.ravel()))
        cells = {'emotion': str(emotion), 'pixels': pixels, 'usage': usage}
        names = [name.strip(' "').lower() for name in header.split(',')]
        lines.append(','.join(f'{quote}{cells[name]}{quote}' for name in names))
    path = folder / options.get('name', 'fer2013.csv')
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return path


def write_fer_votes(folder: Path, votes: np.ndarray, usages: Sequence[str]) -> Path:
    """Write `fer2013new.csv`; as in the original, images without a face have no name."""
    lines = [
        'Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF'
    ]
    for number, (row, usage) in enumerate(zip(votes, usages, strict=True)):
        name = '' if row[9] == 10 else f'fer{number:07d}.png'
        lines.append(f'{usage},{name},{",".join(map(str, row))}')
    path = folder / 'fer2013new.csv'
    path.write_text('\n'.join(lines) + '\n')
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
