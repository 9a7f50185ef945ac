# SPDX-License-Identifier: Apache-2.0
"""`make demo`: run a sample camera and dan_node, and show the messages that arrive over DDS.

The demo saves an annotated picture and prints `demo: messages=N ids=N label=L` as its last line.
Without --source it ends by itself, otherwise it runs until Ctrl-C.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path

import click
import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rich.console import Console
from rich.live import Live
from rich.table import Table
from sensor_msgs.msg import Image

from dan_ros.errors import DanError, count_of
from dan_ros.images.files import write_picture
from dan_ros.msg import FacialExpression, FacialExpressionArray
from dan_ros.ros.spin import init_rclpy

CAMERA_TOPIC = '/camera/image_raw'
MIN_S, MAX_S = 10, 60  # shortest and longest duration of the demo without --source, seconds
ENOUGH_MESSAGES = 150  # number after which the demo ends without --source
ROWS = 8  # number of rows of the table
REFRESH_S = 0.2  # interval at which the table is drawn, seconds
PR_SET_PDEATHSIG = 1  # prctl(2): send a signal to this process when its parent dies


class Subscriber(Node):
    """Receives the messages of dan_node, as any other ROS node would.

    Attributes:
        faces: the latest messages, each with its age at arrival, milliseconds.
        ids: number of messages per face id.
        labels: number of messages per label.
        arrivals: monotonic arrival times of the latest frames, seconds.
        picture: the latest annotated picture, uint8 [H, W, 3] BGR; None before the first one.
    """

    def __init__(self) -> None:
        super().__init__('dan_demo')
        self.faces: deque[tuple[FacialExpression, float]] = deque(maxlen=ROWS)
        self.ids: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.arrivals: deque[float] = deque(maxlen=60)
        self.picture: np.ndarray | None = None
        self.create_subscription(FacialExpression, 'facial_expression', self._on_face, 10)
        self.create_subscription(FacialExpressionArray, 'facial_expressions', self._on_frame, 10)
        self.create_subscription(Image, 'dan_node/debug_image', self._on_picture, 1)

    @property
    def fps(self) -> float:
        """Recent frame rate, frames per second."""
        if len(self.arrivals) < 2:
            return 0.0
        return (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0])

    @property
    def label(self) -> str:
        """The most frequent label, or 'none'."""
        return self.labels.most_common(1)[0][0] if self.labels else 'none'

    def _on_face(self, message: FacialExpression) -> None:
        stamp = message.header.stamp
        now_ns = self.get_clock().now().nanoseconds
        age_ms = (now_ns - stamp.sec * 1_000_000_000 - stamp.nanosec) / 1e6
        self.faces.append((message, age_ms))
        self.ids[message.face_id] += 1
        self.labels[message.label] += 1

    def _on_frame(self, message: FacialExpressionArray) -> None:
        self.arrivals.append(time.monotonic())

    def _on_picture(self, message: Image) -> None:
        pixels = np.frombuffer(message.data, np.uint8)
        self.picture = pixels.reshape(message.height, message.width, 3)

    def table(self) -> Table:
        """Return the latest messages as a table."""
        title = (
            f'/facial_expression: {count_of(self.ids.total(), "message")}, {self.fps:.1f} images/s'
        )
        table = Table('stamp', 'face', 'label', 'confidence', 'roi', 'latency', title=title)
        for message, age_ms in self.faces:
            stamp, roi = message.header.stamp, message.roi
            table.add_row(
                f'{stamp.sec % 1000:03d}.{stamp.nanosec // 1_000_000:03d}',
                message.face_id,
                message.label,
                f'{message.confidence:.0%}',
                f'{roi.x_offset},{roi.y_offset} {roi.width}x{roi.height}',
                f'{age_ms:.0f} ms',
            )
        return table


@click.command()
@click.option(
    '--source',
    default='',
    help='Number of a camera, or path of a video, a picture or a folder of pictures.',
)
@click.option(
    '--out',
    type=click.Path(path_type=Path),
    default='demo',
    help='Folder for the annotated picture.',
)
def main(source: str, out: Path) -> None:
    """Run a camera and dan_node, and show the messages that arrive."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f'cannot create the folder {out}: {error.strerror}') from None
    os.environ.setdefault('ROS_LOG_DIR', str(out.resolve() / 'log'))  # the home may be read-only
    try:
        init_rclpy()
    except DanError as error:
        raise click.ClickException(str(error)) from None
    console = Console()
    console.print(f'Starting a sample camera on {CAMERA_TOPIC} and dan_node; they talk over DDS.')
    console.print('[dim]In another shell: . ./env.sh, and subscribe to /facial_expression[/dim]')
    stop = _stop_signal()
    processes = [_start_camera(source), _start('dan_node', '-r', f'image:={CAMERA_TOPIC}')]
    subscriber = Subscriber()
    try:
        finished = _watch(subscriber, processes, console, stop, endless=bool(source))
    finally:
        codes = [_stop(process) for process in processes]
        subscriber.destroy_node()
        rclpy.shutdown()
    saved = _save_picture(subscriber, out, console)
    _conclude(subscriber, console, finished)
    sys.exit(0 if finished and saved and not any(codes) and subscriber.ids else 1)


def _stop_signal() -> threading.Event:
    """Return an event that Ctrl-C or SIGTERM sets.

    An exception from a signal handler could get lost inside rclpy.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _watch(
    subscriber: Subscriber,
    processes: list['subprocess.Popen[bytes]'],
    console: Console,
    stop: threading.Event,
    endless: bool,
) -> bool:
    """Show messages until there are enough or `stop` is set.

    Returns:
        Whether all processes kept running.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(subscriber)
    started_s = shown_s = time.monotonic()
    announced, all_run = False, True
    with Live(subscriber.table(), console=console, auto_refresh=False) as live:
        while all_run and not stop.is_set():
            if not endless and _is_enough(subscriber, time.monotonic() - started_s):
                break
            executor.spin_once(timeout_sec=0.1)
            if subscriber.ids and not announced:
                announced = True
                console.print(f'First face after {time.monotonic() - started_s:.1f} s.')
            all_run = all(process.poll() is None for process in processes)
            if time.monotonic() - shown_s > REFRESH_S:
                shown_s = time.monotonic()
                live.update(subscriber.table(), refresh=console.is_terminal)
        live.update(subscriber.table(), refresh=console.is_terminal)
    executor.shutdown()
    console.print()
    return all_run


def _is_enough(subscriber: Subscriber, seconds: float) -> bool:
    return seconds > MAX_S or (
        seconds > MIN_S
        and subscriber.ids.total() >= ENOUGH_MESSAGES
        and subscriber.picture is not None
    )


def _save_picture(subscriber: Subscriber, out: Path, console: Console) -> bool:
    """Save the latest annotated picture, if any; return False if it cannot be written."""
    if subscriber.picture is None:
        return True
    path = (out / 'annotated.png').resolve()
    try:
        write_picture(path, subscriber.picture)
    except DanError as error:
        console.print(str(error), style='red', soft_wrap=True, markup=False)
        return False
    console.print(f'annotated picture: {path}', soft_wrap=True, markup=False)
    return True


def _conclude(subscriber: Subscriber, console: Console, finished: bool) -> None:
    if not finished:
        console.print('[red]A process ended early; see its output above.[/red]')
    elif not subscriber.arrivals:
        console.print('[red]No message arrived; run `dan-ros doctor` to find out why.[/red]')
    elif not subscriber.ids:
        console.print('[red]The node found no face in the images.[/red]')
    click.echo(
        f'demo: messages={subscriber.ids.total()} ids={len(subscriber.ids)} '
        f'label={subscriber.label}'
    )


def _start_camera(source: str) -> 'subprocess.Popen[bytes]':
    # The quotes make a camera number a string parameter.
    return _start(
        'sample_camera', '-r', f'image_raw:={CAMERA_TOPIC}', '-p', f'source:={json.dumps(source)}'
    )


def _start(program: str, *ros_arguments: str) -> 'subprocess.Popen[bytes]':
    prefix = Path(get_package_prefix('dan_ros'))
    profile = prefix / 'share' / 'dan_ros' / 'config' / 'fastdds_large_images.xml'
    return subprocess.Popen(  # noqa: S603
        [sys.executable, str(prefix / 'lib' / 'dan_ros' / program), '--ros-args', *ros_arguments],
        # Both processes publish large images.
        env={_profile_variable(): str(profile), **os.environ},
        preexec_fn=_die_with_parent,  # noqa: PLW1509
        start_new_session=True,  # Ctrl-C reaches only the demo, which stops the other processes
    )


def _profile_variable() -> str:
    """Name of the environment variable for a profile of the Fast DDS that rclpy has loaded.

    Fast DDS 2, of Humble and Jazzy, does not read the new name; version 3 warns of the old one.
    """
    is_version_2 = 'libfastrtps.so' in Path('/proc/self/maps').read_text()
    return 'FASTRTPS_DEFAULT_PROFILES_FILE' if is_version_2 else 'FASTDDS_DEFAULT_PROFILES_FILE'


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(process: 'subprocess.Popen[bytes]') -> int:
    """Stop a process and return its exit code."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


if __name__ == '__main__':
    main()
