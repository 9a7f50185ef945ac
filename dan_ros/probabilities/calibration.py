# SPDX-License-Identifier: Apache-2.0
"""The file of `dan-ros calibrate`: bias, temperature and weights for one model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dan_ros import labels as label_sets
from dan_ros.errors import DataError, ModelError, shorten
from dan_ros.model.metadata import TEMPERATURES, ModelInfo
from dan_ros.storage.atomic import atomic_write_bytes
from dan_ros.storage.yaml_file import read_yaml

MAX_BIAS = 20.0  # largest bias that is accepted; real ones are below 5
MAX_WEIGHT = 20.0  # largest weight that is accepted; real ones are below 1
KEYS = ('model_sha256', 'temperature', 'bias')  # required keys of the file
OPTIONAL_KEYS = ('notes', 'weights')
MAX_LINE = 200  # characters per line, so that each row of the weights is a line
HEAD = '# Calibration of a dan_ros model, written by `dan-ros calibrate`.\n'


@dataclass(frozen=True)
class Calibration:
    """How the logits z of one model become probabilities.

        p = softmax((z + weights (z - mean z)) / temperature + bias)

    Attributes:
        bias: one number per label of the model.
        temperature: > 0.
        model_sha256: `ModelInfo.source_sha256`, which a model and its int8 version share.
        notes: how it was measured: faces per class, persons, expected gain; for information only.
        weights: [C, C], what each logit adds to the score of each class: a row for each label of
            `bias`, and a column for each logit in the same order; () for none.
    """

    bias: Mapping[str, float]
    temperature: float
    model_sha256: str
    notes: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[tuple[float, ...], ...] = ()

    def problem_with(self, model: ModelInfo) -> str:
        """Return why it cannot be used with a model, or ''."""
        if set(self.bias) != set(model.labels):
            return (
                f'the calibration is for a model with the classes {", ".join(self.bias)}, but this '
                f'one has {", ".join(model.labels)}: run `dan-ros calibrate` with this model'
            )
        if self.model_sha256 != model.source_sha256:
            return (
                f'the calibration is for another model (weights {self.model_sha256[:8]}, not '
                f'{model.source_sha256[:8]}): run `dan-ros calibrate` with this model'
            )
        return ''

    def write(self, path: Path) -> None:
        """Write the YAML file; an earlier one is replaced once the new one is complete."""
        import yaml

        content = {
            'model_sha256': self.model_sha256,
            'temperature': self.temperature,
            'notes': dict(self.notes),
            'weights': [list(row) for row in self.weights],
            'bias': dict(self.bias),  # last and in braces, so that a truncated file is invalid
        }
        text = yaml.safe_dump(
            content, sort_keys=False, default_flow_style=None, width=MAX_LINE, allow_unicode=True
        )
        atomic_write_bytes(path, (HEAD + text).encode())

    @classmethod
    def read(cls, path: Path) -> 'Calibration':
        """Read a file of `write`.

        Raises:
            DataError: it is missing, damaged, or has a value outside its range.
        """
        content = read_yaml(path, 'calibration', DataError)
        if not isinstance(content, dict):
            raise _invalid(path, f'it has no {", ".join(KEYS)}')
        if missing := [key for key in KEYS if key not in content]:
            raise _invalid(path, f'it has no {", ".join(missing)}')
        if unknown := [str(key) for key in content if key not in (*KEYS, *OPTIONAL_KEYS)]:
            raise _invalid(path, f'it has the unknown key {shorten(unknown[0])}')
        bias, notes = content['bias'], content.get('notes') or {}
        if not (isinstance(bias, dict) and isinstance(notes, dict)):
            raise _invalid(path, 'bias and notes must be lists of `name: value`')
        try:
            label_sets.canonical_indices(tuple(map(str, bias)))
        except ModelError as error:
            raise _invalid(path, str(error)) from None
        if not all(_is_between(value, -MAX_BIAS, MAX_BIAS) for value in bias.values()):
            raise _invalid(path, f'a bias is not a number from {-MAX_BIAS:g} to {MAX_BIAS:g}')
        low, high = TEMPERATURES
        if not _is_between(content['temperature'], low, high):
            raise _invalid(path, f'the temperature is not a number from {low:g} to {high:g}')
        weights = content.get('weights', [])
        if weights != [] and not _is_square(weights, len(bias)):
            raise _invalid(
                path,
                f'the weights are not {len(bias)} rows of {len(bias)} numbers from '
                f'{-MAX_WEIGHT:g} to {MAX_WEIGHT:g}',
            )
        return cls(
            {label: float(value) for label, value in bias.items()},
            float(content['temperature']),
            str(content['model_sha256']),
            notes,
            tuple(tuple(map(float, row)) for row in weights),
        )


def _is_between(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_square(rows: object, side: int) -> bool:
    return isinstance(rows, list) and len(rows) == side and all(_is_row(r, side) for r in rows)


def _is_row(row: object, length: int) -> bool:
    return (
        isinstance(row, list)
        and len(row) == length
        and all(_is_between(value, -MAX_WEIGHT, MAX_WEIGHT) for value in row)
    )


def _invalid(path: Path, reason: str) -> DataError:
    return DataError(f'{path} is not a calibration: {reason}; make one with `dan-ros calibrate`')
