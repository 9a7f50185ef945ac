# SPDX-License-Identifier: Apache-2.0
"""Compares the current pipeline with that of an earlier commit, on the same moving faces.

    python3 benchmarks/against_baseline.py [--rounds 30] [--baseline COMMIT]

Both run alternately, in separate processes, so other load on the machine affects both
equally: the ratios of the medians are more reliable than the times. Takes about a minute.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from skimage.data import astronaut

from dan_ros.bench.scenes import make_moving_scenes

BASELINE = '245feea'
ROOT = Path(__file__).parents[1]
CHILD = Path(__file__).with_name('video_process.py')
FACE = np.ascontiguousarray(astronaut()[30:230, 120:320, ::-1])  # uint8 [200, 200, 3], BGR
SIZE = (640, 480)
STEPS = 5  # images in which the faces move down, followed by as many in which they move up
SEARCHED_IN_FULL = (1, 1)  # detector.interval of the baseline and of the current version
SEARCHED_IN_PARTS = (1, 10)  # every new face is found at most one image late
SAME_INTERVAL = (5, 5)
TURN_PX = 12  # motion between two images of a camera that turns
NOISE = 4.0  # standard deviation, gray levels


class Version:
    """One version of the package and its process.

    Attributes:
        root: folder of the sources.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._is_today = root == ROOT
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': f'{root}:{os.environ.get("PYTHONPATH", "")}'},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def time_video(self, images: Path, intervals: tuple[int, int]) -> dict[str, float]:
        """Process all images once; see `video_process.Cycle`."""
        assert self._process.stdin
        assert self._process.stdout
        request = json.dumps({'images': str(images), 'interval': intervals[self._is_today]})
        print(request, file=self._process.stdin, flush=True)
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer


@dataclass(frozen=True)
class Row:
    """One measurement that is compared.

    Attributes:
        title: what is measured.
        goal: largest ratio of the current median to the baseline's, or None.
        measure: returns the values of one run of a version, by name.
    """

    title: str
    goal: float | None
    measure: Callable[[Version], dict[str, float]]


def video_rows(folder: Path) -> list[Row]:
    """Write the images and return the rows about the pipeline over time."""
    scenes = {faces: np.stack(make_moving_scenes(SIZE, faces, FACE, STEPS)) for faces in (1, 4)}
    turning = np.stack([np.roll(image, TURN_PX * i, axis=1) for i, image in enumerate(scenes[1])])
    cases: list[tuple[str, np.ndarray, tuple[int, int], float | None]] = [
        ('one face', scenes[1], SEARCHED_IN_FULL, None),
        ('four faces', scenes[4], SEARCHED_IN_FULL, None),
        ('one face, in parts', scenes[1], SEARCHED_IN_PARTS, 0.55),
        ('four faces, in parts', scenes[4], SEARCHED_IN_PARTS, 0.6),
        ('one face, the camera turns, in parts', turning, SEARCHED_IN_PARTS, None),
        (f'one face, detector.interval {SAME_INTERVAL[0]}', scenes[1], SAME_INTERVAL, None),
    ]
    rows = []
    for title, images, intervals, goal in cases:
        path = folder / f'{title}.npy'
        np.save(path, add_noise(images))
        rows.append(Row(title, goal, partial(Version.time_video, images=path, intervals=intervals)))
    return rows


def add_noise(images: np.ndarray) -> np.ndarray:
    """Add the noise of a camera's sensor, so that no part of an image is equal to the last one."""
    noise = np.random.default_rng(0).normal(0, NOISE, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def extract(commit: str, folder: Path) -> Path:
    """Write the sources of a commit to a folder and return it."""
    archive = subprocess.run(  # noqa: S603
        ['git', '-C', str(ROOT), 'archive', commit],  # noqa: S607
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter='data')
    return folder


@click.command()
@click.option('--rounds', default=30, show_default=True, type=click.IntRange(1))
@click.option('--baseline', default=BASELINE, show_default=True, help='Commit to compare with.')
def main(rounds: int, baseline: str) -> None:
    """Measure alternately and print the medians and their ratios."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        roots = {baseline: extract(baseline, folder / baseline), 'today': ROOT}
        versions = {n: stack.enter_context(Version(root)) for n, root in roots.items()}
        table = Table('', '', baseline, 'today', 'ratio', 'goal', box=None)
        stack.callback(lambda: Console().print(table))  # also after Ctrl-C
        for row in video_rows(folder):
            for cells in compare(row, versions, rounds):
                table.add_row(*cells)
            table.add_section()


def compare(row: Row, versions: dict[str, Version], rounds: int) -> list[list[str]]:
    """Measure the variants of a row alternately; return one line of cells per value."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    for _ in range(rounds):
        for name, version in versions.items():
            runs[name].append(row.measure(version))
    lines = []
    for value in next(iter(runs.values()))[0]:
        before, today = (statistics.median(run[value] for run in runs[name]) for name in versions)
        lines.append(
            [
                row.title,
                value,
                f'{before:.2f}',
                f'{today:.2f}',
                f'{today / before:.2f}',
                f'{row.goal or ""}',
            ]
        )
    return lines


if __name__ == '__main__':
    main()
