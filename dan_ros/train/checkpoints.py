"""Files of a training, each written whole or not at all."""

import io
import json
from pathlib import Path
from typing import Any

import torch

from dan_ros.errors import TrainingError
from dan_ros.network.checkpoint import NOTES_KEY
from dan_ros.storage.atomic import atomic_write


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint: tensors, numbers, strings, lists and dicts; raises as `save_text`."""
    file = io.BytesIO()  # because torch.save hides the error of a full disk behind its own
    torch.save(content, file)
    _write(path, file.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; runs no code from the file.

    Raises:
        TrainingError: the file is missing or damaged.
    """
    if not path.is_file():
        raise TrainingError(f'there is no checkpoint to resume at {path}; train without --resume')
    try:
        content: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch's own unpickler raises whatever a damaged file leads to
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise TrainingError(
            f'{path} is damaged ({first_line}); train without --resume in another folder'
        ) from None
    if not isinstance(content, dict) or 'recipe' not in content:
        raise TrainingError(
            f'{path} is no checkpoint of a training; train without --resume in another folder'
        )
    return content


def save_weights(path: Path, state: dict[str, torch.Tensor], notes: dict[str, Any]) -> None:
    """Write tensors as safetensors, with the official names, and notes, see `read_notes`.

    All notes stand under one name, because safetensors writes several in random order. Raises as
    `save_text`.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = save(state, metadata={NOTES_KEY: json.dumps(notes)})
    _write(path, content)


def save_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Write one JSON line an epoch; raises as `save_text`."""
    save_text(path, ''.join(f'{json.dumps(epoch)}\n' for epoch in history))


def save_text(path: Path, text: str) -> None:
    """Write a text file; names of files in it keep whatever bytes they have.

    Raises:
        TrainingError: it can't be written; an older file stays.
    """
    _write(path, text.encode(errors='surrogateescape'))


def _write(path: Path, content: bytes | memoryview) -> None:
    try:
        atomic_write(path, lambda file: file.write(content))
    except OSError as error:
        raise TrainingError(f'{path} can not be written: {error.strerror or error}') from None
