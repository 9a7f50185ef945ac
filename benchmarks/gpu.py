"""Correctness, latency, throughput and memory of every backend on this machine's GPU.

    python3 benchmarks/gpu.py --data FOLDER_OF_FERPLUS --json gpu.json

Each backend that works here runs the bundled model at its own size, and the same weights at 224.
Correctness is against fp32 on the CPU. Times are medians of CUDA events about one call, copies to
and from the GPU included, interleaved with the network as published: unfused, fp32, torch eager,
its faces on the GPU already. Memory is what the GPU has less after a backend was opened and ran.

With --cpu it runs the CPU backends instead, on a steady clock, to try the script without a GPU.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from dan_ros import __version__
from dan_ros.backends import CPU_BACKENDS, GPU_BACKENDS, Backend, cuda, open_backend
from dan_ros.errors import BackendError, DanError
from dan_ros.labels import logits_to_probabilities
from dan_ros.model import store
from dan_ros.network.dan import DAN
from dan_ros.network.export import export_onnx, read_fused

BATCHES = (1, 2, 4, 8, 64)
SIZES = (96, 224)
WARM_UP_RUNS, ROUNDS = 20, 100
FACES = 1000  # for correctness
MIN_AGREEMENT, MAX_DIFFERENCE = 0.995, 0.02


@dataclass
class Result:
    """What was measured of a backend at a size.

    Attributes:
        backend, size, device: which.
        agreement: of the most likely class with fp32 on the CPU, [0, 1].
        difference: largest of any probability.
        memory_mib: on the GPU.
        latency_ms: median by batch.
        times_faster: than the eager network, by batch.
    """

    backend: str
    size: int
    device: str
    agreement: float
    difference: float
    memory_mib: float
    latency_ms: dict[int, float] = field(default_factory=dict)
    times_faster: dict[int, float] = field(default_factory=dict)

    @property
    def is_correct(self) -> bool:
        """Whether it is near enough to fp32 on the CPU."""
        return self.agreement >= MIN_AGREEMENT and self.difference <= MAX_DIFFERENCE


@click.command()
@click.option('--data', type=click.Path(path_type=Path), help='Folder of FER+; else one face.')
@click.option('--json', 'json_file', type=click.Path(path_type=Path), help='Also write a file.')
@click.option('--cpu', is_flag=True, help='Try the script on the CPU.')
@click.option('--rounds', default=ROUNDS, show_default=True, type=click.IntRange(1))
def main(data: Path | None, json_file: Path | None, cpu: bool, rounds: int) -> None:
    """Measure every backend that works on this machine."""
    names = CPU_BACKENDS if cpu else GPU_BACKENDS
    if not cpu:
        try:
            cuda.require_device()
        except BackendError as error:
            sys.exit(f'Error: {error}')
    console = Console(stderr=True)
    results, problems = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            model = write_model(size, Path(folder))
            faces = load_faces(data, size)
            expected = probabilities(open_backend('torch', model), faces)
            for name in names:
                console.print(f'{name} at {size}x{size} ...')
                try:
                    results.append(measure(name, model, size, faces, expected, rounds, cpu))
                except DanError as error:
                    problems[f'{name} {size}'] = str(error)
    show(results, problems, data is not None)
    if json_file:
        content = {'machine': machine(), 'results': [*map(asdict, results)], 'not_run': problems}
        json_file.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
    sys.exit(not results or not all(result.is_correct for result in results))


def write_model(size: int, folder: Path) -> str:
    """The bundled model's weights for another size of face."""
    file = store.read_model(store.FLOAT_MODEL)
    fused, info = read_fused(file.content, file.name)
    path = folder / f'dan_{size}.onnx'
    export_onnx(fused, replace(info, input_size=(size, size)), path, fp16=True)
    return str(path)


def load_faces(data: Path | None, size: int) -> np.ndarray:
    """Validation faces, or one face moved about: uint8 [N, size, size, 3], RGB."""
    if data is not None:
        from dan_ros.datasets.catalog import open_faces
        from dan_ros.datasets.faces import VALID

        faces = open_faces('ferplus', data, VALID)
        chosen = np.random.default_rng(0).permutation(len(faces))[:FACES]
        return faces.read_rgb(chosen, size)
    from skimage.data import astronaut

    shifts = np.random.default_rng(0).integers(-20, 21, (FACES // 10, 2))
    crops = [astronaut()[63 + y : 176 + y, 166 + x : 279 + x] for y, x in shifts]
    return np.stack([cv2.resize(crop, (size, size)) for crop in crops])


def probabilities(backend: Backend, faces: np.ndarray) -> np.ndarray:
    """Probabilities of faces, float32 [N, 8]."""
    parts = [backend.infer(faces[start : start + 64]) for start in range(0, len(faces), 64)]
    return logits_to_probabilities(np.concatenate(parts), backend.model.labels)


def measure(
    name: str,
    model: str,
    size: int,
    faces: np.ndarray,
    expected: np.ndarray,
    rounds: int,
    cpu: bool,
) -> Result:
    """Everything about one backend at one size; `expected` are the right probabilities."""
    before = free_memory(cpu)
    backend = open_backend(name, model)
    found = probabilities(backend, faces)
    memory_mib = (before - free_memory(cpu)) / 2**20
    result = Result(
        name,
        size,
        backend.device,
        float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        float(np.abs(found - expected).max()),
        memory_mib,
    )
    eager = open_eager(size, cpu)
    clock = time_on_cpu if cpu else time_on_gpu
    for batch in BATCHES:
        part = np.resize(faces, (batch, *faces.shape[1:]))
        ours, theirs = interleaved(
            clock, [lambda p=part: backend.infer(p), lambda b=batch: eager(b)], rounds
        )
        result.latency_ms[batch] = ours
        result.times_faster[batch] = theirs / ours
    return result


def open_eager(size: int, cpu: bool) -> Callable[[int], object]:
    """The network as published, with faces of any number."""
    device = 'cpu' if cpu else 'cuda'
    network = DAN(num_class=8).eval().to(device)
    faces = torch.rand(max(BATCHES), 3, size, size, device=device)

    def run(batch: int) -> object:
        with torch.no_grad():
            return network(faces[:batch])

    return run


def interleaved(
    clock: Callable[[Callable[[], object]], float], runs: list[Callable[[], object]], rounds: int
) -> list[float]:
    """Median time of each, milliseconds, in turns."""
    for run in runs:
        for _ in range(min(WARM_UP_RUNS, rounds)):
            run()
    times = [[clock(run) for run in runs] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def time_on_gpu(run: Callable[[], object]) -> float:
    """Milliseconds between two CUDA events about a call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def time_on_cpu(run: Callable[[], object]) -> float:
    """Milliseconds of a call by the steady clock."""
    started_s = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started_s)


def free_memory(cpu: bool) -> int:
    """Bytes that are free on the GPU."""
    return 0 if cpu else int(torch.cuda.mem_get_info()[0])


def machine() -> dict[str, str]:
    """Versions and hardware."""
    device = cuda.find_device()
    return {
        'dan_ros': __version__,
        'torch': torch.__version__,
        'gpu': device.name if device else 'none',
        'sm': device.sm if device else '',
        'driver': device.driver if device else '',
    }


def show(results: list[Result], problems: dict[str, str], has_data: bool) -> None:
    """Print the table, and what did not run."""
    batches = [f'batch {batch}' for batch in BATCHES]
    table = Table(
        *('backend', 'px', 'agreement', 'max diff', 'MiB', *batches, 'faces/s'),
        title=', '.join(value for value in machine().values() if value),
        caption='ms a call (times faster than the unfused network in torch eager); agreement on '
        + ('FER+ validation faces' if has_data else 'one face moved about: give --data'),
    )  # fmt: skip
    for r in results:
        most = max(BATCHES)
        table.add_row(
            r.backend,
            str(r.size),
            f'{100 * r.agreement:.2f} %',
            f'{r.difference:.4f}',
            f'{r.memory_mib:.0f}',
            *(f'{r.latency_ms[b]:.3f} ({r.times_faster[b]:.1f}x)' for b in BATCHES),
            f'{1e3 * most / r.latency_ms[most]:.0f}',
        )
    console = Console(width=160)
    console.print(table)
    for name, problem in problems.items():
        console.print(f'{name}: {problem}', markup=False)


if __name__ == '__main__':
    main()
