# SPDX-License-Identifier: Apache-2.0
"""`dan-ros doctor`: checks what is installed, what works, and what to install."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import timeit
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import click
import numpy as np
from rich.markup import escape
from rich.table import Table

from dan_ros import __version__
from dan_ros.backends import (
    CPU_BACKENDS,
    GPU_BACKENDS,
    NO_SERVER,
    REGISTRY,
    ServerConfig,
    choose_backend,
    cuda,
    open_backend,
)
from dan_ros.backends.base import available_cpus
from dan_ros.backends.registry import SERVER
from dan_ros.backends.tensorrt.engine_builder import import_tensorrt, runtime_of
from dan_ros.cli.common import pip_name, print_table, server_options
from dan_ros.detect import DETECTORS, open_detector
from dan_ros.errors import BackendError, DanError, ModelError, count_of
from dan_ros.model import store

OK, ABSENT, WARNING, ERROR = 'ok', 'absent', 'warning', 'error'
COLORS = {OK: 'green', ABSENT: 'dim', WARNING: 'yellow', ERROR: 'red'}
RUNS = 5  # timed runs of each backend and detector
IMAGE_SHAPE = (480, 640, 3)  # shape of the blank image for timing detectors

ONNXRUNTIME_REMEDY = (
    'pip install onnxruntime; without it, OpenCV is slower, and adopt and export --int8 fail'
)
# What needs an optional package, by module.
OPTIONAL_PACKAGES = {
    'matplotlib': 'bag, bench, calibrate, evaluate, explain and train',
    'yaml': 'adopt, bag, calibrate, train, view, and calibration files',
    'pydantic': 'adopt and train',
    'jinja2': 'evaluate, and bag with several bags',
    'rosbags': 'bag, and calibrate and view of a bag',
    'mcap': 'bag, and calibrate and view of a bag',
    'pyarrow': 'bag with several bags, and the data set EmoNet-Face',
    'ray': 'bag --ray',
    'aiohttp': 'view',
    'onnx': 'adopt, convert, explain, export, and the backends tensorrt and torch',
    'torch': 'average, convert, explain, export, train, checkpoints, and the backends torch, '
    'torch_cuda',
    'safetensors': 'average, convert, explain, export, train, and checkpoints',
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str  # what was checked
    # `OK`; `ABSENT`, not needed on this machine; `WARNING`, an optional part is missing; `ERROR`,
    # the node, or the server that was given, cannot work.
    state: str
    found: str  # what was found
    remedy: str = ''  # what to do about it, or ''


@click.command('doctor')
@click.option('--json', 'as_json', is_flag=True, help='Print the findings as one JSON object.')
@server_options
def command(as_json: bool, server: ServerConfig) -> None:
    """Check this machine: versions, models, and one real inference per backend and detector.

    The exit code is 1 if something that the node needs is missing or does not work, or if the
    server given with --url does not answer.
    """
    findings = examine(server)
    if as_json:
        click.echo(json.dumps({'findings': [asdict(finding) for finding in findings]}))
    else:
        _print(findings)
    sys.exit(any(finding.state == ERROR for finding in findings))


def examine(server: ServerConfig = NO_SERVER) -> list[Finding]:
    """Check everything, including a server if its address is given; takes a few seconds."""
    return [
        Finding('dan_ros', OK, __version__),
        _check_machine(),
        _check_ros(),
        *_check_packages(),
        _check_gpu(),
        _check_tensorrt(),
        *(_check_model(name) for name in store.KNOWN_MODELS),
        *(_check_backend(name, server) for name in REGISTRY),
        _check_automatic_choice(),
        *(_check_detector(name) for name in DETECTORS),
    ]


def _check_machine() -> Finding:
    cores = count_of(available_cpus(), 'core')
    found = f'Python {platform.python_version()}, {platform.machine()}, {cores}'
    return Finding('machine', OK, found)


def _check_ros() -> Finding:
    if importlib.util.find_spec('rclpy') is None:
        return Finding(
            'ROS 2',
            WARNING,
            'cannot import rclpy',
            'source /opt/ros/<distribution>/setup.bash and the workspace, or . ./env.sh',
        )
    if importlib.util.find_spec('dan_ros.msg') is None:
        return Finding(
            'ROS 2',
            WARNING,
            'rclpy is installed, but the messages of dan_ros are not built',
            'build the package with colcon and source its install/setup.bash, or . ./env.sh',
        )
    distribution = os.environ.get('ROS_DISTRO', 'from wheels')
    middleware = os.environ.get('RMW_IMPLEMENTATION', 'default middleware')
    return Finding('ROS 2', OK, f'{distribution}, {middleware}, dan_ros.msg built')


def _check_packages() -> Iterator[Finding]:
    """Check the packages of the node, of commands and of CPU backends."""
    numpy_remedy = 'apt install python3-numpy, or pip install numpy'
    yield _check_package('numpy', 'numpy', numpy_remedy, if_missing=ERROR)
    opencv_remedy = 'apt install python3-opencv'
    yield _check_package('cv2', 'opencv-python-headless', opencv_remedy, if_missing=ERROR)
    yield _check_package('onnxruntime', 'onnxruntime', ONNXRUNTIME_REMEDY)
    for module, uses in OPTIONAL_PACKAGES.items():
        name = pip_name(module)
        yield _check_package(module, name, f'pip install {name}; only for dan-ros {uses}')
    listed = {'numpy', 'opencv-python-headless', 'onnxruntime', *map(pip_name, OPTIONAL_PACKAGES)}
    for backend in CPU_BACKENDS:
        for name in set(REGISTRY[backend].packages.split()) - listed:
            remedy = f'pip install {name}; only for the backend {backend}'
            yield _check_package(name.replace('-', '_'), name, remedy)


def _check_package(module: str, package: str, remedy: str, if_missing: str = WARNING) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(module, if_missing, 'not installed', remedy)
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # Debian packages may have no metadata
        version = getattr(importlib.import_module(module), '__version__', 'installed')
    return Finding(module, OK, version)


def _check_gpu() -> Finding:
    device = cuda.find_device()
    if device is None:
        return Finding(
            'GPU',
            ABSENT,
            'no CUDA device: everything runs on the CPU',
            'if this machine has one, `nvidia-smi` must list it; start containers with --gpus all',
        )
    return Finding('GPU', OK, f'{device.name}, SM {device.sm}, driver {device.driver}')


def _check_tensorrt() -> Finding:
    try:
        return Finding('TensorRT', OK, runtime_of(import_tensorrt()))
    except BackendError as error:
        state = WARNING if cuda.find_device() else ABSENT
        return Finding('TensorRT', state, 'cannot be used', str(error))


def _check_automatic_choice() -> Finding:
    try:
        choice = choose_backend()
    except DanError as error:
        return Finding('backend auto', ERROR, str(error))
    state = WARNING if choice.warning else OK
    return Finding('backend auto', state, f'{choice.backend.name}: {choice.reason}')


def _check_model(name: str) -> Finding:
    try:
        file = store.read_model(name)
    except ModelError as error:
        is_needed = name in store.BUNDLED_MODELS
        remedy = '' if is_needed else 'until then, the weaker Haar cascade is used'
        return Finding(f'model {name}', ERROR if is_needed else WARNING, str(error), remedy)
    return Finding(f'model {name}', OK, f'verified, {file.path}')


def _check_backend(name: str, server: ServerConfig) -> Finding:
    subject = f'backend {name}'
    if REGISTRY[name].kind == SERVER and not server.url:
        return Finding(subject, ABSENT, 'no server was given', 'give its address with --url')
    try:
        backend = open_backend(name, server=server)
        faces = np.zeros((1, *backend.model.input_size, 3), np.uint8)
        time_ms = _median_ms(lambda: backend.infer(faces))
    except DanError as error:
        if name in GPU_BACKENDS and cuda.find_device() is None:
            return Finding(subject, ABSENT, 'no CUDA device')
        state = ERROR if REGISTRY[name].kind == SERVER else WARNING  # a server was asked for
        return Finding(subject, state, 'cannot be used', str(error))
    height, width = backend.model.input_size
    speed = f'{time_ms:.1f} ms per face of {width}x{height}'
    return Finding(subject, OK, f'{speed}, {backend.model_name} on {backend.device}')


def _check_detector(name: str) -> Finding:
    try:
        detector = open_detector(name)
        image = np.zeros(IMAGE_SHAPE, np.uint8)
        time_ms = _median_ms(lambda: detector.detect(image))
    except (DanError, ImportError) as error:
        state = ERROR if name == 'auto' else WARNING
        return Finding(f'detector {name}', state, 'cannot be used', str(error))
    found = f'{time_ms:.1f} ms per image of 640x480'
    if name == 'auto':
        found = f'{detector.name}: {found}'
    return Finding(f'detector {name}', WARNING if detector.warning else OK, found, detector.warning)


def _median_ms(run: Callable[[], object]) -> float:
    """Return the median time of `RUNS` runs, milliseconds, after a warm-up run."""
    run()
    return 1e3 * statistics.median(timeit.repeat(run, number=1, repeat=RUNS))


def _print(findings: list[Finding]) -> None:
    table = Table('subject', 'state', box=None)
    table.add_column('found', overflow='fold')
    table.add_column('what to do', overflow='fold')
    for finding in findings:
        color = COLORS[finding.state]
        state = f'[{color}]{finding.state}[/{color}]'
        table.add_row(finding.subject, state, escape(finding.found), escape(finding.remedy))
    print_table(table)
