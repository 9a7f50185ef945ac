# SPDX-License-Identifier: Apache-2.0
"""Finds the bags that paths, patterns and folders refer to, and gives each a name."""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

from dan_ros.bag.reader import METADATA
from dan_ros.bag.storage import has_storage_suffix, uncompressed
from dan_ros.errors import DataError

STATE = '.dan_ros'  # hidden folder that marks a result folder
MAX_NAME_CHARACTERS = 100  # keeps file names below the limit of file systems
WRITE_AHEAD_LOG = '-wal'  # suffix of SQLite's write-ahead log


def means_many(sources: Sequence[Path], out: Path) -> bool:
    """Whether the sources are several paths, a pattern, or a folder of at least one bag.

    A folder with a single bag that is also to contain the results counts as one bag.
    """
    (first, *others) = sources
    if others or _is_pattern(first):
        return True
    found = _bags_at(first)
    if found == [first]:
        return False
    return len(found) >= (2 if out.resolve().is_relative_to(first.resolve()) else 1)


def find_bags(
    sources: Sequence[Path], on_unreadable: Callable[[OSError], object] = lambda error: None
) -> list[Path]:
    """Return the resolved paths of the bags, each once and sorted.

    A folder that is not a bag stands for all bags below it, except for hidden folders and for
    result folders of this command. A path that is not a pattern and not a bag, or cannot be read,
    is returned unchanged.

    Args:
        sources: paths of bags, patterns with *, ? and **, and folders of bags.
        on_unreadable: called for each folder below a source that cannot be read.

    Raises:
        DataError: a pattern matches nothing, or there are only result folders.
    """
    paths = [path for source in sources for path in _expand(source)]
    found = {bag.resolve() for path in paths for bag in _bags_at(path, on_unreadable)}
    if not found:
        raise DataError(f'there is no bag in {", ".join(map(str, sources))}')
    return sorted(bag for bag in found if bag.parent not in found)


def files_of(bag: Path) -> list[Path]:
    """Return the files that the content of a bag depends on, sorted.

    Raises:
        OSError: the folder cannot be read.
    """
    if not bag.is_dir():
        return [f for f in (bag, Path(f'{bag}{WRITE_AHEAD_LOG}')) if f.is_file() or f == bag]
    files = [f for f in sorted(bag.iterdir()) if f.is_file() and not f.name.startswith('._')]
    return [f for f in files if _is_part(f)] or files


def name_bags(bags: Iterable[Path], known: Mapping[Path, str]) -> dict[Path, str]:
    """Give each bag a name of letters, digits and `_.-` that starts with a letter.

    The name consists of as few trailing parts of the path as make it unique. The names of earlier
    runs are kept.

    Args:
        bags: resolved paths.
        known: name by resolved path, from earlier runs.

    Example:
        >>> name_bags([Path('/a/run1'), Path('/b/run1'), Path('/b/2024.mcap')], {})
        {PosixPath('/a/run1'): 'a-run1', PosixPath('/b/run1'): 'b-run1', \
PosixPath('/b/2024.mcap'): 'bag_2024'}
    """
    names = {bag: known[bag] for bag in bags if bag in known}
    taken = set(known.values())
    unnamed = [bag for bag in bags if bag not in names]
    depth = 1
    while unnamed:
        proposals = {bag: _join_parts(bag, depth) for bag in unnamed}
        counts = Counter(proposals.values())
        for bag, name in proposals.items():
            if counts[name] == 1 and name not in taken:
                names[bag] = name
            elif depth >= len(bag.parts):  # equal names, such as a_b and a:b
                names[bag] = next(n for i in count(2) if (n := f'{name}-{i}') not in taken)
                taken.add(names[bag])
        taken |= set(names.values())
        unnamed = [bag for bag in unnamed if bag not in names]
        depth += 1
    return {bag: names[bag] for bag in bags}


def _join_parts(bag: Path, depth: int) -> str:
    """Join the last parts of a path; the result starts with a letter.

    DuckDB and Spark would read a name of digits as a number or date.
    """
    stem = uncompressed(bag).stem if has_storage_suffix(bag) else bag.name
    parts = [part.strip('/') for part in (*bag.parts[:-1], stem)[-depth:]]
    name = re.sub(r'[^A-Za-z0-9_.-]', '_', '-'.join(part for part in parts if part))
    name = name[-MAX_NAME_CHARACTERS:]
    return name if re.match('[A-Za-z]', name) else f'bag_{name}'


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def _expand(source: Path) -> list[Path]:
    if not _is_pattern(source):
        return [source]
    if found := glob.glob(str(source), recursive=True):
        return [Path(path) for path in sorted(found)]
    raise DataError(f'no bag matches {source}; check the pattern')


def _is_part(file: Path) -> bool:
    name = file.name
    return name == METADATA or has_storage_suffix(Path(name.removesuffix(WRITE_AHEAD_LOG)))


def _bags_at(
    path: Path, on_unreadable: Callable[[OSError], object] = lambda error: None
) -> list[Path]:
    try:
        if (path / STATE).is_dir():
            return []
        return (path.is_dir() and _bags_in(path, on_unreadable, set())) or [path]
    except OSError:  # reading it as a bag will report the error
        return [path]


def _bags_in(
    folder: Path, on_unreadable: Callable[[OSError], object], seen: set[str]
) -> list[Path]:
    """Return the bags in a folder.

    Without metadata, its storage files are one bag, or one each if there are bags in subfolders.
    `seen` are the resolved paths of the folders that were searched, because links may form a loop.
    """
    real = os.path.realpath(folder)
    if real in seen or (folder / STATE).is_dir():
        return []
    seen.add(real)
    entries = sorted(folder.iterdir())
    parts = [f for f in entries if _is_part(f) and f.is_file() and not f.name.startswith('._')]
    if any(part.name == METADATA for part in parts):
        return [folder]
    bags = []
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith('.'):
            try:
                bags += _bags_in(entry, on_unreadable, seen)
            except OSError as error:
                on_unreadable(error)
    if parts and not bags:
        return [folder]
    files = [part for part in parts if has_storage_suffix(part)]
    return bags + [f for f in files if uncompressed(f) == f or uncompressed(f) not in files]
