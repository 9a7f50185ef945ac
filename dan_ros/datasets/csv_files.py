# SPDX-License-Identifier: Apache-2.0
"""Read text and CSV files, and report damaged ones as `DataError`."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from dan_ros.errors import DataError


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 text file.

    Raises:
        DataError: the file is missing or is not text.
    """
    return list(_iterate_lines(path))


def read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read a CSV file row by row: number of the line, and the cells without surrounding spaces.

    Raises:
        DataError: the file is missing, or is not a CSV file.
    """
    rows = csv.reader(_iterate_lines(path), skipinitialspace=True)
    try:
        for row in rows:
            if row:
                yield rows.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise DataError(f'{path}, line {rows.line_num}: not a CSV file ({error})') from None


def read_header(path: Path) -> list[str]:
    """Column names of a CSV file in lower case; [] if it cannot be read."""
    try:
        return [cell.lower() for cell in next(read_csv(path), (1, []))[1]]
    except DataError:
        return []


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header: number of the line, and cells by name in lower case.

    Raises:
        DataError: the file is missing, is not a CSV file, or has no column of one of the names.
    """
    rows = read_csv(path)
    header = [cell.lower() for cell in next(rows, (1, []))[1]]
    if any(name not in header for name in columns):
        raise DataError(
            f'{path}: the first line must name the columns {", ".join(columns)}; it has '
            f'{", ".join(header) or "none"}'
        )
    for number, cells in rows:
        blank = [''] * (len(header) - len(cells))
        yield number, dict(zip(header, cells + blank, strict=False))


def _iterate_lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            yield from file
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror}') from None
    except UnicodeDecodeError:
        raise DataError(f'{path} is not a UTF-8 text file') from None
