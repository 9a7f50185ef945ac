"""`dan-ros bench`: how fast this machine runs dan_ros, and what to set."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from operator import sub
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.markup import escape

from dan_ros import __version__
from dan_ros.backends.base import available_cpus, node_threads
from dan_ros.bench.backends import BATCHES, Networks, Unavailable, compare_networks, open_networks
from dan_ros.bench.machine import describe_machine
from dan_ros.bench.pipelines import (
    COUNTS,
    SIZES,
    TYPICAL_WIDTH,
    WITH_INTERVAL,
    PipelineTimes,
    compare_detectors,
    detector_way,
    open_detectors,
    open_pipelines,
    threads_way,
    time_pipelines,
)
from dan_ros.bench.scenes import draw_face, face_of
from dan_ros.bench.tables import comparison_table, steps_table
from dan_ros.bench.timer import Comparison, Limit
from dan_ros.bench.tuning import Advice, Saving, advise
from dan_ros.cli.common import need, progress_bar
from dan_ros.detect import Detector
from dan_ros.errors import DanError, DataError, ModelError
from dan_ros.images.files import open_picture
from dan_ros.model import store
from dan_ros.storage.atomic import atomic_write_bytes

BUSY = 0.5  # load over cores, from which the machine has other work
PARTS = len(BATCHES) + 1 + len(SIZES) * len(COUNTS)


class UsageProblem(click.ClickException):
    """A model or picture that was named can't be used: one line and exit code 2."""

    exit_code = 2


@dataclass
class Measured:
    """Everything there is to say.

    Attributes:
        machine: it was measured on, before it began.
        defaults: what the node takes here by default.
        absent: what can't be measured here.
        networks: by number of faces.
        detectors: by width of the image.
        pipelines: by size of the image and number of faces.
        advice: that follows.
    """

    machine: dict[str, str]
    defaults: dict[str, str]
    absent: list[Unavailable]
    networks: list[Comparison]
    detectors: Comparison
    pipelines: list[PipelineTimes]
    advice: Advice
    notes: list[str] = field(default_factory=list)

    @property
    def comparisons(self) -> list[Comparison]:
        """Those of networks, detectors and pipelines."""
        return [*self.networks, self.detectors, *self.pipelines]

    @property
    def steps_ms(self) -> dict[str, dict[str, float]]:
        """Of the pipeline at the node's defaults, by what it looks at."""
        return {
            times.title.removeprefix('pipeline, '): times.steps_ms[times.baseline]
            for times in self.pipelines
        }

    def to_json(self) -> dict[str, Any]:
        """As it is printed and written."""

        def of(comparison: Comparison) -> dict[str, Any]:
            return {**asdict(comparison), 'times_faster': comparison.times_faster}

        return {
            'version': __version__,
            'machine': self.machine,
            'defaults': self.defaults,
            'networks': [of(comparison) for comparison in self.networks],
            'detectors': of(self.detectors),
            'pipelines': [of(times) for times in self.pipelines],
            'absent': [asdict(one) for one in self.absent],
            'notes': self.notes,
            'advice': asdict(self.advice),
        }


@click.command('bench')
@click.option(
    '--model',
    'models',
    multiple=True,
    help='A known model or an ONNX file instead of the bundled ones; may be repeated, the first is '
    "the pipeline's.",
)
@click.option(
    '--image',
    type=click.Path(path_type=Path),
    help='A picture whose largest face is measured on, instead of a drawn one.',
)
@click.option(
    '--seconds',
    default=25.0,
    show_default=True,
    type=click.FloatRange(0.0),
    help='To measure for, besides what it takes to open everything. Of each part at least a turn.',
)
@click.option('--json', 'as_json', is_flag=True, help='Everything measured as one JSON object.')
@click.option('--out', type=click.Path(path_type=Path), help='Folder for bench.json and bench.png.')
def command(
    models: tuple[str, ...], image: Path | None, seconds: float, as_json: bool, out: Path | None
) -> None:
    """Measure how fast this machine runs the network, the detectors and the pipeline.

    All ways to do the same take turns, times are medians. Needs no ROS, and measures what is
    installed. Ends with what to set.
    """
    if out:
        need('matplotlib')
        out.mkdir(parents=True, exist_ok=True)
    try:
        models = tuple(model for model in models if model != store.DEFAULT_MODEL)
        for model in models:
            store.read_model(model)
        measured = measure(models, image, seconds)
    except ModelError as error:
        raise UsageProblem(str(error)) from None
    if as_json:
        click.echo(json.dumps(measured.to_json()))
    else:
        _print(measured)
    if out:
        _write(measured, out)
        click.echo(f'numbers and picture: {out}', err=as_json)
    if not as_json:
        click.echo(measured.advice.text)


def measure(models: Sequence[str], image: Path | None, seconds: float) -> Measured:
    """Open and measure everything, with a bar on a terminal."""
    machine = describe_machine()
    threads, limit = node_threads(), Limit(seconds=seconds / PARTS)
    with progress_bar() as bar:
        task = bar.add_task('opening', total=PARTS)
        networks = open_networks(models, threads, lambda text: bar.update(task, description=text))
        detectors, absent = open_detectors(threads)
        face = _face(image, next(iter(detectors.values())))
        by_batch = []
        for batch in BATCHES:
            bar.update(task, description=f'network, {batch} face(s)')
            by_batch.append(compare_networks(networks, batch, limit))
            bar.advance(task)
        bar.update(task, description='detectors')
        by_width = compare_detectors(detectors, face, limit)
        bar.advance(task)
        opened = open_pipelines(networks.choice.backend, next(iter(detectors)))
        times = []
        for size, count in product(SIZES, COUNTS):
            bar.update(task, description=f'pipeline, {size[0]}x{size[1]}, {count} face(s)')
            times.append(time_pipelines(opened, size, count, face, limit))
            bar.advance(task)
    defaults = _defaults(networks, next(iter(detectors)), threads)
    return Measured(
        machine,
        defaults,
        networks.absent + absent,
        by_batch,
        by_width,
        times,
        _advise(networks, by_batch[0], by_width, times[0], next(iter(detectors))),
        _notes(machine, times),
    )


def _face(image: Path | None, detector: Detector) -> np.ndarray:
    """Picture of a face to measure on."""
    if image is None:
        return draw_face()
    try:
        face = face_of(open_picture(image), detector)
    except DataError as error:
        raise UsageProblem(str(error)) from None
    if face is None:
        raise UsageProblem(f'{image}: {detector.name} finds no face in it; name another picture')
    return face


def _defaults(networks: Networks, detector: str, threads: int) -> dict[str, str]:
    backend = networks.choice.backend
    return {
        'backend.name': backend.name,
        'model.file': backend.model_name,
        'precision': networks.default.precision,
        'device': backend.device,
        'detector.name': detector,
        'backend.threads': str(threads),
    }


def _advise(
    networks: Networks,
    on_one_face: Comparison,
    by_width: Comparison,
    times: PipelineTimes,
    detector: str,
) -> Advice:
    time_ms = times.times_ms[times.baseline]
    best = min(networks.alike, key=lambda way: on_one_face.times_ms[str(way)])
    network_ms = (on_one_face.times_ms[str(way)] for way in (networks.default, best))
    by_side = (by_width.times_ms[detector_way(detector, width)] for width in (TYPICAL_WIDTH, 320))
    all_cores = threads_way(available_cpus())
    savings = [
        Saving(networks.parameters(best), sub(*network_ms), 'network'),
        Saving(WITH_INTERVAL, time_ms - times.times_ms[WITH_INTERVAL], 'detector'),
        Saving('detector.max_side_px: 320', sub(*by_side), 'detector'),
        Saving(
            f'backend.threads: {available_cpus()}', time_ms - times.times_ms[all_cores], 'threads'
        ),
    ]
    return advise(time_ms, savings, f'{networks.default}, {threads_way(node_threads())}')


def _notes(machine: dict[str, str], times: list[PipelineTimes]) -> list[str]:
    """What makes the numbers say less than they seem to."""
    notes = []
    if float(machine['load']) > BUSY * available_cpus():
        notes.append(
            f'the machine had other work before (load {machine["load"]} on {available_cpus()} cores): '
            'stop it for times of dan_ros alone'
        )
    for one, (_, count) in zip(times, product(SIZES, COUNTS), strict=True):
        if one.found != count:
            notes.append(
                f'{one.title}: {one.found} were found and judged, so its times are too short; '
                'try --image with a picture of a face'
            )
    return notes


def _print(measured: Measured) -> None:
    console = Console(soft_wrap=True)
    console.print(escape(', '.join(f'{key} {value}' for key, value in measured.machine.items())))
    for comparison in measured.comparisons:
        console.print()
        console.print(comparison_table(comparison))
    console.print()
    threads = threads_way(node_threads())
    console.print(steps_table(measured.steps_ms, f'steps of the pipeline, {threads}, median ms'))
    console.print()
    for one in measured.absent:
        console.print(f'[dim]not measured: {escape(one.what)}: {escape(one.why)}[/dim]')
    for note in measured.notes:
        console.print(f'[yellow]note: {escape(note)}[/yellow]')


def _write(measured: Measured, folder: Path) -> None:
    from dan_ros.bench.plots import draw_machine
    from dan_ros.evaluate.plots import encode

    machine = measured.machine
    figure = draw_machine(
        measured.comparisons,
        measured.steps_ms,
        f'dan_ros {__version__} on {machine["cpu"]}, {machine["cores"]} cores',
    )
    try:
        atomic_write_bytes(folder / 'bench.png', encode(figure))
        content = json.dumps(measured.to_json(), indent=2) + '\n'
        atomic_write_bytes(folder / 'bench.json', content.encode())
    except OSError as error:
        raise DanError(f'{folder} can not be written: {error.strerror}') from None
