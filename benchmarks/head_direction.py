# SPDX-License-Identifier: Apache-2.0
"""Print the error of the head direction for synthetic heads, as a table for docs/attention.md.

PYTHONPATH=test/support python3 benchmarks/head_direction.py
"""

import itertools
import time

import click
import numpy as np
from heads import PINHOLE, SIZE, Head, facing_angle_deg

from dan_ros.faces.head_direction import angle_to_camera, head_directions

ANGLES = [(0, 10), (10, 20), (20, 30), (30, 45), (45, 60), (60, 80)]  # bins of the true angle
EYES_PX = (80, 40, 20, 12)  # distance between the eyes in the image
GRID = list(itertools.product(range(-75, 76, 15), range(-30, 31, 10), (-20, 0, 20)))
NOISE_PX = 1.0
SHAPE_M = 0.002  # standard deviation of landmarks from the average face, per axis, meters


def errors_deg(eyes_px: float, calibrated: bool) -> np.ndarray:
    """Return true angle and error of many heads, [n, 2], degrees; NaN where there is no result."""
    rng = np.random.default_rng(0)
    distance = 0.063 * PINHOLE.matrix[0, 0] / eyes_px
    rows = []
    for yaw, pitch, roll in GRID * 3:
        place = np.array([rng.uniform(-0.35, 0.35), rng.uniform(-0.25, 0.25), 1]) * distance
        head = Head(yaw, pitch, roll, tuple(place))
        landmarks = head.landmarks(rng, NOISE_PX, SHAPE_M)
        (direction,) = head_directions([landmarks], PINHOLE if calibrated else None, SIZE)
        true = facing_angle_deg(head)
        rows.append((true, angle_to_camera(direction) - true))
    return np.array(rows)


def main() -> None:
    """Print the tables and the time per image."""
    for calibrated in (True, False):
        click.echo(f'\ncalibrated: {calibrated}; RMS error (bias), degrees; share without a result')
        for eyes_px in EYES_PX:
            table = errors_deg(eyes_px, calibrated)
            cells = []
            for low, high in ANGLES:
                found = table[(table[:, 0] >= low) & (table[:, 0] < high), 1]
                rms, bias = np.sqrt(np.nanmean(found**2)), np.nanmean(found)
                cells.append(f'{rms:.1f} ({bias:+.1f}) {np.isnan(found).mean():.0%}')
            click.echo(f'| {eyes_px} | ' + ' | '.join(cells) + ' |')
    landmarks = [Head(10, 5, 0, (x, 0, 1)).landmarks() for x in (-0.3, -0.1, 0.1, 0.3)]
    times = []
    for _ in range(2000):
        start = time.thread_time()
        head_directions(landmarks, None, SIZE)
        times.append(time.thread_time() - start)
    click.echo(
        f'\nfour faces: {min(times) * 1e6:.0f} us at best, median {np.median(times) * 1e6:.0f} us'
    )


if __name__ == '__main__':
    main()
