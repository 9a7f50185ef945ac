# SPDX-License-Identifier: Apache-2.0
"""Metadata of this package's models, stored in the `metadata_props` of the ONNX file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dan_ros import labels as label_sets
from dan_ros.errors import ModelError, count_of, shorten
from dan_ros.model.onnx_file import inspect_onnx

INPUT_NAME = 'faces'
OUTPUT_NAME = 'logits'
CROP_RULE = 'square'
MIN_INPUT_PX = 32  # side of the input; the network halves it five times
MAX_INPUT_PX = 2048  # side of the input, at which a batch of 16 faces takes 200 MB
DEFAULT_CROP_SCALE = 0.956  # side of FER+'s crop / longer side of YuNet's box; median of 577 faces
TEMPERATURES = (0.01, 100.0)  # lowest and highest
MAX_SUM_ERROR = 0.01  # deviation of a prior's sum from 1, so that rounded numbers are accepted
REQUIRED_KEYS = ('dan_ros.input_size', 'dan_ros.crop')
NUMERIC_KEYS = (*REQUIRED_KEYS, 'dan_ros.temperature', 'dan_ros.prior', 'dan_ros.prior_strength')
REMEDY = 'Convert the checkpoint again with `dan-ros convert`.'

# Name, NumPy's name of the element type, and shape without the batch, see `without_batch`.
Tensor = tuple[str, str, list[Any]]
Strength = float | tuple[float, ...]  # share of the prior to subtract, [0, 1], or one per class


@dataclass(frozen=True)
class ModelInfo:
    """Description of a model that a backend needs.

    Attributes:
        labels: canonical label of each of the C outputs.
        input_size: (height, width) of a face crop, pixels, each from 32 to 2048.
        crop_scale: side of the square crop / longer side of the face's box, from 0.1 to 10.
        source: training data, accuracy and license, as text.
        source_sha256: SHA-256 of the file the weights came from, hexadecimal, or ''.
        temperature: divisor of the logits, from 0.01 to 100.
        log_prior: natural logarithm of the probability of each class that the model learned to
            expect, [C]; () if unknown.
        prior_strength: share of `log_prior` that is subtracted from the logits by default, [0, 1]:
            one number, or one per class.
            See `probabilities.Calibrator`.

    Raises:
        ModelError: a value is outside its range.

    Example:
        >>> ModelInfo(labels=('happy', 'sad'), input_size=(96, 96)).to_metadata()['dan_ros.crop']
        'square 0.956'
    """

    labels: tuple[str, ...]
    input_size: tuple[int, int]
    crop_scale: float = DEFAULT_CROP_SCALE
    source: str = ''
    source_sha256: str = ''
    temperature: float = 1.0
    log_prior: tuple[float, ...] = ()
    prior_strength: Strength = 0.0

    def __post_init__(self) -> None:
        label_sets.canonical_indices(self.labels)
        if not all(MIN_INPUT_PX <= side <= MAX_INPUT_PX for side in self.input_size):
            raise ModelError(
                f'the sides of the input are outside {MIN_INPUT_PX} .. {MAX_INPUT_PX} pixels: '
                f'{shorten(self.input_size)}'
            )
        if not 0.1 <= self.crop_scale <= 10:
            raise ModelError(f'crop scale {self.crop_scale} is outside 0.1 .. 10')
        low, high = TEMPERATURES
        if not low <= self.temperature <= high:
            raise ModelError(f'temperature {self.temperature} is outside {low:g} .. {high:g}')
        if problem := self._problem_with_strength() or self._problem_with_prior():
            raise ModelError(problem)

    def _problem_with_strength(self) -> str:
        strengths = self._strengths()
        if not all(0 <= strength <= 1 for strength in strengths):
            return f'prior strength {self.prior_strength} is outside 0 .. 1'
        if len(strengths) not in (1, len(self.labels)):
            classes = count_of(len(self.labels), 'class', 'classes')
            return f'{count_of(len(strengths), "prior strength")} for {classes}'
        if any(strengths) and not self.log_prior:
            return 'a prior strength without a prior'
        return ''

    def _problem_with_prior(self) -> str:
        if not self.log_prior:
            return ''
        if len(self.log_prior) != len(self.labels):
            classes = count_of(len(self.labels), 'class', 'classes')
            return f'the prior has {count_of(len(self.log_prior), "number")} for {classes}'
        if not all(math.isfinite(value) and value <= 0 for value in self.log_prior):
            return f'the prior has a value that is not the logarithm of a share: {self.log_prior}'
        total = sum(math.exp(value) for value in self.log_prior)
        if abs(total - 1) > MAX_SUM_ERROR:
            return f'the prior is not a distribution: its shares have the sum {total:g}'
        return ''

    @property
    def side(self) -> int:
        """Side of a square input, pixels.

        Raises:
            ModelError: it is not square, as labeled faces are.
        """
        height, width = self.input_size
        if height != width:
            raise ModelError(f'the model takes {width}x{height} pixels, but faces are square')
        return height

    def _strengths(self) -> tuple[float, ...]:
        strength = self.prior_strength
        return strength if isinstance(strength, tuple) else (strength,)

    def to_metadata(self) -> dict[str, str]:
        """Return the keys and values to store in the file."""
        height, width = self.input_size
        prior = {}
        if self.log_prior:
            prior = {
                'dan_ros.prior': ','.join(f'{value:.6g}' for value in self.log_prior),
                'dan_ros.prior_strength': ','.join(f'{value:g}' for value in self._strengths()),
            }
        return {
            'dan_ros.labels': ','.join(self.labels),
            'dan_ros.input_size': f'{height}x{width}',
            'dan_ros.crop': f'{CROP_RULE} {self.crop_scale:g}',
            'dan_ros.source': self.source,
            'dan_ros.source_sha256': self.source_sha256,
            'dan_ros.temperature': f'{self.temperature:g}',
            **prior,
        }

    def check_graph(self, inputs: list[Tensor], outputs: list[Tensor], where: str) -> None:
        """Check that inputs and outputs, as a runtime reports them, match the metadata.

        Raises:
            ModelError: names, types or shapes differ.
        """
        faces = (INPUT_NAME, 'uint8', [*self.input_size, 3])
        logits = (OUTPUT_NAME, 'float32', [len(self.labels)])
        for found, expected in ((inputs, faces), (outputs, logits)):
            if found != [expected]:
                name, kind, shape = expected
                is_fixed = bool(found) and found[0][2][1:] == shape
                remedy = 'Export it again with a variable batch.' if is_fixed else REMEDY
                raise ModelError(
                    f'{where}: its metadata says {name}, {kind} '
                    f'[N, {", ".join(map(str, shape))}], but its graph has {found}. {remedy}'
                )

    @classmethod
    def from_onnx(cls, content: bytes, where: str) -> 'ModelInfo':
        """Check the bytes of an ONNX file and read its metadata.

        Raises:
            ModelError: see `inspect_onnx` and `from_metadata`.
        """
        return cls.from_metadata(inspect_onnx(content, where), where)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> 'ModelInfo':
        """Parse the keys and values of a file's `metadata_props`.

        Raises:
            ModelError: a key is missing, or its value is malformed or out of range.
        """
        try:
            return cls._parse(metadata)
        except KeyError as error:
            raise ModelError(
                f'{where} is an ONNX file, but not a model of this package: its metadata has no '
                f'{error.args[0]}. Make a model from a DAN checkpoint with `dan-ros convert`, or '
                'from another classifier with `dan-ros adopt`.'
            ) from None
        except ValueError:
            values = {key: shorten(metadata[key]) for key in NUMERIC_KEYS if key in metadata}
            raise ModelError(f'{where}: its metadata cannot be read: {values}. {REMEDY}') from None
        except ModelError as error:
            raise ModelError(
                f'{where}: its metadata is invalid: {shorten(error)}. {REMEDY}'
            ) from None

    @classmethod
    def _parse(cls, metadata: Mapping[str, str]) -> 'ModelInfo':
        size, crop = (metadata[key] for key in REQUIRED_KEYS)
        prior = metadata.get('dan_ros.prior', '')
        strengths = metadata.get('dan_ros.prior_strength', '0').split(',')
        height, width = size.split('x')
        rule, scale = crop.split()
        if rule != CROP_RULE:
            raise ModelError(f'unknown crop rule {rule!r}; this version supports {CROP_RULE!r}')
        return cls(
            labels=tuple(metadata['dan_ros.labels'].split(',')),
            input_size=(int(height), int(width)),
            crop_scale=float(scale),
            source=metadata.get('dan_ros.source', ''),
            source_sha256=metadata.get('dan_ros.source_sha256', ''),
            temperature=float(metadata.get('dan_ros.temperature', 1)),
            log_prior=tuple(float(value) for value in prior.split(',')) if prior else (),
            prior_strength=(
                tuple(float(value) for value in strengths)
                if len(strengths) > 1
                else float(strengths[0])
            ),
        )


def without_batch(shape: list[Any]) -> list[Any]:
    """Return a shape without its first side, unless that is fixed: a batch must be variable."""
    return shape if shape and isinstance(shape[0], int) else shape[1:]
