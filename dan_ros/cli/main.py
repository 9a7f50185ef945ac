# SPDX-License-Identifier: Apache-2.0
"""Entry point of the command `dan-ros`."""

import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from dan_ros import __version__
from dan_ros.errors import DanError

# Shown by `dan-ros --help`; the module of a subcommand is imported only when it runs.
SUBCOMMANDS = {
    'predict': 'Find faces in images and print their expressions.',
    'view': 'Show a node, camera, video or bag on a local web page.',
    'bag': 'Add facial expressions to a recorded bag.',
    'calibrate': 'Adapt a model to a camera with a few labeled faces.',
    'explain': 'Show which parts of a face each attention head uses.',
    'train': 'Train DAN from a recipe; can be stopped and resumed.',
    'evaluate': 'Measure a model on labeled faces and write a report.',
    'convert': 'Convert a DAN checkpoint to a model file for the node.',
    'adopt': 'Make a model file from another ONNX expression classifier.',
    'average': 'Average the weights of two checkpoints.',
    'export': 'Export a model file for another runtime or precision.',
    'engine': 'Build, list and delete TensorRT engines.',
    'bench': 'Measure the speed on this machine and suggest settings.',
    'models': 'List, verify and download model files.',
    'serve-config': 'Write the files that a server needs to run models for many robots.',
    'doctor': 'Check versions, models, backends and detectors on this machine.',
}
EXIT_INTERRUPTED = 130  # exit code after SIGINT and SIGTERM


class _LazyGroup(click.Group):
    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        _make_printable()
        with _stopped_by_signals():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _stopped_by_signals():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        module = importlib.import_module(f'dan_ros.cli.{cmd_name.replace("-", "_")}')
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section('Commands'):
            formatter.write_dl(list(SUBCOMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(__version__, prog_name='dan-ros')
def cli() -> None:
    """Facial expression recognition with DAN; these commands need no ROS."""


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Give signals our exit code; click's own is 1."""
    try:
        yield
    except (KeyboardInterrupt, click.Abort):  # Abort: Ctrl-C at a question
        click.echo('Stopped', err=True)
        sys.exit(EXIT_INTERRUPTED)


def _make_printable() -> None:
    """Let any output take any text: closed ones, and file names that its encoding lacks."""
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'w'))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


class _Interrupted(KeyboardInterrupt):
    """Raised by a signal.

    After a plain KeyboardInterrupt within an import, `python -m` ends with SIGINT instead of the
    exit code.
    """


def _interrupt(*_: object) -> NoReturn:
    raise _Interrupted


def main() -> None:
    """Run a command.

    An error of this package, or of the file system, is one line on standard error and exit code 1.
    After Ctrl-C or SIGTERM the command cleans up and ends with exit code 130.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # False under nohup
        signal.signal(signal.SIGINT, _interrupt)
    try:
        cli(prog_name='dan-ros')
    except DanError as error:
        click.echo(f'Error: {error}', err=True)
        sys.exit(1)
    except OSError as error:
        where = f'{error.filename}: ' if error.filename else ''
        click.echo(f'Error: {where}{error.strerror or error}; choose another path', err=True)
        sys.exit(1)


if __name__ == '__main__':
    main()
