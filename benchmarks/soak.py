# SPDX-License-Identifier: Apache-2.0
"""`make soak MINUTES=30`: run the node for a long time with injected faults.

    python3 benchmarks/soak.py [--minutes 30] [--rate 30] [--out soak]

The node runs in its own process. A client sends a moving face. Every 30 s it also sends damaged
images, a burst and 1080p images, stops sending, pauses the node, changes parameters and requests
transitions, of which some must be refused. Once per second it records memory, threads, file
descriptors and processor time of the node, and number and age of the results.

Writes soak.json and soak.png. Exit code 1 if the node grows or slows down. Ctrl-C ends the run
early and writes the results so far.
"""

import itertools
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from client import Client, NodeError, cpu_seconds, dan_node, start_node
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from matplotlib.figure import Figure
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from dan_ros.bench.scenes import draw_face, make_moving_scenes, make_scene
from dan_ros.plots.lines import Panel, draw_lines
from dan_ros.plots.style import encode
from dan_ros.ros.publishers import bgr_to_image

PERIOD_S = 30.0  # period in which every fault is injected once, seconds
NAMESPACE = f'/soak_{os.getpid()}'  # keeps other nodes on the network out of the measurement
STOP_TIMEOUT_S = 60.0
STEPS = 24  # number of images in which the face moves down
BAD_INTERVAL = 10  # every Nth image is damaged
LARGE_INTERVAL = 15  # every Nth image is large, from 1 to 4 s of a period
BURST_FACTOR = 5  # factor of the image rate, from 10 to 12 s of a period

MAX_SLOPE_MIB_PER_MIN = 1.0
MAX_LOSS = 0.05  # largest loss of throughput, as a share
WARM_UP_SHARE, WARM_UP_MAX_S = 0.2, 180.0  # warm-up, in which memory may grow


@dataclass
class Sample:
    """State of the node in one second.

    Attributes:
        at_s: time since the first image.
        memory_mib: resident memory.
        threads, descriptors: numbers of threads and file descriptors of the process.
        cpu: processor time per second.
        sent: images sent, damaged ones included.
        results: results received.
        age_ms: median age of the results; None without results.
        event: injected faults.
    """

    at_s: float
    memory_mib: float
    threads: int
    descriptors: int
    cpu: float
    sent: int
    results: int
    age_ms: float | None
    event: str


@dataclass
class Verdict:
    """Comparison of the first and the last third of a run.

    Attributes:
        slope_mib_per_min: growth of memory after the warm-up, by least squares.
        new_descriptors, new_threads: growth of the maximum.
        throughput_hz: results per second in the first and the last third.
        age_ms: median age in the first and the last third.
        broken: violated bounds as text; empty if the node passed.
    """

    slope_mib_per_min: float = 0.0
    new_descriptors: int = 0
    new_threads: int = 0
    throughput_hz: tuple[float, float] = (0.0, 0.0)
    age_ms: tuple[float, float] = (0.0, 0.0)
    broken: list[str] = field(default_factory=list)


def make_bad_images(good: Image) -> list[Image]:
    """Make one image per kind of damage."""

    def change(**changes: Any) -> Image:
        names = ('height', 'width', 'encoding', 'step', 'data')
        return Image(**{name: getattr(good, name) for name in names} | changes)

    return [
        change(data=good.data[:0]),
        change(data=good.data[:-1]),
        change(step=good.step - 1),
        change(encoding='no_such_encoding'),
        change(width=0),
        change(height=2**32 - 1),
        change(encoding='32FC1'),
    ]


class Plan:
    """Decides what is sent, usually at `rate_hz`, and when the node is disturbed."""

    def __init__(self, client: Client, rate_hz: float) -> None:
        self._client, self._rate_hz, self._count = client, rate_hz, 0
        face = draw_face()
        scenes = make_moving_scenes((640, 480), 1, face, STEPS)
        images = [bgr_to_image(scene, Header()) for scene in scenes]
        self._good, self._bad = itertools.cycle(images), itertools.cycle(make_bad_images(images[0]))
        self._large = bgr_to_image(make_scene(1920, 1080, 1, face), Header())
        create = client.node.create_client
        self._parameters = create(SetParametersAtomically, 'dan_node/set_parameters_atomically')
        self._enabled = create(SetBool, 'dan_node/set_enabled')
        self._state = create(ChangeState, 'dan_node/change_state')
        self._actions: tuple[tuple[float, str, Callable[[], None]], ...] = (
            (4.0, 'parameters', lambda: self._set({'max_faces': 3, 'smoothing.half_life_s': 0.1})),
            (7.0, 'bad parameter', lambda: self._set({'max_faces': 0})),
            (8.0, 'parameters', lambda: self._set({'max_faces': 16, 'smoothing.half_life_s': 0.3})),
            (14.0, 'paused', lambda: self._enable(False)),
            (16.0, 'resumed', lambda: self._enable(True)),
            (22.0, 'bad transition', lambda: self._change_state(77)),
            (23.0, 'deactivated', lambda: self._change_state(Transition.TRANSITION_DEACTIVATE)),
            (24.0, 'activated', lambda: self._change_state(Transition.TRANSITION_ACTIVATE)),
            (26.0, 'rotation', lambda: self._set({'image_rotation': 180})),
            (27.0, 'rotation', lambda: self._set({'image_rotation': 0})),
        )

    def _set(self, values: dict[str, Any]) -> None:
        messages = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        self._parameters.call_async(SetParametersAtomically.Request(parameters=messages))

    def _enable(self, is_enabled: bool) -> None:
        self._enabled.call_async(SetBool.Request(data=is_enabled))

    def _change_state(self, transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        self._state.call_async(request)

    def rate_hz(self, at_s: float) -> float:
        """Return the image rate at a time of the run."""
        at_s %= PERIOD_S
        if 10 <= at_s < 12:
            return self._rate_hz * BURST_FACTOR
        return 0.0 if 18 <= at_s < 21 else self._rate_hz

    def act(self, before_s: float, at_s: float) -> Iterator[str]:
        """Run all actions that are due between two times of the run; yield their names."""
        start_s = at_s - at_s % PERIOD_S
        for due_s, name, action in self._actions:
            if before_s < start_s + due_s <= at_s:
                action()
                yield name

    def send(self, at_s: float) -> None:
        """Send the next image: usually a face, sometimes a damaged or a large image."""
        self._count += 1
        is_large = 1 <= at_s % PERIOD_S < 4 and self._count % LARGE_INTERVAL == 1
        if self._count % BAD_INTERVAL == 0:
            self._client.send(next(self._bad))
        else:
            self._client.send(self._large if is_large else next(self._good))


class Soak:
    """One run of a node.

    Attributes:
        samples: one per second.
        drops: number of dropped images by cause.
    """

    def __init__(self, process: psutil.Popen, client: Client, plan: Plan) -> None:
        self.samples: list[Sample] = []
        self.drops: dict[str, int] = {}
        self._process, self._client, self._plan = process, client, plan
        self._events: list[str] = []
        self._cpu_s = 0.0

    def run(self, seconds: float, on_second: Callable[[Sample], object]) -> None:
        """Send and record until the time is over or the node has ended."""
        self._client.wait_for_result(self._process, lambda: self._plan.send(9.0))
        self._client.clear()
        self._cpu_s = cpu_seconds(self._process)
        started_s = time.monotonic()
        before_s = due_s = 0.0
        while before_s < seconds and self._process.poll() is None:
            at_s = time.monotonic() - started_s
            self._events += self._plan.act(before_s, at_s)
            rate_hz = self._plan.rate_hz(at_s)
            if rate_hz and at_s >= due_s:
                self._plan.send(at_s)
                due_s = max(due_s + 1 / rate_hz, at_s - 0.1)
            if int(at_s) > int(before_s):
                self._take_sample(at_s)
                on_second(self.samples[-1])
            before_s = at_s
            left_s = due_s - (time.monotonic() - started_s) if rate_hz else 0.02
            self._client.spin(min(left_s, 0.02))

    def _take_sample(self, at_s: float) -> None:
        client, process = self._client, self._process
        seconds = at_s - (self.samples[-1].at_s if self.samples else 0)
        cpu_s = cpu_seconds(process)
        sample = Sample(
            at_s=round(at_s, 3),
            memory_mib=round(process.memory_info().rss / 2**20, 2),
            threads=process.num_threads(),
            descriptors=process.num_fds(),
            cpu=round((cpu_s - self._cpu_s) / seconds, 3),
            sent=client.sent,
            results=len(client.ages_ms),
            age_ms=round(statistics.median(client.ages_ms), 2) if client.ages_ms else None,
            event=', '.join(self._events),
        )
        self.samples.append(sample)
        prefix = 'frames_dropped.'
        for key, value in itertools.chain.from_iterable(map(dict.items, client.diagnostics)):
            if key.startswith(prefix):
                self.drops[key.removeprefix(prefix)] = int(value)
        self._cpu_s = cpu_s
        self._events.clear()
        client.clear()


def judge(samples: list[Sample]) -> Verdict:
    """Compare the first third of a run with the last, and memory growth with its bound."""
    verdict = Verdict()
    periods = int(samples[-1].at_s // PERIOD_S) if samples else 0
    third = periods // 3
    if third < 1:
        verdict.broken.append('the run is too short to evaluate: run it for at least two minutes')
        return verdict
    warm_up_s = min(WARM_UP_SHARE * samples[-1].at_s, WARM_UP_MAX_S)
    warm = [(s.at_s / 60, s.memory_mib) for s in samples if s.at_s > warm_up_s]
    verdict.slope_mib_per_min = float(np.polyfit(*zip(*warm, strict=True), 1)[0])
    first = _between(samples, 0, third)
    last = _between(samples, periods - third, periods)
    verdict.new_descriptors = _growth(first, last, 'descriptors')
    verdict.new_threads = _growth(first, last, 'threads')
    before_hz, after_hz = (
        sum(sample.results for sample in part) / (third * PERIOD_S) for part in (first, last)
    )
    verdict.throughput_hz = before_hz, after_hz
    verdict.age_ms = _age_ms(first), _age_ms(last)
    if verdict.slope_mib_per_min > MAX_SLOPE_MIB_PER_MIN:
        verdict.broken.append(f'memory grows by {verdict.slope_mib_per_min:.2f} MiB per minute')
    if verdict.new_descriptors > 0:
        verdict.broken.append(f'{verdict.new_descriptors} more file descriptors')
    if verdict.new_threads > 0:
        verdict.broken.append(f'{verdict.new_threads} more threads')
    if after_hz < (1 - MAX_LOSS) * before_hz:
        verdict.broken.append(f'throughput fell from {before_hz:.1f} to {after_hz:.1f} results/s')
    return verdict


def _between(samples: list[Sample], start: int, end: int) -> list[Sample]:
    """Select the samples of some periods; a sample describes the second before it."""
    return [s for s in samples if start * PERIOD_S < round(s.at_s) <= end * PERIOD_S]


def _growth(first: list[Sample], last: list[Sample], name: str) -> int:
    before, after = (max(getattr(sample, name) for sample in part) for part in (first, last))
    return int(after - before)


def _age_ms(samples: list[Sample]) -> float:
    return statistics.median(s.age_ms for s in samples if s.age_ms is not None)


def draw(samples: list[Sample], verdict: Verdict, drops: dict[str, int]) -> Figure:
    """Plot memory, throughput, age and counts over time."""

    def panel(title: str, unit: str, *names: str) -> Panel:
        lines = {
            name.removesuffix(f'_{unit.lower()}'): [
                np.nan if (value := getattr(sample, name)) is None else value for sample in samples
            ]
            for name in names
        }
        return Panel(title, lines, unit)

    slope = f'{verdict.slope_mib_per_min:+.2f} MiB per minute after the warm-up'
    (first_hz, last_hz), (first_ms, last_ms) = verdict.throughput_hz, verdict.age_ms
    third = 'in the first third and {} in the last'
    panels = [
        panel(f'memory: {slope} (limit {MAX_SLOPE_MIB_PER_MIN:g})', 'MiB', 'memory_mib'),
        panel(
            f'images: {first_hz:.1f} results/s {third.format(f"{last_hz:.1f}")}; '
            f'{sum(drops.values()):,} dropped',
            'per second',
            'sent',
            'results',
        ),
        panel(
            f'age of results: median {first_ms:.0f} ms {third.format(f"{last_ms:.0f} ms")}',
            'ms',
            'age_ms',
        ),
        panel('threads and file descriptors', 'count', 'threads', 'descriptors'),
    ]
    return draw_lines([sample.at_s / 60 for sample in samples], panels, 'minutes')


def stop_node(process: psutil.Popen, log: Path) -> list[str]:
    """Stop the node with SIGTERM; return the problems while it ran or stopped."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOP_TIMEOUT_S)
    except psutil.TimeoutExpired:
        process.kill()
        return ['the node did not stop on SIGTERM']
    problems = [f'exit code {code}'] if code else []
    has_traceback = 'Traceback' in log.read_text(encoding='utf-8')
    return problems + ['a traceback in the log of the node'] * has_traceback


@click.command()
@click.option('--minutes', default=30.0, show_default=True, type=click.FloatRange(0.1))
@click.option('--rate', 'rate_hz', default=30.0, show_default=True, help='Images per second.')
@click.option('--out', default='soak', type=click.Path(path_type=Path), help='Output folder.')
def main(minutes: float, rate_hz: float, out: Path) -> None:
    """Run the node for a long time with injected faults, and evaluate it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore SIGINT
    out.mkdir(parents=True, exist_ok=True)
    log = out / 'node.log'
    # Reliable, so that the middleware does not lose the large images.
    options = ('-r', f'__ns:={NAMESPACE}', '-p', 'qos.reliability:=reliable')
    process = start_node(dan_node(), '--ros-args', *options, log=log)
    was_interrupted = False
    problems: list[str] = []
    with Client(namespace=NAMESPACE) as client:
        soak = Soak(process, client, Plan(client, rate_hz))
        try:
            _run(soak, minutes * 60)
        except KeyboardInterrupt:
            was_interrupted = True
        except NodeError as error:
            problems.append(str(error))
        finally:
            problems += stop_node(process, log)
    verdict = judge(soak.samples)
    verdict.broken += problems
    write(out, soak, verdict, was_interrupted)
    click.echo('; '.join(verdict.broken) or 'passed')
    sys.exit(1 if verdict.broken else 0)


def _run(soak: Soak, seconds: float) -> None:
    """Run with a progress bar."""
    columns = TextColumn('{task.description}'), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task('starting', total=seconds)

        def show(sample: Sample) -> None:
            text = f'{sample.memory_mib:.0f} MiB, {sample.results} results/s'
            progress.update(task, completed=sample.at_s, description=text)

        soak.run(seconds, show)


def write(out: Path, soak: Soak, verdict: Verdict, was_interrupted: bool) -> None:
    """Write soak.json, and soak.png if there are samples."""
    samples = soak.samples
    content = {
        'minutes': round(samples[-1].at_s / 60, 2) if samples else 0,
        'interrupted': was_interrupted,
        'verdict': asdict(verdict),
        'dropped': soak.drops,
        'samples': [asdict(sample) for sample in samples],
    }
    (out / 'soak.json').write_text(json.dumps(content) + '\n', encoding='utf-8')
    if samples:
        figure = draw(samples, verdict, soak.drops)
        (out / 'soak.png').write_bytes(encode(figure))
    click.echo(f'Results and plot: {out}')


if __name__ == '__main__':
    main()
