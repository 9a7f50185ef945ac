# SPDX-License-Identifier: Apache-2.0
"""Files of a training run, all written atomically."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dan_ros.errors import TrainingError, first_line
from dan_ros.network.checkpoint import NOTES_KEY
from dan_ros.storage.atomic import atomic_write, try_lock


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers, strings, lists and dicts; raises as `save_text`."""
    file = io.BytesIO()  # torch.save would hide the error of a full disk
    torch.save(content, file)
    _write(path, file.getbuffer())


def check_exists(path: Path) -> None:
    """Raise a TrainingError if there is no checkpoint."""
    if not path.is_file():
        raise TrainingError(f'there is no checkpoint at {path}; train without --resume')


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Raises:
        TrainingError: the file is missing or damaged.
    """
    check_exists(path)
    try:
        content: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises many unrelated classes for damaged files
        raise TrainingError(
            f'{path} is damaged ({first_line(error)}); train without --resume in another folder'
        ) from None
    if not isinstance(content, dict) or 'recipe' not in content:
        raise TrainingError(
            f'{path} is not a training checkpoint; train without --resume in another folder'
        )
    return content


def save_weights(path: Path, state: dict[str, torch.Tensor], notes: dict[str, Any]) -> None:
    """Write tensors and notes as safetensors; raises as `save_text`.

    All notes share one metadata key, because safetensors writes several keys in random order. The
    tensors have the official names of DAN; see `network.checkpoint.read_notes` for the notes.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = save(state, metadata={NOTES_KEY: json.dumps(notes)})
    _write(path, content)


def save_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Write one JSON line per epoch; raises as `save_text`."""
    save_text(path, ''.join(f'{json.dumps(epoch)}\n' for epoch in history))


def save_text(path: Path, text: str) -> None:
    """Write a text file; file names in it keep bytes that are not UTF-8.

    Raises:
        TrainingError: the file cannot be written; an older one is kept.
    """
    _write(path, text.encode(errors='surrogateescape'))


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other training runs out of a folder, which is created if needed.

    Raises:
        TrainingError: another training run holds it, or it cannot be created or written.
    """
    path = folder / '.lock'
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f'cannot create the folder {folder}: {error.strerror}') from None
    try:
        file = path.open('ab')
    except OSError as error:
        raise TrainingError(f'{path} cannot be written: {error.strerror}') from None
    with file:
        if not try_lock(file):
            raise TrainingError(
                f'another training run writes into {folder}; wait for its end or choose another '
                'folder'
            )
        yield


def _write(path: Path, content: bytes | memoryview) -> None:
    try:
        atomic_write(path, lambda file: file.write(content))
    except OSError as error:
        raise TrainingError(f'{path} cannot be written: {error.strerror or error}') from None
