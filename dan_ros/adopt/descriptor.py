# SPDX-License-Identifier: Apache-2.0
"""Descriptors of classifiers from other projects: information that their ONNX files lack."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict, field_validator, model_validator

from dan_ros.errors import ModelError
from dan_ros.labels import CANONICAL, canonical_label
from dan_ros.model.metadata import DEFAULT_CROP_SCALE, MAX_INPUT_PX, MIN_INPUT_PX
from dan_ros.model.normalization import MEAN_RANGE, STD_RANGE
from dan_ros.storage.resources import data_folders
from dan_ros.storage.settings_file import Settings, check_settings
from dan_ros.storage.yaml_file import read_yaml

FOLDER = 'recipes/adopt'  # folder of the descriptors of this package
Pixels = Annotated[int, Field(ge=MIN_INPUT_PX, le=MAX_INPUT_PX)]
PerChannel = Annotated[tuple[float, ...], Strict(False), Field(min_length=1, max_length=3)]


class Descriptor(Settings, frozen=True):
    """Description of a classifier's input and outputs.

    Attributes:
        labels: class of each output, in order, by any usual name, such as Happiness; None for an
            output that is not an expression, such as valence.
        input_size: side of the square input, or (height, width), pixels.
        color: channels of the input; gray is repeated if the input has three channels.
        layout: order of the input's axes: nchw or nhwc.
        mean, std: the input is (pixel / 255 - mean) / std; one number per channel, in the order of
            the channels, or one for all.
        outputs: whether the outputs are logits, or probabilities after a softmax.
        output: name of the graph's output with the classes; '' if only one fits `labels`.
        crop_scale: side of the square crop / longer side of the face's box.
        source: training data, accuracy, origin and license, as text.
    """

    labels: Annotated[tuple[str | None, ...], Strict(False), Field(min_length=2)]
    input_size: Pixels | Annotated[tuple[Pixels, Pixels], Strict(False)]
    color: Literal['rgb', 'bgr', 'gray'] = 'rgb'
    layout: Literal['nchw', 'nhwc'] = 'nchw'
    mean: PerChannel
    std: PerChannel
    outputs: Literal['logits', 'probabilities'] = 'logits'
    output: str = ''
    crop_scale: Annotated[float, Field(ge=0.1, le=10)] = DEFAULT_CROP_SCALE
    source: Annotated[str, Field(min_length=1)]

    @field_validator('labels', mode='after')
    @classmethod
    def _map_labels(cls, labels: tuple[str | None, ...]) -> tuple[str | None, ...]:
        mapped = tuple(None if name is None else canonical_label(name) for name in labels)
        for name, label in zip(labels, mapped, strict=True):
            if name is not None and label is None:
                raise ValueError(
                    f'unknown label {name!r}; use {", ".join(CANONICAL)}, a synonym such as '
                    'happiness, or null for an output that is not an expression'
                )
            if label is not None and mapped.count(label) > 1:
                raise ValueError(f'two outputs are {label}')
        if not any(mapped):
            raise ValueError('no output is an expression')
        return mapped

    @field_validator('mean', 'std', mode='after')
    @classmethod
    def _check_channels(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(values) == 2:
            raise ValueError('must be one number, or three')
        return values

    @model_validator(mode='after')
    def _check_ranges(self) -> 'Descriptor':
        for name, (low, high) in (('mean', MEAN_RANGE), ('std', STD_RANGE)):
            values = getattr(self, name)
            if not all(low <= value <= high for value in values):
                raise ValueError(
                    f'{name} must be from {low:g} to {high:g}, for pixels in 0 .. 1; divide a '
                    f'{name} for pixels in 0 .. 255 by 255'
                )
        return self

    @property
    def expressions(self) -> tuple[str, ...]:
        """Canonical labels of the outputs that are expressions, in their order."""
        return tuple(label for label in self.labels if label is not None)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input, pixels."""
        if isinstance(self.input_size, int):
            return self.input_size, self.input_size
        return self.input_size


def find_descriptor(name: str) -> Path:
    """Find a descriptor by its path, or by the name of a descriptor of this package.

    Raises:
        ModelError: neither exists.
    """
    path = Path(name)
    known = {file.stem: file for folder in data_folders(FOLDER) for file in folder.glob('*.yaml')}
    if path.suffix or name not in known:
        if not path.is_file():
            raise ModelError(
                f'there is no descriptor {name}: give a YAML file, or one of '
                f'{", ".join(sorted(known)) or "those of this package, which are not installed"}'
            )
        return path
    return known[name]


def read_descriptor(path: Path) -> Descriptor:
    """Read a descriptor file.

    Raises:
        ModelError: the file is missing, is not YAML, or has an unknown key or invalid value.
    """
    content = read_yaml(path, 'descriptor', ModelError)
    return check_settings(Descriptor, content, str(path), ModelError)
