"""What a model file says of itself: the metadata of the ONNX contract.

Any tool can read it: it stands in the file's `metadata_props`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dan_ros import labels as label_sets
from dan_ros.errors import ModelError, cut
from dan_ros.model.onnx_file import parse_onnx

INPUT_NAME = 'faces'
OUTPUT_NAME = 'logits'
CROP_RULE = 'square'
MIN_INPUT_PX = 32  # the network halves its input five times
MAX_INPUT_PX = 2048  # a batch of 16 faces has 200 MB then; networks in use have 96 to 224
Tensor = tuple[str, str, list[Any]]  # name, element type as NumPy calls it, shape after the batch
DEFAULT_CROP_SCALE = 0.956  # side of FER+'s framing over max(w, h) of YuNet's box, on 577 faces


@dataclass(frozen=True)
class ModelInfo:
    """Everything outside the graph that is needed to use a model.

    Attributes:
        labels: canonical label of each output, C of them.
        input_size: (height, width) of a face, pixels, each from 32 to 2048.
        crop_scale: side of the square crop over the longer side of the face's box.
        source: what it was trained on, how well it does, licence; for people.
        source_sha256: SHA-256 of the file the weights came from, hexadecimal, or ''.

    Raises:
        ModelError: a value is none that a model can have.
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
                f'the sides of the input have to be {MIN_INPUT_PX} .. {MAX_INPUT_PX} pixels, not '
                f'{cut(self.input_size)}'
            )
        if not 0.1 <= self.crop_scale <= 10:
            raise ModelError(f'crop scale {self.crop_scale} is outside 0.1 .. 10')

    def to_metadata(self) -> dict[str, str]:
        """Metadata as it stands in the file."""
        height, width = self.input_size
        return {
            'dan_ros.labels': ','.join(self.labels),
            'dan_ros.input_size': f'{height}x{width}',
            'dan_ros.crop': f'{CROP_RULE} {self.crop_scale:g}',
            'dan_ros.source': self.source,
            'dan_ros.source_sha256': self.source_sha256,
        }

    def check_graph(self, inputs: list[Tensor], outputs: list[Tensor], where: str) -> None:
        """Refuse a graph that is not what its metadata says; `where` is the file's name.

        Raises:
            ModelError: names, types or shapes differ.
        """
        faces = (INPUT_NAME, 'uint8', [*self.input_size, 3])
        logits = (OUTPUT_NAME, 'float32', [len(self.labels)])
        for found, expected in ((inputs, faces), (outputs, logits)):
            if found != [expected]:
                name, kind, shape = expected
                raise ModelError(
                    f'{where}: its metadata promises {name}, {kind} '
                    f'[N, {", ".join(map(str, shape))}], its graph has {found}. '
                    'Make the file anew with `dan-ros convert`.'
                )

    @classmethod
    def from_onnx(cls, content: bytes, where: str) -> 'ModelInfo':
        """Read the metadata of an ONNX file's bytes; `where` and errors as in `from_metadata`."""
        model = parse_onnx(content, where)
        return cls.from_metadata({p.key: p.value for p in model.metadata_props}, where)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> 'ModelInfo':
        """Read a file's metadata.

        Args:
            metadata: keys and values of `metadata_props`.
            where: the file's name, for messages.

        Raises:
            ModelError: a key is missing or has a value that can't be read or be right.
        """
        try:
            height, width = metadata['dan_ros.input_size'].split('x')
            rule, scale = metadata['dan_ros.crop'].split()
            if rule != CROP_RULE:
                raise ModelError(f'unknown crop rule {rule!r}, this version has {CROP_RULE!r}')
            return cls(
                labels=tuple(metadata['dan_ros.labels'].split(',')),
                input_size=(int(height), int(width)),
                crop_scale=float(scale),
                source=metadata.get('dan_ros.source', ''),
                source_sha256=metadata.get('dan_ros.source_sha256', ''),
            )
        except KeyError as error:
            raise ModelError(
                f'{where} is an ONNX file, but not one of this package: its metadata lacks '
                f'{error.args[0]}. Make one from a DAN checkpoint with `dan-ros convert`.'
            ) from None
        except ValueError:
            values = {
                key: cut(metadata.get(key, '')) for key in ('dan_ros.input_size', 'dan_ros.crop')
            }
            raise ModelError(
                f'{where}: its metadata can not be read: {values}. '
                'Make the file anew with `dan-ros convert`.'
            ) from None
        except ModelError as error:
            raise ModelError(
                f'{where}: its metadata is wrong: {cut(error)}. '
                'Make the file anew with `dan-ros convert`.'
            ) from None
