# SPDX-License-Identifier: Apache-2.0
"""Compare `dan-ros bag` with many bags to a loop over single bags, and extrapolate to 10,000 bags.

    python3 benchmarks/many_bags.py --out many_bags [--bags 6] [--images 60] [--rounds 3]

The variants are measured alternately. The extrapolation simulates a queue of bags of different
lengths; see `simulate_hours` for what it assumes.
"""

import argparse
import heapq
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from dan_ros.backends.base import available_cpus
from dan_ros.bag.cameras import choose_image_topics
from dan_ros.bag.reader import Bag, record_to_frame
from dan_ros.bench.scenes import draw_face
from dan_ros.images.opencv import cv2
from dan_ros.palette import ACCENT, BASELINE
from dan_ros.plots.style import encode, new_figure, styled

TYPES = get_typestore(Stores.ROS2_HUMBLE)
KIND = 'sensor_msgs/msg/CompressedImage'
COMMAND = (sys.executable, '-m', 'dan_ros.cli.main', 'bag')
HEIGHT, WIDTH, FACE_PX = 480, 640, 160

CORES = (2, 16, 64, 256)
MANY = 10_000  # bags
MEDIAN_IMAGES, SPREAD = 9_000, 0.8  # log-normal bag length: 5 minutes at 30 Hz, sigma
DEATHS = 0.01  # share of attempts whose worker dies, on average halfway
BYTES_PER_IMAGE, STORAGE_BYTES_PER_S = 60_000, 1_000_000_000


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, required=True, help='folder for the results')
    parser.add_argument('--bags', type=int, default=6)
    parser.add_argument('--images', type=int, default=60, help='images per bag')
    parser.add_argument('--rounds', type=int, default=3)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.bags, arguments.images, arguments.rounds)
    per_core = 1e3 / result['cpu_ms_per_image']['jobs 2']
    result['hours'] = {cores: simulate_hours(cores, per_core) for cores in CORES}
    (arguments.out / 'many_bags.json').write_text(json.dumps(result, indent=1) + '\n')
    (arguments.out / 'many_bags.png').write_bytes(encode(draw(result)))
    sys.stdout.write(json.dumps(result, indent=1) + '\n')


def measure(folder: Path, bags: int, images: int, rounds: int) -> dict[str, Any]:
    """Return bags a minute of each variant, and the images per second of decoding only."""
    sources = [write_bag(folder / 'in' / f'bag{i}', images, seed=i) for i in range(bags)]
    variants = {
        'loop': lambda out: [run(source, out / source.name) for source in sources],
        'jobs 1': lambda out: run(folder / 'in', out, '--jobs', 1),
        'jobs 2': lambda out: run(folder / 'in', out, '--jobs', 2),
        'decoding alone': lambda out: [decode(source) for source in sources],
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        names = list(variants)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            out = folder / 'out'
            begin_s, begin_cpu_s = time.perf_counter(), cpu_s()
            variants[name](out)
            seconds[name].append(time.perf_counter() - begin_s)
            cpu_seconds[name].append(cpu_s() - begin_cpu_s)
            shutil.rmtree(out, ignore_errors=True)
    cpu = {name: median(values) for name, values in cpu_seconds.items()}
    medians = {name: median(values) for name, values in seconds.items()}
    return {
        'cores': available_cpus(),
        'bags': bags,
        'images_per_bag': images,
        'seconds': {name: [round(v, 2) for v in values] for name, values in seconds.items()},
        'bags_per_minute': {name: round(60 * bags / s, 2) for name, s in medians.items()},
        'cpu_ms_per_image': {n: round(1e3 * s / bags / images, 1) for n, s in cpu.items()},
        'images_per_s': {name: round(bags * images / s, 1) for name, s in medians.items()},
    }


def simulate_hours(cores: int, images_per_s: float) -> float:
    """Return how long `MANY` bags take, hours.

    Each core takes the next bag when it is free. The lengths of the bags are log-normal. Some
    workers die, and all nodes share one storage.

    Args:
        cores: number of jobs, one core each.
        images_per_s: images that one core processes per second.
    """
    rng = np.random.default_rng(0)
    speed = min(images_per_s, STORAGE_BYTES_PER_S / BYTES_PER_IMAGE / cores)
    seconds = rng.lognormal(np.log(MEDIAN_IMAGES), SPREAD, MANY) / speed
    seconds += seconds * (rng.random(MANY) < DEATHS) / 2
    free_at_s = [0.0] * cores
    for duration_s in seconds:
        heapq.heapreplace(free_at_s, free_at_s[0] + duration_s)
    return float(round(max(free_at_s) / 3600, 1))


@styled
def draw(result: dict[str, Any]) -> Figure:
    """Draw bags a minute, and hours for `MANY` bags by cores."""
    figure = new_figure(2.4)
    speed, future = figure.subplots(1, 2)
    names = ('loop', 'jobs 1', 'jobs 2')
    values = [result['bags_per_minute'][name] for name in names]
    bars = speed.barh(names, values, color=[BASELINE, ACCENT, ACCENT], height=0.6)
    speed.bar_label(bars, padding=3, fmt='%.1f')
    speed.invert_yaxis()
    speed.set(title='Bags a minute', xlim=(0, 1.2 * max(values)))
    hours = [result['hours'][cores] for cores in CORES]
    future.loglog(CORES, hours, color=ACCENT, marker='o')
    for cores, value in zip(CORES, hours, strict=True):
        future.annotate(f'{value:,.0f} h', (cores, value), (6, 3), textcoords='offset points')
    future.set(title=f'Hours for {MANY:,} bags, simulated', xlabel='cores')
    future.set_xticks(CORES, map(str, CORES))
    future.set_yticks(decades := (1, 10, 100, 1000), map(str, decades))
    future.set_xticks([], minor=True)
    future.set_yticks([], minor=True)
    future.set(xlim=(1.5, 700), ylim=(min(1, *hours), 3000))
    return figure


def cpu_s() -> float:
    """CPU time of this process and its children, seconds; does not depend on other load."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run(*arguments: object) -> None:
    """Run `dan-ros bag`."""
    subprocess.run(  # noqa: S603
        [*COMMAND, *map(str, arguments)], check=True, capture_output=True
    )


def decode(source: Path) -> None:
    """Only read and decode the images of a bag."""
    bag = Bag(source)
    topics = choose_image_topics(bag, ()).topics
    for record in bag.records({topic.name for topic in topics}):
        record_to_frame(record)


def write_bag(path: Path, images: int, seed: int) -> Path:
    """Write JPEG pictures of 640x480 with a face that moves, at 10 Hz."""
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    face = cv2.resize(draw_face(), (FACE_PX, FACE_PX), interpolation=cv2.INTER_AREA)
    background = rng.integers(90, 140, (HEIGHT, WIDTH, 3), np.uint8)
    background = cv2.GaussianBlur(background, (0, 0), 4)
    stamp_type = TYPES.types['builtin_interfaces/msg/Time']
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection('/camera/image_raw/compressed', KIND, typestore=TYPES)
        for index in range(images):
            x, y = 40 + 4 * (index % 90), 120 + seed
            image = background.copy()
            image[y : y + FACE_PX, x : x + FACE_PX] = face
            data = cv2.imencode('.jpg', image)[1].ravel()
            time_ns = 1_700_000_000_000_000_000 + index * 100_000_000
            stamp = stamp_type(*divmod(time_ns, 1_000_000_000))
            header = TYPES.types['std_msgs/msg/Header'](stamp, 'camera')
            message = TYPES.types[KIND](header, 'jpeg', data)
            writer.write(topic, time_ns, TYPES.serialize_cdr(message, KIND))
    return path


if __name__ == '__main__':
    main()
