"""`dan-ros doctor`: what this machine has, what really runs on it, what to install."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dan_ros import __version__
from dan_ros.backends import BACKENDS, GPU_BACKENDS, choose_backend, cuda, open_backend
from dan_ros.backends.base import available_cpus, smoke_test
from dan_ros.backends.tensorrt.engine_builder import import_tensorrt, runtime_of
from dan_ros.detect import DETECTORS, open_detector
from dan_ros.errors import BackendError, DanError, ModelError
from dan_ros.model import store

OK, ABSENT, WARNING, ERROR = 'ok', 'absent', 'warning', 'error'
COLOURS = {OK: 'green', ABSENT: 'dim', WARNING: 'yellow', ERROR: 'red'}
RUNS = 5
IMAGE_SHAPE = (480, 640, 3)  # of the blank image the detectors are timed on

# Module, Python package, what to do where it is missing, whether the node needs it.
PACKAGES = (
    ('numpy', 'numpy', 'apt install python3-numpy, or pip install numpy', True),
    ('cv2', 'opencv-python-headless', 'apt install python3-opencv', True),
    ('onnxruntime', 'onnxruntime', 'pip install onnxruntime', True),
    ('onnx', 'onnx', 'pip install onnx', True),
    ('matplotlib', 'matplotlib', 'pip install matplotlib; only to evaluate and explain', False),
    ('yaml', 'pyyaml', 'pip install pyyaml; only for training and bags', False),
    ('rosbags', 'rosbags', 'pip install rosbags; only for dan-ros bag', False),
    ('torch', 'torch', 'pip install torch safetensors; only to convert or train models', False),
    ('openvino', 'openvino', 'pip install openvino; only for the backend of that name', False),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        state: `OK`; `ABSENT`, what this machine need not have; `WARNING`, something optional is
            missing; `ERROR`, the node can't work.
        found: what there is.
        remedy: what to do about it, or ''.
    """

    subject: str
    state: str
    found: str
    remedy: str = ''


@click.command('doctor')
@click.option('--json', 'as_json', is_flag=True, help='The findings as one JSON object.')
def command(as_json: bool) -> None:
    """Check this machine: versions, models, one real inference on each backend and detector.

    Exit code 1 if something that the node needs is missing or does not work.
    """
    findings = examine()
    if as_json:
        click.echo(json.dumps({'findings': [asdict(finding) for finding in findings]}))
    else:
        _print(findings)
    sys.exit(any(finding.state == ERROR for finding in findings))


def examine() -> list[Finding]:
    """Look at everything; takes a few seconds."""
    return [
        Finding('dan_ros', OK, __version__),
        _machine(),
        _ros(),
        *(_package(*entry) for entry in PACKAGES),
        _gpu(),
        _tensorrt(),
        *(_model(name) for name in store.KNOWN_MODELS),
        *(_backend(name) for name in BACKENDS if name != 'auto'),
        _choice(),
        *(_detector(name) for name in DETECTORS if name != 'auto'),
    ]


def _machine() -> Finding:
    found = f'Python {platform.python_version()}, {platform.machine()}, {available_cpus()} cores'
    return Finding('machine', OK, found)


def _ros() -> Finding:
    if importlib.util.find_spec('rclpy') is None:
        return Finding(
            'ROS 2',
            WARNING,
            'rclpy can not be imported here',
            'source /opt/ros/<distribution>/setup.bash and the workspace, or . ./env.sh',
        )
    if importlib.util.find_spec('dan_ros.msg') is None:
        return Finding(
            'ROS 2',
            WARNING,
            'rclpy is here, the messages of dan_ros are not',
            'build the package with colcon and source its install/setup.bash, or . ./env.sh',
        )
    distribution = os.environ.get('ROS_DISTRO', 'from wheels')
    middleware = os.environ.get('RMW_IMPLEMENTATION', 'its default middleware')
    return Finding('ROS 2', OK, f'{distribution}, {middleware}, dan_ros.msg built')


def _package(module: str, package: str, remedy: str, is_needed: bool) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(module, ERROR if is_needed else WARNING, 'not installed', remedy)
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # apt's packages may lack the metadata
        version = getattr(importlib.import_module(module), '__version__', 'installed')
    return Finding(module, OK, version)


def _gpu() -> Finding:
    device = cuda.find_device()
    if device is None:
        return Finding(
            'GPU',
            ABSENT,
            'no CUDA device: everything runs on the CPU',
            'only if there should be one: `nvidia-smi` must list it; in a container, --gpus all',
        )
    return Finding('GPU', OK, f'{device.name}, SM {device.sm}, driver {device.driver}')


def _tensorrt() -> Finding:
    try:
        return Finding('TensorRT', OK, runtime_of(import_tensorrt()))
    except BackendError as error:
        state = WARNING if cuda.find_device() else ABSENT
        return Finding('TensorRT', state, 'can not be used', str(error))


def _choice() -> Finding:
    try:
        choice = choose_backend()
    except DanError as error:
        return Finding('backend auto', ERROR, str(error))
    state = WARNING if choice.warning else OK
    return Finding('backend auto', state, f'{choice.backend.name}: {choice.why}')


def _model(name: str) -> Finding:
    try:
        file = store.read_model(name)
    except ModelError as error:
        needed = name in store.BUNDLED_MODELS
        remedy = '' if needed else 'until then the weaker Haar cascade finds faces'
        return Finding(f'model {name}', ERROR if needed else WARNING, str(error), remedy)
    return Finding(f'model {name}', OK, f'verified, {file.path}')


def _backend(name: str) -> Finding:
    try:
        backend = open_backend(name)
        smoke_test(backend)
        faces = np.zeros((1, *backend.model.input_size, 3), np.uint8)
        time_ms = _median_ms(lambda: backend.infer(faces))
    except (DanError, ImportError) as error:
        state = ERROR if name == 'onnxruntime' else WARNING
        if name in GPU_BACKENDS and cuda.find_device() is None:
            return Finding(f'backend {name}', ABSENT, 'no CUDA device')
        return Finding(f'backend {name}', state, 'can not be used', str(error))
    height, width = backend.model.input_size
    found = f'{time_ms:.1f} ms a face of {width}x{height}, {backend.model_name} on {backend.device}'
    return Finding(f'backend {name}', OK, found)


def _detector(name: str) -> Finding:
    try:
        detector = open_detector(name)
        image = np.zeros(IMAGE_SHAPE, np.uint8)
        time_ms = _median_ms(lambda: detector.detect(image))
    except (DanError, ImportError) as error:
        return Finding(f'detector {name}', WARNING, str(error))
    return Finding(f'detector {name}', OK, f'{time_ms:.1f} ms an image of 640x480')


def _median_ms(run: Callable[[], object]) -> float:
    """Median time of some runs after a first one."""
    run()
    times = []
    for _ in range(RUNS):
        started_s = time.perf_counter()
        run()
        times.append(time.perf_counter() - started_s)
    return 1e3 * statistics.median(times)


def _print(findings: list[Finding]) -> None:
    table = Table('what', 'state', box=None)
    table.add_column('found', overflow='fold')
    table.add_column('what to do', overflow='fold')
    for finding in findings:
        colour = COLOURS[finding.state]
        state = f'[{colour}]{finding.state}[/{colour}]'
        table.add_row(finding.subject, state, escape(finding.found), escape(finding.remedy))
    Console().print(table)
