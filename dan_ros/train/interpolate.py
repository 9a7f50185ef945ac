# SPDX-License-Identifier: Apache-2.0
"""Interpolate between the weights of two training runs of one network.

A network between a model and its fine-tuned successor often keeps most of the advantages of both
(WiSE-FT, Wortsman et al. 2022, https://arxiv.org/abs/2109.01903). This works only if the second run
started from the first one's weights, or both from the same weights.
"""

from pathlib import Path
from typing import Any

import torch

from dan_ros.errors import ModelError
from dan_ros.network.checkpoint import load_dan, read_notes

SHARED_NOTES = ('labels', 'input_size', 'mean', 'std', 'grey')  # notes that must be equal


def interpolate_checkpoints(
    first: Path, second: Path, share: float
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Compute (1 - share) * first + share * second for all floating-point tensors.

    These include the statistics of BatchNorm. Integer tensors (its counters) come from `first`.

    Args:
        first, second: checkpoints, see `network.checkpoint.load_dan`.
        share: weight of `second`, in [0, 1].

    Returns:
        Tensors by DAN's official names, and the notes, for `checkpoints.save_weights`.

    Raises:
        ModelError: a checkpoint cannot be read, or they differ in classes, heads or preprocessing.
    """
    one, two = (load_dan(path).state_dict() for path in (first, second))
    if one.keys() != two.keys():
        name = min(one.keys() ^ two.keys())
        raise ModelError(f'{first} and {second} cannot be averaged: only one of them has {name}')
    for name, tensor in one.items():
        if tensor.shape != two[name].shape:
            raise ModelError(
                f'{first} and {second} cannot be averaged: {name} is {list(tensor.shape)} in the '
                f'first and {list(two[name].shape)} in the second'
            )
    state = {
        name: torch.lerp(tensor, two[name], share) if tensor.is_floating_point() else tensor
        for name, tensor in one.items()
    }
    return state, _merge_notes(first, second, share)


def _merge_notes(first: Path, second: Path, share: float) -> dict[str, Any]:
    one, two = read_notes(first), read_notes(second)
    for name in SHARED_NOTES:
        if one.get(name) != two.get(name):
            raise ModelError(
                f'{first} and {second} cannot be averaged: the first was trained with {name} '
                f'{one.get(name)}, the second with {two.get(name)}'
            )
    sources = [str(notes.get('source', path.name)) for notes, path in ((one, first), (two, second))]
    return {
        **one,
        'source': f'weights averaged: {1 - share:.2f} of ({sources[0]}), {share:.2f} of '
        f'({sources[1]})',
    }
