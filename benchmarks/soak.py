"""`make soak MINUTES=30`: the node at 30 Hz for long, with all that goes wrong mixed in.

    python3 benchmarks/soak.py [--minutes 30] [--rate 30] [--out soak]

The real node runs in its own process. A client sends moving faces, and in turns of half a minute
damaged images, bursts, silence, images of 1080p, pauses, changed parameters and transitions it must
refuse. Once a second it notes the node's memory, threads, file descriptors, processor time, and how
many results came and how old they were.

Writes soak.json and soak.png and says whether the bounds hold; exit code 1 when one does not.
Ctrl-C ends it early and writes what was measured.
"""

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import psutil
import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from matplotlib.figure import Figure
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sensor_msgs.msg import Image
from skimage.data import astronaut
from std_srvs.srv import SetBool

from dan_ros.msg import FacialExpressionArray
from dan_ros.ros.publishers import bgr_to_image

SECOND_NS = 1_000_000_000
TURN_S = 30.0  # in which everything happens once
NAMESPACE = f'/soak_{os.getpid()}'  # so that no other node on the network is taken for this one
PATIENCE_S = 60.0
STEPS = 24  # images in which a face walks to and fro
BAD_EVERY = 10  # images
BURST_FACTOR = 5

MAX_SLOPE_MIB_PER_MIN = 1.0
MAX_LOSS = 0.05
WARM_UP = 0.2  # part of the run, whose memory does not count
WARM_UP_MOST_S = 180.0


@dataclass
class Sample:
    """The node in one second.

    Attributes:
        at_s: since the first image.
        memory_mib: resident.
        threads, descriptors: of the process.
        cpu: processor time, in cores.
        sent: images, bad ones as well.
        results: messages received.
        age_ms: median from sending an image to its result; None without a result.
        event: what was done to the node.
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
    """What the samples say, and which bounds do not hold.

    Attributes:
        slope_mib_per_min: of the memory after the warm-up, by least squares.
        new_descriptors, new_threads: more in the last third than in the first, at their most.
        throughput_hz: results a second, whole turns, in the first and the last third.
        age_ms: median of the ages in the first and the last third.
        broken: in words; empty if all is well.
    """

    slope_mib_per_min: float = 0.0
    new_descriptors: int = 0
    new_threads: int = 0
    throughput_hz: tuple[float, float] = (0.0, 0.0)
    age_ms: tuple[float, float] = (0.0, 0.0)
    broken: list[str] = field(default_factory=list)


def make_images() -> list[Image]:
    """A face that walks through a room of 640 x 480 and back."""
    portrait = np.ascontiguousarray(astronaut()[30:270, 100:340, ::-1])
    room = np.random.default_rng(0).integers(60, 200, (6, 8, 3)).astype(np.float32)
    room = cv2.resize(room, (640, 480), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    images = []
    for step in [*range(STEPS), *range(STEPS, 0, -1)]:
        image = room.astype(np.uint8)
        left = 20 + step * 14
        image[120 : 120 + 240, left : left + 240] = portrait
        images.append(bgr_to_image(image, FacialExpressionArray().header))
    return images


def make_bad_images(good: Image) -> list[Image]:
    """One of each way to be wrong."""

    def but(**changes: Any) -> Image:
        fields = {name: getattr(good, name) for name in ('height', 'width', 'encoding', 'step')}
        image = Image(**{**fields, **{k: v for k, v in changes.items() if k != 'data'}})
        image.data = changes.get('data', good.data)
        return image

    return [
        but(data=good.data[:0]),
        but(data=good.data[:-1]),
        but(step=good.step - 1),
        but(encoding='no_such_encoding'),
        but(width=0),
        but(height=2**32 - 1),
        but(encoding='32FC1'),
    ]


class Client:
    """Sends images, changes the node, and notes what comes back."""

    def __init__(self) -> None:
        self.ages_ms: list[float] = []
        self.sent = 0
        self.drops: dict[str, int] = {}
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('client', namespace=NAMESPACE, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = self._node.create_publisher(Image, 'image', qos)
        subscribe = self._node.create_subscription
        subscribe(FacialExpressionArray, 'facial_expressions', self._on_result, 100)
        subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        create = self._node.create_client
        self._parameters = create(SetParametersAtomically, 'dan_node/set_parameters_atomically')
        self._enabled = create(SetBool, 'dan_node/set_enabled')
        self._state = create(ChangeState, 'dan_node/change_state')

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def spin(self, seconds: float) -> None:
        """Receive for at most so long, at least what is there."""
        self._executor.spin_once(timeout_sec=max(0.0, seconds))

    def send(self, image: Image) -> None:
        """Send an image with the present as its stamp."""
        stamp = image.header.stamp
        stamp.sec, stamp.nanosec = divmod(time.monotonic_ns(), SECOND_NS)
        self._publisher.publish(image)
        self.sent += 1

    def set_parameters(self, **values: Any) -> None:
        """Set parameters, __ standing for a dot, without waiting for the answer."""
        parameters = [Parameter(k.replace('__', '.'), value=v) for k, v in values.items()]
        request = SetParametersAtomically.Request(
            parameters=[parameter.to_parameter_msg() for parameter in parameters]
        )
        self._parameters.call_async(request)

    def set_enabled(self, enabled: bool) -> None:
        """Pause or resume."""
        self._enabled.call_async(SetBool.Request(data=enabled))

    def ask_for_transition(self, transition: int) -> None:
        """Ask for a transition, also for one that the node must refuse."""
        request = ChangeState.Request()
        request.transition.id = transition
        self._state.call_async(request)

    def _on_result(self, result: FacialExpressionArray) -> None:
        stamp = result.header.stamp
        sent_ns = stamp.sec * SECOND_NS + stamp.nanosec
        self.ages_ms.append((time.monotonic_ns() - sent_ns) / 1e6)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        prefix = 'frames_dropped.'
        status = message.status[0]
        for value in status.values if status.name.startswith(NAMESPACE[1:]) else ():
            if value.key.startswith(prefix):
                self.drops[value.key.removeprefix(prefix)] = int(value.value)


class Plan:
    """What happens when, in every turn.

    Args:
        client: does it.
        rate_hz: of images, where nothing else is said.
    """

    def __init__(self, client: Client, rate_hz: float) -> None:
        self._client = client
        self._rate_hz = rate_hz
        self._good = itertools.cycle(images := make_images())
        self._bad = itertools.cycle(make_bad_images(images[0]))
        large = cv2.resize(astronaut()[..., ::-1], (1920, 1080))
        self._large = bgr_to_image(large, FacialExpressionArray().header)
        self._count = 0
        send = client.set_parameters
        self._deeds: tuple[tuple[float, str, Callable[[], None]], ...] = (
            (4.0, 'parameters', lambda: send(max_faces=3, smoothing__half_life_s=0.1)),
            (7.0, 'bad parameter', lambda: send(max_faces=0)),
            (8.0, 'parameters', lambda: send(max_faces=16, smoothing__half_life_s=0.3)),
            (14.0, 'paused', lambda: client.set_enabled(False)),
            (16.0, 'resumed', lambda: client.set_enabled(True)),
            (22.0, 'bad transition', lambda: client.ask_for_transition(77)),
            (23.0, 'deactivated', lambda: self._go(Transition.TRANSITION_DEACTIVATE)),
            (24.0, 'activated', lambda: self._go(Transition.TRANSITION_ACTIVATE)),
            (26.0, 'rotation', lambda: send(image_rotation=180)),
            (27.0, 'rotation', lambda: send(image_rotation=0)),
        )

    def _go(self, transition: int) -> None:
        self._client.ask_for_transition(transition)

    def rate_hz(self, at_s: float) -> float:
        """Images a second at a time of the run."""
        at_s %= TURN_S
        if 10 <= at_s < 12:
            return self._rate_hz * BURST_FACTOR
        return 0.0 if 18 <= at_s < 21 else self._rate_hz

    def deeds_between(self, before_s: float, at_s: float) -> Iterator[str]:
        """Do what falls between two times of the run; gives its names."""
        start_s = at_s - at_s % TURN_S
        for when_s, name, act in self._deeds:
            if before_s < start_s + when_s <= at_s:
                act()
                yield name

    def send(self, at_s: float) -> None:
        """Send the next image: a face, now and then a bad one, for 3 s large ones as well."""
        self._count += 1
        if self._count % BAD_EVERY == 0:
            self._client.send(next(self._bad))
        elif 1 <= at_s % TURN_S < 4 and self._count % 15 == 1:
            self._client.send(self._large)
        else:
            self._client.send(next(self._good))


class Soak:
    """One run.

    Args:
        process: the node.
        client: talks to it.
        plan: what happens.

    Attributes:
        samples: one a second.
    """

    def __init__(self, process: psutil.Popen, client: Client, plan: Plan) -> None:
        self.samples: list[Sample] = []
        self._process, self._client, self._plan = process, client, plan
        self._events: list[str] = []
        self._cpu_s = sum(process.cpu_times()[:2])

    def wait_for_results(self) -> None:
        """Send until the node answers."""
        end_s = time.monotonic() + PATIENCE_S
        while not self._client.ages_ms:
            if self._process.poll() is not None or time.monotonic() > end_s:
                raise click.ClickException(f'no result; exit code {self._process.poll()}')
            self._plan.send(9.0)
            self._client.spin(0.1)

    def run(self, seconds: float, on_second: Callable[[Sample], object]) -> None:
        """Send and note until the time is over or the node is gone."""
        started_s = time.monotonic()
        self._client.ages_ms.clear()
        self._client.sent = 0
        before_s = due_s = 0.0
        while before_s < seconds and self._process.poll() is None:
            at_s = time.monotonic() - started_s
            self._events += self._plan.deeds_between(before_s, at_s)
            rate_hz = self._plan.rate_hz(at_s)
            if rate_hz and at_s >= due_s:
                self._plan.send(at_s)
                due_s = max(due_s + 1 / rate_hz, at_s - 0.1)
            if int(at_s) > int(before_s):
                self.samples.append(self._take(at_s))
                on_second(self.samples[-1])
            before_s = at_s
            left_s = due_s - (time.monotonic() - started_s) if rate_hz else 0.02
            self._client.spin(min(left_s, 0.02))

    def _take(self, at_s: float) -> Sample:
        client, process = self._client, self._process
        with process.oneshot():
            cpu_s = sum(process.cpu_times()[:2])
            seconds = at_s - (self.samples[-1].at_s if self.samples else 0)
            sample = Sample(
                round(at_s, 3),
                round(process.memory_info().rss / 2**20, 2),
                process.num_threads(),
                process.num_fds(),
                round((cpu_s - self._cpu_s) / seconds, 3),
                client.sent,
                len(client.ages_ms),
                round(statistics.median(client.ages_ms), 2) if client.ages_ms else None,
                ', '.join(self._events),
            )
        self._cpu_s = cpu_s
        client.sent = 0
        client.ages_ms.clear()
        self._events.clear()
        return sample


def judge(samples: list[Sample]) -> Verdict:
    """Compare the first third of a run with its last, and the memory with its bound."""
    verdict = Verdict()
    turns = int(samples[-1].at_s // TURN_S) if samples else 0
    third = turns // 3
    if third < 1:
        verdict.broken.append(f'{turns} turns are too few to judge; run it for two minutes or more')
        return verdict
    end_s = samples[-1].at_s
    warm = [s for s in samples if s.at_s > min(WARM_UP * end_s, WARM_UP_MOST_S)]
    minutes = [s.at_s / 60 for s in warm]
    verdict.slope_mib_per_min = float(np.polyfit(minutes, [s.memory_mib for s in warm], 1)[0])
    first = _between(samples, 0, third)
    last = _between(samples, turns - third, turns)
    verdict.new_descriptors = _most(last, 'descriptors') - _most(first, 'descriptors')
    verdict.new_threads = _most(last, 'threads') - _most(first, 'threads')
    verdict.throughput_hz = _throughput_hz(first, third), _throughput_hz(last, third)
    verdict.age_ms = _age_ms(first), _age_ms(last)
    if verdict.slope_mib_per_min > MAX_SLOPE_MIB_PER_MIN:
        verdict.broken.append(f'memory grows by {verdict.slope_mib_per_min:.2f} MiB a minute')
    if verdict.new_descriptors > 0:
        verdict.broken.append(f'{verdict.new_descriptors} more file descriptors')
    if verdict.new_threads > 0:
        verdict.broken.append(f'{verdict.new_threads} more threads')
    before, after = verdict.throughput_hz
    if after < (1 - MAX_LOSS) * before:
        verdict.broken.append(f'{before:.1f} results a second became {after:.1f}')
    return verdict


def _between(samples: list[Sample], start: int, end: int) -> list[Sample]:
    """Those of some turns; a sample is of the second before it."""
    return [s for s in samples if start * TURN_S < round(s.at_s) <= end * TURN_S]


def _most(samples: list[Sample], name: str) -> int:
    return max(getattr(sample, name) for sample in samples)


def _throughput_hz(samples: list[Sample], turns: int) -> float:
    return sum(sample.results for sample in samples) / (turns * TURN_S)


def _age_ms(samples: list[Sample]) -> float:
    return statistics.median(s.age_ms for s in samples if s.age_ms is not None)


def draw(samples: list[Sample], verdict: Verdict, drops: dict[str, int]) -> Figure:
    """Memory, throughput, age and counts over the run."""
    minutes = [sample.at_s / 60 for sample in samples]
    figure = Figure(figsize=(9, 7.5), dpi=130, layout='constrained')
    memory, rate, age, counts = figure.subplots(4, 1, sharex=True, height_ratios=(3, 3, 2, 2))
    memory.plot(minutes, [s.memory_mib for s in samples], color='#2a6fbb', linewidth=1)
    memory.set_ylabel('memory, MiB')
    memory.set_ylim(bottom=0)
    memory.set_title(
        f'{verdict.slope_mib_per_min:+.2f} MiB a minute after the warm-up '
        f'(at most {MAX_SLOPE_MIB_PER_MIN:g})',
        loc='left',
        fontsize=9,
    )
    rate.plot(minutes, [s.sent for s in samples], color='#bbbbbb', linewidth=0.8, label='sent')
    rate.plot(minutes, [s.results for s in samples], color='#2a6fbb', linewidth=0.8, label='done')
    rate.set_ylabel('images a second')
    rate.set_title(
        f'{verdict.throughput_hz[0]:.1f} results a second in the first third, '
        f'{verdict.throughput_hz[1]:.1f} in the last',
        loc='left',
        fontsize=9,
    )
    rate.legend(frameon=False, ncols=2, loc='upper right', fontsize=8)
    aged = [s for s in samples if s.age_ms is not None]
    age.plot([s.at_s / 60 for s in aged], [s.age_ms for s in aged], '.', markersize=2)
    age.set_ylabel('age, ms')
    age.set_title(
        f'median age {verdict.age_ms[0]:.0f} ms in the first third, {verdict.age_ms[1]:.0f} ms in '
        'the last',
        loc='left',
        fontsize=9,
    )
    for name, colour in (('threads', '#c2571a'), ('descriptors', '#3a8f5c')):
        counts.plot(minutes, [getattr(s, name) for s in samples], color=colour, label=name)
    counts.set_ylim(bottom=0)
    counts.set_xlabel('minutes')
    counts.legend(frameon=False, ncols=2, loc='lower right', fontsize=8)
    text = ', '.join(f'{count} {cause}' for cause, count in sorted(drops.items()) if count)
    counts.set_title(f'images dropped: {text}', loc='left', fontsize=9)
    for panel in (memory, rate, age, counts):
        panel.spines[['top', 'right']].set_visible(False)
    return figure


def start_node(log: Path) -> psutil.Popen:
    """The node, in a session of its own, so that Ctrl-C reaches this process alone."""
    program = Path(get_package_prefix('dan_ros'), 'lib', 'dan_ros', 'dan_node')
    arguments = ['--ros-args', '-r', f'__ns:={NAMESPACE}']
    arguments += ['-p', 'qos.reliability:=reliable']  # for the large images
    with log.open('w') as output:
        return psutil.Popen(
            [sys.executable, str(program), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop_node(process: psutil.Popen, log: Path) -> list[str]:
    """Stop the node as a supervisor does; gives what was wrong with how it ran and ended."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(PATIENCE_S)
    except psutil.TimeoutExpired:
        process.kill()
        return ['it did not stop on SIGTERM']
    wrong = [f'exit code {code}'] if code else []
    return wrong + ['a traceback in its output'] * ('Traceback' in log.read_text(encoding='utf-8'))


@click.command()
@click.option('--minutes', default=30.0, show_default=True, type=click.FloatRange(0.1))
@click.option('--rate', 'rate_hz', default=30.0, show_default=True, help='Images a second.')
@click.option('--out', default='soak', type=click.Path(path_type=Path), help='Folder to write.')
def main(minutes: float, rate_hz: float, out: Path) -> None:
    """Run the node for a long time with faults mixed in, and judge it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    out.mkdir(parents=True, exist_ok=True)
    process = start_node(out / 'node.log')
    client = Client()
    soak = Soak(process, client, Plan(client, rate_hz))
    was_interrupted = False
    columns = TextColumn('{task.description}'), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task('starting', total=minutes * 60)

        def show(sample: Sample) -> None:
            text = f'{sample.memory_mib:.0f} MiB, {sample.results} results/s'
            progress.update(task, completed=sample.at_s, description=text)

        try:
            soak.wait_for_results()
            soak.run(minutes * 60, show)
        except KeyboardInterrupt:
            was_interrupted = True
        finally:
            wrong = stop_node(process, out / 'node.log')
            client.close()
    verdict = judge(soak.samples)
    verdict.broken += wrong
    write(out, soak.samples, verdict, client.drops, was_interrupted)
    click.echo(f'{out / "soak.json"}, {out / "soak.png"}')
    click.echo('; '.join(verdict.broken) or 'every bound holds')
    sys.exit(1 if verdict.broken else 0)


def write(
    out: Path,
    samples: list[Sample],
    verdict: Verdict,
    drops: dict[str, int],
    was_interrupted: bool,
) -> None:
    """The numbers as JSON, and the picture where there is anything to draw."""
    content = {
        'minutes': round(samples[-1].at_s / 60, 2) if samples else 0,
        'interrupted': was_interrupted,
        'verdict': asdict(verdict),
        'dropped': drops,
        'samples': [asdict(sample) for sample in samples],
    }
    (out / 'soak.json').write_text(json.dumps(content) + '\n', encoding='utf-8')
    if samples:
        draw(samples, verdict, drops).savefig(out / 'soak.png')


if __name__ == '__main__':
    main()
