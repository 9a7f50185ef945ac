# SPDX-License-Identifier: Apache-2.0
"""DAN, the complete Distract Your Attention Network in one file.

Zhengyao Wen, Wenzhong Lin, Tao Wang, Ge Xu: "Distract Your Attention: Multi-head Cross Attention
Network for Facial Expression Recognition", 2021, https://arxiv.org/abs/2109.07270. Section numbers
below are the paper's. Parameter names are those of the official checkpoints, which load with
`strict=True`.

B is the batch size, K the number of heads, C the number of classes. At 224 x 224 pixels, the
feature map is 7 x 7; any input of at least 32 x 32 works.
"""

import torch
from torch import nn
from torch.nn import functional

FEATURES = 512  # channels of the feature map
FIRST_STAGE = 4  # index of ResNet's first stage in `DAN.features`
SQUEEZED = 256  # channels between the two steps of the spatial attention
BOTTLENECK = 32  # width of the channel attention's hidden layer


class BasicBlock(nn.Module):
    """Residual block of ResNet-18 (He et al. 2015, https://arxiv.org/abs/1512.03385, figure 5)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))  # [B, channels_out, h / stride, w / stride]
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut)


def resnet18_features() -> nn.Sequential:
    """ResNet-18 without its pooling and classifier: [B, 3, H, W] -> [B, 512, H / 32, W / 32]."""

    def stage(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            BasicBlock(channels_in, channels_out, stride), BasicBlock(channels_out, channels_out, 1)
        )

    features = nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        stage(64, 64, stride=1),
        stage(64, 128, stride=2),
        stage(128, 256, stride=2),
        stage(256, FEATURES, stride=2),
    )
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
    return features


class SpatialAttention(nn.Module):
    """Where a head looks (section 3.3): one weight per position, shared by all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1x1 = _conv_bn(FEATURES, SQUEEZED, (1, 1))
        self.conv_3x3 = _conv_bn(SQUEEZED, FEATURES, (3, 3))
        self.conv_1x3 = _conv_bn(SQUEEZED, FEATURES, (1, 3))
        self.conv_3x1 = _conv_bn(SQUEEZED, FEATURES, (3, 1))

    def attention_map(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 512, h, w] -> the head's unnormalized attention, [B, 1, h, w], >= 0."""
        y = self.conv1x1(x)  # [B, 256, h, w]; like the official network, no ReLU here
        y = self.conv_3x3(y) + self.conv_1x3(y) + self.conv_3x1(y)  # [B, 512, h, w]
        return functional.relu(y).sum(dim=1, keepdim=True)  # [B, 1, h, w]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.attention_map(x)  # [B, 512, h, w]


class ChannelAttention(nn.Module):
    """What a head looks for (section 3.3): one weight per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Linear(FEATURES, BOTTLENECK),
            nn.BatchNorm1d(BOTTLENECK),
            nn.ReLU(),
            nn.Linear(BOTTLENECK, FEATURES),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean(dim=(2, 3))  # [B, 512]
        gate: torch.Tensor = self.attention(pooled)
        return pooled * gate  # [B, 512]


class CrossAttentionHead(nn.Module):
    """One head of the Multi-head cross Attention Network (section 3.3)."""

    def __init__(self) -> None:
        super().__init__()
        self.sa = SpatialAttention()
        self.ca = ChannelAttention()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out')
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.001)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.ca(self.sa(x))  # [B, 512]
        return pooled


class DAN(nn.Module):
    """Feature map, K cross attention heads, attention fusion (sections 3.2 to 3.4).

    Args:
        num_class: number of expression classes C.
        num_head: number of heads K; the official checkpoints have 4.
    """

    def __init__(self, num_class: int = 7, num_head: int = 4) -> None:
        super().__init__()
        self.num_head = num_head
        self.features = resnet18_features()
        for index in range(num_head):
            setattr(self, f'cat_head{index}', CrossAttentionHead())
        self.fc = nn.Linear(FEATURES, num_class)
        self.bn = nn.BatchNorm1d(num_class)

    @property
    def heads(self) -> list[CrossAttentionHead]:
        """The K heads, in order."""
        return [getattr(self, f'cat_head{index}') for index in range(self.num_head)]

    def freeze(self, stages: int) -> None:
        """Keep the weights and BatchNorm statistics of the first `stages` stages of ResNet, 1 to 4.

        The layers before the first stage are frozen as well. After `train()`, the statistics are
        updated again.
        """
        self.features[: frozen_layers(stages)].eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the network on normalized faces.

        Args:
            x: float [B, 3, H, W], normalized as in training.

        Returns:
            logits [B, C]; the feature map [B, 512, H / 32, W / 32], for the affinity loss; the
            heads [B, K, 512], log-softmax over the K heads where K > 1, for the partition loss.
        """
        features = self.features(x)  # [B, 512, h, w]
        heads = torch.stack([head(features) for head in self.heads], dim=1)  # [B, K, 512]
        if self.num_head > 1:
            heads = functional.log_softmax(heads, dim=1)
        logits = self.bn(self.fc(heads.sum(dim=1)))  # [B, C]
        return logits, features, heads


def frozen_layers(stages: int) -> int:
    """Return how many layers of `DAN.features` `DAN.freeze(stages)` freezes; 0 for 0 stages."""
    return FIRST_STAGE + stages if stages else 0


def _conv_bn(channels_in: int, channels_out: int, kernel: tuple[int, int]) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=padding),
        nn.BatchNorm2d(channels_out),
    )
