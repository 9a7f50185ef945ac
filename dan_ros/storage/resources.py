"""Where the files lie that come with this package and are no Python: models, recipes."""

from collections.abc import Iterator
from pathlib import Path


def data_folders(name: str) -> Iterator[Path]:
    """Folders that may hold this package's files of one kind: source tree, install prefix.

    Args:
        name: 'models', 'msg' or 'recipes'.
    """
    here = Path(__file__).absolute().parents[1]
    yield here.resolve().parent / name
    for parent in here.parents:
        yield parent / 'share' / 'dan_ros' / name
