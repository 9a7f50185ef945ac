# SPDX-License-Identifier: Apache-2.0
"""Write model files of this package: metadata, opset 17, IR version 8, one file."""

from pathlib import Path

import onnx
from onnx import helper

from dan_ros.model.metadata import ModelInfo
from dan_ros.storage.atomic import atomic_write

OPSET = 17
IR_VERSION = 8


def save_model(model: onnx.ModelProto, info: ModelInfo, path: Path) -> None:
    """Set a model's metadata, opset and IR version, check it, and write it.

    Args:
        model: changed in place.
        info: stored as metadata.
        path: the ONNX file, replaced atomically.
    """
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid('', OPSET))
    helper.set_model_props(model, info.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    atomic_write(path, lambda file: file.write(model.SerializeToString()))
