"""Entry point of `dan-ros`."""

import importlib
import signal
import sys
from typing import Any, NoReturn

import click

from dan_ros import __version__
from dan_ros.errors import DanError

# What `dan-ros --help` says of each subcommand; its module is imported only when it is called.
SUBCOMMANDS = {
    'predict': 'Find faces in pictures and say what they express.',
    'bag': 'Judge every image of a recorded bag; bag in, bag out.',
    'explain': 'Show where each attention head looks in a face.',
    'train': 'Train DAN by a recipe; stop and resume at any time.',
    'evaluate': 'Measure a model on labelled faces: a page with numbers and pictures.',
    'convert': 'Turn a DAN checkpoint into a model file for the node.',
    'export': 'Write a model file again for another runtime.',
    'engine': 'Build, list and clean TensorRT engines before deployment.',
    'bench': 'Measure how fast this machine runs all of it, and say what to set.',
    'models': 'List, verify and fetch model files.',
    'doctor': 'Check this machine: versions, models, one real inference on each backend.',
}


STOPPED = 130  # exit code after SIGINT, as shells give it, and after SIGTERM


class _LazyGroup(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo('Stopped', err=True)
            sys.exit(STOPPED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        module = importlib.import_module(f'dan_ros.cli.{cmd_name}')
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section('Commands'):
            formatter.write_dl(list(SUBCOMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(__version__, prog_name='dan-ros')
def cli() -> None:
    """Facial expressions with DAN: everything that needs no ROS."""


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; an error of ours is one line on standard error and exit code 1.

    Ctrl-C and SIGTERM alike end it when it has tidied up, with exit code 130.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        cli(prog_name='dan-ros')
    except DanError as error:
        click.echo(f'Error: {error}', err=True)
        sys.exit(1)
    except OSError as error:
        where = f'{error.filename}: ' if error.filename else ''
        click.echo(f'Error: {where}{error.strerror or error}; name another place', err=True)
        sys.exit(1)


if __name__ == '__main__':
    main()
