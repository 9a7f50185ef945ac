# SPDX-License-Identifier: Apache-2.0
"""Weights and images derived from names, equal on every machine, for tests with golden values."""

import re
import zlib
from functools import cache

import numpy as np
import torch

from dan_ros.model.normalization import IMAGENET_MEAN, IMAGENET_STD
from dan_ros.network.dan import DAN

torch.set_num_threads(1)  # test processes that run in parallel share the cores


def seeded_normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers that depend only on `name` (RandomState is frozen, see NEP 19)."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def seeded_dan(num_class: int = 8, num_head: int = 4) -> DAN:
    """A DAN in evaluation mode; all values are of realistic size and depend only on their names."""
    with torch.device('meta'):  # without random weights
        dan = DAN(num_class, num_head).eval()
    state = {
        name: _seeded_value(name, tuple(value.shape)).clone()
        for name, value in dan.state_dict().items()
    }
    dan.load_state_dict(state, assign=True)
    return dan


@cache
def _seeded_value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name.endswith('num_batches_tracked'):
        return torch.tensor(0)
    return torch.from_numpy(_seeded_numbers(name, shape)).float()


def _seeded_numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    numbers = seeded_normal(name, shape)
    if name.endswith('running_var'):
        return 0.5 + np.abs(numbers)
    if len(shape) > 1:
        return numbers * np.sqrt(2.0 / np.prod(shape[1:]))
    # Attention is a sum over 512 channels times the features. It is kept small, so that no head
    # dominates the log-softmax and each head affects the logits.
    scale = 1e-5 if re.search(r'sa\.conv_...\.1\.(weight|bias)', name) else 1.0
    return scale * (0.1 * numbers + (1.0 if name.endswith('weight') else 0.0))


def seeded_faces(batch: int, size: int) -> torch.Tensor:
    """Float32 [batch, 3, size, size], standard normal like normalized images."""
    return torch.from_numpy(seeded_normal('faces', (batch, 3, size, size))).float()


def seeded_images(batch: int, size: int) -> np.ndarray:
    """Uint8 [batch, size, size, 3]."""
    numbers = seeded_normal('pictures', (batch, size, size, 3))
    return (128 + 50 * numbers).clip(0, 255).astype(np.uint8)


def normalize(
    images: np.ndarray,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> torch.Tensor:
    """Uint8 [B, H, W, 3] -> float [B, 3, H, W], as DAN expects it."""
    scaled = (torch.from_numpy(images).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    return scaled.permute(0, 3, 1, 2)


def relative_difference(a: object, b: object) -> float:
    """Largest difference relative to the largest value of `b`."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.abs(a - b).max() / np.abs(b).max())
