# SPDX-License-Identifier: Apache-2.0
"""Measure one inference server with 1, 4 and 16 robots, and simulate it with 1,000.

    python3 benchmarks/fleet.py [--seconds 6] [--rounds 3] [--out fleet]

Starts the real Triton of the package nvidia-pytriton with the files of `dan-ros serve-config`. Each
robot is a thread of this process that classifies one face 15 times a second. The variants run
alternately. Then the server is killed and started again while four robots work. Writes fleet.json
and fleet.png; does not need ROS.
"""

import heapq
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import psutil
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dan_ros.backends import Backend, BackendConfig, ServerConfig, choose_backend
from dan_ros.backends.kserve.server import backoff_s
from dan_ros.cli.main import cli
from dan_ros.model.store import INT8_MODEL
from dan_ros.palette import ACCENT, ALERT, BASELINE, LIGHT, SERIES
from dan_ros.plots.style import encode, new_figure, styled

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'test' / 'support'))

from triton_server import Triton  # noqa: E402

RATE_HZ = 15.0  # images with one face, per robot
FLEETS = (1, 4, 16)
OWN = 'own network'
TIMEOUT_MS = 1000.0  # longer than any usual latency
KILL_TIMEOUT_MS = 400.0  # more than the default, because this machine also runs the robots
KILL_ROBOTS, KILLED_S, STARTED_S, END_S = 4, 4.0, 7.0, 22.0
BATCHES = (1, 2, 4, 8, 16, 32)
SIMULATED = (100, 300, 1000)  # robots
SIMULATED_S, LIMIT_MS = 4.0, 50.0


@dataclass(frozen=True)
class Call:
    """One call: start time in the run (s), duration (ms), and whether the server answered."""

    start_s: float
    ms: float
    by_server: bool


def drive(backends: Sequence[Backend], seconds: float) -> list[Call]:
    """Let one robot per backend classify a face `RATE_HZ` times a second."""
    calls: list[Call] = []
    begin_s = time.monotonic() + 0.2

    def robot(number: int, backend: Backend) -> None:
        face = np.random.default_rng(number).integers(0, 256, (1, 96, 96, 3), np.uint8)
        due_s = begin_s + np.random.default_rng(number).random() / RATE_HZ
        while due_s < begin_s + seconds:
            time.sleep(max(0.0, due_s - time.monotonic()))
            start_s = time.monotonic()
            assert np.isfinite(backend.infer(face)).all()
            ms = 1e3 * (time.monotonic() - start_s)
            by_server = backend.details().get('server_state') == 'in use'
            calls.append(Call(start_s - begin_s, ms, by_server))
            due_s = max(due_s + 1 / RATE_HZ, time.monotonic())

    threads = [threading.Thread(target=robot, args=pair) for pair in enumerate(backends)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(calls, key=lambda call: call.start_s)


def cpu_s(process: psutil.Process) -> float:
    """Processor time of a process and its children, seconds."""
    return sum(sum(p.cpu_times()[:2]) for p in (process, *process.children(recursive=True)))


def measure(backends: Sequence[Backend], seconds: float, server: psutil.Process) -> dict[str, Any]:
    """Drive robots and return latencies and processor times."""
    client = psutil.Process()
    before = sum(client.cpu_times()[:2]), cpu_s(server)
    calls = drive(backends, seconds)
    robot_s, server_s = sum(client.cpu_times()[:2]) - before[0], cpu_s(server) - before[1]
    return {
        'ms': [round(call.ms, 3) for call in calls],
        'robot_cpu_ms': 1e3 * robot_s / len(calls),
        'server_cpu_ms': 1e3 * server_s / len(calls),
        'by_server': sum(call.by_server for call in calls),
    }


def summarize(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the median over all calls, the 99th percentile, and the medians of the rounds."""
    ms = np.concatenate([one['ms'] for one in rounds])
    return {
        'calls': len(ms),
        'median_ms': float(np.median(ms)),
        'p99_ms': float(np.percentile(ms, 99)),
        'robot_cpu_ms': statistics.median(one['robot_cpu_ms'] for one in rounds),
        'server_cpu_ms': statistics.median(one['server_cpu_ms'] for one in rounds),
    }


def kill_and_return(triton: Triton, backends: Sequence[Backend]) -> dict[str, Any]:
    """Kill the server and start it again while robots work."""

    def disturb() -> None:
        time.sleep(0.2 + KILLED_S)
        triton.kill()
        time.sleep(STARTED_S - KILLED_S)
        triton.start(wait=False)

    failures = [int(backend.details()['server_failures']) for backend in backends]
    thread = threading.Thread(target=disturb)
    thread.start()
    calls = drive(backends, END_S)
    thread.join()
    triton.wait_ready()
    back_s = [call.start_s for call in calls if call.by_server and call.start_s > STARTED_S]
    return {
        'calls': [[round(c.start_s, 3), round(c.ms, 2), c.by_server] for c in calls],
        'answers': len(calls),
        'by_server': sum(call.by_server for call in calls),
        'failed_calls': sum(int(b.details()['server_failures']) for b in backends) - sum(failures),
        'longest_ms': max(call.ms for call in calls),
        'first_back_s': min(back_s, default=float('nan')) - STARTED_S,
    }


# --- simulation -----------------------------------------------------------------------------------


def service_seconds(backend: Backend) -> Callable[[int], float]:
    """Measure processor time against batch size on one core; return the line through it."""
    times = []
    for batch in BATCHES:
        faces = np.zeros((batch, 96, 96, 3), np.uint8)
        runs = []
        for _ in range(8):
            start_s = time.process_time()
            backend.infer(faces)
            runs.append(time.process_time() - start_s)
        times.append(statistics.median(runs))
    slope, offset = np.polyfit(BATCHES, times, 1)
    return lambda batch: max(0.0, float(offset)) + float(slope) * batch


def simulate(robots: int, cores: int, service_s: Callable[[int], float]) -> list[float]:
    """Simulate a server whose instances take waiting faces in batches of up to 32.

    Args:
        robots: each sends a face `RATE_HZ` times a second, with a random phase and 5 ms of jitter.
        cores: number of instances, one core each.
        service_s: duration of a batch.

    Returns:
        Time of each face in the server, ms.
    """
    draw = np.random.default_rng(0)
    phases = [draw.random() / RATE_HZ for _ in range(robots)]
    ticks = range(int(SIMULATED_S * RATE_HZ))
    arrivals = sorted(
        phase + tick / RATE_HZ + draw.normal(0, 0.005) for phase in phases for tick in ticks
    )
    free = [0.0] * cores
    latencies, first = [], 0
    while first < len(arrivals):
        start_s = max(heapq.heappop(free), arrivals[first])
        last = first
        while last < len(arrivals) and last - first < 32 and arrivals[last] <= start_s:
            last += 1
        end_s = start_s + service_s(last - first)
        latencies += [1e3 * (end_s - arrival) for arrival in arrivals[first:last]]
        heapq.heappush(free, end_s)
        first = last
    return latencies


def cores_needed(robots: int, service_s: Callable[[int], float]) -> dict[str, float]:
    """Return about the fewest cores at which 99 % of the faces stay below `LIMIT_MS`."""
    cores = max(1, int(robots * RATE_HZ * service_s(32) / 32))
    latencies = simulate(robots, cores, service_s)
    while np.percentile(latencies, 99) > LIMIT_MS and cores < robots:
        cores += 1 + cores // 50
        latencies = simulate(robots, cores, service_s)
    return {
        'cores': cores,
        'median_ms': float(np.median(latencies)),
        'p99_ms': float(np.percentile(latencies, 99)),
    }


def probes_per_second(robots: int, away_s: float) -> dict[str, float]:
    """Simulate the probes of robots that lose a server at the same moment.

    Returns:
        The largest number of probes in any second, with and without random delays, and the time
        after which 50 % and 99 % of the robots use the returned server again.
    """
    peaks = []
    for draw in (np.random.default_rng(0).random, lambda: 1.0):
        times, returns = [], []
        for _ in range(robots):
            now_s, failures = 0.0, 0
            while now_s < away_s:
                now_s += backoff_s(failures, draw)
                failures += 1
                times.append(now_s)
            returns.append(now_s - away_s)
        peaks.append((max(np.bincount(np.int64(10 * np.array(times)))), returns))
    return {
        'peak_per_100_ms': int(peaks[0][0]),
        'peak_per_100_ms_without_jitter': int(peaks[1][0]),
        'half_back_s': float(np.median(peaks[0][1])),
        'p99_back_s': float(np.percentile(peaks[0][1], 99)),
    }


# --- report ---------------------------------------------------------------------------------------


@styled
def draw(result: dict[str, Any]) -> Figure:
    """Draw latency by number of robots, and the calls before and after the server is killed."""
    figure = new_figure(5.8, 'One server for many robots, which classify 15 faces a second each')
    upper, lower = figure.subfigures(2, 1)
    _draw_fleets(*upper.subplots(1, 2, width_ratios=(3, 2)), result)
    _draw_kill(lower.subplots(), result['kill']['calls'])
    return figure


def _draw_fleets(times: Axes, work: Axes, result: dict[str, Any]) -> None:
    """Draw time and work per face of each variant."""
    variants = result['variants']
    places, rows = np.arange(len(variants)), list(variants.values())
    colors = [BASELINE if name == OWN else ACCENT for name in variants]
    times.bar(places, [row['median_ms'] for row in rows], 0.5, color=colors, label='median')
    p99 = [row['p99_ms'] for row in rows]
    times.plot(places, p99, '_', color=ALERT, ms=20, mew=2, label='99th percentile')
    alone = [result['service_ms'][1], *(median for median, _ in result['undisturbed'].values())]
    times.plot(
        places,
        alone,
        'o',
        mfc='white',
        mec=LIGHT.ink,
        label='median, simulated: cores for the server only',
    )
    times.set_yscale('log')
    times.set_ylim(1, 1e4)
    times.set_yticks([1, 10, 100, 1000], ['1', '10', '100', '1000'])
    times.set_title('Time per face, ms')
    times.legend(loc='upper left')
    robot = [row['robot_cpu_ms'] for row in rows]
    server = [0.0 if name == OWN else row['server_cpu_ms'] for name, row in variants.items()]
    work.bar(places, robot, 0.5, color=SERIES[1], label='robot')
    work.bar(places, server, 0.5, bottom=robot, color=ACCENT, label='server')
    work.set_title('Processor time per face, ms')
    work.set_ylim(0, 1.5 * max(map(sum, zip(robot, server, strict=True))))
    work.legend(loc='upper left')
    for axes in (times, work):
        axes.set_xticks(
            places, ['own\nnetwork', *(f'server,\n{n} robot{"s"[: n > 1]}' for n in FLEETS)]
        )


def _draw_kill(axes: Axes, answers: Sequence[Sequence[float]]) -> None:
    """Draw the calls before and after the server is killed."""
    calls = np.array(answers, dtype=float)
    for by_server, color, label in ((1, ACCENT, 'server'), (0, SERIES[1], 'local model')):
        chosen = calls[calls[:, 2] == by_server]
        axes.plot(chosen[:, 0], chosen[:, 1], '.', color=color, label=f'answered by the {label}')
    for at_s, text in ((KILLED_S, 'kill -9'), (STARTED_S, 'started again')):
        axes.axvline(at_s, color=ALERT, lw=1)
        axes.annotate(text, (at_s, 0.97), (3, 0), xycoords=('data', 'axes fraction'),
                       textcoords='offset points', va='top', fontsize=8)  # fmt: skip
    axes.set_title(
        f'{KILL_ROBOTS} robots while the server dies and returns: every face is answered'
    )
    axes.set_xlabel('seconds')
    axes.set_ylabel('ms')
    axes.set_ylim(0, 1.4 * calls[:, 1].max())
    axes.legend(loc='upper right')


@click.command()
@click.option('--seconds', default=6.0, show_default=True, help='Duration of each variant.')
@click.option('--rounds', default=3, show_default=True, help='Turns of all variants.')
@click.option('--out', default='fleet', show_default=True, type=click.Path(path_type=Path))
def main(seconds: float, rounds: int, out: Path) -> None:
    """Measure, simulate, and write fleet.json and fleet.png."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        result = run(Path(folder), seconds, rounds)
    (out / 'fleet.json').write_text(json.dumps(result))
    (out / 'fleet.png').write_bytes(encode(draw(result)))
    short = {**result, 'kill': {**result['kill'], 'calls': '...'}}
    click.echo(json.dumps(short, indent=1))


def run(folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Start the server, measure, and stop it."""
    options = ['--backend', 'python', '--instances', str(psutil.cpu_count())]
    arguments = ['serve-config', str(folder / 'fleet'), *options]
    cli(arguments, standalone_mode=False)
    (folder / 'scratch').mkdir()
    own = choose_backend('onnxruntime', INT8_MODEL, BackendConfig(1)).backend
    triton = Triton(folder / 'fleet' / 'models', folder / 'scratch')
    try:
        process = psutil.Process(triton.pid)
        robots = [_robot(triton, TIMEOUT_MS) for _ in range(max(FLEETS))]
        variants: dict[str, list[Backend]] = {OWN: [own]}
        variants |= {f'server, {n}': robots[:n] for n in FLEETS}
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
        for _ in range(rounds):
            for name, backends in variants.items():
                measured[name].append(measure(backends, seconds, process))
        kill = kill_and_return(triton, [_robot(triton, KILL_TIMEOUT_MS) for _ in range(4)])
    finally:
        triton.kill()
    service_s = service_seconds(own)
    return {
        'cores': psutil.cpu_count(),
        'load': psutil.getloadavg()[0],
        'variants': {name: summarize(rows) for name, rows in measured.items()},
        'kill': kill,
        'service_ms': {batch: 1e3 * service_s(batch) for batch in BATCHES},
        'simulated': {robots: cores_needed(robots, service_s) for robots in SIMULATED},
        'undisturbed': {
            robots: [float(np.percentile(simulate(robots, 2, service_s), q)) for q in (50, 99)]
            for robots in FLEETS
        },
        'probes': probes_per_second(1000, 600.0),
    }


def _robot(triton: Triton, timeout_ms: float) -> Backend:
    server = ServerConfig(triton.grpc, timeout_ms=timeout_ms)
    config = BackendConfig(threads=1, server=server, fallback=True)
    return choose_backend('kserve', config=config).backend


if __name__ == '__main__':
    main()
