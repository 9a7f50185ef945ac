# SPDX-License-Identifier: Apache-2.0
"""`dan-ros bench`: measure how fast this machine runs dan_ros, and suggest parameters."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from rich.console import Console
from rich.markup import escape

from dan_ros import __version__
from dan_ros.backends import NO_SERVER, BackendConfig, ServerConfig
from dan_ros.backends.base import available_cpus, node_threads
from dan_ros.bench.backends import BATCHES, Networks, Unavailable, compare_networks, open_networks
from dan_ros.bench.machine import describe_machine
from dan_ros.bench.pipelines import (
    COUNTS,
    DEFAULT_WIDTH,
    SIZES,
    WITH_INTERVAL,
    PipelineTimes,
    compare_detectors,
    detector_variant,
    open_detectors,
    open_pipelines,
    threads_variant,
    time_pipelines,
)
from dan_ros.bench.report import comparison_table, steps_table
from dan_ros.bench.scenes import crop_largest_face, draw_face
from dan_ros.bench.timer import Comparison, Limit
from dan_ros.bench.tuning import Advice, Saving, advise
from dan_ros.cli.common import PATH, FloatRange, need, progress_bar, server_options
from dan_ros.detect import Detector
from dan_ros.errors import DataError, ModelError, count_of
from dan_ros.images.files import open_picture
from dan_ros.model import store
from dan_ros.storage.atomic import atomic_write_bytes

BUSY_SHARE = 0.5  # load average per core above which the times are not reliable
PARTS = len(BATCHES) + 1 + len(SIZES) * len(COUNTS)  # steps of the progress bar

T = TypeVar('T', bound=Comparison)


class UsageProblem(click.ClickException):
    """An invalid model or image on the command line: one line and exit code 2."""

    exit_code = 2


@dataclass
class Results:
    """Everything that `dan-ros bench` prints and writes."""

    machine: dict[str, str]  # description of the machine before the measurement
    defaults: dict[str, str]  # what the node uses here by default
    unavailable: list[Unavailable]  # backends and detectors that cannot be measured
    networks: list[Comparison]  # one comparison per batch size
    detectors: Comparison  # by image width
    pipelines: list[PipelineTimes]  # one per image size and number of faces
    advice: Advice  # suggested parameters
    notes: list[str]  # reasons why the times may not be reliable

    @property
    def comparisons(self) -> list[Comparison]:
        """All comparisons."""
        return [*self.networks, self.detectors, *self.pipelines]

    @property
    def steps_ms(self) -> dict[str, dict[str, float]]:
        """Time of each pipeline step at the default settings, milliseconds, by kind of image."""
        return {
            times.title.removeprefix('pipeline, '): times.steps_ms[times.baseline]
            for times in self.pipelines
        }

    def to_json(self) -> dict[str, Any]:
        """Return the content of bench.json."""
        return {
            'version': __version__,
            'machine': self.machine,
            'defaults': self.defaults,
            'networks': [comparison.to_json() for comparison in self.networks],
            'detectors': self.detectors.to_json(),
            'pipelines': [times.to_json() for times in self.pipelines],
            'absent': [{'what': one.name, 'why': one.reason} for one in self.unavailable],
            'notes': self.notes,
            'advice': asdict(self.advice),
        }


@click.command('bench')
@click.option(
    '--model',
    'models',
    multiple=True,
    help='Known model or ONNX file to measure instead of the bundled ones. May be repeated; the '
    'pipeline runs the first one.',
)
@click.option(
    '--image', type=PATH, help='Measure on the largest face of this image instead of a drawn face.'
)
@click.option(
    '--seconds',
    default=25.0,
    show_default=True,
    type=FloatRange(0.0),
    help='Duration of the measurement, not counting the time to open the models. Every part is '
    'measured at least once.',
)
@click.option('--json', 'as_json', is_flag=True, help='Print all results as one JSON object.')
@click.option('--out', type=PATH, help='Write bench.json and bench.png to this folder.')
@server_options
def command(
    models: tuple[str, ...],
    image: Path | None,
    seconds: float,
    as_json: bool,
    out: Path | None,
    server: ServerConfig,
) -> None:
    """Measure how fast this machine runs the network, the detectors and the pipeline.

    Prints median times and suggests parameters for the node. ROS is not needed.
    """
    if out:
        need('matplotlib')
        out.mkdir(parents=True, exist_ok=True)
    try:
        models = tuple(model for model in models if model != store.DEFAULT_MODEL)
        for model in models:
            store.read_model(model)
        results = measure(models, image, seconds, server, None if as_json else _console())
    except ModelError as error:
        raise UsageProblem(str(error)) from None
    if as_json:
        click.echo(json.dumps(results.to_json()))
    else:
        _print(results)
    if out:
        _write(results, out)
        click.echo(f'Results and plot: {out}', err=as_json)
    if not as_json:
        click.echo(results.advice.text)


def measure(
    models: Sequence[str],
    image: Path | None,
    seconds: float,
    server: ServerConfig = NO_SERVER,
    console: Console | None = None,
) -> Results:
    """Open and measure everything; show a progress bar on a terminal.

    Machine and comparisons are printed on `console` at once, so that Ctrl-C does not lose them.
    """
    machine = describe_machine()
    threads, limit = node_threads(), Limit(seconds=seconds / PARTS)
    detectors, unavailable = open_detectors(threads)
    detector = next(iter(detectors))
    face = _face(image, detectors[detector])
    with progress_bar() as bar:
        task = bar.add_task('opening', total=PARTS)

        def on_progress(text: str) -> None:
            bar.update(task, description=text)

        def run(title: str, function: Callable[..., T], *arguments: object) -> T:
            on_progress(title)
            result = function(*arguments, limit)
            bar.advance(task)
            if console:
                console.print()
                console.print(comparison_table(result))
            return result

        config = BackendConfig(threads, on_progress=on_progress, server=server)
        networks = open_networks(models, config)
        if console:
            console.print(escape(', '.join(f'{key} {value}' for key, value in machine.items())))
        by_batch = [run('network', compare_networks, networks, batch) for batch in BATCHES]
        by_width = run('detectors', compare_detectors, detectors, face)
        pipelines = open_pipelines(networks.selection.backend, detector)
        times = [
            run('pipeline', time_pipelines, pipelines, size, count, face)
            for size, count in product(SIZES, COUNTS)
        ]
    return Results(
        machine,
        _defaults(networks, detector, threads),
        networks.unavailable + unavailable,
        by_batch,
        by_width,
        times,
        _advise(networks, by_batch[0], by_width, times[0], detector),
        _notes(machine, times),
    )


def _face(image: Path | None, detector: Detector) -> np.ndarray:
    """Return the picture of a face to measure on, uint8 [400, 400, 3], BGR."""
    if image is None:
        return draw_face()
    try:
        face = crop_largest_face(open_picture(image), detector)
    except DataError as error:
        raise UsageProblem(str(error)) from None
    if face is None:
        raise UsageProblem(f'{image}: {detector.name} finds no face in it. Use another image.')
    return face


def _defaults(networks: Networks, detector: str, threads: int) -> dict[str, str]:
    backend = networks.selection.backend
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
    by_variant: Comparison,
    by_width: Comparison,
    times: PipelineTimes,
    detector: str,
) -> Advice:
    """Suggest parameters from the times of one face at 640x480."""
    network_ms, detector_ms, pipeline_ms = by_variant.times_ms, by_width.times_ms, times.times_ms
    time_ms = pipeline_ms[times.baseline]
    default, cores = networks.default, available_cpus()
    best = min(networks.equivalent, key=lambda variant: network_ms[str(variant)])
    default_side_ms, small_side_ms = (
        detector_ms[detector_variant(detector, width)] for width in (DEFAULT_WIDTH, 320)
    )
    savings = [
        Saving(
            networks.parameters(best), network_ms[str(default)] - network_ms[str(best)], 'network'
        ),
        Saving(WITH_INTERVAL, time_ms - pipeline_ms[WITH_INTERVAL], 'detector'),
        Saving('detector.max_side_px: 320', default_side_ms - small_side_ms, 'detector'),
        Saving(
            f'backend.threads: {cores}', time_ms - pipeline_ms[threads_variant(cores)], 'threads'
        ),
    ]
    return advise(time_ms, savings, f'{default}, {threads_variant(node_threads())}')


def _notes(machine: dict[str, str], times: list[PipelineTimes]) -> list[str]:
    """Return reasons why the times may not be reliable."""
    notes = []
    if float(machine['load']) > BUSY_SHARE * available_cpus():
        notes.append(
            f'the machine was busy before the measurement (load {machine["load"]} on '
            f'{count_of(available_cpus(), "core")}): stop other programs and measure again'
        )
    notes += [
        f'{one.title}: only {one.found} of the faces were classified, so the times are too short; '
        'use --image with a picture of a face'
        for one, (_, count) in zip(times, product(SIZES, COUNTS), strict=True)
        if one.found != count
    ]
    return notes


def _console() -> Console:
    return Console(soft_wrap=True)


def _print(results: Results) -> None:
    """Print what `measure` has not printed yet."""
    console = _console()
    console.print()
    threads = threads_variant(node_threads())
    console.print(steps_table(results.steps_ms, f'steps of the pipeline, {threads}, median ms'))
    console.print()
    for one in results.unavailable:
        console.print(f'[dim]not measured: {escape(one.name)}: {escape(one.reason)}[/dim]')
    for note in results.notes:
        console.print(f'[yellow]note: {escape(note)}[/yellow]')


def _write(results: Results, folder: Path) -> None:
    """Write bench.json and bench.png."""
    from dan_ros.bench.plot import draw_bench
    from dan_ros.plots.style import encode

    machine = results.machine
    title = f'dan_ros {__version__} on {machine["cpu"]}, {count_of(int(machine["cores"]), "core")}'
    figure = draw_bench(results.comparisons, results.steps_ms, title)
    content = json.dumps(results.to_json(), indent=2) + '\n'
    atomic_write_bytes(folder / 'bench.png', encode(figure))
    atomic_write_bytes(folder / 'bench.json', content.encode())
