# SPDX-License-Identifier: Apache-2.0
"""Start training from the weights of a DAN or a ResNet-18."""

from pathlib import Path

import torch

from dan_ros.errors import ModelError, count_of, one_line
from dan_ros.network.checkpoint import read_state
from dan_ros.network.dan import DAN

RESNET_STAGES = {
    'conv1': 'features.0',
    'bn1': 'features.1',
    'layer1': 'features.4',
    'layer2': 'features.5',
    'layer3': 'features.6',
    'layer4': 'features.7',
}
CLASSIFIER = ('fc.', 'bn.')


def load_pretrained(dan: DAN, path: Path) -> str:
    """Load all weights of a checkpoint that fit `dan`.

    Args:
        dan: changed in place.
        path: a DAN checkpoint, whose classifier is used if the number of classes is equal; or a
            ResNet-18, trained on ImageNet or MS-Celeb-1M, with torchvision's names.

    Returns:
        A description of the loaded weights.

    Raises:
        ModelError: the file is missing, or is neither a DAN nor a ResNet-18.
    """
    state = {n.removeprefix('module.'): v for n, v in read_state(path).items()}
    if 'cat_head0.sa.conv1x1.0.weight' in state:
        classifier = state.get('fc.weight')
        if classifier is None or classifier.shape != dan.fc.weight.shape:
            state = {n: v for n, v in state.items() if not n.startswith(CLASSIFIER)}
        expected, what = set(dan.state_dict()), 'DAN'
    elif 'layer4.1.conv2.weight' in state:
        state = _rename_resnet(state)
        expected, what = {n for n in dan.state_dict() if n.startswith('features.')}, 'ResNet-18'
    else:
        raise ModelError(
            f'{path} is neither a DAN nor a ResNet-18, whose weights have names such as '
            'layer1.0.conv1.weight'
        )
    missing = {n for n in expected - set(state) if not n.startswith(CLASSIFIER)}
    missing = {n for n in missing if not n.endswith('num_batches_tracked')}
    if missing:
        raise ModelError(
            f'{path} is a {what}, but lacks {count_of(len(missing), "weight")}, such as '
            f'{min(missing)}'
        )
    try:
        dan.load_state_dict({n: v for n, v in state.items() if n in expected}, strict=False)
    except RuntimeError as error:
        raise ModelError(f'{path} does not fit DAN: {one_line(error)}') from None
    unused = sorted(n for n in state if n not in expected)
    return (
        f'{what} from {path}'
        + ('' if 'fc.weight' in state else ', with a new classifier')
        + (f', without {count_of(len(unused), "weight")}, such as {unused[0]}' if unused else '')
    )


def _rename_resnet(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of a ResNet-18, without its classifier, to DAN's names."""
    renamed = {}
    for name, value in state.items():
        stage, _, rest = name.partition('.')
        if stage in RESNET_STAGES:
            renamed[f'{RESNET_STAGES[stage]}.{rest}'] = value
    return renamed
