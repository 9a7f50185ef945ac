# SPDX-License-Identifier: Apache-2.0
"""Quantize a network to int8: a smaller model file that is several times faster on a CPU.

Static quantization by ONNX Runtime (Jacob et al. 2018, https://arxiv.org/abs/1712.05877): the
ranges of all activations are measured on sample faces beforehand. Convolutions, sums and pooling
run in int8. The color map at the input and everything after the attention stay in float: these are
only 2 % of the operations, and their values have wide ranges.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization

from dan_ros.model import metadata
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.onnx_writer import save_model
from dan_ros.network.export import export_onnx
from dan_ros.network.fuse import FusedDAN

QUANTIZED_OPERATORS = ('Conv', 'Add', 'MaxPool', 'Relu')
FLOAT_LAYER = 'colour.weight'  # weights of the convolution that stays in float


def quantize_onnx(
    fused: FusedDAN, info: ModelInfo, path: Path, batches: Iterable[np.ndarray]
) -> None:
    """Write `fused` to `path` with int8 weights, one scale per channel, and uint8 activations.

    Weights use 7 of their 8 bits: x86 CPUs without VNNI instructions add pairs of products in 16
    bits, which would overflow and make results differ between machines. The ranges of the
    activations are measured on `batches`, a few hundred training faces: uint8 [B, H, W, 3] RGB
    each.
    """
    with tempfile.TemporaryDirectory() as folder:
        float_path, int8_path = Path(folder, 'float.onnx'), Path(folder, 'int8.onnx')
        export_onnx(fused, info, float_path)
        with _without_advice():
            quantization.quantize_static(
                float_path,
                int8_path,
                _Batches(batches),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED_OPERATORS),
                nodes_to_exclude=_users_of(FLOAT_LAYER, float_path),
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        model = onnx.load(int8_path)
    save_model(model, info, path)


class _Batches(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Adapter of an iterable to ONNX Runtime's calibration interface."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        faces = next(self._batches, None)
        return None if faces is None else {metadata.INPUT_NAME: faces}


def _users_of(tensor: str, path: Path) -> list[str]:
    nodes = onnx.load(path).graph.node
    return [node.name for node in nodes if tensor in node.input]


@contextmanager
def _without_advice() -> Iterator[None]:
    """Suppress ONNX Runtime's advice, which is already followed or does not apply."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)
