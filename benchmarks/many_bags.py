# SPDX-License-Identifier: Apache-2.0
"""Compare `dan-ros bag` with many bags to a loop over single bags, in turns.

Usage: python3 benchmarks/many_bags.py --out many_bags [--bags 6] [--images 60] [--rounds 3]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from dan_ros.backends.base import available_cpus
from dan_ros.bag.cameras import choose_image_topics
from dan_ros.bag.reader import Bag, record_to_frame
from dan_ros.bench.scenes import draw_face
from dan_ros.images.opencv import cv2

TYPES = get_typestore(Stores.ROS2_HUMBLE)
KIND = 'sensor_msgs/msg/CompressedImage'
COMMAND = (sys.executable, '-m', 'dan_ros.cli.main', 'bag')
HEIGHT, WIDTH, FACE_PX = 480, 640, 160


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
    (arguments.out / 'many_bags.json').write_text(json.dumps(result, indent=1) + '\n')
    sys.stdout.write(json.dumps(result, indent=1) + '\n')


def measure(folder: Path, bags: int, images: int, rounds: int) -> dict[str, object]:
    """Return bags a minute of each variant, and images a second of decoding alone."""
    sources = [write_bag(folder / 'in' / f'bag{i}', images, seed=i) for i in range(bags)]
    variants = {
        'loop': lambda out: [run(source, out / source.name) for source in sources],
        'jobs 1': lambda out: run(folder / 'in', out, '--jobs', 1),
        'jobs 2': lambda out: run(folder / 'in', out, '--jobs', 2),
        'decoding alone': lambda out: [decode(source) for source in sources],
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        names = list(variants)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            out = folder / 'out'
            begin_s = time.perf_counter()
            variants[name](out)
            seconds[name].append(time.perf_counter() - begin_s)
            shutil.rmtree(out, ignore_errors=True)
    medians = {name: median(values) for name, values in seconds.items()}
    return {
        'cores': available_cpus(),
        'bags': bags,
        'images_per_bag': images,
        'seconds': {name: [round(v, 2) for v in values] for name, values in seconds.items()},
        'bags_per_minute': {name: round(60 * bags / s, 2) for name, s in medians.items()},
        'images_per_s': {name: round(bags * images / s, 1) for name, s in medians.items()},
    }


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
