# SPDX-License-Identifier: Apache-2.0
"""Plots with as many parts as they can have fit a page."""

import numpy as np
import pytest
from test_plots import many_comparisons

from dan_ros.bench.plot import draw_bench
from dan_ros.plots import evaluation, style

FIGURES = {
    'bench': lambda: draw_bench(many_comparisons(), {'case': {'detect': 1.0}}, 'a $title'),
    'mistakes': lambda: evaluation.draw_mistakes([np.zeros((9, 9, 3), np.uint8)] * 99, ['x'] * 99),
}


@pytest.mark.parametrize('name', FIGURES)
def test_a_large_plot_fits_a_page(name):
    figure = FIGURES[name]()
    assert (figure.get_size_inches() <= (style.WIDTH_IN, style.MAX_HEIGHT_IN)).all()
    assert style.encode(figure).startswith(b'\x89PNG')
