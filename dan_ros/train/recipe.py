"""A recipe: everything that decides how a training goes, but for the data's place.

The defaults below are the official RAF-DB training (paper, section 4.2, and its code). A recipe
file is YAML and names only what differs; `recipes/` has ours.
"""

import dataclasses
import difflib
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

import yaml

from dan_ros.errors import TrainingError
from dan_ros.model.metadata import MAX_INPUT_PX, MIN_INPUT_PX
from dan_ros.network.normalization import check_normalization
from dan_ros.storage.resources import data_folders

CHOICES = MappingProxyType(
    {
        'dataset': ('ferplus', 'rafdb', 'affectnet7', 'affectnet8', 'sfew', 'folder'),
        'optimizer': ('sgd', 'adam', 'adamw'),
        'schedule': ('step', 'exponential', 'cosine'),
        'precision': ('fp32', 'bf16', 'fp16'),
        'fill': ('black', 'edge'),
    }
)
NEVER_NEGATIVE = (
    'seed',
    'workers',
    'momentum',
    'weight_decay',
    'clip_norm',
    'class_balance',
    'affinity_weight',
    'partition_weight',
)
# Of a value that is quoted in a message: YAML's aliases make lists of millions in a few lines.
QUOTED = reprlib.Repr()
QUOTED.maxlevel = 2
QUOTED.maxstring = 100


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a training face. Chances are in [0, 1]; ranges are [low, high].

    Attributes:
        flip_chance: mirror left and right.
        affine_chance: apply rotation, scale and shift together.
        rotation_deg: largest rotation to either side, degrees.
        scale: magnification; above 1 the face grows.
        shift: largest shift to any side, as a part of the picture's side.
        fill: what comes in at the border: `black`, or the `edge` repeated.
        erase_chance: paint a rectangle over with the mean colour (Zhong et al. 2017).
        erase_area: area of that rectangle, as a part of the picture's.
        tone_chance: change contrast, brightness and gamma.
        contrast, gamma: ranges, 1 changes nothing; gamma's is log-uniform.
        brightness: largest change, of [0, 1].
        shade_chance: light from one side.
        dark_chance: low light: 15 to 60 % of the light, and the noise that comes with it.
        noise_chance: Gaussian noise of up to `noise` of [0, 1].
        noise: see `noise_chance`.
        focus_chance: blur or sharpen.
        blur_sigma: range of the blur's width, as a part of the picture's side.
        small_chance: shrink to `small_side` and back, as a face far away.
        small_side: range of the side to shrink to, as a part of the picture's.
        jpeg_chance: compress as JPEG.
        jpeg_quality: range of its quality, 1 to 100.
        mixup_chance: blend a batch with itself (Zhang et al. 2017).
        mixup_alpha: both parameters of the Beta distribution of the blend.
        cutmix_chance: paste rectangles of a batch into itself (Yun et al. 2019).
    """

    flip_chance: float = 0.5
    affine_chance: float = 0.2
    rotation_deg: float = 20.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.14
    fill: str = 'black'
    erase_chance: float = 0.5
    erase_area: tuple[float, float] = (0.02, 0.25)
    tone_chance: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    gamma: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    shade_chance: float = 0.0
    dark_chance: float = 0.0
    noise_chance: float = 0.0
    noise: float = 0.05
    focus_chance: float = 0.0
    blur_sigma: tuple[float, float] = (0.008, 0.03)
    small_chance: float = 0.0
    small_side: tuple[float, float] = (0.4, 0.8)
    jpeg_chance: float = 0.0
    jpeg_quality: tuple[float, float] = (30.0, 95.0)
    mixup_chance: float = 0.0
    mixup_alpha: float = 0.2
    cutmix_chance: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        dataset: which reader, and with it which classes in which order.
        stages: (epochs, side of the input in pixels), one after the other; faces are judged at
            the last stage's size throughout.
        num_head: cross attention heads K.
        grey: the network sees grey faces, repeated on three channels.
        mean, std: normalisation of [0, 1], red green blue.
        seed: of weights, order and augmentation.
        batch_size: faces a step.
        optimizer: sgd, adam or adamw.
        learning_rate: at its peak.
        momentum: of sgd.
        weight_decay: see `schedule.build_optimizer`.
        schedule: step, exponential or cosine, see `schedule.learning_rate`.
        step_epochs, gamma: of the schedules step and exponential.
        warmup_epochs: linear rise of the learning rate, may be a fraction.
        clip_norm: largest norm of the gradient; 0 does not clip.
        label_smoothing: part of the target spread over all classes, [0, 1).
        class_balance: faces are drawn with count(class) ** -class_balance: 0 takes each face once
            an epoch, 1 draws every class equally often.
        affinity_weight, partition_weight: of the two losses of the paper.
        average_decay: of the averaged weights, see `averaging`; 0 keeps none.
        precision: fp32, or the type of automatic mixed precision; fp16 needs a GPU.
        workers: threads that read pictures; 0 reads them in between.
        augmentation: see there.
    """

    dataset: str = 'rafdb'
    stages: tuple[tuple[int, int], ...] = ((40, 224),)
    num_head: int = 4
    grey: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    seed: int = 0
    batch_size: int = 256
    optimizer: str = 'sgd'
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = 'step'
    step_epochs: int = 10
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    class_balance: float = 0.0
    affinity_weight: float = 1.0
    partition_weight: float = 1.0
    average_decay: float = 0.0
    precision: str = 'fp32'
    workers: int = 4
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return sum(epochs for epochs, _ in self.stages)

    @property
    def input_size(self) -> int:
        """Side of the finished network's input, pixels."""
        return self.stages[-1][1]

    def size_at(self, epoch: int) -> int:
        """Side of the input in epoch `epoch`, counted from 0."""
        for epochs, size in self.stages:
            if epoch < epochs:
                return size
            epoch -= epochs
        return self.input_size


def find_recipe(name: str) -> Path:
    """Path of a recipe: a file's, or that of one which comes with the package, by its name.

    Raises:
        TrainingError: there is neither.
    """
    try:
        path = Path(name).expanduser()
        if path.is_file():
            return path
    except OSError as error:
        raise TrainingError(f'no recipe can be read at {name}: {error.strerror}') from None
    except RuntimeError as error:  # ~ of a user who is not there
        raise TrainingError(f'no recipe can be read at {name}: {error}') from None
    known = [file for folder in data_folders('recipes') for file in sorted(folder.glob('*.yaml'))]
    for file in known:
        if file.stem == name:
            return file
    names = ', '.join(dict.fromkeys(file.stem for file in known))
    raise TrainingError(
        f'there is no recipe {name!r}: neither a file at {path.absolute()} nor one of '
        f'{names or "those that come with the package, which are missing"}'
    )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        TrainingError: there is no such file, it is no YAML, or it names or sets something that a
            recipe does not have.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise TrainingError(f'no recipe can be read at {path}: {error.strerror}') from None
    except RecursionError:
        raise TrainingError(f'{path} is no recipe: its lists lie too deep in each other') from None
    except Exception as error:  # YAML's own, and whatever a wrong date, number or byte leads to
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise TrainingError(f'{path} is no YAML: {reason}') from None
    return recipe_from_dict(content or {}, str(path))


def recipe_from_dict(content: dict[str, Any], where: str) -> Recipe:
    """Make a recipe of what differs from the defaults; `where` names its origin in messages.

    Raises:
        TrainingError: see `load_recipe`.
    """
    recipe: Recipe = _build(Recipe, content, where)
    _check(recipe, where)
    return recipe


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The whole recipe as plain dicts, lists, strings and numbers, for YAML and JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {name: plain(value) for name, value in dataclasses.asdict(recipe).items()}


def _build(kind: Any, content: Any, where: str) -> Any:
    if not isinstance(content, dict):
        raise TrainingError(f'{where}: expected names and values, found {QUOTED.repr(content)}')
    kinds = get_type_hints(kind)
    values = {}
    for name, value in content.items():
        if name not in kinds:
            near = difflib.get_close_matches(str(name), kinds, 1, cutoff=0.5)
            hint = f'; did you mean {near[0]!r}?' if near else f'; it has {", ".join(kinds)}'
            raise TrainingError(f'{where}: a recipe has no {name!r}{hint}')
        values[name] = _convert(kinds[name], value, f'{where}: {name}')
    return kind(**values)


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Check `value` against its field's type; integers pass for floats, lists for tuples."""
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)
    if getattr(kind, '__origin__', None) is tuple:
        return _convert_tuple(kind.__args__, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise TrainingError(f'{where} has to be of type {kind.__name__}, not {QUOTED.repr(value)}')
    name = where.rpartition(' ')[2]
    if value not in CHOICES.get(name, (value,)):
        raise TrainingError(f'{where} is {value!r}, not one of {", ".join(CHOICES[name])}')
    return value


def _convert_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise TrainingError(f'{where} has to be a list, not {QUOTED.repr(value)}')
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise TrainingError(f'{where} has to have {len(kinds)} entries, not {len(value)}')
    return tuple(_convert(kind, item, where) for kind, item in zip(kinds, value, strict=True))


def _check(recipe: Recipe, where: str) -> None:
    def require(holds: bool, what: str) -> None:
        if not holds:
            raise TrainingError(f'{where}: {what}')

    require(bool(recipe.stages), 'stages is empty; give a list of [epochs, pixels]')
    require(
        all(e > 0 and MIN_INPUT_PX <= s <= MAX_INPUT_PX for e, s in recipe.stages),
        f'a stage needs > 0 epochs, >= {MIN_INPUT_PX} px and <= {MAX_INPUT_PX} px',
    )
    require(recipe.batch_size > 1, 'batch_size has to be above 1, for BatchNorm')
    require(recipe.num_head > 0, 'num_head has to be above 0')
    require(recipe.learning_rate > 0, 'learning_rate has to be above 0')
    require(0 <= recipe.average_decay < 1, 'average_decay has to be in [0, 1)')
    require(0 <= recipe.label_smoothing < 1, 'label_smoothing has to be in [0, 1)')
    require(0 <= recipe.warmup_epochs < recipe.epochs, 'warmup_epochs has to be below the epochs')
    require(recipe.step_epochs > 0, 'step_epochs has to be above 0')
    try:
        check_normalization(recipe.mean, recipe.std)
    except ValueError as error:
        raise TrainingError(f'{where}: {error}') from None
    require(0 < recipe.gamma <= 1, 'gamma has to be in (0, 1]')
    require(recipe.class_balance <= 2, 'class_balance has to be at most 2')
    for name in NEVER_NEGATIVE:
        require(getattr(recipe, name) >= 0, f'{name} has to be 0 or more')
    augmentation = recipe.augmentation
    for name, value in dataclasses.asdict(augmentation).items():
        if name.endswith('_chance'):
            require(0 <= value <= 1, f'augmentation {name} is {value}, outside [0, 1]')
        if isinstance(value, tuple):
            require(
                0 < value[0] <= value[1], f'augmentation {name} is no range [low, high] above 0'
            )
    require(0 <= augmentation.shift <= 1, 'augmentation shift has to be in [0, 1]')
    require(augmentation.jpeg_quality[1] <= 100, 'augmentation jpeg_quality ends at 100')
    blends = augmentation.mixup_chance + augmentation.cutmix_chance
    require(blends <= 1, 'augmentation mixup_chance and cutmix_chance add up to more than 1')
