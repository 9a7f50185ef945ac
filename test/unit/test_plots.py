# SPDX-License-Identifier: Apache-2.0
"""The plots: they fit a page, keep names as they are, and show what they are given."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from dan_ros import labels, palette
from dan_ros.bench.plot import draw_bench
from dan_ros.bench.timer import Comparison
from dan_ros.plots import evaluation, lines, style, timeline, training

COUNT = len(labels.CANONICAL)
LONG_NAME = 'a variant with a name that is far too long for one line of a plot, int8, one thread'


def many_comparisons() -> list[Comparison]:
    times_ms = {'baseline': 10.0, **{f'{LONG_NAME} {number}': 2.0 for number in range(9)}}
    return [Comparison(f'pipeline, {n} face(s)', 'baseline', times_ms) for n in range(30)]


def epochs(count: int) -> list[dict[str, float]]:
    keys = ('train_accuracy', 'accuracy', 'balanced_accuracy', 'cross_entropy')
    keys = (*keys, 'valid_cross_entropy', 'learning_rate')
    return [{'epoch': n + 1, **dict.fromkeys(keys, 1 / (n + 2))} for n in range(count)]


def smile(after_gap: bool) -> Figure:
    rows = np.full((20, COUNT), 0.1 / (COUNT - 1))
    rows[:, 1] = 0.9
    gaps = [False] * 10 + [after_gap] * 1 + [False] * 9
    times = [n + 5 * (n >= 10) for n in range(20)]
    return timeline.draw_timeline(times, rows, [1] * 10 + [labels.UNKNOWN] * 10, gaps, 'face a$b')


FIGURES = {
    'confusion': lambda: evaluation.draw_confusion(
        labels.CANONICAL, np.arange(COUNT**2).reshape(COUNT, COUNT), 'a $title'
    ),
    'one class': lambda: evaluation.draw_confusion(['happy'], np.array([[3]]), 'one'),
    'training': lambda: training.draw_training(epochs(1), 'a $title'),
    'soak': lambda: lines.draw_lines([0.0, 1.0], [lines.Panel('x', {'y': [np.nan, 1.0]})] * 9, 'x'),
    'timeline': lambda: smile(after_gap=True),
}


@pytest.mark.parametrize('name', FIGURES)
def test_a_plot_fits_a_page(name):
    figure = FIGURES[name]()
    assert (figure.get_size_inches() <= (style.WIDTH_IN, style.MAX_HEIGHT_IN)).all()
    assert style.encode(figure).startswith(b'\x89PNG')


def test_the_style_is_not_left_to_other_plots():
    before = dict(matplotlib.rcParams)
    style.encode(FIGURES['one class']())
    assert dict(matplotlib.rcParams) == before


def test_the_same_numbers_give_the_same_file():
    one, two = (style.encode(FIGURES['one class']()) for _ in range(2))
    assert one == two


def test_the_band_of_a_timeline_has_the_color_and_name_of_the_label():
    band = smile(after_gap=False).axes[1]
    found = [matplotlib.colors.to_hex(patch.get_facecolor()) for patch in band.patches]
    assert found == [palette.color_of(1), palette.UNKNOWN]
    assert [text.get_text() for text in band.texts] == ['happy', 'unknown']


def test_comparisons_of_the_same_variants_share_their_names():
    comparisons = many_comparisons()[:2] + [Comparison('other', 'a', {'a': 2.0, 'b': 1.0})]
    figure = draw_bench(comparisons, {}, '')
    rows = {axes.get_subplotspec().get_topmost_subplotspec().rowspan.start for axes in figure.axes}
    assert (len(figure.axes), len(rows)) == (3, 2)
