# SPDX-License-Identifier: Apache-2.0
"""Find data files that are installed with this package, such as models and recipes."""

from collections.abc import Iterator
from pathlib import Path


def data_folders(name: str) -> Iterator[Path]:
    """Yield the folders that may hold data: in the source tree, then under install prefixes.

    Args:
        name: 'models', 'msg' or 'recipes'.
    """
    package = Path(__file__).absolute().parents[1]
    yield package.resolve().parent / name
    for parent in package.parents:
        yield parent / 'share' / 'dan_ros' / name
