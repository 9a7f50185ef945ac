# SPDX-License-Identifier: Apache-2.0
"""A compact summary of a bag's expressions over time, and its small picture."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pyarrow import parquet

from dan_ros import labels
from dan_ros.bag.parquet_tables import FACES, FRAMES
from dan_ros.palette import EXPRESSIONS, LIGHT, UNKNOWN, to_rgb

BINS = 96  # intervals into which the time of a bag is divided
ALL_LABELS = (*labels.CANONICAL, labels.UNKNOWN_LABEL)
ALL_COLORS = (*EXPRESSIONS, UNKNOWN)  # by label
DROPPED = 'dropped'
HEIGHT_PX, MARK_PX = 36, 4
PAPER, INK = len(ALL_COLORS), len(ALL_COLORS) + 1  # indices after those of the labels in PALETTE
PALETTE = b''.join(bytes(to_rgb(color)) for color in (*ALL_COLORS, LIGHT.paper, LIGHT.ink))


def count_labels(folder: Path) -> dict[str, Any]:
    """Read `frames.parquet` and `faces.parquet` of a bag, in bounded memory.

    Returns:
        'start_ns', 'end_ns': bag times of the first and the last image; 'with_faces': number of
        images with a face; 'strip': per label that occurs, and for `DROPPED`, the share of the
        faces or images in each of `BINS` intervals, as two hexadecimal digits each.
    """
    times = [batch[0] for batch in _batches(folder, FRAMES, ['bag_time_ns'])]
    start_ns = min(int(part.min()) for part in times)
    end_ns = max(int(part.max()) for part in times)
    images, dropped = np.zeros((2, BINS), np.int64)
    with_faces = 0
    for time_ns, faces, why in _batches(folder, FRAMES, ['bag_time_ns', 'faces', DROPPED]):
        images += _histogram(time_ns, start_ns, end_ns)
        dropped += _histogram(time_ns[why != np.array(None)], start_ns, end_ns)
        with_faces += int((faces > 0).sum())
    counts = np.zeros((len(ALL_LABELS), BINS), np.int64)
    for time_ns, label in _batches(folder, FACES, ['bag_time_ns', 'label']):
        for index, name in enumerate(ALL_LABELS):
            counts[index] += _histogram(time_ns[label == name], start_ns, end_ns)
    shares = dict(zip(ALL_LABELS, _shares(counts, counts.sum(axis=0)), strict=True))
    shares[DROPPED] = _shares(dropped, images)
    last = np.maximum.accumulate(np.where(images > 0, np.arange(BINS), 0))
    shares = {name: share[last] for name, share in shares.items()}  # empty intervals included
    strip = {name: share.tobytes().hex() for name, share in shares.items() if share.any()}
    return {'start_ns': start_ns, 'end_ns': end_ns, 'with_faces': with_faces, 'strip': strip}


def draw_strip(strip: Mapping[str, str]) -> bytes:
    """Draw the stacked shares of the expressions over time, and marks where images were dropped.

    White lines between the bands separate colors that a viewer cannot tell apart. See
    `count_labels` for `strip`.

    Returns:
        PNG with one column per interval; the page stretches it.
    """
    tops = np.cumsum([_parse(strip.get(name, '')) for name in ALL_LABELS], axis=0) / 255
    levels = 1 - (np.arange(HEIGHT_PX)[:, None, None] + 0.5) / HEIGHT_PX
    bands = (tops <= levels).sum(axis=1).astype(np.uint8)  # index into PALETTE, [row, interval]
    starts = (bands[1:-1] != bands[:-2]) & (bands[1:-1] == bands[2:]) & (bands[:-2] != PAPER)
    bands[1:-1][starts] = PAPER
    canvas = np.full((HEIGHT_PX + MARK_PX, BINS), PAPER, np.uint8)
    canvas[:HEIGHT_PX] = bands
    canvas[HEIGHT_PX + 1 :, _parse(strip.get(DROPPED, '')) > 0] = INK
    picture = Image.fromarray(canvas)
    picture.putpalette(PALETTE)
    file = io.BytesIO()
    picture.save(file, 'PNG', optimize=True)
    return file.getvalue()


def _shares(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Return counts / totals as uint8, where 255 is 1; nonzero shares stay nonzero."""
    shares: np.ndarray = np.ceil(255 * counts / np.maximum(totals, 1)).astype(np.uint8)
    return shares


def _parse(text: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), np.uint8) if text else np.zeros(BINS, np.uint8)


def _histogram(time_ns: np.ndarray, start_ns: int, end_ns: int) -> np.ndarray:
    offset_ns = (time_ns - start_ns).view(np.uint64)  # int64 could overflow
    position = (offset_ns * float(BINS) / max(end_ns - start_ns, 1)).astype(np.int64)
    return np.bincount(np.minimum(position, BINS - 1), minlength=BINS)


def _batches(folder: Path, table: str, columns: list[str]) -> Iterator[list[np.ndarray]]:
    """Yield columns of a table as arrays, piece by piece."""
    with (folder / f'{table}.parquet').open('rb') as content, parquet.ParquetFile(content) as file:
        for batch in file.iter_batches(columns=columns):
            yield [batch.column(name).to_numpy(zero_copy_only=False) for name in columns]
