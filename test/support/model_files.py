# SPDX-License-Identifier: Apache-2.0
"""Model files with a temperature and a prior, a calibration for them, and a tiny model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dan_ros import labels
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.onnx_writer import make_model, save_model
from dan_ros.model.store import read_model
from dan_ros.probabilities import Calibration

LEARNED = np.array([0.4, 0.3, 0.12, 0.1, 0.05, 0.01, 0.01, 0.01])  # shares in FER+'s order


def write_model(path: Path, name: str = 'dan_ferplus') -> ModelInfo:
    """Write a bundled model with a temperature and a prior; return its metadata."""
    model = onnx.load_from_string(read_model(name).content)
    info = ModelInfo.from_metadata({p.key: p.value for p in model.metadata_props}, name)
    log_prior = tuple(np.log(LEARNED).tolist())
    info = replace(info, temperature=1.5, log_prior=log_prior, prior_strength=0.3)
    onnx.helper.set_model_props(model, info.to_metadata())
    onnx.save(model, path)
    return info


def write_calibration(path: Path, info: ModelInfo) -> None:
    """Write a calibration that favors sad."""
    bias = dict.fromkeys(labels.FERPLUS, 0.0) | {'sad': 2.5, 'neutral': -1.0}
    Calibration(bias, 2.0, info.source_sha256).write(path)


def write_color_model(path: Path, bias: Sequence[float], side: int = 32) -> ModelInfo:
    """Write a model that answers with the color of a face: red happy, green neutral, blue sad.

    Args:
        path: the ONNX file.
        bias: added to the three logits, which are 8 times the mean of a channel in [0, 1].
        side: of the input, pixels.
    """
    info = ModelInfo(('happy', 'neutral', 'sad'), (side, side), source='made by a test')
    numbers = {'scale': np.float32([8 / 255]), 'bias': np.float32(bias)}
    nodes = [
        helper.make_node('Cast', ['faces'], ['pixels'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMean', ['pixels'], ['means'], axes=[1, 2], keepdims=0),
        helper.make_node('Mul', ['means', 'scale'], ['scaled']),
        helper.make_node('Add', ['scaled', 'bias'], ['logits']),
    ]
    graph = helper.make_graph(
        nodes,
        'color',
        [helper.make_tensor_value_info('faces', TensorProto.UINT8, ['n', side, side, 3])],
        [helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['n', 3])],
        [numpy_helper.from_array(value, name) for name, value in numbers.items()],
    )
    save_model(make_model(graph), info, path)
    return info
