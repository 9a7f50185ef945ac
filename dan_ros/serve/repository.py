# SPDX-License-Identifier: Apache-2.0
"""Writes a model repository of Triton Inference Server.

Format: https://docs.nvidia.com/deeplearning/triton-inference-server, "Model Repository" and "Model
Configuration".
"""

import json
from dataclasses import dataclass
from pathlib import Path

from dan_ros.backends.kserve.compatibility import parameters_of
from dan_ros.backends.kserve.config import MAX_BATCH
from dan_ros.model.metadata import INPUT_NAME, OUTPUT_NAME, ModelInfo
from dan_ros.model.store import ModelFile
from dan_ros.serve import triton_model

ONNXRUNTIME, PYTHON = 'onnxruntime', 'python'
BACKENDS = (ONNXRUNTIME, PYTHON)
CPU, GPU = 'cpu', 'gpu'
DEVICES = (CPU, GPU)
VERSION = '1'
WARM_UP_BATCHES = (1, 8, MAX_BATCH)
# Longest time that a face waits for faces of other robots while an instance is free, microseconds.
# On a CPU, twice the faces take twice the time, so waiting gains nothing.
QUEUE_DELAYS_US = {CPU: 0, GPU: 2000}
QUEUE_TIMEOUT_US = 1_000_000  # a request may set a shorter one; robots do not wait longer anyway
MAX_QUEUE = 1024  # maximum number of waiting requests; more are refused at once


@dataclass(frozen=True)
class ServeConfig:
    """How a server runs a model."""

    # One of `BACKENDS`. onnxruntime is the fastest; python runs ONNX Runtime in a Python process,
    # for servers that have only Triton's Python backend.
    backend: str = ONNXRUNTIME
    device: str = CPU  # one of `DEVICES`
    instances: int = 1  # number of copies of the model that work at the same time

    @property
    def threads(self) -> int:
        """CPU threads of each instance; 0 for one per core."""
        return 0 if self.instances == 1 else 1


def write_model(folder: Path, file: ModelFile, config: ServeConfig) -> str:
    """Write one model into a repository; return the name of the model on the server.

    Raises:
        ModelError: the file is not a model of this package.
    """
    info = ModelInfo.from_onnx(file.content, str(file.path))
    name = file.path.stem
    version = folder / name / VERSION
    version.mkdir(parents=True)
    (folder / name / 'config.pbtxt').write_text(to_pbtxt(file, info, config), encoding='utf-8')
    (version / 'model.onnx').write_bytes(file.content)
    if config.backend == PYTHON:
        source = Path(triton_model.__file__).read_text(encoding='utf-8')
        (version / 'model.py').write_text(source, encoding='utf-8')
    return name


def to_pbtxt(file: ModelFile, info: ModelInfo, config: ServeConfig) -> str:
    """Return the model's configuration, a ModelConfig in protobuf's text format."""
    faces, logits = [*info.input_size, 3], [len(info.labels)]
    parts = [
        f'name: {_text(file.path.stem)}',
        f'backend: {_text(config.backend)}',
        f'max_batch_size: {MAX_BATCH}',
        f'input [{{ name: "{INPUT_NAME}" data_type: TYPE_UINT8 dims: {faces} }}]',
        f'output [{{ name: "{OUTPUT_NAME}" data_type: TYPE_FP32 dims: {logits} }}]',
        f'instance_group [{{ kind: KIND_{config.device.upper()} count: {config.instances} }}]',
        '# Faces of several robots run in one batch.',
        f'dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAYS_US[config.device]} '
        f'default_queue_policy {{ timeout_action: REJECT allow_timeout_override: true '
        f'default_timeout_microseconds: {QUEUE_TIMEOUT_US} max_queue_size: {MAX_QUEUE} }} }}',
        '# The server reports ready only after this warm-up.',
        *(_warm_up(batch, faces) for batch in WARM_UP_BATCHES),
        _parameter('intra_op_thread_count', str(config.threads)),
        '# A robot compares these with its own model.',
        *(_parameter(key, value) for key, value in parameters_of(file, info).items()),
    ]
    return '\n'.join([*parts, ''])


def _warm_up(batch: int, shape: list[int]) -> str:
    tensor = f'value {{ data_type: TYPE_UINT8 dims: {shape} zero_data: true }}'
    inputs = f'inputs {{ key: "{INPUT_NAME}" {tensor} }}'
    return f'model_warmup [{{ name: "batch of {batch}" batch_size: {batch} {inputs} }}]'


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}'


def _text(value: str) -> str:
    """Quote a text; the escapes of JSON are valid in protobuf's text format."""
    return json.dumps(value, ensure_ascii=False)
