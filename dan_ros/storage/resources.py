# SPDX-License-Identifier: Apache-2.0
"""Find data files that are installed with this package, such as models and recipes."""

from collections.abc import Iterator
from pathlib import Path


def data_folders(name: str) -> Iterator[Path]:
    """Yield folders of 'models', 'msg' or 'recipes': in the source tree, then of installations."""
    package = Path(__file__).absolute().parents[1]
    yield package.resolve().parent / name
    for parent in package.parents:
        yield parent / 'share' / 'dan_ros' / name
