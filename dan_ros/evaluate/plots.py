# SPDX-License-Identifier: Apache-2.0
"""Figures of an evaluation, drawn with matplotlib without a window."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dan_ros.evaluate.metrics import CALIBRATION_BINS, Scores
from dan_ros.images.opencv import cv2

BLUE, ORANGE, GRAY = '#2a6fbb', '#e07b39', '#8a8a8a'
DPI = 130
HEAT_SHARE = 0.55  # opacity of a heat map over a face


def draw_confusion(scores: Scores, title: str) -> Figure:
    """Draw the confusion matrix: percent of each true class, one per row, and number of faces."""
    count = len(scores.labels)
    figure = Figure(figsize=(1.6 + 0.78 * count, 1.3 + 0.68 * count), dpi=DPI, layout='constrained')
    axes = figure.add_subplot()
    shares = scores.confusion / np.maximum(scores.faces, 1)[:, None]  # [C, C]
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    for row, column in np.ndindex(count, count):
        if not scores.confusion[row, column]:
            continue
        color = 'white' if shares[row, column] > 0.55 else 'black'
        text = f'{100 * shares[row, column]:.0f}'
        axes.text(column, row - 0.08, text, ha='center', va='center', color=color, fontsize=11)
        number = str(scores.confusion[row, column])
        axes.text(column, row + 0.27, number, ha='center', va='center', color=color, fontsize=6.5)
    axes.set_xticks(range(count), scores.labels, rotation=35, ha='right')
    rows = [f'{name} ({n})' for name, n in zip(scores.labels, scores.faces, strict=True)]
    axes.set_yticks(range(count), rows)
    axes.set_xlabel('predicted class')
    axes.set_ylabel('true class (faces)')
    axes.set_title(
        f'{title}\naccuracy {scores.accuracy:.2%}, in percent of each row',
        fontsize=11,
        parse_math=False,
    )
    axes.spines[:].set_visible(False)
    return figure


def draw_reliability(scores: Scores, title: str) -> Figure:
    """Draw the reliability diagram: accuracy and number of faces per confidence bin.

    After Guo et al. 2017, figure 4, https://arxiv.org/abs/1706.04599.
    """
    figure = Figure(figsize=(5.6, 6.2), dpi=DPI, layout='constrained')
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    width = 1 / CALIBRATION_BINS
    middles = (np.arange(CALIBRATION_BINS) + 0.5) * width
    used = scores.bin_faces > 0
    upper.bar(middles[used], scores.bin_accuracy[used], 0.92 * width, color=BLUE, label='accuracy')
    upper.plot(
        scores.bin_confidence[used],
        scores.bin_confidence[used],
        'o-',
        color=ORANGE,
        label='confidence',
    )
    upper.plot([0, 1], [0, 1], ':', color=GRAY, linewidth=1)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel='accuracy')
    upper.legend(loc='upper left', frameon=False)
    upper.set_title(
        f'{title}\ncalibration error {scores.calibration_error:.3f}',
        fontsize=11,
        parse_math=False,
    )
    lower.bar(middles, scores.bin_faces, 0.92 * width, color=GRAY)
    lower.set(xlabel='confidence', ylabel='faces')
    for axes in (upper, lower):
        axes.spines[['top', 'right']].set_visible(False)
    return figure


def draw_recall(
    labels: Sequence[str], faces: Sequence[int], before: np.ndarray, after: np.ndarray, title: str
) -> Figure:
    """Draw the recall per class before and after a calibration.

    Args:
        labels: names of C classes.
        faces: number of faces per class.
        before, after: float [C], [0, 1].
        title: drawn on top.
    """
    figure = Figure(figsize=(2 + 0.9 * len(labels), 4.2), dpi=DPI, layout='constrained')
    axes = figure.add_subplot()
    places = np.arange(len(labels))
    for offset, values, colour, name in (
        (-0.2, before, GRAY, 'before'),
        (0.2, after, BLUE, 'after'),
    ):
        bars = axes.bar(places + offset, 100 * values, 0.38, color=colour, label=name)
        axes.bar_label(bars, fmt='%.0f', fontsize=8)
    names = [f'{label}\n({count})' for label, count in zip(labels, faces, strict=True)]
    axes.set_xticks(places, names)
    axes.set(ylim=(0, 112), ylabel='recall on held-out faces, %')
    axes.legend(frameon=False, ncols=2, loc='upper right')
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.spines[['top', 'right']].set_visible(False)
    return figure


def draw_mistakes(faces: Sequence[np.ndarray], captions: Sequence[str], columns: int = 8) -> Figure:
    """Draw faces with captions in a grid.

    Args:
        faces: uint8 [H, W, 3], RGB, at least one.
        captions: one or two lines per face.
        columns: faces per row.
    """
    rows = -(-len(faces) // columns)
    figure = Figure(figsize=(1.25 * columns, 1.62 * rows), dpi=DPI, layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for axes, face, caption in zip(grid.flat, faces, captions, strict=False):
        axes.imshow(face)
        axes.set_title(caption, fontsize=7)
    return figure


def draw_attention(
    faces: np.ndarray, maps: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]
) -> Figure:
    """Draw one row per face: the face, each head's attention map, and the probabilities.

    Each map is scaled to its own range, as in the paper's figures. So maps show where a head looks,
    but not how strongly compared with other heads.

    Args:
        faces: uint8 [N, H, W, 3], RGB.
        maps: float [N, K, h, w], >= 0.
        probabilities: float [N, C].
        labels: names of the C classes.
    """
    count, heads = maps.shape[:2]
    figure = Figure(figsize=(2.1 * (heads + 1) + 2.6, 2.3 * count), dpi=DPI, layout='constrained')
    grid = figure.subplots(count, heads + 2, squeeze=False, width_ratios=[1] * (heads + 1) + [1.1])
    for row, face, own_maps, values in zip(grid, faces, maps, probabilities, strict=True):
        row[0].imshow(face)
        for axes, heat in zip(row[1:], own_maps, strict=False):
            axes.imshow(heat_over(face, heat))
        for axes in row[:-1]:
            axes.axis('off')
        _draw_bars(row[-1], values, labels)
    grid[0, 0].set_title('face', fontsize=10)
    for head in range(heads):
        grid[0, head + 1].set_title(f'head {head + 1}', fontsize=10)
    return figure


def encode(figure: Figure, kind: str = 'png') -> bytes:
    """Encode a figure as png, jpg, jpeg, pdf or svg."""
    file = io.BytesIO()
    figure.savefig(file, format=kind)
    return file.getvalue()


def heat_over(face: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend a heat map with a face.

    Args:
        face: uint8 [H, W, 3], RGB.
        heat: float [h, w]; the minimum becomes blue, the maximum red.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    height, width = face.shape[:2]
    low, high = float(heat.min()), float(heat.max())
    heat = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    large = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    levels = (255 * large.clip(0, 1)).astype(np.uint8)
    colors = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[:, :, ::-1]
    mixed: np.ndarray = HEAT_SHARE * colors + (1 - HEAT_SHARE) * face
    return mixed.astype(np.uint8)


def _draw_bars(axes: Axes, probabilities: np.ndarray, labels: Sequence[str]) -> None:
    """Draw probabilities as horizontal bars, the first class on top."""
    places = np.arange(len(labels))[::-1]
    colors = [ORANGE if value == probabilities.max() else GRAY for value in probabilities]
    axes.barh(places, probabilities, color=colors)
    axes.set_yticks(places, labels, fontsize=8)
    axes.set_xlim(0, 1)
    axes.tick_params(axis='x', labelsize=7)
    axes.spines[['top', 'right']].set_visible(False)
