# SPDX-License-Identifier: Apache-2.0
"""Model files with a temperature and a prior, and a calibration for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from dan_ros import labels
from dan_ros.model.metadata import ModelInfo
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
