# SPDX-License-Identifier: Apache-2.0
"""The int8 form of a model: its graph, its accuracy, and its readers."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from seeded import seeded_dan, seeded_images

from dan_ros import labels
from dan_ros.backends.onnxruntime import OnnxRuntimeBackend
from dan_ros.backends.torch import TorchBackend
from dan_ros.errors import ModelError
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.store import read_model
from dan_ros.network.export import export_onnx
from dan_ros.network.fuse import fuse
from dan_ros.network.quantize import quantize_onnx

INFO = ModelInfo(labels=labels.FERPLUS, input_size=(64, 64), source='a test', crop_scale=1.1)


@pytest.fixture(scope='module')
def twins(tmp_path_factory):
    """Paths of the float file and its int8 twin."""
    folder = tmp_path_factory.mktemp('twins')
    fused = fuse(seeded_dan(), (0.5,) * 3, (0.25,) * 3, grey=True)
    export_onnx(fused, INFO, folder / 'float.onnx')
    batches = np.split(seeded_images(16, 64), 4)
    quantize_onnx(fused, INFO, folder / 'int8.onnx', batches)
    return folder / 'float.onnx', folder / 'int8.onnx'


def test_the_contract_is_unchanged(twins):
    one, two = (onnx.load(path) for path in twins)
    assert two.ir_version <= 8
    assert [(o.domain, o.version) for o in two.opset_import] == [('', 17)]
    metadata = {p.key: p.value for p in two.metadata_props}
    assert metadata == INFO.to_metadata()
    assert two.graph.input == one.graph.input
    assert two.graph.output == one.graph.output
    assert [n.op_type for n in two.graph.node if 'faces' in n.input] == ['Cast']
    assert not [t for t in two.graph.initializer if t.external_data]


def test_weights_are_signed_per_channel_and_use_seven_bits(twins):
    graph = onnx.load(twins[1]).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == 'Conv']
    float_ones = [node for node in convolutions if node.input[1] not in made_by]
    assert [node.input[1] for node in float_ones] == ['colour.weight']
    assert len(convolutions) == 23
    for node in convolutions:
        if node in float_ones:
            continue
        kernel, scale, _ = (arrays[name] for name in made_by[node.input[1]].input)
        assert kernel.dtype == np.int8
        assert scale.shape == kernel.shape[:1]
        assert np.abs(kernel.astype(int)).max() <= 64
        pixels = made_by[node.input[0]].input
        assert arrays[pixels[2]].dtype == np.uint8


def test_answers_are_nearly_the_same_and_the_file_is_a_quarter(twins):
    one, two = twins
    assert two.stat().st_size < 0.3 * one.stat().st_size
    faces = seeded_images(8, 64)
    logits = [OnnxRuntimeBackend(read_model(str(path))).infer(faces) for path in twins]
    assert np.abs(logits[0] - logits[1]).max() <= 0.15 * np.ptp(logits[0])
    assert (logits[0] != logits[1]).any()


def test_any_batch_can_be_run(twins):
    backend = OnnxRuntimeBackend(read_model(str(twins[1])))
    assert backend.model == INFO
    for count in (0, 1, 3, 40):
        assert backend.infer(seeded_images(max(count, 1), 64)[:count]).shape == (count, 8)


def test_torch_refuses_it_and_says_what_to_use(twins):
    with pytest.raises(ModelError, match=r'int8\.onnx.*fp32 or fp16.*quantized'):
        TorchBackend.read(read_model(str(twins[1])))
