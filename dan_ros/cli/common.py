# SPDX-License-Identifier: Apache-2.0
"""Functions shared by the subcommands: optional packages, models, tables, a progress bar."""

import functools
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dan_ros.backends import BACKENDS, NO_SERVER, Backend, ServerConfig, open_backend
from dan_ros.backends.base import smoke_test
from dan_ros.backends.kserve.config import EXAMPLE, Address
from dan_ros.datasets import catalog
from dan_ros.datasets.faces import SPLITS, VALID, Faces, summarize, summarize_skipped
from dan_ros.detect import DETECTORS
from dan_ros.errors import BackendError, DanError
from dan_ros.labels import LABEL_SETS
from dan_ros.model import store
from dan_ros.model.metadata import ModelInfo
from dan_ros.pipeline import PipelineConfig
from dan_ros.probabilities import Calibration, Prior

if TYPE_CHECKING:
    from dan_ros.backends.torch import TorchBackend
    from dan_ros.evaluate.evaluator import Evaluation, Predict

PATH = click.Path(path_type=Path)  # type of the options and arguments that are paths
CHECKPOINT_SUFFIXES = ('.pth', '.pt', '.safetensors')
TRAINING_MODULES = ('torch', 'yaml', 'safetensors', 'pydantic')
KSERVE = 'kserve'
LOCAL_BACKENDS = tuple(name for name in BACKENDS if name != KSERVE)  # these need no --url
PIPED_COLUMNS = 1000  # more than any table needs
SERVER_OPTIONS = {  # fields of ServerConfig
    'url': f'Address of the server of the backend kserve, such as {EXAMPLE}.',
    'model_name': 'Name of the model on the server. Default: the name of the local model file.',
    'timeout_ms': 'Deadline of a call to the server, milliseconds; then the local model answers.',
    'token_file': 'File with a bearer token for the server.',
    'ca_file': 'PEM file with the certificates to trust.',
}


class FloatRange(click.FloatRange):
    """A range of numbers without NaN, which click accepts in every range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f'{value!r} is not a number', param, ctx)
        return number


# Options of several commands.
output_option = click.option(
    '-o',
    '--output',
    type=PATH,
    required=True,
    callback=lambda context, option, path: _refuse_checkpoint(path),
    help='The ONNX file to write.',
)
labels_option = click.option(
    '--labels',
    'label_set',
    type=click.Choice(list(LABEL_SETS)),
    help='Class order of an official checkpoint.',
)
detector_option = click.option(
    '--detector',
    default='auto',
    show_default=True,
    type=click.Choice(DETECTORS),
    help='Face detector.',
)
max_side_option = click.option(
    '--max-side',
    'max_side_px',
    default=PipelineConfig.max_side_px,
    show_default=True,
    type=click.IntRange(64, 4096),
    help='Longer side of the downscaled image that the detector searches, pixels.',
)
split_option = click.option(
    '--split',
    default=VALID,
    show_default=True,
    type=click.Choice(SPLITS),
    help='Part of the data set to use.',
)


def dataset_option(source: str) -> Callable[..., Any]:
    """Return the option --dataset for the data in `source`, an argument or option."""
    return click.option(
        '--dataset',
        default='auto',
        show_default=True,
        type=click.Choice(('auto', *catalog.DATASETS)),
        help=f'Name of the data set in {source}; auto recognizes it by its files, never by '
        'numbered folders.',
    )


def backend_option(backends: Sequence[str]) -> Callable[..., Any]:
    """Return the option --backend with these choices."""
    return click.option(
        '--backend',
        default='auto',
        show_default=True,
        type=click.Choice(backends),
        help='Library that runs the network.',
    )


def pipeline_options(
    command: Callable[..., Any], backends: Sequence[str] = LOCAL_BACKENDS
) -> Callable[..., Any]:
    """Add --model, --backend and --detector; kserve needs `server_options` as well."""
    model = click.option(
        '--model',
        default=store.DEFAULT_MODEL,
        show_default=True,
        help='Known model (see `dan-ros models`) or ONNX file.',
    )
    command = backend_option(backends)(detector_option(command))
    return model(command)


def need(*modules: str, extra: str = '') -> None:
    """Check that optional modules are installed; `extra` is the pip extra with them, or none.

    Raises:
        DanError: one is missing; the message says what to install.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or module
            packages = ' '.join(map(pip_name, modules))
            raise DanError(
                f'this command needs the Python package {pip_name(missing)!r}: '
                f'`pip install {packages}`' + (f' (the extra {extra!r})' if extra else '')
            ) from None


def pip_name(module: str) -> str:
    """Return the name for pip of the package with a module."""
    return 'pyyaml' if module == 'yaml' else module


def probability_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --prior and --calibration, as `prior: Prior` and `calibration: Calibration | None`."""
    calibration = click.option(
        '--calibration',
        type=PATH,
        callback=lambda context, option, path: _read_calibration(path),
        help='File of `dan-ros calibrate`.',
    )
    prior = click.option(
        '--prior',
        default='model',
        show_default=True,
        callback=lambda context, option, text: Prior.parse(text),
        help='How often each expression occurs: model, none, balanced, or eight shares with sum 1, '
        'separated by commas, in the order of the message.',
    )
    return calibration(prior(command))


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the backend kserve, as `server: ServerConfig`."""

    @functools.wraps(command)
    def with_server(**values: Any) -> Any:
        settings = {name: values.pop(name) for name in SERVER_OPTIONS}
        given = [name for name in SERVER_OPTIONS if settings[name] != getattr(NO_SERVER, name)]
        if given and not settings['url']:
            raise click.UsageError(f'--{given[0].replace("_", "-")} needs --url')
        if given:
            Address.parse(settings['url'])
            if values.get('backend', KSERVE) != KSERVE:
                raise click.UsageError(f'--url needs --backend {KSERVE}')
        return command(server=ServerConfig(**settings), **values)

    for name, text in reversed(SERVER_OPTIONS.items()):
        default = getattr(NO_SERVER, name)
        flag = f'--{name.replace("_", "-")}'
        with_server = click.option(flag, name, default=default, type=type(default), help=text)(
            with_server
        )
    return with_server


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --temperature, --prior and --strength, which are stored in a model file."""
    temperature = click.option(
        '--temperature', type=FloatRange(0.01, 100), help='Divisor of the logits.'
    )
    prior = click.option(
        '--prior',
        'shares',
        callback=lambda context, option, text: _parse_shares(text),
        help='Share of each class that the model learned to expect, separated by commas, in the '
        "order of the model's labels.",
    )
    strength = click.option(
        '--strength',
        type=FloatRange(0, 1),
        help='Share of the prior that is subtracted by default.',
    )
    return temperature(prior(strength(command)))


def _refuse_checkpoint(path: Path) -> Path:
    if is_checkpoint(str(path)):
        raise click.BadParameter(f'{path} would be a checkpoint: give a name that ends in .onnx')
    return path


def check_is_other_file(output: Path, source: Path) -> None:
    """Check that writing `output` does not replace the file that it is made from.

    Raises:
        click.BadParameter: it does.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise click.BadParameter(
            f'it would replace {source}: give another name', param_hint='--output'
        )


def _parse_shares(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        shares = tuple(float(part) for part in text.split(','))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 1 for share in shares):
        raise click.BadParameter('give one share for each label, each above 0, with sum 1')
    return shares


def with_probabilities(
    info: ModelInfo, temperature: float | None, shares: tuple[float, ...], strength: float | None
) -> ModelInfo:
    """Return the metadata with the values of `model_options` that were given.

    Raises:
        ModelError: the shares are not a distribution over the model's classes.
        UsageError: there is a strength, but no prior.
    """
    changes: dict[str, Any] = {}
    if temperature is not None:
        changes['temperature'] = temperature
    if shares:
        changes['log_prior'] = tuple(math.log(share) for share in shares)
    if strength is not None:
        if strength and not (shares or info.log_prior):
            raise click.UsageError('--strength needs a prior, which this model does not store')
        changes['prior_strength'] = strength
    return replace(info, **changes)


def _read_calibration(path: Path | None) -> Calibration | None:
    if path is None:
        return None
    need('yaml')
    return Calibration.read(path)


def is_checkpoint(model: str) -> bool:
    """Return whether `model` is the path of a checkpoint.

    >>> is_checkpoint('affecnet8.pth'), is_checkpoint('dan_ferplus')
    (True, False)
    """
    return Path(model).suffix in CHECKPOINT_SUFFIXES


def open_model(
    model: str, backend: str, label_set: str | None, server: ServerConfig = NO_SERVER
) -> Backend:
    """Open a known model, an ONNX file or a checkpoint.

    A checkpoint runs only on torch, and needs a label set if it does not store its labels.

    Raises:
        DanError: it cannot be opened.
    """
    if not is_checkpoint(model):
        _refuse_labels(label_set)
        return open_backend(backend, model, server=server)
    if backend not in ('auto', 'torch'):
        raise BackendError(
            f'{model} is a checkpoint, which runs only on torch; convert it to a model file for '
            f'{backend} with `dan-ros convert`'
        )
    return open_torch_model(model, label_set)


def open_torch_model(model: str, label_set: str | None) -> 'TorchBackend':
    """Open a model with float weights, or a checkpoint, on torch; see `open_model`."""
    need('torch', 'safetensors', 'onnx')
    from dan_ros.backends.torch import TorchBackend

    if is_checkpoint(model):
        backend = _open_checkpoint(model, label_set)
    else:
        _refuse_labels(label_set)
        backend = TorchBackend.read(store.read_model(model))
    smoke_test(backend)
    return backend


def _refuse_labels(label_set: str | None) -> None:
    if label_set:
        raise click.UsageError('--labels is for checkpoints: an ONNX file stores its labels')


def _open_checkpoint(model: str, label_set: str | None) -> 'TorchBackend':
    from dan_ros.backends.torch import TorchBackend
    from dan_ros.network.checkpoint import fuse_checkpoint, read_notes

    path = store.expand_path(model)
    labels = LABEL_SETS[label_set] if label_set else None
    network, info = fuse_checkpoint(path, labels=labels)
    if not read_notes(path):
        click.echo(
            f'{model} does not store how its faces were preprocessed; using the preprocessing of '
            'the official checkpoints: 224 px, color, ImageNet mean and std. For other checkpoints '
            'use `dan-ros convert` first.',
            err=True,
        )
    return TorchBackend(network, info, model)


def open_faces(data: Path, dataset: str, split: str, labels: tuple[str, ...]) -> tuple[str, Faces]:
    """Open labeled faces, and name their data set.

    `dataset` may be 'auto'; `labels` are those of the model.

    Raises:
        DataError: the data set cannot be recognized or opened.
    """
    name = catalog.guess_dataset(data, labels) if dataset == 'auto' else dataset
    return name, catalog.open_faces(name, data, split)


def evaluate_faces(faces: Faces, labels: tuple[str, ...], predict: 'Predict') -> 'Evaluation':
    """Classify faces with a progress bar; see `evaluate.evaluator.evaluate`."""
    from dan_ros.evaluate.evaluator import evaluate

    with progress_bar() as bar:
        task = bar.add_task('evaluating')
        return evaluate(
            faces,
            labels,
            predict,
            lambda done, count: bar.update(task, completed=done, total=count),
        )


def print_summary(dataset: str, split: str, faces: Faces, full_list: str, err: bool) -> None:
    """Print a summary of the data, and on standard error the images that are left out.

    `full_list` names the file that lists all of these images, or is ''. With `err`, everything goes
    to standard error.
    """
    for line in summarize(dataset, split, faces):
        click.echo(line, err=err)
    for line in summarize_skipped(faces.skipped, full_list):
        click.echo(line, err=True)


def warn(message: str | None) -> None:
    """Print a warning, if there is one, on standard error."""
    if message:
        click.echo(f'Warning: {message}', err=True)


def print_table(table: Table) -> None:
    """Print a table on standard output; in a file or a pipe, it is as wide as its content."""
    console = Console()
    if not sys.stdout.isatty():
        console.width = PIPED_COLUMNS
    console.print(table)


def progress_bar(
    amount: str = '{task.completed} of {task.total}', speed_period_s: float = 30.0
) -> Progress:
    """Return a progress bar on standard error, shown only on a terminal.

    The remaining time is estimated from the speed in the last `speed_period_s`.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn('{task.description}', markup=False),  # may contain a path
        BarColumn(),
        TextColumn(f'{amount}, left'),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=speed_period_s,
        redirect_stdout=sys.stdout.isatty(),  # otherwise it would also go to standard error
    )
