# SPDX-License-Identifier: Apache-2.0
"""Train epoch by epoch, keep the best weights, stop and resume exactly.

The output folder contains `last.pt` (everything needed to resume), `best.safetensors` (the averaged
weights of the best epoch, see `Recipe.best_by`; official names), `log.jsonl` (one line per epoch),
`recipe.yaml` and `skipped.txt` (images that cannot be used).
"""

import copy
import re
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from rich.console import Console
from torch import nn
from torch.optim.swa_utils import update_bn

from dan_ros.datasets.catalog import open_faces
from dan_ros.datasets.faces import TRAIN, VALID, Faces, summarize, summarize_skipped
from dan_ros.datasets.ferplus import FerPlus
from dan_ros.errors import TrainingError, count_of, one_line
from dan_ros.network.checkpoint import read_state
from dan_ros.network.dan import DAN, frozen_layers
from dan_ros.storage.settings_file import check_settings
from dan_ros.train import checkpoints
from dan_ros.train.data_loader import plain_batches
from dan_ros.train.ema import ModelEma
from dan_ros.train.epoch import Learner, Objective, autocast, predict_logits, train_epoch, validate
from dan_ros.train.optimizer import build_optimizer
from dan_ros.train.pretrained import load_pretrained
from dan_ros.train.progress import TrainingProgress
from dan_ros.train.recipe import Recipe

MAX_BATCHNORM_FACES = 1024  # faces, or one batch, for the BatchNorm statistics of averaged weights
MAX_REASON_CHARACTERS = 300  # length of a quoted error of torch, which may list every tensor
CHECKPOINT = 'last.pt'
CHANGEABLE = ('stages', 'workers')  # settings that may change when a run resumes


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    start: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train with a recipe.

    Args:
        recipe: the settings.
        data: the data set's folder, see `datasets.catalog.open_faces`.
        out: the output folder; created if needed.
        start: a checkpoint to start from, see `pretrained.load_pretrained`.
        resume: continue from `last.pt` in `out`. On a CPU, the result is bitwise equal to that of
            an uninterrupted run. `stages` may differ, to make the training longer or shorter. A
            warning is printed if the number of faces per class differs.
        device: cpu, cuda or cuda:N; the default is a GPU if there is one.
        console: output for progress; the default is standard error.

    Returns:
        The log line of the best epoch.

    Raises:
        DataError, ModelError, TrainingError: see the message.
    """
    # Opening the data decodes every image, so what can be refused before is refused before.
    if Path(data).is_file():
        raise TrainingError(
            f'{data} is a file; give the folder with the training and validation faces'
        )
    out = Path(out)
    checkpoint, chosen = out / CHECKPOINT, _pick_device(recipe, device)
    if resume:
        checkpoints.check_exists(checkpoint)
    else:
        _check_new_run(checkpoint, recipe, start)
    with checkpoints.locked_folder(out):
        content = {}
        if resume:
            content = _read_checkpoint(checkpoint, recipe)
        else:
            _check_unused(checkpoint)  # another run may have ended since the check above
        trainer = Trainer(recipe, data, out, chosen, console or Console(stderr=True))
        if resume:
            trainer.load(content)
        else:
            trainer.begin(start)
        return trainer.run()


class Trainer:
    """The state of a training run; arguments as in `train`, but `out` must exist."""

    def __init__(
        self, recipe: Recipe, data: Path, out: Path, device: torch.device, console: Console
    ) -> None:
        self.recipe, self.out, self.device, self.console = recipe, Path(out), device, console
        self.checkpoint_path = self.out / CHECKPOINT
        self.weights_path = self.out / 'best.safetensors'
        self.valid_faces = open_faces(recipe.dataset, data, VALID)
        self.train_faces = _open_training_faces(recipe, data)
        self.skipped = {**self.train_faces.skipped, **self.valid_faces.skipped}
        if len(self.train_faces) < recipe.batch_size:
            raise TrainingError(
                f'{data} has {count_of(len(self.train_faces), "training face")}, fewer than '
                f'batch_size {recipe.batch_size}; lower batch_size in the recipe'
            )
        self._print_summary()
        torch.manual_seed(recipe.seed)
        self.learner = _build_learner(recipe, len(self.train_faces.labels), device)
        self.ema: ModelEma | None = None
        self.history: list[dict[str, Any]] = []
        self.saved_epochs = 0

    def _print_summary(self) -> None:
        """Print a summary of the data set, and the images that are left out."""
        dataset = self.recipe.dataset
        for line in (
            *summarize(dataset, TRAIN, self.train_faces),
            *summarize(dataset, VALID, self.valid_faces),
            *summarize_skipped(self.skipped, 'skipped.txt'),
        ):
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    @property
    def best(self) -> dict[str, Any]:
        """Log line of the best epoch, the earliest of equal ones; {} before the first epoch."""
        return max(self.history, key=lambda line: line[self.recipe.best_by], default={})

    def begin(self, start: Path | None) -> None:
        """Start a new training run.

        Raises:
            ModelError: the start cannot be read.
        """
        if start is not None:
            taken = load_pretrained(self.learner.dan, start)
            self.console.print(f'start: {taken}', soft_wrap=True, markup=False, highlight=False)
        self._start_ema()

    def load(self, content: dict[str, Any]) -> None:
        """Restore the state in the content of the checkpoint.

        Raises:
            TrainingError: it does not fit the recipe, or the best weights are missing.
        """
        path, advice = self.checkpoint_path, 'train without --resume in another folder'
        try:
            self._restore(content)
        except KeyError as error:
            raise TrainingError(f'{path}: {error} is missing; {advice}') from None
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = one_line(error)[:MAX_REASON_CHARACTERS]
            raise TrainingError(
                f'{path} does not fit its own recipe ({reason}); {advice}'
            ) from None
        if self.history and not self.weights_path.exists():
            raise TrainingError(
                f'{self.weights_path}, the weights of epoch {self.best["epoch"]}, is missing; put '
                f'it back, or {advice}'
            )
        self._warn_of_changed_faces(content.get('faces', {}))

    def _warn_of_changed_faces(self, before: dict[str, dict[str, int]]) -> None:
        """Print a warning if the numbers of faces changed; old checkpoints lack the numbers."""
        for split, now in self._count_faces().items():
            if split in before and before[split] != now:
                self.console.print(
                    f'Warning: the {split} faces have changed, so the result will differ from an '
                    f'uninterrupted run. Before: {_name_counts(before[split])}; now: '
                    f'{_name_counts(now)}',
                    soft_wrap=True,
                    highlight=False,
                )

    def _count_faces(self) -> dict[str, dict[str, int]]:
        return {TRAIN: self.train_faces.counts, VALID: self.valid_faces.counts}

    def _restore(self, content: dict[str, Any]) -> None:
        self.learner.dan.load_state_dict(content['dan'])
        self.learner.objective.load_state_dict(content['objective'])
        self.learner.optimizer.load_state_dict(content['optimizer'])
        self.learner.scaler.load_state_dict(content['scaler'])
        self._start_ema()
        if self.ema:
            self.ema.module.load_state_dict(content['average']['model'])
            self.ema.steps = content['average']['steps']
        self.history = content['history']
        self.saved_epochs = len(self.history)
        random = content['random']
        torch.set_rng_state(random['cpu'])
        if self.device.type == 'cuda' and 'cuda' in random:  # the run may have begun on a CPU
            torch.cuda.set_rng_state(random['cuda'], self.device)

    def run(self) -> dict[str, Any]:
        """Train the remaining epochs; returns the log line of the best epoch.

        Raises:
            TrainingError: the loss is not finite, or a file cannot be written.
        """
        recipe_text = yaml.safe_dump(self.recipe.model_dump(mode='json'), sort_keys=False)
        checkpoints.save_text(self.out / 'recipe.yaml', recipe_text)
        checkpoints.save_text(
            self.out / 'skipped.txt', ''.join(f'{name}\n' for name in self.skipped)
        )
        if self.history:  # the last process may have been killed between the checkpoint and the log
            checkpoints.save_history(self.out / 'log.jsonl', self.history)
        with TrainingProgress(self.recipe.epochs, len(self.history), self.console) as progress:
            try:
                for epoch in range(len(self.history), self.recipe.epochs):
                    progress.epoch(self._run_epoch(epoch, progress))
            except TrainingError as error:
                raise TrainingError(f'{error}{self._last_good()}') from None
        return self.best

    def _run_epoch(self, epoch: int, progress: TrainingProgress) -> dict[str, Any]:
        began = time.monotonic()
        losses = train_epoch(
            self.learner,
            self.train_faces,
            self.recipe,
            epoch,
            device=self.device,
            on_progress=lambda step, steps: progress.step(epoch, step, steps),
        )
        seconds = time.monotonic() - began
        network = self._network_to_validate(epoch)
        logits = predict_logits(network, self.valid_faces, self.recipe, self.device)
        scores = validate(logits, self.valid_faces)
        line = {
            'epoch': epoch + 1,
            'size': self.recipe.size_at(epoch),
            **losses,
            **scores,
            'best_accuracy': max([scores['accuracy'], *(old['accuracy'] for old in self.history)]),
            'seconds': round(time.monotonic() - began, 1),
            'faces_per_s': round(len(self.train_faces) / seconds, 1),
            'skipped': len(self.skipped),
        }
        self.history.append(line)
        self._save(network)
        return line

    def _network_to_validate(self, epoch: int) -> nn.Module:
        """Return the averaged network, with new BatchNorm statistics if it trains at another size.

        At the final size the averaged statistics are kept: statistics of plain faces are worse than
        averages over augmented ones (FER+, 96 px: cross-entropy 0.561 against 0.545).
        """
        if self.ema is None:
            return self.learner.dan.eval()
        if self.recipe.size_at(epoch) == self.recipe.input_size:
            return self.ema.module
        rng = np.random.default_rng(self.recipe.seed)
        count = min(MAX_BATCHNORM_FACES, len(self.train_faces)) // self.recipe.batch_size or 1
        chosen = rng.permutation(len(self.train_faces))[: count * self.recipe.batch_size]
        network = cast(DAN, copy.deepcopy(self.ema.module))
        batches = plain_batches(self.train_faces, self.recipe, self.device, chosen)
        layers, count = list(network.features), frozen_layers(self.recipe.frozen_stages)
        frozen = nn.Sequential(*layers[:count])
        network.features = nn.Sequential(*layers[count:])  # update_bn changes all statistics
        with torch.no_grad(), autocast(self.recipe, self.device):
            update_bn((frozen(x) for x in batches), network)
        network.features = nn.Sequential(*layers)
        return network.eval()

    def _save(self, network: nn.Module) -> None:
        """Save the best weights first, so that a process that dies in between repeats the epoch."""
        line = self.history[-1]
        if self.best is line:
            notes = {
                'labels': self.train_faces.labels,
                'input_size': self.recipe.input_size,
                'mean': self.recipe.mean,
                'std': self.recipe.std,
                'grey': self.recipe.grey,
                'source': f'trained on {self.recipe.dataset}, {line["accuracy"]:.2%} of its '
                f'validation faces, epoch {line["epoch"]}',
            }
            checkpoints.save_weights(self.weights_path, network.state_dict(), notes)
        checkpoints.save_checkpoint(self.checkpoint_path, self._content())
        self.saved_epochs = len(self.history)
        checkpoints.save_history(self.out / 'log.jsonl', self.history)

    def _content(self) -> dict[str, Any]:
        random = {'cpu': torch.get_rng_state()}
        if self.device.type == 'cuda':
            random['cuda'] = torch.cuda.get_rng_state(self.device)
        ema = self.ema
        return {
            'recipe': self.recipe.model_dump(mode='json'),
            'dan': self.learner.dan.state_dict(),
            'objective': self.learner.objective.state_dict(),
            'optimizer': self.learner.optimizer.state_dict(),
            'scaler': self.learner.scaler.state_dict(),
            'average': {'steps': ema.steps, 'model': ema.module.state_dict()} if ema else {},
            'history': self.history,
            'faces': self._count_faces(),
            'random': random,
        }

    def _start_ema(self) -> None:
        if self.recipe.average_decay:
            self.ema = ModelEma(self.learner.dan, self.recipe.average_decay)
            self.learner.after_step.append(self.ema.update_parameters)

    def _last_good(self) -> str:
        if not self.saved_epochs:
            return ''
        return f'. {self.checkpoint_path} keeps epoch {self.saved_epochs}, the last good one'


def _check_unused(checkpoint: Path) -> None:
    if checkpoint.exists():
        raise TrainingError(
            f'{checkpoint.parent} already contains a training run; continue it with --resume, or '
            'choose another folder'
        )


def _check_new_run(checkpoint: Path, recipe: Recipe, start: Path | None) -> None:
    _check_unused(checkpoint)
    if recipe.frozen_stages and start is None:
        raise TrainingError(
            f'frozen_stages {recipe.frozen_stages} keeps the weights of the start, but there is '
            'none: give --start, or set frozen_stages to 0'
        )
    if start is not None:
        read_state(start)  # raises an error if it cannot be read


def _read_checkpoint(path: Path, recipe: Recipe) -> dict[str, Any]:
    """Read a checkpoint, and check that it is of the same recipe."""
    content = checkpoints.load_checkpoint(path)
    old = check_settings(Recipe, content['recipe'], f'{path}: recipe', TrainingError)
    _check_same_recipe(old, recipe)
    return content


def _open_training_faces(recipe: Recipe, data: Path) -> Faces:
    if recipe.second_opinion:
        return FerPlus(recipe.second_opinion).open(Path(data), TRAIN)
    return open_faces(recipe.dataset, data, TRAIN)


def _build_learner(recipe: Recipe, num_class: int, device: torch.device) -> Learner:
    dan = DAN(num_class, recipe.num_head).to(device)
    dan.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.frozen_stages:
        dan.freeze(recipe.frozen_stages)
    objective = Objective(recipe, num_class).to(device)
    return Learner(
        dan,
        objective,
        build_optimizer(recipe, (dan, objective)),
        torch.amp.GradScaler(device.type, enabled=recipe.precision == 'fp16'),
    )


def _pick_device(recipe: Recipe, name: str | None) -> torch.device:
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    if not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise TrainingError(f'unknown device {name!r}; use cpu, cuda or cuda:N')
    device = torch.device(name)
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            f'there is no GPU {name}: torch finds {torch.cuda.device_count()} CUDA GPUs; train '
            'with --device cpu'
        )
    if device.type == 'cpu' and recipe.precision == 'fp16':
        raise TrainingError('precision fp16 needs a GPU; set precision to bf16 in the recipe')
    return device


def _check_same_recipe(old: Recipe, new: Recipe) -> None:
    for name in Recipe.model_fields:
        before, now = getattr(old, name), getattr(new, name)
        if name not in CHANGEABLE and before != now:
            raise TrainingError(
                f'the training run has {name} {before}, but the recipe has {now}; change the '
                'recipe back, or train in another folder'
            )


def _name_counts(counts: dict[str, int]) -> str:
    return ', '.join(f'{count} {label}' for label, count in counts.items())
