# SPDX-License-Identifier: Apache-2.0
"""Metadata of this package's models, stored in the `metadata_props` of the ONNX file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dan_ros import labels as label_sets
from dan_ros.errors import ModelError, shorten
from dan_ros.model.onnx_file import inspect_onnx

INPUT_NAME = 'faces'
OUTPUT_NAME = 'logits'
CROP_RULE = 'square'
MIN_INPUT_PX = 32  # side of the input; the network halves it five times
MAX_INPUT_PX = 2048  # side of the input; a batch of 16 faces takes 200 MB then
DEFAULT_CROP_SCALE = 0.956  # side of FER+'s crop / longer side of YuNet's box; median of 577 faces
NUMERIC_KEYS = ('dan_ros.input_size', 'dan_ros.crop')
REMEDY = 'Convert the checkpoint again with `dan-ros convert`.'

Tensor = tuple[str, str, list[Any]]  # name, NumPy's name of the element type, shape without batch


@dataclass(frozen=True)
class ModelInfo:
    """What a backend must know to use a model.

    Attributes:
        labels: canonical label of each of the C outputs.
        input_size: (height, width) of a face crop, pixels, each from 32 to 2048.
        crop_scale: side of the square crop / longer side of the face's box, from 0.1 to 10.
        source: training data, accuracy and license, for people to read.
        source_sha256: SHA-256 of the file the weights came from, hexadecimal, or ''.

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

    def __post_init__(self) -> None:
        label_sets.canonical_indices(self.labels)
        if not all(MIN_INPUT_PX <= side <= MAX_INPUT_PX for side in self.input_size):
            raise ModelError(
                f'the sides of the input are outside {MIN_INPUT_PX} .. {MAX_INPUT_PX} pixels: '
                f'{shorten(self.input_size)}'
            )
        if not 0.1 <= self.crop_scale <= 10:
            raise ModelError(f'crop scale {self.crop_scale} is outside 0.1 .. 10')

    def to_metadata(self) -> dict[str, str]:
        """Return the keys and values to store in the file."""
        height, width = self.input_size
        return {
            'dan_ros.labels': ','.join(self.labels),
            'dan_ros.input_size': f'{height}x{width}',
            'dan_ros.crop': f'{CROP_RULE} {self.crop_scale:g}',
            'dan_ros.source': self.source,
            'dan_ros.source_sha256': self.source_sha256,
        }

    def check_graph(self, inputs: list[Tensor], outputs: list[Tensor], where: str) -> None:
        """Check that the inputs and outputs of a graph match its metadata.

        Args:
            inputs, outputs: as the runtime reports them.
            where: the file's name, for messages.

        Raises:
            ModelError: names, types or shapes differ.
        """
        faces = (INPUT_NAME, 'uint8', [*self.input_size, 3])
        logits = (OUTPUT_NAME, 'float32', [len(self.labels)])
        for found, expected in ((inputs, faces), (outputs, logits)):
            if found != [expected]:
                name, kind, shape = expected
                raise ModelError(
                    f'{where}: its metadata says {name}, {kind} '
                    f'[N, {", ".join(map(str, shape))}], but its graph has {found}. {REMEDY}'
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

        Args:
            metadata: keys and values.
            where: the file's name, for messages.

        Raises:
            ModelError: a key is missing, or its value is malformed or out of range.
        """
        try:
            return cls._parse(metadata)
        except KeyError as error:
            raise ModelError(
                f'{where} is an ONNX file, but not a model of this package: its metadata has no '
                f'{error.args[0]}. Make a model from a DAN checkpoint with `dan-ros convert`.'
            ) from None
        except ValueError:
            values = {key: shorten(metadata.get(key, '')) for key in NUMERIC_KEYS}
            raise ModelError(f'{where}: its metadata cannot be read: {values}. {REMEDY}') from None
        except ModelError as error:
            raise ModelError(
                f'{where}: its metadata is invalid: {shorten(error)}. {REMEDY}'
            ) from None

    @classmethod
    def _parse(cls, metadata: Mapping[str, str]) -> 'ModelInfo':
        size, crop = (metadata[key] for key in NUMERIC_KEYS)
        height, width = size.split('x')
        rule, scale = crop.split()
        if rule != CROP_RULE:
            raise ModelError(f'unknown crop rule {rule!r}; this version knows {CROP_RULE!r}')
        return cls(
            labels=tuple(metadata['dan_ros.labels'].split(',')),
            input_size=(int(height), int(width)),
            crop_scale=float(scale),
            source=metadata.get('dan_ros.source', ''),
            source_sha256=metadata.get('dan_ros.source_sha256', ''),
        )
