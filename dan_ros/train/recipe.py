# SPDX-License-Identifier: Apache-2.0
"""Training recipes: all settings of a training run except the path of the data.

The defaults are the official RAF-DB training (DAN paper, section 4.2, and its code). A recipe file
is YAML and contains only the settings that differ; `recipes/` has examples.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict, model_validator

from dan_ros.datasets.catalog import DATASETS
from dan_ros.errors import TrainingError
from dan_ros.model.metadata import MAX_INPUT_PX, MIN_INPUT_PX
from dan_ros.model.normalization import check_normalization
from dan_ros.storage.resources import data_folders
from dan_ros.storage.settings_file import Settings, check_settings
from dan_ros.storage.yaml_file import read_yaml


def _check_order(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError('must be [low, high] with low <= high')
    return ends


def _check_dataset(name: str) -> str:
    if name not in DATASETS:
        raise ValueError(f'must be one of {", ".join(DATASETS)}')
    return name


Dataset = Annotated[str, AfterValidator(_check_dataset)]
Chance = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
# YAML has only lists, which a strict tuple would reject.
Range = Annotated[tuple[Positive, Positive], Strict(False), AfterValidator(_check_order)]
Color = Annotated[tuple[float, float, float], Strict(False)]
Epochs = Annotated[int, Field(gt=0)]
Pixels = Annotated[int, Field(ge=MIN_INPUT_PX, le=MAX_INPUT_PX)]
Stage = Annotated[tuple[Epochs, Pixels], Strict(False)]


class Augmentation(Settings, frozen=True):
    """Random changes of training faces. Chances are in [0, 1]; ranges are [low, high]."""

    flip_chance: Chance = 0.5  # mirror left and right
    affine_chance: Chance = 0.2  # rotate, scale and shift
    rotation_deg: NotNegative = 20.0  # maximum rotation to either side, degrees
    scale: Range = (1.0, 1.0)  # range of the magnification; above 1 the face grows
    shift: Chance = 0.14  # maximum shift to any side, as a share of the image's side
    # What fills the border: `black`, or the `edge` repeated.
    fill: Literal['black', 'edge'] = 'black'
    # Fill a rectangle with the mean color (Zhong et al. 2017, https://arxiv.org/abs/1708.04896).
    erase_chance: Chance = 0.5
    # Range of the rectangle's area, as a share of the image's area.
    erase_area: Range = (0.02, 0.25)
    tone_chance: Chance = 0.0  # change contrast, brightness and gamma
    contrast: Range = (1.0, 1.0)  # 1 changes nothing
    gamma: Range = (1.0, 1.0)  # drawn log-uniformly; 1 changes nothing
    brightness: NotNegative = 0.0  # maximum change of pixels in [0, 1]
    shade_chance: Chance = 0.0  # light from one side
    dark_chance: Chance = 0.0  # low light: 15 to 60 % of the light, and the noise of a dark image
    noise_chance: Chance = 0.0  # add Gaussian noise
    noise: NotNegative = 0.05  # maximum standard deviation of the noise, of pixels in [0, 1]
    focus_chance: Chance = 0.0  # blur or sharpen
    # Range of the blur's standard deviation, as a share of the image's side.
    blur_sigma: Range = (0.008, 0.03)
    small_chance: Chance = 0.0  # shrink and enlarge again, like a distant face
    small_side: Range = (0.4, 0.8)  # range of the shrunk side, as a share of the image's side
    jpeg_chance: Chance = 0.0  # compress as JPEG
    # Range of the JPEG quality, 1 to 100.
    jpeg_quality: Annotated[
        tuple[Positive, Annotated[float, Field(gt=0, le=100)]],
        Strict(False),
        AfterValidator(_check_order),
    ] = (30.0, 95.0)
    # Blend pairs of faces (Zhang et al. 2017, https://arxiv.org/abs/1710.09412).
    mixup_chance: Chance = 0.0
    mixup_alpha: Positive = 0.2  # both parameters of the Beta distribution of the blend's weight
    # Paste rectangles between faces (Yun et al. 2019, https://arxiv.org/abs/1905.04899).
    cutmix_chance: Chance = 0.0

    @model_validator(mode='after')
    def _check_blends(self) -> 'Augmentation':
        if self.mixup_chance + self.cutmix_chance > 1:
            raise ValueError('mixup_chance + cutmix_chance must be at most 1')
        return self


class Recipe(Settings, frozen=True):
    """All settings of a training run."""

    # A name in `datasets.catalog.DATASETS`; defines the classes and their order.
    dataset: Dataset = 'rafdb'
    # (epochs, side of the input in pixels) per stage, in order. Validation always uses the last
    # stage's size.
    stages: Annotated[tuple[Stage, ...], Strict(False), Field(min_length=1)] = ((40, 224),)
    # Weight of FER-2013's own labels in the targets of FER+'s training faces, see
    # `datasets.ferplus.FerPlus`; 0 uses only the votes of FER+.
    second_opinion: Chance = 0.0
    num_head: Annotated[int, Field(gt=0)] = 4  # number of cross attention heads K
    # Number of stages of ResNet that keep their weights and BatchNorm statistics, counted from the
    # input; the layers before them are frozen, too, unless it is 0. Fine-tuning with 2 of the 4
    # takes two thirds of the time.
    frozen_stages: Annotated[int, Field(ge=0, le=4)] = 0
    grey: bool = False  # the network sees grayscale faces, repeated on three channels
    mean: Color = (0.485, 0.456, 0.406)  # of RGB pixels in [0, 1]
    std: Color = (0.229, 0.224, 0.225)  # of RGB pixels in [0, 1]
    # Seed of the weights, the order of faces and the augmentation.
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(ge=2)] = 256  # faces per step; BatchNorm needs at least 2
    optimizer: Literal['sgd', 'adam', 'adamw'] = 'sgd'
    learning_rate: Positive = 0.1  # peak of the schedule
    momentum: NotNegative = 0.9  # momentum of sgd
    weight_decay: NotNegative = 1e-4  # see `optimizer.build_optimizer`
    # See `optimizer.learning_rate_factor`.
    schedule: Literal['step', 'exponential', 'cosine'] = 'step'
    step_epochs: Annotated[int, Field(gt=0)] = 10  # of the schedule step
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1  # of the schedules step and exponential
    warmup_epochs: NotNegative = 0.0  # length of the linear warm-up, may be fractional
    clip_norm: NotNegative = 0.0  # maximum norm of the gradient; 0 disables clipping
    # Share of the target that is spread over all classes, [0, 1).
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # Sampling weight of a face is count(its class) ** -class_balance: 0 takes each face once per
    # epoch, 1 draws every class equally often.
    class_balance: Annotated[float, Field(ge=0, le=2)] = 0.0
    affinity_weight: NotNegative = 1.0  # weight of `losses.AffinityLoss`
    partition_weight: NotNegative = 1.0  # weight of `losses.PartitionLoss`
    # Decay of the averaged weights, see `ema.ModelEma`; 0 disables averaging.
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # Validation score that chooses the best epoch.
    best_by: Literal['accuracy', 'balanced_accuracy'] = 'accuracy'
    # fp32, or the type of automatic mixed precision; fp16 needs a GPU.
    precision: Literal['fp32', 'bf16', 'fp16'] = 'fp32'
    # Threads that prepare batches; 0 prepares them in the training thread.
    workers: Annotated[int, Field(ge=0)] = 4
    augmentation: Augmentation = Augmentation()

    @model_validator(mode='after')
    def _check(self) -> 'Recipe':
        check_normalization(self.mean, self.std)
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f'warmup_epochs must be below the {self.epochs} epochs of stages')
        if self.second_opinion and self.dataset != 'ferplus':
            raise ValueError(f'second_opinion needs the data set ferplus, found {self.dataset}')
        return self

    @property
    def epochs(self) -> int:
        """Number of epochs of all stages."""
        return sum(epochs for epochs, _ in self.stages)

    @property
    def input_size(self) -> int:
        """Side of the trained network's input in pixels."""
        return self.stages[-1][1]

    def size_at(self, epoch: int) -> int:
        """Side of the input in pixels in `epoch`, counted from 0."""
        for epochs, size in self.stages:
            if epoch < epochs:
                return size
            epoch -= epochs
        return self.input_size


def find_recipe(name: str) -> Path:
    """Find a recipe file by its path, or by the name of a recipe of this package.

    Raises:
        TrainingError: neither exists.
    """
    try:
        path = Path(name).expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # a name too long, or ~ of an unknown user
        reason = getattr(error, 'strerror', None) or error
        raise TrainingError(f'the recipe {name} cannot be read: {reason}') from None
    known = [file for folder in data_folders('recipes') for file in sorted(folder.glob('*.yaml'))]
    for file in known:
        if file.stem == name:
            return file
    names = ', '.join(dict.fromkeys(file.stem for file in known))
    raise TrainingError(
        f'there is no recipe {name!r}: give the path of a YAML file, or one of '
        f'{names or "the recipes of this package, which are not installed"}'
    )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        TrainingError: the file is missing, is not YAML, or has an unknown key or invalid value.
    """
    content = read_yaml(path, 'recipe', TrainingError)
    return check_settings(Recipe, content, str(path), TrainingError)
