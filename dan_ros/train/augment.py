# SPDX-License-Identifier: Apache-2.0
"""Augmentation of training batches: framing, light, focus, noise, compression, mixing.

All operations run on whole batches, which takes a small part of a training step. All random numbers
come from one numpy generator, in an order that does not depend on the device.
"""

import numpy as np
import torch
from torch.nn import functional

from dan_ros.images.opencv import cv2
from dan_ros.model.normalization import LUMA
from dan_ros.train.recipe import Augmentation, Recipe

DARK_GAIN = (0.15, 0.6)  # range of the remaining light in a dark image
DARK_NOISE = (0.005, 0.04)  # range of its noise's standard deviation, for pixels in [0, 1]


def plain_faces(faces: np.ndarray, size: int, recipe: Recipe, device: torch.device) -> torch.Tensor:
    """Resize and normalize faces for inference.

    Args:
        faces: uint8 [B, h, w, 1 or 3], gray or RGB.
        size: side of the network's input in pixels.
        recipe: defines the normalization.
        device: device of the network.

    Returns:
        float32 [B, 3, size, size].
    """
    x = _to_float(faces, device)  # [B, 1 or 3, h, w], in [0, 1]
    if x.shape[2:] != (size, size):
        x = functional.interpolate(x, (size, size), mode='bilinear', align_corners=False)
    return normalize(x, recipe)


def augmented_faces(
    faces: np.ndarray, size: int, recipe: Recipe, rng: np.random.Generator, device: torch.device
) -> torch.Tensor:
    """Augment, resize and normalize faces, without mixing; arguments as in `plain_faces`."""
    settings = recipe.augmentation
    x = _to_float(_compress(faces, settings, rng), device)  # [B, 1 or 3, h, w], in [0, 1]
    x = _shrink(x, settings, rng)
    x = _focus(x, settings, rng)
    x = _relight(x, settings, rng)
    x = _reframe(x, size, settings, rng)  # [B, 1 or 3, size, size]
    x = _add_noise(x, settings, rng)
    return _erase(normalize(x, recipe), settings, rng)


def normalize(x: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Normalize [B, 1 or 3, S, S] in [0, 1] to the network's input, [B, 3, S, S]."""
    if recipe.grey and x.shape[1] == 3:
        x = (x * x.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)  # [B, 1, S, S]
    mean = x.new_tensor(recipe.mean)[:, None, None]
    std = x.new_tensor(recipe.std)[:, None, None]
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)  # [B, 3, S, S]


def mix(
    faces: torch.Tensor, targets: torch.Tensor, settings: Augmentation, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix the faces of a batch, and their targets, by mixup, by cutmix or not at all.

    Args:
        faces: float [B, 3, S, S].
        targets: float [B, C], rows sum to 1.
        settings: defines the probabilities.
        rng: source of randomness.
    """
    choice = rng.random()
    other = torch.from_numpy(rng.permutation(len(faces))).to(faces.device)  # [B]
    if choice < settings.mixup_chance:
        drawn = rng.beta(settings.mixup_alpha, settings.mixup_alpha, len(faces))
        shares = _column(np.maximum(drawn, 1 - drawn), faces)  # [B, 1, 1, 1], >= 0.5
        faces = torch.lerp(faces[other], faces, shares)
        return faces, torch.lerp(targets[other], targets, shares[:, :, 0, 0])
    if choice < settings.mixup_chance + settings.cutmix_chance:
        side = faces.shape[-1]
        top, left, height, width = _rectangle(rng, side, area=rng.uniform(0.05, 0.5))
        faces = faces.clone()
        inside = (..., slice(top, top + height), slice(left, left + width))
        faces[inside] = faces[other][inside]
        pasted = height * width / side**2
        return faces, (1 - pasted) * targets + pasted * targets[other]
    return faces, targets


def _to_float(faces: np.ndarray, device: torch.device) -> torch.Tensor:
    x = torch.from_numpy(faces).to(device)  # uint8 [B, h, w, 1 or 3]
    return x.permute(0, 3, 1, 2).float().div_(255)


def _column(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """[B] numbers -> [B, 1, 1, 1], which broadcasts over images."""
    return torch.from_numpy(np.asarray(values, np.float32)).to(like.device)[:, None, None, None]


def _chosen(count: int, chance: float, rng: np.random.Generator) -> np.ndarray:
    """Choose each of `count` faces with probability `chance`; returns int64 indices."""
    return np.flatnonzero(rng.random(count) < chance)


def _compress(faces: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> np.ndarray:
    chosen = _chosen(len(faces), settings.jpeg_chance, rng)
    qualities = rng.uniform(*settings.jpeg_quality, len(chosen)).astype(int)
    if len(chosen):
        faces = faces.copy()
    for index, quality in zip(chosen, qualities.tolist(), strict=True):
        # OpenCV swaps red and blue when it encodes and again when it decodes.
        _, content = cv2.imencode('.jpg', faces[index], [cv2.IMWRITE_JPEG_QUALITY, quality])
        flag = cv2.IMREAD_GRAYSCALE if faces.shape[3] == 1 else cv2.IMREAD_COLOR
        faces[index] = np.asarray(cv2.imdecode(content, flag)).reshape(faces.shape[1:])
    return faces


def _shrink(x: torch.Tensor, settings: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    chosen = _chosen(len(x), settings.small_chance, rng)
    side = max(8, round(rng.uniform(*settings.small_side) * x.shape[-1]))
    if len(chosen):
        small = functional.interpolate(x[chosen], (side, side), mode='area')
        x[chosen] = functional.interpolate(small, x.shape[2:], mode='bilinear')
    return x


def _focus(x: torch.Tensor, settings: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    """Blur, or sharpen by unsharp masking: y = x + amount * (x - blurred), amount in [-1, 1]."""
    chosen = _chosen(len(x), settings.focus_chance, rng)
    sigmas = rng.uniform(*settings.blur_sigma, len(chosen)) * x.shape[-1]
    amounts = rng.uniform(-1, 1, len(chosen))
    if len(chosen):
        part = x[chosen]  # [n, c, h, w]
        x[chosen] = (part + _column(amounts, x) * (part - _blur(part, sigmas))).clamp_(0, 1)
    return x


def _blur(x: torch.Tensor, sigmas: np.ndarray) -> torch.Tensor:
    """Blur images [n, c, h, w], each by a Gaussian with its own sigma in pixels, [n]."""
    reach = int(np.ceil(2.5 * sigmas.max()))
    places = np.arange(-reach, reach + 1)
    kernels = np.exp(-0.5 * (places / sigmas[:, None]) ** 2)
    kernels = torch.from_numpy((kernels / kernels.sum(1, keepdims=True)).astype(np.float32))
    kernels = kernels.to(x.device).repeat_interleave(x.shape[1], 0)[:, None, :, None]
    y = x.reshape(1, -1, *x.shape[2:])  # [1, n * c, h, w]
    y = functional.pad(y, (reach,) * 4, mode='replicate')
    y = functional.conv2d(y, kernels, groups=len(kernels))
    y = functional.conv2d(y, kernels.transpose(2, 3), groups=len(kernels))
    return y.reshape(x.shape)


def _relight(x: torch.Tensor, settings: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    count = len(x)
    chosen = _chosen(count, settings.tone_chance, rng)
    contrast = _column(rng.uniform(*settings.contrast, len(chosen)), x)
    shift = _column(rng.uniform(-1, 1, len(chosen)) * settings.brightness, x)
    low, high = np.log(settings.gamma)
    gamma = _column(np.exp(rng.uniform(low, high, len(chosen))), x)
    if len(chosen):
        part = (x[chosen] - 0.5) * contrast + 0.5 + shift
        x[chosen] = part.clamp_(1e-4, 1).pow_(gamma)
    chosen = _chosen(count, settings.shade_chance, rng)
    angle = rng.uniform(-np.pi, np.pi, len(chosen))
    depth = rng.uniform(0.2, 0.8, len(chosen))
    if len(chosen):
        line = torch.linspace(-1, 1, x.shape[-1], device=x.device)
        slope = _column(np.cos(angle), x) * line + _column(np.sin(angle), x) * line[:, None]
        x[chosen] = (x[chosen] * (1 + _column(depth, x) * slope)).clamp_(0, 1)
    return x


def _reframe(
    x: torch.Tensor, size: int, settings: Augmentation, rng: np.random.Generator
) -> torch.Tensor:
    """Mirror, rotate, scale, shift and resize in one bilinear step: -> [B, c, size, size]."""
    count = len(x)
    moved = rng.random(count) < settings.affine_chance
    angle = np.deg2rad(rng.uniform(-1, 1, count) * settings.rotation_deg) * moved
    scale = np.where(moved, rng.uniform(*settings.scale, count), 1.0)
    shift = rng.uniform(-2, 2, (count, 2)) * settings.shift * moved[:, None]
    mirror = np.where(rng.random(count) < settings.flip_chance, -1.0, 1.0)
    # Affine map from result to source coordinates, both in [-1, 1].
    theta = np.empty((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * np.cos(angle) / scale, -np.sin(angle) / scale
    theta[:, 1, 0], theta[:, 1, 1] = mirror * np.sin(angle) / scale, np.cos(angle) / scale
    theta[:, :, 2] = shift
    places = torch.from_numpy(theta).to(x.device)  # [B, 2, 3]
    grid = functional.affine_grid(places, [count, x.shape[1], size, size], align_corners=False)
    x = functional.grid_sample(x, grid, padding_mode='border', align_corners=False)
    if settings.fill == 'black':
        x = x * (grid.abs().amax(dim=3) <= 1)[:, None]  # [B, 1, size, size]: inside the source
    return x


def _add_noise(x: torch.Tensor, settings: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    dark = rng.random(len(x)) < settings.dark_chance
    noisy = rng.random(len(x)) < settings.noise_chance
    gain = np.where(dark, rng.uniform(*DARK_GAIN, len(x)), 1.0)
    level = noisy * rng.uniform(0, settings.noise, len(x))
    level += dark * rng.uniform(*DARK_NOISE, len(x))
    if dark.any():
        x = x * _column(gain, x)
    chosen = np.flatnonzero(level)
    if len(chosen):
        drawn = rng.standard_normal((len(chosen), *x.shape[1:]), dtype=np.float32)
        noise = torch.from_numpy(drawn).to(x.device) * _column(level[chosen], x)
        x[chosen] = (x[chosen] + noise).clamp_(0, 1)
    return x


def _erase(x: torch.Tensor, settings: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    for index in _chosen(len(x), settings.erase_chance, rng):
        area = rng.uniform(*settings.erase_area)
        top, left, height, width = _rectangle(rng, x.shape[-1], area)
        x[index, :, top : top + height, left : left + width] = 0
    return x


def _rectangle(rng: np.random.Generator, side: int, area: float) -> tuple[int, int, int, int]:
    """Draw a rectangle (top, left, height, width) in a square, with an aspect of 1/3 to 3."""
    root_aspect = np.exp(rng.uniform(-0.5, 0.5) * np.log(3))
    height = int(np.clip(round(side * area**0.5 * root_aspect), 1, side))
    width = int(np.clip(round(side * area**0.5 / root_aspect), 1, side))
    top, left = rng.integers([side - height + 1, side - width + 1]).tolist()
    return top, left, height, width
