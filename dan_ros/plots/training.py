# SPDX-License-Identifier: Apache-2.0
"""Plot of a training: accuracy, loss and learning rate by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from dan_ros.plots.lines import Panel, draw_lines


def draw_training(history: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw the lines of `log.jsonl`, one per epoch; at least one.

    Training accuracy is measured on augmented faces, so it can be below that of validation.
    """

    def column(key: str, factor: float = 1.0) -> list[float]:
        return [factor * line[key] for line in history]

    panels = [
        Panel(
            'accuracy',
            {
                'training': column('train_accuracy', 100),
                'validation': column('accuracy', 100),
                'balanced': column('balanced_accuracy', 100),
            },
            '%',
            from_zero=False,
        ),
        Panel(
            'cross-entropy',
            {'training': column('cross_entropy'), 'validation': column('valid_cross_entropy')},
            from_zero=False,
        ),
        Panel('learning rate', {'learning rate': column('learning_rate')}),
    ]
    epochs = [line['epoch'] for line in history]
    return draw_lines(epochs, panels, 'epoch', title, marker='o')
