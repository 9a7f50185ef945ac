"""What several subcommands need: optional packages, and models that may still be checkpoints."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dan_ros.backends import Backend, open_backend
from dan_ros.backends.base import smoke_test
from dan_ros.datasets import catalog
from dan_ros.errors import BackendError, DanError
from dan_ros.labels import LABEL_SETS
from dan_ros.model import store

if TYPE_CHECKING:
    from dan_ros.backends.torch import TorchBackend

DATASETS = ('auto', *catalog.DATASETS)
CHECKPOINT_SUFFIXES = ('.pth', '.pt', '.safetensors')
TRAINING_MODULES = ('torch', 'yaml', 'safetensors', 'pydantic')
PACKAGES = {'yaml': 'pyyaml'}  # where a package is not called like its module


def need(*modules: str) -> None:
    """Raise a DanError that says what to install where one of `modules` is missing."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or module
            packages = ' '.join(PACKAGES.get(name, name) for name in modules)
            raise DanError(
                f'this command needs the Python package {PACKAGES.get(missing, missing)!r}: '
                f'`pip install {packages}` brings all it takes'
            ) from None


def is_checkpoint(model: str) -> bool:
    """Whether `model` names a checkpoint and not a model file."""
    return Path(model).suffix in CHECKPOINT_SUFFIXES


def open_model(model: str, backend: str, label_set: str | None) -> Backend:
    """Open a known model, an ONNX file or a checkpoint.

    Args:
        model: its name or path.
        backend: one of `BACKENDS`; a checkpoint runs on torch alone.
        label_set: name of the classes' order, for a checkpoint that does not say it.

    Raises:
        DanError: it can't be opened.
    """
    if not is_checkpoint(model):
        return open_backend(backend, model)
    if backend not in ('auto', 'torch'):
        raise BackendError(
            f'{model} is a checkpoint, which only torch runs; `dan-ros convert` makes a model file '
            f'of it for {backend}'
        )
    return open_torch_model(model, label_set)


def open_torch_model(model: str, label_set: str | None) -> 'TorchBackend':
    """Open a model with float weights, or a checkpoint, with torch; arguments as above."""
    need('torch', 'safetensors', 'onnx')
    from dan_ros.backends.torch import TorchBackend
    from dan_ros.network.checkpoint import fuse_checkpoint, read_notes

    if not is_checkpoint(model):
        backend = TorchBackend.read(store.read_model(model))
        smoke_test(backend)
        return backend
    path = store.expand_path(model)
    labels = LABEL_SETS[label_set] if label_set else None
    network, info = fuse_checkpoint(path, labels=labels)
    if not read_notes(path):
        click.echo(
            f'{model} does not say how its faces were prepared: taken as the official checkpoints, '
            '224 px, colour, mean and std of ImageNet. For others use `dan-ros convert` first.',
            err=True,
        )
    backend = TorchBackend(network, info, model)
    smoke_test(backend)
    return backend


def progress_bar() -> Progress:
    """A bar with the time left on a terminal's standard error, nothing elsewhere; a context."""
    console = Console(stderr=True)
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.completed} of {task.total}, left'),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
