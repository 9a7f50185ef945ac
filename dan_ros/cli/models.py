# SPDX-License-Identifier: Apache-2.0
"""`dan-ros models`: list, verify and download model files."""

import sys

import click
from rich.markup import escape
from rich.table import Table

from dan_ros.cli.common import print_table
from dan_ros.errors import DamagedModelError, MissingModelError, ModelError
from dan_ros.model import store

STATES = {MissingModelError: 'missing', DamagedModelError: 'damaged'}


@click.group('models', invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the known models."""
    if ctx.invoked_subcommand is None:
        _print_models()


@command.command('list')
def list_models() -> None:
    """Show name, state and path of each model."""
    _print_models()


@command.command()
def verify() -> None:
    """Check each model against its SHA-256.

    The exit code is 1 if one is missing or invalid.
    """
    if not _print_models():
        sys.exit(1)


@command.command()
@click.argument('name', type=click.Choice(list(store.KNOWN_MODELS)))
def fetch(name: str) -> None:
    """Download a model into the user's cache.

    Prints the path of the verified file.
    """
    click.echo(store.fetch_model(name))


def _print_models() -> bool:
    """Print the table of models; return whether all of them are valid."""
    table = Table('name', 'state', 'what', box=None)
    table.add_column('where', overflow='fold')
    all_valid = True
    for model in store.KNOWN_MODELS.values():
        try:
            where = str(store.read_model(model.name).path)
            state = '[green]verified'
        except ModelError as error:
            all_valid, where = False, str(error)
            state = f'[red]{STATES.get(type(error), "unreadable")}'
        table.add_row(model.name, state, model.description, escape(where))
    print_table(table)
    return all_valid
