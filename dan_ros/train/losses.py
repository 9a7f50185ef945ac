# SPDX-License-Identifier: Apache-2.0
"""The two losses that DAN adds to cross-entropy.

Values and gradients are those of the official implementation (https://github.com/yaoing/DAN). Each
docstring says where it differs from the paper.
"""

import sys

import torch
from torch import nn


class AffinityLoss(nn.Module):
    """Pulls features to the center of their class, and pushes the centers apart (section 3.2).

        L = 1 / B * sum_i |x_i - c_(y_i)|^2 / sum_j var_k(c_kj)

    x_i is the feature map averaged over its positions and c_k the learned center of class k. The
    variance is over the classes, unbiased, and summed over the feat_dim dimensions. Like the
    official code, this clamps all B * C masked distances to 1e-12 .. 1e12, including the zeros of
    the other classes.

    Args:
        num_class: number of classes C.
        feat_dim: number of channels of the feature map.

    Attributes:
        centers: parameter, float32 [C, feat_dim], initialized from the standard normal.
    """

    def __init__(self, num_class: int = 8, feat_dim: int = 512) -> None:
        super().__init__()
        self.num_class = num_class
        self.centers = nn.Parameter(torch.randn(num_class, feat_dim))

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            features: float [B, feat_dim, H, W].
            labels: int64 [B], each in 0 .. C - 1.

        Returns:
            A scalar, >= 0.
        """
        x = features.mean(dim=(2, 3))  # [B, feat_dim]
        squares = x.square().sum(dim=1, keepdim=True) + self.centers.square().sum(dim=1)  # [B, C]
        distances = squares - 2 * x @ self.centers.t()  # [B, C], squared
        own_class = nn.functional.one_hot(labels.long(), self.num_class).to(
            distances.dtype
        )  # [B, C]
        spread = self.centers.var(dim=0).sum()
        pulled = distances * own_class / spread  # [B, C]
        return pulled.clamp(min=1e-12, max=1e12).sum() / x.shape[0]


class PartitionLoss(nn.Module):
    """Keeps the heads apart, so that they attend to different regions (section 3.4).

        L = log(1 + K / (mean_(b, j) var_k(h_bkj) + eps))

    h_bk is the log-softmax output of head k; the variance is over the K heads, unbiased. The paper
    averages the logarithm over dimensions; the official code takes the logarithm of the average.
    eps is the machine epsilon of float64. With a single head the loss is 0.
    """

    def forward(self, heads: torch.Tensor) -> torch.Tensor:
        """Compute the loss, a scalar >= 0, of heads, float [B, K, 512]."""
        num_head = heads.shape[1]
        if num_head == 1:
            return heads.new_zeros(())
        variance = heads.var(dim=1).mean()
        return torch.log(1 + num_head / (variance + sys.float_info.epsilon))
