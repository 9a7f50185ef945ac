# SPDX-License-Identifier: Apache-2.0
"""`dan-ros serve-config`: write the files for an inference server of many robots."""

import os
from collections import Counter
from pathlib import Path
from shlex import quote

import click

from dan_ros.backends import model_for
from dan_ros.cli.common import PATH
from dan_ros.errors import DataError
from dan_ros.model import store
from dan_ros.serve.manifests import to_compose, to_inference_service
from dan_ros.serve.repository import BACKENDS, CPU, DEVICES, ONNXRUNTIME, ServeConfig, write_model
from dan_ros.storage.atomic import atomic_directory

# The backend of dan_ros whose bundled model is the fastest on a device.
LIKE = {CPU: 'onnxruntime', 'gpu': 'onnxruntime_cuda'}


@click.command('serve-config')
@click.argument('out', type=PATH)
@click.option(
    '--model',
    'models',
    multiple=True,
    help='Known model or ONNX file; may be repeated. The default is the bundled model, in int8 for '
    'CPUs.',
)
@click.option(
    '--backend',
    default=ONNXRUNTIME,
    show_default=True,
    type=click.Choice(BACKENDS),
    help="onnxruntime: Triton's own. python: ONNX Runtime in a Python process, for a Triton that "
    'has no other backend.',
)
@click.option(
    '--device',
    default=CPU,
    show_default=True,
    type=click.Choice(DEVICES),
    help='Hardware of the server.',
)
@click.option(
    '--instances',
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help='Copies of each model that work at the same time. On a CPU, a single copy uses all cores, '
    'and several use one core each: for many robots, use as many copies as cores.',
)
@click.option(
    '--storage',
    default='s3://models/dan_ros',
    show_default=True,
    help='Address of the models for KServe.',
)
def command(
    out: Path, models: tuple[str, ...], backend: str, device: str, instances: int, storage: str
) -> None:
    """Write a folder OUT with which Triton Inference Server runs models for many robots.

    It contains the model repository (models/), a compose file (compose.yaml) and an
    InferenceService of KServe (inference-service.yaml).
    """
    if os.path.lexists(out):
        raise DataError(f'{out} exists already: choose another folder')
    config = ServeConfig(backend, device, instances)
    files = [
        store.read_model(model_for(LIKE[device], model))
        for model in models or [store.DEFAULT_MODEL]
    ]
    counts = Counter(file.path.stem for file in files)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise DataError(f'two models have the name {repeated[0]}: rename one of the files')
    with atomic_directory(out) as folder:
        names = [write_model(folder / 'models', file, config) for file in files]
        (folder / 'compose.yaml').write_text(to_compose(config))
        (folder / 'inference-service.yaml').write_text(to_inference_service(config, storage))
    click.echo(f'{out}: {", ".join(names)}, {backend} on {device}')
    click.echo(f'start the server:  docker compose -f {quote(str(out / "compose.yaml"))} up')
    click.echo(
        'start a robot:     ros2 run dan_ros dan_node --ros-args -p backend.name:=kserve '
        f'-p backend.url:=grpc://SERVER:8001 -p backend.model_name:={quote(names[0])} '
        '-p backend.fallback:=true'
    )
