"""Read DAN checkpoints: the official `.pth` files, this package's own, and safetensors.

A pickle can run code, so this is done once, by a person, with `dan-ros convert`; the node reads
ONNX alone.
"""

import pickle
from pathlib import Path

import torch

from dan_ros.errors import ModelError
from dan_ros.network.dan import DAN

SAFE_TORCH = (2, 6)  # before it, weights_only=True can execute code: CVE-2025-32434


def load_dan(path: Path) -> DAN:
    """Build the DAN a checkpoint holds, in evaluation mode, with strict names and shapes.

    Takes the official format `{'model_state_dict': ...}`, a bare state dict, either of them with
    the `module.` prefix of DataParallel, and safetensors.

    Raises:
        ModelError: the file is missing, is not a checkpoint, or does not fit DAN.
    """
    state = read_state(path)
    state = {str(name).removeprefix('module.'): value for name, value in state.items()}
    num_head = len({name.split('.')[0] for name in state if name.startswith('cat_head')})
    if not num_head or 'fc.weight' not in state or state['fc.weight'].ndim != 2:
        raise ModelError(
            f'{path} holds no DAN: its {len(state)} entries lack `cat_head0` or `fc.weight`. '
            'An official checkpoint holds the whole network, not only its ResNet-18.'
        )
    dan = DAN(num_class=state['fc.weight'].shape[0], num_head=num_head)
    try:
        dan.load_state_dict(state, strict=True)
    except RuntimeError as error:
        problems = '; '.join(line.strip() for line in str(error).splitlines()[1:4])
        raise ModelError(f'{path} does not fit DAN: {problems[:400]}') from None
    return dan.eval()


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint by name, whatever network they belong to.

    Raises:
        ModelError: the file is missing or is not a checkpoint.
    """
    if not path.is_file():
        raise ModelError(f'there is no checkpoint at {path}')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file

            return load_file(path)
        return _unpickle_state(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError) as error:
        raise ModelError(f'{path} can not be read as a checkpoint: {_first_line(error)}') from None
    except Exception as error:  # safetensors raises its own class, with no public base
        if type(error).__module__.startswith('safetensors'):
            raise ModelError(f'{path} is not a safetensors file: {_first_line(error)}') from None
        raise


def _unpickle_state(path: Path) -> dict[str, torch.Tensor]:
    if tuple(int(part) for part in torch.__version__.split('.')[:2]) < SAFE_TORCH:
        raise ModelError(
            f'torch {torch.__version__} can run code hidden in a checkpoint (CVE-2025-32434); '
            'install torch 2.6 or newer to convert one'
        )
    content = torch.load(path, map_location='cpu', weights_only=True)
    state = content if isinstance(content, dict) else None
    for name in ('model_state_dict', 'state_dict'):
        state = state.get(name, state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(
            f'{path} is not a state dict, nor a dict with `model_state_dict`; '
            'a whole pickled model can not be read: save its state_dict() instead'
        )
    return state


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
