# SPDX-License-Identifier: Apache-2.0
"""Accuracy, latency, throughput and memory of every GPU backend on this machine.

    python3 benchmarks/gpu.py --data FERPLUS_FOLDER --json gpu.json

Each backend runs the bundled weights at 96x96 and 224x224. Accuracy is the agreement with fp32 on
the CPU. Latency is the median time between two CUDA events around one call, including the copies
to and from the GPU, interleaved with the published network: not fused, fp32, torch eager, with its
input already on the GPU. Exit code 1 if a backend is not accurate.

With --cpu the script runs the CPU backends instead, so that it can be tried without a GPU.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from parts import make_faces
from rich.console import Console
from rich.table import Table

from dan_ros import __version__
from dan_ros.backends import CPU_BACKENDS, GPU_BACKENDS, Backend, cuda, open_backend
from dan_ros.bench.timer import Limit, elapsed_ms, run_interleaved
from dan_ros.datasets.catalog import open_faces
from dan_ros.datasets.faces import VALID
from dan_ros.errors import BackendError, DanError
from dan_ros.model import store
from dan_ros.network.dan import DAN
from dan_ros.network.export import export_onnx, read_fused
from dan_ros.probabilities import Calibrator

BATCHES = (1, 2, 4, 8, 64)
SIZES = (96, 224)  # side of the input, pixels
ROUNDS = 30
FACES = 1000  # for the accuracy
MIN_AGREEMENT, MAX_DIFFERENCE = 0.995, 0.02


@dataclass
class Result:
    """Result of one backend at one input size.

    Attributes:
        backend, size, device: what was measured.
        agreement: share of faces with the same top class as fp32 on the CPU, [0, 1].
        difference: largest difference of a probability from fp32 on the CPU.
        memory_mib: GPU memory that the backend uses.
        latency_ms: median, by batch size.
        times_faster: speed relative to the eager network, by batch size.
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
    def is_accurate(self) -> bool:
        """Whether the answers are close enough to fp32 on the CPU."""
        return self.agreement >= MIN_AGREEMENT and self.difference <= MAX_DIFFERENCE


@click.command()
@click.option('--data', type=click.Path(path_type=Path), help='FER+ folder; default: one face.')
@click.option('--json', 'json_file', type=click.Path(path_type=Path), help='File to write.')
@click.option('--cpu', is_flag=True, help='Run the CPU backends.')
@click.option('--rounds', default=ROUNDS, show_default=True, type=click.IntRange(1))
def main(data: Path | None, json_file: Path | None, cpu: bool, rounds: int) -> None:
    """Measure every backend that works on this machine."""
    if not cpu:
        try:
            cuda.require_device()
        except BackendError as error:
            sys.exit(f'Error: {error}')
    results, failures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            model = write_model(size, Path(folder))
            faces = load_faces(data, size)
            expected = classify(open_backend('torch', model), faces)
            for name in CPU_BACKENDS if cpu else GPU_BACKENDS:
                click.echo(f'{name} at {size}x{size}', err=True)
                try:
                    results.append(measure(name, model, faces, expected, rounds, cpu))
                except DanError as error:
                    failures[f'{name} {size}'] = str(error)
    show(results, failures)
    if json_file:
        content = {'machine': machine(), 'results': [*map(asdict, results)], 'not_run': failures}
        json_file.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
    sys.exit(not results or not all(result.is_accurate for result in results))


def write_model(size: int, folder: Path) -> str:
    """Write the bundled weights as a model for another input size; return its path."""
    file = store.read_model(store.FLOAT_MODEL)
    fused, info = read_fused(file.content, file.name)
    path = folder / f'dan_{size}.onnx'
    export_onnx(fused, replace(info, input_size=(size, size)), path, fp16=True)
    return str(path)


def load_faces(data: Path | None, size: int) -> np.ndarray:
    """Load validation faces, or shifted crops of one face: uint8 [N, size, size, 3], RGB."""
    if data is None:
        return make_faces(size, FACES // 10)
    faces = open_faces('ferplus', data, VALID)
    chosen = np.random.default_rng(0).permutation(len(faces))[:FACES]
    return faces.read_rgb(chosen, size)


def classify(backend: Backend, faces: np.ndarray) -> np.ndarray:
    """Return the probabilities of faces, float32 [N, 8]."""
    return Calibrator.create(backend.model).probabilities(backend.infer(faces))


def measure(
    name: str, model: str, faces: np.ndarray, expected: np.ndarray, rounds: int, cpu: bool
) -> Result:
    """Measure one backend; `expected` are the probabilities of fp32 on the CPU, [N, 8]."""
    free_before = free_memory(cpu)
    backend = open_backend(name, model)
    found = classify(backend, faces)
    memory_mib = (free_before - free_memory(cpu)) / 2**20
    size = faces.shape[1]
    agreement = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    difference = float(np.abs(found - expected).max())
    result = Result(name, size, backend.device, agreement, difference, memory_mib)
    eager = open_eager(size, 'cpu' if cpu else 'cuda')
    clock = elapsed_ms if cpu else elapsed_on_gpu_ms
    for batch in BATCHES:
        crops = np.resize(faces, (batch, *faces.shape[1:]))
        variants = {
            'ours': partial(clock, partial(backend.infer, crops)),
            'eager': partial(clock, partial(eager, batch)),
        }
        times_ms = run_interleaved(variants, Limit(rounds))
        result.latency_ms[batch] = statistics.median(times_ms['ours'])
        eager_ms = statistics.median(times_ms['eager'])
        result.times_faster[batch] = eager_ms / result.latency_ms[batch]
    return result


def open_eager(size: int, device: str) -> Callable[[int], object]:
    """Return a function that runs the published network on a batch of a given size."""
    network = DAN(num_class=8).eval().to(device)
    faces = torch.rand(max(BATCHES), 3, size, size, device=device)
    return torch.no_grad()(lambda batch: network(faces[:batch]))


def elapsed_on_gpu_ms(run: Callable[[], object]) -> float:
    """Return the time between two CUDA events around a call, milliseconds."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def free_memory(cpu: bool) -> int:
    """Return the free GPU memory in bytes, 0 with `cpu`."""
    return 0 if cpu else int(torch.cuda.mem_get_info()[0])


def machine() -> dict[str, str]:
    """Return versions and the name of the GPU."""
    device = cuda.find_device()
    names = (device.name, device.sm, device.driver) if device else ('none', '', '')
    gpu = dict(zip(('gpu', 'sm', 'driver'), names, strict=True))
    return {'dan_ros': __version__, 'torch': torch.__version__, **gpu}


def show(results: list[Result], failures: dict[str, str]) -> None:
    """Print the results and the errors of the backends that failed."""
    columns = ['backend', 'px', 'agreement', 'max diff', 'MiB', *(f'batch {b}' for b in BATCHES)]
    table = Table(
        *columns,
        'faces/s',
        title=', '.join(value for value in machine().values() if value),
        caption='milliseconds per call (times faster than the published network in torch eager)',
    )
    largest = max(BATCHES)
    for r in results:
        table.add_row(
            r.backend,
            str(r.size),
            f'{r.agreement:.2%}',
            f'{r.difference:.4f}',
            f'{r.memory_mib:.0f}',
            *(f'{r.latency_ms[b]:.3f} ({r.times_faster[b]:.1f}x)' for b in BATCHES),
            f'{1e3 * largest / r.latency_ms[largest]:.0f}',
        )
    Console(width=160).print(table)
    for name, failure in failures.items():
        click.echo(f'{name}: {failure}')


if __name__ == '__main__':
    main()
