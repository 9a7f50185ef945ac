"""`dan-ros models`: which model files there are, whether they are sound, and fetching them."""

import sys

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dan_ros.errors import ModelError
from dan_ros.model import store


@click.group('models', invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the models this version knows; see also the subcommands."""
    if ctx.invoked_subcommand is None:
        _print_models()


@command.command('list')
def list_models() -> None:
    """Name, state and place of each model."""
    _print_models()


@command.command()
def verify() -> None:
    """Check every model against its SHA-256; exit with 1 if one is missing or damaged."""
    if not _print_models():
        sys.exit(1)


@command.command()
@click.argument('name', type=click.Choice(list(store.KNOWN_MODELS)))
def fetch(name: str) -> None:
    """Fetch NAME into the user's cache and check it."""
    click.echo(store.fetch_model(name))


def _print_models() -> bool:
    """Print the table; whether all models are there and sound."""
    table = Table('name', 'state', 'what', box=None)
    table.add_column('where', overflow='fold')
    sound = True
    for model in store.KNOWN_MODELS.values():
        try:
            where = str(store.read_model(model.name).path)
            state = '[green]verified'
        except ModelError as error:
            sound, state, where = False, '[red]missing', str(error)
        table.add_row(model.name, state, model.what, escape(where))
    Console().print(table)
    return sound
