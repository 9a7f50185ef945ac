"""What a training starts from: a whole DAN, a ResNet-18, or fresh weights."""

from pathlib import Path

import torch

from dan_ros.errors import ModelError
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


def load_start(dan: DAN, path: Path) -> str:
    """Put the weights of a file into `dan`, as many as fit.

    Args:
        dan: changed in place.
        path: a DAN checkpoint (its classifier is used where the number of classes is the same), or
            a ResNet-18 of ImageNet or MS-Celeb-1M, in torchvision's names.

    Returns:
        What was taken, for people.

    Raises:
        ModelError: the file is missing, or neither of the two.
    """
    state = {n.removeprefix('module.'): v for n, v in read_state(path).items()}
    if 'cat_head0.sa.conv1x1.0.weight' in state:
        if state['fc.weight'].shape != dan.fc.weight.shape:
            state = {n: v for n, v in state.items() if not n.startswith(CLASSIFIER)}
        expected, what = set(dan.state_dict()), 'DAN'
    elif 'layer4.1.conv2.weight' in state:
        state = _rename_resnet(state)
        expected, what = {n for n in dan.state_dict() if n.startswith('features.')}, 'ResNet-18'
    else:
        raise ModelError(
            f'{path} is neither a DAN nor a ResNet-18 with names such as layer1.0.conv1'
        )
    missing = {n for n in expected - set(state) if not n.startswith(CLASSIFIER)}
    missing = {n for n in missing if not n.endswith('num_batches_tracked')}
    if missing:
        raise ModelError(f'{path} is a {what} that lacks {len(missing)} weights, as {min(missing)}')
    try:
        dan.load_state_dict({n: v for n, v in state.items() if n in expected}, strict=False)
    except RuntimeError as error:
        raise ModelError(f'{path} does not fit DAN: {" ".join(str(error).split())}') from None
    return f'{what} from {path}' + ('' if 'fc.weight' in state else ', with a fresh classifier')


def _rename_resnet(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """ResNet-18's names to DAN's; its classifier is left out."""
    renamed = {}
    for name, value in state.items():
        stage, _, rest = name.partition('.')
        if stage in RESNET_STAGES:
            renamed[f'{RESNET_STAGES[stage]}.{rest}'] = value
    return renamed
