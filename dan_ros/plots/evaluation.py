# SPDX-License-Identifier: Apache-2.0
"""Plots of how good a model is: confusion, calibration, recall, mistakes, attention."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dan_ros.images.opencv import cv2
from dan_ros.palette import ACCENT, ALERT, BASELINE, LIGHT
from dan_ros.plots.style import SMALL_PT, WIDTH_IN, hide_axes, new_figure, styled

HEAT_SHARE = 0.55  # opacity of a heat map over a face
MISTAKES_PER_ROW = 8
CELL_IN = 0.62  # side of a cell of a confusion matrix


@styled
def draw_confusion(labels: Sequence[str], confusion: np.ndarray, title: str) -> Figure:
    """Draw a confusion matrix: percent of each true class and, small, the number of faces.

    Args:
        labels: names of the C classes.
        confusion: int [C, C], faces per true class (rows) and predicted class (columns).
    """
    count, faces = len(labels), confusion.sum(axis=1)
    figure = new_figure(1.5 + CELL_IN * count, title, width_in=min(WIDTH_IN, 1.9 + 0.66 * count))
    axes = figure.add_subplot()
    shares = confusion / np.maximum(faces, 1)[:, None]
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    for row, column in zip(*np.nonzero(confusion), strict=True):
        share = shares[row, column]
        color = LIGHT.paper if share > 0.55 else LIGHT.ink
        weight = 'bold' if row == column else 'normal'
        _write(axes, column, row - 0.1, f'{100 * share:.0f}', color, size=11, weight=weight)
        _write(axes, column, row + 0.26, f'{confusion[row, column]}', color, size=6.5)
    axes.set_xticks(range(count), labels, rotation=35, ha='right', rotation_mode='anchor')
    rows = [f'{name}  ({n})' for name, n in zip(labels, faces, strict=True)]
    axes.set_yticks(range(count), rows)
    edges = np.arange(count + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which='minor', color=LIGHT.paper, linewidth=1.5)
    axes.tick_params(which='minor', length=0)
    axes.set(xlabel='predicted class', ylabel='true class (faces)')
    accuracy = np.trace(confusion) / max(confusion.sum(), 1)
    axes.set_title(f'accuracy {accuracy:.1%}; percent of each row', weight='normal', size=8.5)
    hide_axes(axes)
    return figure


def _write(axes: Axes, x: float, y: float, text: str, color: str, **font: Any) -> None:
    axes.text(x, y, text, ha='center', va='center', color=color, **font)


@styled
def draw_reliability(
    faces: np.ndarray, accuracy: np.ndarray, confidence: np.ndarray, error: float, title: str
) -> Figure:
    """Draw the reliability diagram: accuracy and number of faces per bin of the confidence.

    After Guo et al. 2017, figure 4, https://arxiv.org/abs/1706.04599.

    Args:
        faces: int [B], faces per bin; the bins divide [0, 1] evenly.
        accuracy, confidence: float [B], [0, 1], means per bin.
        error: the expected calibration error.
    """
    figure = new_figure(5.4, title, width_in=4.8)
    upper, lower = figure.subplots(2, 1, height_ratios=(3.4, 1), sharex=True)
    width, used = 1 / len(faces), faces > 0
    middles = (np.arange(len(faces)) + 0.5) * width
    upper.plot([0, 1], [0, 1], '--', color=LIGHT.muted, linewidth=1, label='perfectly calibrated')
    upper.bar(middles[used], accuracy[used], 0.92 * width, color=ACCENT, label='accuracy')
    upper.plot(confidence[used], confidence[used], 'o', color=ALERT, label='mean confidence')
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel='accuracy')
    upper.legend(loc='upper left')
    upper.set_title(f'calibration error {error:.3f}', weight='normal', size=8.5)
    lower.bar(middles, faces, 0.92 * width, color=BASELINE)
    lower.set(xlabel='confidence', ylabel='faces')
    figure.align_ylabels()
    return figure


@styled
def draw_recall(
    labels: Sequence[str], faces: Sequence[int], before: np.ndarray, after: np.ndarray, title: str
) -> Figure:
    """Draw the recall per class before and after a calibration.

    Args:
        labels: names of C classes.
        faces: number of faces per class.
        before, after: float [C], [0, 1].
    """
    figure = new_figure(3.4, title, width_in=min(WIDTH_IN, 1.6 + 0.75 * len(labels)))
    axes = figure.add_subplot()
    places = np.arange(len(labels))
    for offset, values, color, name in (
        (-0.2, before, BASELINE, 'before'),
        (0.2, after, ACCENT, 'after'),
    ):
        bars = axes.bar(places + offset, 100 * values, 0.38, color=color, label=name)
        axes.bar_label(bars, fmt='%.0f', fontsize=SMALL_PT, padding=1)
    names = [f'{label}\n({count})' for label, count in zip(labels, faces, strict=True)]
    axes.set_xticks(places, names)
    axes.tick_params(axis='x', length=0)
    axes.set(ylim=(0, 105), ylabel='recall on held-out faces, %')
    figure.legend(loc='outside lower right', ncols=2)
    return figure


@styled
def draw_mistakes(faces: Sequence[np.ndarray], captions: Sequence[str]) -> Figure:
    """Draw faces with captions in a grid.

    Args:
        faces: uint8 [H, W, 3], RGB, at least one.
        captions: one or two lines per face.
    """
    rows = -(-len(faces) // MISTAKES_PER_ROW)
    figure = new_figure(1.25 * rows)
    grid = figure.subplots(rows, MISTAKES_PER_ROW, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for axes, face, caption in zip(grid.flat, faces, captions, strict=False):
        axes.imshow(face)
        axes.set_title(caption, fontsize=6.5, loc='center', weight='normal', pad=3)
    return figure


@styled
def draw_attention(
    faces: np.ndarray, maps: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]
) -> Figure:
    """Draw one row per face: the face, each head's attention map, and the probabilities.

    Each map is scaled to its own range, as in the paper's figures. So a map shows where a head
    looks, but cannot be compared with the maps of other heads.

    Args:
        faces: uint8 [N, H, W, 3], RGB.
        maps: float [N, K, h, w], >= 0.
        probabilities: float [N, C].
        labels: names of the C classes.
    """
    count, heads = maps.shape[:2]
    figure = new_figure(1.45 * count + 0.2)
    grid = figure.subplots(count, heads + 2, squeeze=False, width_ratios=[1] * (heads + 1) + [1.1])
    for row, face, own_maps, values in zip(grid, faces, maps, probabilities, strict=True):
        row[0].imshow(face)
        for axes, heat in zip(row[1:], own_maps, strict=False):
            axes.imshow(heat_over(face, heat))
        for axes in row[:-1]:
            axes.axis('off')
        _draw_bars(row[-1], values, labels)
    titles = ['face', *(f'head {head + 1}' for head in range(heads)), 'probability']
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    return figure


def heat_over(face: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend a heat map with a face.

    Args:
        face: uint8 [H, W, 3], RGB.
        heat: float [h, w]; the minimum becomes dark blue, the maximum yellow.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    height, width = face.shape[:2]
    low, high = float(heat.min()), float(heat.max())
    heat = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    large = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    levels = (255 * large.clip(0, 1)).astype(np.uint8)
    colors = cv2.applyColorMap(levels, cv2.COLORMAP_PLASMA)[:, :, ::-1]
    mixed: np.ndarray = HEAT_SHARE * colors + (1 - HEAT_SHARE) * face
    return mixed.astype(np.uint8)


def _draw_bars(axes: Axes, probabilities: np.ndarray, labels: Sequence[str]) -> None:
    """Draw probabilities as horizontal bars, the first class on top."""
    places = np.arange(len(labels))[::-1]
    colors = [ACCENT if value == probabilities.max() else BASELINE for value in probabilities]
    axes.barh(places, probabilities, color=colors, height=0.75)
    axes.set_yticks(places, labels, fontsize=6.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ['0', '0.5', '1'], fontsize=6.5)
