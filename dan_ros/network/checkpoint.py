# SPDX-License-Identifier: Apache-2.0
"""Read DAN checkpoints: the official `.pth` files, this package's own, and safetensors.

A pickle can run code, so users convert checkpoints once with `dan-ros convert`; the node only
reads ONNX.
"""

import hashlib
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dan_ros.errors import ModelError, count_of, first_line
from dan_ros.model.metadata import DEFAULT_CROP_SCALE, MAX_INPUT_PX, MIN_INPUT_PX, ModelInfo
from dan_ros.model.normalization import IMAGENET_MEAN, IMAGENET_STD
from dan_ros.network import fuse
from dan_ros.network.dan import DAN
from dan_ros.storage.file_content import CHECKPOINT, explain_wrong_file

SAFE_TORCH = (2, 6)  # first version whose weights_only=True runs no code, see CVE-2025-32434
NOTES_KEY = 'dan_ros'  # key in the safetensors metadata
OFFICIAL_INPUT_SIZE = 224
# Exceptions that torch raises for a damaged file.
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError)


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
    """Load a checkpoint and fuse it with its preprocessing.

    If an argument is None, its value comes from the notes in the checkpoint (see `read_notes`), or
    else from the official training: 224 px, ImageNet's mean and std, color. Labels must be in the
    notes if they are not given.

    Args:
        path: the checkpoint, see `load_dan`.
        labels: canonical labels in the order of the classifier's outputs.
        input_size: side of the input in pixels.
        mean, std, grey: see `fuse.fuse`.
        crop_scale, source: see `ModelInfo`.

    Raises:
        ModelError: the checkpoint cannot be read, or an argument does not fit it.
    """
    dan = load_dan(path)
    notes = read_notes(path)
    labels = _choose_labels(path, dan, labels, tuple(notes.get('labels', ())))
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
            mean or notes.get('mean', IMAGENET_MEAN),
            std or notes.get('std', IMAGENET_STD),
            notes.get('grey', False) if grey is None else grey,
        )
    except (ValueError, ModelError) as error:
        raise ModelError(f'{path}: {error}') from None
    return fused, info


def _choose_labels(
    path: Path, dan: DAN, given: tuple[str, ...] | None, stored: tuple[str, ...]
) -> tuple[str, ...]:
    if given and stored and given != stored:
        raise ModelError(
            f'{path} was trained with the labels {", ".join(stored)}, but got {", ".join(given)}; '
            'leave out --labels'
        )
    labels = given or stored
    if not labels:
        raise ModelError(f'{path} does not contain its labels; give them with --labels')
    if dan.fc.out_features != len(labels):
        raise ModelError(
            f'{path} has {count_of(dan.fc.out_features, "class", "classes")}, but got '
            f'{count_of(len(labels), "label")}: '
            f'{", ".join(labels)}'
        )
    return labels


def read_notes(path: Path) -> dict[str, Any]:
    """Read the notes that `dan-ros train` stores in a safetensors file; {} in other files.

    `labels`, `input_size`, `mean`, `std` and `grey` describe the network's input and output;
    `source` describes its training data and accuracy.

    Raises:
        ModelError: the notes are invalid.
    """
    if not _is_safetensors(path):
        return {}
    from safetensors import safe_open

    with safe_open(path, 'numpy') as file:
        text = (file.metadata() or {}).get(NOTES_KEY, '{}')
    try:
        notes = json.loads(text)
    except ValueError:
        notes = None
    if not isinstance(notes, dict):
        raise ModelError(f'{path}: its metadata {NOTES_KEY!r} is not a JSON object')
    for name, is_valid in NOTES.items():
        if name in notes and not is_valid(notes[name]):
            raise ModelError(f'{path}: its metadata has an invalid {name}: {notes[name]!r}')
    return notes


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(v, float) for v in value)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


# Validity check per note.
NOTES: dict[str, Callable[[Any], bool]] = {
    'labels': _are_names,
    'input_size': lambda value: type(value) is int and MIN_INPUT_PX <= value <= MAX_INPUT_PX,
    'mean': _are_numbers,
    'std': _are_numbers,
    'grey': lambda value: isinstance(value, bool),
    'source': lambda value: isinstance(value, str),
}


def load_dan(path: Path) -> DAN:
    """Load a checkpoint of a whole DAN, in evaluation mode, with strict names and shapes.

    Accepts the official format `{'model_state_dict': ...}`, a bare state dict, both also with the
    `module.` prefix of DataParallel, and safetensors.

    Raises:
        ModelError: the file is missing, is not a checkpoint, or does not fit DAN.
    """
    state = read_state(path)
    state = {str(name).removeprefix('module.'): _to_float32(v) for name, v in state.items()}
    num_head = len({name.split('.')[0] for name in state if name.startswith('cat_head')})
    if not num_head or 'fc.weight' not in state or state['fc.weight'].ndim != 2:
        raise ModelError(
            f'{path} is not a DAN: `cat_head0` or `fc.weight` is missing in '
            f'{count_of(len(state), "entry", "entries")}, the first of which is '
            f'{next(iter(state), "")!r}. Use a checkpoint of the whole network, with the names of '
            'the official ones, not only of its ResNet-18.'
        )
    with torch.device('meta'):  # skip random initialization
        dan = DAN(num_class=state['fc.weight'].shape[0], num_head=num_head)
    try:
        dan.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        problems = '; '.join(line.strip() for line in str(error).splitlines()[1:4])
        raise ModelError(f'{path} does not fit DAN: {problems[:400]}') from None
    return dan.eval()


def _to_float32(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of any network's checkpoint by name.

    Raises:
        ModelError: the file is missing or is not a checkpoint.
    """
    if not path.is_file():
        raise ModelError(f'there is no checkpoint at {path}')
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path) if _is_safetensors(path) else _unpickle_state(path)
    except (*UNREADABLE, SafetensorError) as error:
        raise ModelError(f'{path} {_why_unreadable(path, error)}') from None


def _why_unreadable(path: Path, error: Exception) -> str:
    if 'TorchScript' in str(error):
        return (
            'is a TorchScript program, which can run any code; where you trust it, save its '
            'weights: `torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)`'
        )
    if words := explain_wrong_file(path, 'a checkpoint', CHECKPOINT):
        return words
    if isinstance(error, pickle.UnpicklingError):
        return (
            'contains more than tensors, such as a pickled model, and could run code; '
            'load it where it was written and save its state_dict()'
        )
    return f'cannot be read as a checkpoint ({first_line(error)}); download it again'


def _is_safetensors(path: Path) -> bool:
    """Whether the file starts like safetensors: the size of its JSON header, then the header."""
    with path.open('rb') as file:
        return file.read(9)[8:] == b'{'


def _unpickle_state(path: Path) -> dict[str, torch.Tensor]:
    if tuple(int(part) for part in torch.__version__.split('.')[:2]) < SAFE_TORCH:
        raise ModelError(
            f'torch {torch.__version__} can run code hidden in a checkpoint (CVE-2025-32434); '
            'install torch 2.6 or newer'
        )
    with path.open('rb') as file, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about TorchScript, which then raises an error
        # Given a path, torch would decide by its suffix.
        content = torch.load(file, map_location='cpu', weights_only=True)
    state = content if isinstance(content, dict) else None
    for name in ('model_state_dict', 'state_dict'):
        state = state.get(name, state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(
            f'{path} is neither a state dict nor a dict with `model_state_dict`; '
            'save the state_dict() of the model instead'
        )
    return state
