# SPDX-License-Identifier: Apache-2.0
"""Compares DAN with the official implementation, and its fused and exported forms with DAN.

`golden/upstream_dan.json` holds outputs of the official code (github.com/yaoing/DAN, commit
3872eef, MIT) run once on the weights and images of `seeded.py`, with torch 2.13.0 on a CPU.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from seeded import normalize, relative_difference, seeded_dan, seeded_faces, seeded_images

from dan_ros import labels
from dan_ros.errors import ModelError
from dan_ros.model.metadata import ModelInfo
from dan_ros.network.dan import DAN
from dan_ros.network.export import export_onnx, read_fused
from dan_ros.network.fuse import fuse

GOLDEN = json.loads(
    (Path(__file__).parents[1] / 'support' / 'golden' / 'upstream_dan.json').read_text()
)


@pytest.mark.parametrize('case', GOLDEN)
def test_same_outputs_as_the_official_network(case):
    golden = GOLDEN[case]
    dan = seeded_dan(golden['num_class'])
    with torch.no_grad():
        logits, features, heads = dan(seeded_faces(golden['batch'], golden['size']))
    assert relative_difference(logits, golden['logits']) <= 1e-5
    assert relative_difference(heads[:, :, :8], golden['heads']) <= 1e-5
    means = features.mean(dim=(2, 3))[:, :16]
    assert relative_difference(means, golden['feature_means']) <= 1e-5


def test_the_golden_outputs_depend_on_every_head():
    heads = np.array(GOLDEN['affectnet8_224']['heads'])
    assert (heads.std(axis=(0, 2)) > 0.1).all()


def test_parameter_count():
    assert sum(p.numel() for p in DAN(8).parameters()) == 19_724_248


@pytest.mark.parametrize('size', [96, 100])
def test_fused_equals_unfused(size):
    dan = seeded_dan()
    images = seeded_images(2, size)
    with torch.no_grad():
        expected = dan(normalize(images))[0]
    fused = fuse(dan)
    assert relative_difference(fused(torch.from_numpy(images)), expected) <= 1e-5
    assert sum(p.numel() for p in fused.parameters()) < 16.57e6


def test_fusing_leaves_the_network_as_it_was():
    dan = seeded_dan()
    before = {name: value.clone() for name, value in dan.state_dict().items()}
    fuse(dan)
    assert all(torch.equal(value, before[name]) for name, value in dan.state_dict().items())


def test_one_head_has_no_softmax_over_heads():
    dan = seeded_dan(num_head=1)
    images = seeded_images(2, 64)
    with torch.no_grad():
        expected = dan(normalize(images))[0]
    assert relative_difference(fuse(dan)(torch.from_numpy(images)), expected) <= 1e-5


def test_a_grayscale_network_sees_luma():
    dan = seeded_dan()
    images = seeded_images(2, 96)
    luma = (images @ np.array([0.299, 0.587, 0.114]))[..., None].repeat(3, axis=3)
    with torch.no_grad():
        expected = dan(normalize(luma, (0.5,) * 3, (0.25,) * 3).float())[0]
    fused = fuse(dan, (0.5,) * 3, (0.25,) * 3, grey=True)
    assert fused.stem.in_channels == 1
    assert relative_difference(fused(torch.from_numpy(images)), expected) <= 1e-5


def test_a_grayscale_network_cannot_have_three_means():
    with pytest.raises(ValueError, match='one mean'):
        fuse(seeded_dan(num_head=1), grey=True)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """A fused network and its ONNX file, 64 x 96 pixels to catch a mix-up of height and width."""
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    fused = fuse(seeded_dan())
    info = ModelInfo(labels.AFFECTNET8, (64, 96), 1.25, 'a test', 'ab' * 32)
    export_onnx(fused, info, path)
    return fused, info, path


def test_onnx_equals_fused_at_any_batch(exported):
    fused, _, path = exported
    session = onnxruntime.InferenceSession(str(path))
    for batch in (1, 3):
        images = seeded_images(batch, 96)[:, :64]
        (logits,) = session.run(['logits'], {'faces': np.ascontiguousarray(images)})
        assert logits.dtype == np.float32
        assert relative_difference(logits, fused(torch.from_numpy(images))) <= 1e-4


def test_onnx_contract(exported):
    _, info, path = exported
    model = onnx.load(path)
    (faces,) = model.graph.input
    (logits,) = model.graph.output
    assert (faces.name, logits.name) == ('faces', 'logits')
    assert faces.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in faces.type.tensor_type.shape.dim] == [
        'N',
        64,
        96,
        3,
    ]
    assert [node.op_type for node in model.graph.node if 'faces' in node.input] == ['Cast']
    assert [entry.version for entry in model.opset_import] == [17]
    assert model.ir_version <= 8
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata['dan_ros.labels'] == ','.join(labels.AFFECTNET8)
    assert metadata['dan_ros.input_size'] == '64x96'
    assert ModelInfo.from_metadata(metadata, 'it') == info


def test_onnx_can_be_read_back(exported):
    fused, info, path = exported
    again, info_again = read_fused(path.read_bytes(), 'it')
    assert info_again == info
    for name, value in fused.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_fp16_halves_the_file_and_keeps_the_answer(exported, tmp_path):
    fused, info, path = exported
    half = tmp_path / 'half.onnx'
    export_onnx(fused, info, half, fp16=True)
    assert half.stat().st_size < 0.52 * path.stat().st_size
    images = np.ascontiguousarray(seeded_images(2, 96)[:, :64])
    (logits,) = onnxruntime.InferenceSession(str(half)).run(None, {'faces': images})
    assert relative_difference(logits, fused(torch.from_numpy(images))) <= 1e-2


def test_a_fixed_batch(exported, tmp_path):
    fused, info, _ = exported
    path = tmp_path / 'four.onnx'
    export_onnx(fused, info, path, batch=4)
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [4, 64, 96, 3]


def test_weights_beyond_fp16_are_refused(exported, tmp_path):
    _, info, _ = exported
    fused = fuse(seeded_dan(num_head=1))
    fused.stem.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(ModelError, match='stem.*fp16'):
        export_onnx(fused, info, tmp_path / 'x.onnx', fp16=True)
    assert not list(tmp_path.iterdir())


def test_a_quantized_file_cannot_be_read_back(exported):
    model = onnx.load(exported[2])
    del model.graph.initializer[:]
    with pytest.raises(ModelError, match='quantized'):
        read_fused(model.SerializeToString(), 'it')
