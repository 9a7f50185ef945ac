# SPDX-License-Identifier: Apache-2.0
"""Compares the current node with that of an earlier commit, over DDS.

    python3 benchmarks/node_against_baseline.py [--rounds 5] [--seconds 10] [--baseline COMMIT]

Builds the baseline in a temporary folder first. The nodes run alternately, each time in a new
process and a new ROS domain, so other load on the machine affects both equally: the ratios of the
medians are more reliable than the times. Takes 3 minutes.
"""

import itertools
import json
import os
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from against_baseline import BASELINE, ROOT, extract
from parts import scene
from rich.console import Console
from rich.table import Table

CHILD = Path(__file__).with_name('node_process.py')
FIRST_DOMAIN = 120
INHERITED = ('HOME', 'PATH', 'LANG', 'ROS_DISTRO', 'RMW_IMPLEMENTATION')


@dataclass(frozen=True)
class Case:
    """Images to send.

    Attributes:
        size: (width, height), pixels; one face.
        transport: raw or compressed.
        rate_hz: images per second.
    """

    size: tuple[int, int]
    transport: str
    rate_hz: float

    @property
    def title(self) -> str:
        """Description for people."""
        return f'{self.size[0]}x{self.size[1]} {self.transport}, {self.rate_hz:g} Hz'


CASES = (Case((640, 480), 'raw', 30.0), Case((1920, 1080), 'compressed', 15.0))


def build(commit: str, folder: Path) -> Path:
    """Build the package of a commit, with the Python environment of this checkout."""
    extract(commit, folder)
    if (ROOT / '.venv').exists():
        (folder / '.venv').symlink_to(ROOT / '.venv')
    command = 'python3 -m colcon build --packages-select dan_ros --cmake-args -DBUILD_TESTING=OFF'
    subprocess.run(command.split(), cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return folder


def measure(root: Path, case: Case, image: Path, seconds: float, domain: int) -> dict[str, float]:
    """Run `node_process.py` in the environment of a built checkout."""
    arguments = [str(image), case.transport, str(case.rate_hz), str(seconds), str(domain)]
    profile = ROOT / 'config' / 'fastdds_large_images.xml'  # avoids the loss of large images
    output = subprocess.run(  # noqa: S603
        ['bash', '-c', '. "$0/env.sh" && exec python3 "$@"', str(root), str(CHILD), *arguments],  # noqa: S607
        env={
            'FASTDDS_DEFAULT_PROFILES_FILE': str(profile),
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
        },
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    values: dict[str, float] = json.loads(output.splitlines()[-1])
    return values


@click.command()
@click.option('--rounds', default=5, show_default=True, type=click.IntRange(1))
@click.option('--seconds', default=10.0, show_default=True, help='Duration of a measurement.')
@click.option('--baseline', default=BASELINE, show_default=True, help='Commit to compare with.')
def main(rounds: int, seconds: float, baseline: str) -> None:
    """Measure alternately and print the medians and their ratios."""
    domains = itertools.count(FIRST_DOMAIN)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        roots = {baseline: build(baseline, folder / baseline), 'today': ROOT}
        table = Table('', '', baseline, 'today', 'ratio', box=None)
        stack.callback(lambda: Console().print(table))  # also after Ctrl-C
        for case in CASES:
            image = folder / 'image.npy'
            np.save(image, scene(*case.size, 1))
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in roots}
            for _, (name, root) in itertools.product(range(rounds), roots.items()):
                runs[name].append(measure(root, case, image, seconds, next(domains)))
            for value in runs['today'][0]:
                old, new = (statistics.median(run[value] for run in runs[n]) for n in roots)
                table.add_row(case.title, value, f'{old:.2f}', f'{new:.2f}', f'{new / old:.2f}')
            table.add_section()


if __name__ == '__main__':
    main()
