# SPDX-License-Identifier: Apache-2.0
"""The losses against values calculated by hand, and against the official code on seeded tensors."""

import json
import math
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')

from seeded import seeded_normal  # noqa: E402

from dan_ros.train.losses import AffinityLoss, PartitionLoss  # noqa: E402

GOLDEN = json.loads(
    (Path(__file__).parents[1] / 'support' / 'golden' / 'upstream_losses.json').read_text()
)


def seeded(name: str, *shape: int) -> 'torch.Tensor':
    return torch.from_numpy(seeded_normal(name, shape))


def small_affinity() -> AffinityLoss:
    loss = AffinityLoss(num_class=2, feat_dim=2).double()
    with torch.no_grad():
        loss.centers.copy_(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
    return loss


def test_affinity_by_hand():
    # Unbiased variances of (0, 2) and (0, 4) are 2 and 8: spread 10. The averages over places are
    # (1, 2) and (3, 3); squared distances to their centres 5 and 2; (5 + 2) / 10 / 2 = 0.35.
    features = torch.tensor([[[[0.0, 2.0]], [[1.0, 3.0]]], [[[3.0, 3.0]], [[2.0, 4.0]]]]).double()
    features.requires_grad_()
    value = small_affinity()(features, torch.tensor([0, 1]))
    value.backward()
    assert value.item() == pytest.approx(0.35, abs=1e-11)
    # d/dx = 2 (x - c) / spread / batch, shared by the two places: (1, 2) and (1, -1), each / 20.
    expected = torch.tensor([[[[1.0, 1.0]], [[2.0, 2.0]]], [[[1.0, 1.0]], [[-1.0, -1.0]]]]) / 20
    torch.testing.assert_close(features.grad, expected.double())


def test_affinity_gradient_of_centers_by_hand():
    # One face at the origin, of class 1: L = |c1|^2 / spread with spread = (dx^2 + dy^2) / 2 and
    # d = c1 - c0. At c0 = (1, 0), c1 = (2, 0): L = 4 / 0.5 = 8; dL/dc1x = 4 / 0.5 - 4 * 1 / 0.25 =
    # -8, dL/dc0x = 4 / 0.25 = 16.
    loss = AffinityLoss(num_class=2, feat_dim=2).double()
    with torch.no_grad():
        loss.centers.copy_(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    value = loss(torch.zeros(1, 2, 1, 1).double(), torch.tensor([1]))
    value.backward()
    assert value.item() == pytest.approx(8.0)
    expected = torch.tensor([[16.0, 0.0], [-8.0, 0.0]]).double()
    torch.testing.assert_close(loss.centers.grad, expected)


def test_affinity_clamps_every_masked_distance_as_the_official_code_does():
    value = small_affinity()(torch.zeros(1, 2, 1, 1).double(), torch.tensor([0]))
    assert value.item() == pytest.approx(2e-12)  # 1e-12 each for its own center and the other class


def test_partition_by_hand():
    # Two heads, unbiased variances of (1, 3) and (2, 2): 2 and 0, mean 1; log(1 + 2 / 1).
    heads = torch.tensor([[[1.0, 2.0], [3.0, 2.0]]]).double().requires_grad_()
    value = PartitionLoss()(heads)
    value.backward()
    assert value.item() == pytest.approx(math.log(3))
    # dL/dvar = -K / (var^2 + K var) = -2 / 3; dvar/dh = +-(3 - 1) / 2 of the first dimension.
    expected = torch.tensor([[[2 / 3, 0.0], [-2 / 3, 0.0]]]).double()
    torch.testing.assert_close(heads.grad, expected)


def test_partition_of_equal_heads_is_finite():
    value = PartitionLoss()(torch.zeros(2, 4, 512).double())
    assert value.item() == pytest.approx(math.log(1 + 4 / sys.float_info.epsilon))
    assert value.item() == pytest.approx(GOLDEN['partition_equal_heads']['value'], rel=1e-6)


def test_partition_of_one_head_is_zero():
    assert PartitionLoss()(torch.randn(3, 1, 512)).item() == 0


@pytest.mark.parametrize(('classes', 'batch'), [(8, 6), (7, 5)])
def test_affinity_has_the_official_values(classes, batch):
    loss = AffinityLoss(classes, 512).double()
    with torch.no_grad():
        loss.centers.copy_(seeded('centers', classes, 512))
    features = seeded('features', batch, 512, 3, 3).requires_grad_()
    labels = torch.tensor([(3 * index + 1) % classes for index in range(batch)])
    value = loss(features, labels)
    value.backward()
    golden = GOLDEN[f'affinity_{classes}']
    assert value.item() == pytest.approx(golden['value'], rel=1e-12)
    assert features.grad.norm().item() == pytest.approx(golden['feature_gradient_norm'], rel=1e-9)
    gradient = loss.centers.grad
    assert gradient.norm().item() == pytest.approx(golden['center_gradient_norm'], rel=1e-9)
    assert gradient[1, 0].item() == pytest.approx(golden['center_gradient_1_0'], rel=1e-9)


@pytest.mark.parametrize('num_head', [4, 2])
def test_partition_has_the_official_values(num_head):
    heads = torch.log_softmax(3 * seeded('heads', 6, num_head, 512), dim=1).requires_grad_()
    value = PartitionLoss()(heads)
    value.backward()
    golden = GOLDEN[f'partition_{num_head}']
    assert value.item() == pytest.approx(golden['value'], rel=1e-12)
    assert heads.grad.norm().item() == pytest.approx(golden['gradient_norm'], rel=1e-9)


def test_affinity_has_one_parameter_named_centers():
    loss = AffinityLoss(8, 512)
    assert [name for name, _ in loss.named_parameters()] == ['centers']
    value = loss(torch.randn(4, 512, 7, 7), torch.tensor([0, 7, 3, 3]))
    assert value.shape == ()
    assert value.isfinite()
