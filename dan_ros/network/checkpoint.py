"""Read DAN checkpoints: the official `.pth` files, this package's own, and safetensors.

A pickle can run code, so this is done once, by a person, with `dan-ros convert`; the node reads
ONNX alone.
"""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dan_ros.errors import ModelError
from dan_ros.model.metadata import DEFAULT_CROP_SCALE, MAX_INPUT_PX, MIN_INPUT_PX, ModelInfo
from dan_ros.network import fuse
from dan_ros.network.dan import DAN

SAFE_TORCH = (2, 6)  # before it, weights_only=True can execute code: CVE-2025-32434
NOTES_KEY = 'dan_ros'  # of the safetensors metadata
OFFICIAL_INPUT_SIZE = 224


def fuse_checkpoint(
    path: Path,
    *,
    labels: tuple[str, ...] | None = None,
    input_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    grey: bool | None = None,
    crop_scale: float = DEFAULT_CROP_SCALE,
    source: str = '',
) -> tuple[fuse.FusedDAN, ModelInfo]:
    """Make the finished network of a checkpoint: its own preprocessing in front, all fused.

    What is None is taken from the notes that this package's training leaves in a checkpoint, then
    from the official training: 224 px, ImageNet's mean and std, colour. Labels have no default.

    Args:
        path: the checkpoint, see `load_dan`.
        labels: canonical labels in the order of the classifier's outputs.
        input_size: side of a face, pixels.
        mean, std, grey: see `fuse.fuse`.
        crop_scale, source: see `ModelInfo`.

    Raises:
        ModelError: the checkpoint can't be read, or these do not fit it.
    """
    dan = load_dan(path)
    notes = read_notes(path)
    labels = labels or tuple(notes.get('labels', ()))
    if not labels:
        raise ModelError(
            f'{path} does not say which classes it was trained with; name them with --labels'
        )
    if dan.fc.out_features != len(labels):
        raise ModelError(
            f'{path} has {dan.fc.out_features} classes, but {len(labels)} labels are given: '
            f'{", ".join(labels)}'
        )
    side = input_size or notes.get('input_size', OFFICIAL_INPUT_SIZE)
    try:
        info = ModelInfo(
            labels=labels,
            input_size=(side, side),
            crop_scale=crop_scale,
            source=source or str(notes.get('source', path.name)),
            source_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        fused = fuse.fuse(
            dan,
            mean or notes.get('mean', fuse.IMAGENET_MEAN),
            std or notes.get('std', fuse.IMAGENET_STD),
            notes.get('grey', False) if grey is None else grey,
        )
    except (ValueError, ModelError) as error:
        raise ModelError(f'{path}: {error}') from None
    return fused, info


def read_notes(path: Path) -> dict[str, Any]:
    """What this package's training wrote beside the weights; {} where it did not.

    `labels`, `input_size`, `mean`, `std` and `grey` say how faces have to be prepared, `source`
    what it was trained on.

    Raises:
        ModelError: the notes are not what this package writes.
    """
    if path.suffix != '.safetensors':
        return {}
    from safetensors import safe_open

    with safe_open(path, 'numpy') as file:
        text = (file.metadata() or {}).get(NOTES_KEY, '{}')
    try:
        notes = json.loads(text)
    except ValueError:
        notes = None
    if not isinstance(notes, dict):
        raise ModelError(f'{path}: its metadata {NOTES_KEY!r} is no JSON object')
    for name, is_right in NOTES.items():
        if name in notes and not is_right(notes[name]):
            raise ModelError(f'{path}: its metadata has {name} {notes[name]!r}, which is no {name}')
    return notes


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(v, float) for v in value)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


# What may stand in the notes of a checkpoint, and how it has to look.
NOTES: dict[str, Callable[[Any], bool]] = {
    'labels': _are_names,
    'input_size': lambda value: type(value) is int and MIN_INPUT_PX <= value <= MAX_INPUT_PX,
    'mean': _are_numbers,
    'std': _are_numbers,
    'grey': lambda value: isinstance(value, bool),
    'source': lambda value: isinstance(value, str),
}


def load_dan(path: Path) -> DAN:
    """Build the DAN a checkpoint holds, in evaluation mode, with strict names and shapes.

    Takes the official format `{'model_state_dict': ...}`, a bare state dict, either of them with
    the `module.` prefix of DataParallel, and safetensors.

    Raises:
        ModelError: the file is missing, is not a checkpoint, or does not fit DAN.
    """
    state = read_state(path)
    state = {str(name).removeprefix('module.'): value for name, value in state.items()}
    num_head = len({name.split('.')[0] for name in state if name.startswith('cat_head')})
    if not num_head or 'fc.weight' not in state or state['fc.weight'].ndim != 2:
        raise ModelError(
            f'{path} holds no DAN: its {len(state)} entries lack `cat_head0` or `fc.weight`. '
            'An official checkpoint holds the whole network, not only its ResNet-18.'
        )
    dan = DAN(num_class=state['fc.weight'].shape[0], num_head=num_head)
    try:
        dan.load_state_dict(state, strict=True)
    except RuntimeError as error:
        problems = '; '.join(line.strip() for line in str(error).splitlines()[1:4])
        raise ModelError(f'{path} does not fit DAN: {problems[:400]}') from None
    return dan.eval()


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint by name, whatever network they belong to.

    Raises:
        ModelError: the file is missing or is not a checkpoint.
    """
    if not path.is_file():
        raise ModelError(f'there is no checkpoint at {path}')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file

            return load_file(path)
        return _unpickle_state(path)
    except pickle.UnpicklingError:
        raise ModelError(
            f'{path} holds more than tensors, such as a whole pickled model, which may run code; '
            'load it where it was made and save its state_dict()'
        ) from None
    except (RuntimeError, EOFError, LookupError, ValueError) as error:
        raise ModelError(
            f'{path} can not be read as a checkpoint ({_first_line(error)}); get the file anew'
        ) from None
    except Exception as error:  # safetensors raises its own class, with no public base
        if type(error).__module__.startswith('safetensors'):
            raise ModelError(f'{path} is not a safetensors file: {_first_line(error)}') from None
        raise


def _unpickle_state(path: Path) -> dict[str, torch.Tensor]:
    if tuple(int(part) for part in torch.__version__.split('.')[:2]) < SAFE_TORCH:
        raise ModelError(
            f'torch {torch.__version__} can run code hidden in a checkpoint (CVE-2025-32434); '
            'install torch 2.6 or newer to convert one'
        )
    content = torch.load(path, map_location='cpu', weights_only=True)
    state = content if isinstance(content, dict) else None
    for name in ('model_state_dict', 'state_dict'):
        state = state.get(name, state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(
            f'{path} is not a state dict, nor a dict with `model_state_dict`; '
            'a whole pickled model can not be read: save its state_dict() instead'
        )
    return state


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
