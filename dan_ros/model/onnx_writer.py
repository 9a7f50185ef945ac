# SPDX-License-Identifier: Apache-2.0
"""Write model files of this package: metadata, opset 17, IR version 8, one file."""

from pathlib import Path

import onnx
from onnx import helper

from dan_ros import __version__
from dan_ros.model.metadata import ModelInfo
from dan_ros.storage.atomic import atomic_write

OPSET = 17
IR_VERSION = 8


def make_model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """Return a model with the opset and IR version of this package, without metadata."""
    return helper.make_model(
        graph,
        producer_name='dan_ros',
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid('', OPSET)],
    )


def save_model(model: onnx.ModelProto, info: ModelInfo, path: Path) -> None:
    """Set the metadata of a model in place, check it, and replace its file atomically."""
    helper.set_model_props(model, info.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    atomic_write(path, lambda file: file.write(model.SerializeToString()))
