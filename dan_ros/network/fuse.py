# SPDX-License-Identifier: Apache-2.0
"""Fold a trained DAN and its preprocessing into a smaller network with the same outputs.

`fuse` folds the following, exactly up to rounding:

* every BatchNorm into the layer before it;
* a head's 3x3, 1x3 and 3x1 convolutions, which share their input, into one 3x3;
* the first convolutions of the K heads into one 1x1, the second ones into one grouped 3x3;
* the spatial attention's `sum over channels, multiply, average` into one matrix product;
* pixel normalization into one affine map of the colors at the input. A grayscale network gets one
  input channel instead of three equal ones.

With K = 4 and 8 classes, 19.72 M parameters become 16.56 M.
"""

import copy
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from dan_ros.model.normalization import IMAGENET_MEAN, IMAGENET_STD, LUMA, check_normalization
from dan_ros.network.dan import BOTTLENECK, DAN, FEATURES, SQUEEZED, BasicBlock, CrossAttentionHead


class FusedBlock(nn.Module):
    """`BasicBlock` with folded BatchNorms."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Conv2d(channels_in, channels_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(functional.relu(self.conv1(x)))  # [B, channels_out, h / stride, w / stride]
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut)


class FusedDAN(nn.Module):
    """DAN for inference, from RGB pixels to logits; made by `fuse` or `export.read_fused`.

    Its parameter names are the initializer names of the ONNX files this package writes.

    Args:
        num_class: number of expression classes C.
        num_head: number of heads K.
        channels: input channels of the first convolution: 3 for color, 1 for grayscale.
    """

    def __init__(self, num_class: int, num_head: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.num_head = num_head
        self.colour = nn.Linear(3, channels)
        self.stem = nn.Conv2d(channels, 64, 7, stride=2, padding=3)
        self.blocks = nn.Sequential(
            FusedBlock(64, 64, 1),
            FusedBlock(64, 64, 1),
            FusedBlock(64, 128, 2),
            FusedBlock(128, 128, 1),
            FusedBlock(128, 256, 2),
            FusedBlock(256, 256, 1),
            FusedBlock(256, FEATURES, 2),
            FusedBlock(FEATURES, FEATURES, 1),
        )
        self.squeeze = nn.Conv2d(FEATURES, num_head * SQUEEZED, 1)
        self.spatial = nn.Conv2d(
            num_head * SQUEEZED, num_head * FEATURES, 3, padding=1, groups=num_head
        )
        self.channel1_weight = nn.Parameter(torch.zeros(num_head, FEATURES, BOTTLENECK))
        self.channel1_bias = nn.Parameter(torch.zeros(num_head, 1, BOTTLENECK))
        self.channel2_weight = nn.Parameter(torch.zeros(num_head, BOTTLENECK, FEATURES))
        self.channel2_bias = nn.Parameter(torch.zeros(num_head, 1, FEATURES))
        self.classifier = nn.Linear(FEATURES, num_class)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            faces: uint8 [B, H, W, 3], RGB.

        Returns:
            Logits, [B, C].
        """
        x = self.features(faces)  # [B, 512, h, w]
        pooled = self._attend_in_space(x)  # [K, B, 512]
        y = functional.relu(torch.baddbmm(self.channel1_bias, pooled, self.channel1_weight))
        gate = torch.sigmoid(torch.baddbmm(self.channel2_bias, y, self.channel2_weight))
        heads = pooled * gate  # [K, B, 512]
        if self.num_head > 1:
            heads = functional.log_softmax(heads, dim=0)
        logits: torch.Tensor = self.classifier(heads.sum(dim=0))  # [B, C]
        return logits

    def features(self, faces: torch.Tensor) -> torch.Tensor:
        """Compute the feature map of faces as in `forward`: [B, 512, h, w], h = ceil(H / 32)."""
        x = self.colour(faces.to(self.colour.weight.dtype))  # [B, H, W, channels]
        x = x.permute(0, 3, 1, 2).to(self.stem.weight.dtype)
        x = functional.relu(self.stem(x))  # [B, 64, H / 2, W / 2]
        x = functional.max_pool2d(x, 3, stride=2, padding=1)  # [B, 64, H / 4, W / 4]
        features: torch.Tensor = self.blocks(x)
        return features

    def halve(self) -> None:
        """Convert the convolutions to fp16; color map, attention sums and classifier stay fp32."""
        for layer in (self.stem, self.blocks, self.squeeze, self.spatial):
            layer.half()

    def attention_maps(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the unnormalized attention maps: [B, 512, h, w] -> [B, K, h, w], >= 0."""
        y = functional.relu(self.spatial(self.squeeze(features)))  # [B, K * 512, h, w]
        height, width = y.shape[2:]
        y = y.reshape(y.shape[0], self.num_head, FEATURES, height, width)
        return y.sum(dim=2, dtype=self.classifier.weight.dtype)

    def _attend_in_space(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 512, h, w] -> attention-weighted average per head, [K, B, 512]."""
        places = x.shape[2] * x.shape[3]
        y = self.attention_maps(x).flatten(2)  # [B, K, hw]
        # Divided before the product because attention sums reach 4e4 and fp16 ends at 65504.
        x = x.flatten(2).transpose(1, 2).to(y.dtype)  # [B, hw, 512]
        pooled = torch.matmul(y / places, x)  # [B, K, 512]
        return pooled.transpose(0, 1)


def fuse(
    dan: DAN,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    grey: bool = False,
) -> FusedDAN:
    """Fold a trained DAN and its preprocessing into a `FusedDAN` in evaluation mode.

    Args:
        dan: the network; not changed.
        mean, std: normalization of RGB pixels in 0 .. 255: (x / 255 - mean) / std.
        grey: the network was trained on grayscale images repeated on three channels.

    Raises:
        ValueError: `mean` or `std` is out of range, or a weight is not finite.
    """
    check_normalization(mean, std)
    with torch.device('meta'):  # skip random initialization
        fused = FusedDAN(dan.fc.out_features, dan.num_head, channels=1 if grey else 3)
    fused.to_empty(device='cpu')
    dan = copy.deepcopy(dan).double()  # float64 avoids rounding errors of the folding
    with torch.no_grad():
        _set_colours(fused, dan, mean, std, grey)
        blocks = [module for module in dan.features.modules() if isinstance(module, BasicBlock)]
        targets = [module for module in fused.blocks if isinstance(module, FusedBlock)]
        for block, target in zip(blocks, targets, strict=True):
            _set_block(target, block)
        _set_heads(fused, dan)
        _set(fused.classifier, *_fold_linear(dan.fc, dan.bn))
    for name, value in fused.state_dict().items():
        if not value.isfinite().all():
            raise ValueError(
                f'the fused weights {name} are not all finite: the training diverged, or the file '
                'is damaged'
            )
    return fused.eval().requires_grad_(False)


def _set_colours(
    fused: FusedDAN, dan: DAN, mean: tuple[float, ...], std: tuple[float, ...], grey: bool
) -> None:
    weight, bias = _fold_conv(dan.features[0], dan.features[1])  # [64, 3, 7, 7]
    mean_, std_ = torch.tensor(mean).double(), torch.tensor(std).double()
    if not grey:
        _set(fused.colour, torch.diag(1 / (255 * std_)), -mean_ / std_)
        _set(fused.stem, weight, bias)
        return
    if len(set(mean)) > 1 or len(set(std)) > 1:
        raise ValueError(f'a grayscale network needs one mean and one std, not {mean} and {std}')
    _set(fused.colour, torch.tensor([LUMA]).double() / (255 * std_[0]), (-mean_ / std_)[:1])
    _set(fused.stem, weight.sum(dim=1, keepdim=True), bias)


def _set_block(target: FusedBlock, block: BasicBlock) -> None:
    _set(target.conv1, *_fold_conv(block.conv1, block.bn1))
    _set(target.conv2, *_fold_conv(block.conv2, block.bn2))
    if block.downsample is not None and target.downsample is not None:
        _set(target.downsample, *_fold_conv(*block.downsample))


def _set_heads(fused: FusedDAN, dan: DAN) -> None:
    squeezes = [_fold_conv(*head.sa.conv1x1) for head in dan.heads]
    _set(fused.squeeze, *map(torch.cat, zip(*squeezes, strict=True)))
    spatials = [_fold_spatial(head) for head in dan.heads]
    _set(fused.spatial, *map(torch.cat, zip(*spatials, strict=True)))
    for index, head in enumerate(dan.heads):
        linear1, norm, _, linear2, _ = head.ca.attention
        weight, bias = _fold_linear(linear1, norm)
        fused.channel1_weight[index] = weight.t()
        fused.channel1_bias[index, 0] = bias
        parameters = dict(linear2.named_parameters())
        fused.channel2_weight[index] = parameters['weight'].t()
        fused.channel2_bias[index, 0] = parameters['bias']


def _fold_spatial(head: CrossAttentionHead) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum the three convolutions of a head, each padded to 3x3: [512, 256, 3, 3] and [512]."""
    weight, bias = _fold_conv(*head.sa.conv_3x3)
    row_weight, row_bias = _fold_conv(*head.sa.conv_1x3)
    column_weight, column_bias = _fold_conv(*head.sa.conv_3x1)
    weight = weight + functional.pad(row_weight, (0, 0, 1, 1))
    weight = weight + functional.pad(column_weight, (1, 1, 0, 0))
    return weight, bias + row_bias + column_bias


def _fold_conv(*layers: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Fold a BatchNorm into the convolution before it; returns weight and bias."""
    conv, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], layers)
    scale, mean = _scale_and_mean(norm)
    bias = torch.zeros_like(mean) if conv.bias is None else conv.bias
    return conv.weight * scale[:, None, None, None], norm.bias + (bias - mean) * scale


def _fold_linear(*layers: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Fold a BatchNorm into the linear layer before it; returns weight and bias."""
    linear, norm = cast(tuple[nn.Linear, nn.BatchNorm1d], layers)
    scale, mean = _scale_and_mean(norm)
    return linear.weight * scale[:, None], norm.bias + (linear.bias - mean) * scale


def _scale_and_mean(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """BatchNorm in evaluation mode is scale * (x - mean) + bias; both are [channels]."""
    mean, variance = cast(tuple[torch.Tensor, torch.Tensor], (norm.running_mean, norm.running_var))
    return norm.weight / torch.sqrt(variance + norm.eps), mean


def _set(layer: nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> None:
    parameters = dict(layer.named_parameters())
    parameters['weight'].copy_(weight)
    parameters['bias'].copy_(bias)
