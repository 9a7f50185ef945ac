"""A whole training: build, train epoch by epoch, keep the best, stop and go on exactly.

In the output folder: `last.pt` (everything to go on from), `best.safetensors` (the averaged weights
that did best on the validation faces, official names), `log.jsonl` (a line an epoch), `recipe.yaml`
and `skipped.txt` (pictures that could not be read).
"""

import copy
import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console

from dan_ros.datasets.catalog import open_faces
from dan_ros.datasets.faces import TRAIN, VALID, Faces
from dan_ros.errors import TrainingError
from dan_ros.images.files import readable
from dan_ros.network.dan import DAN
from dan_ros.train import checkpoints
from dan_ros.train.data_loader import plain_batches
from dan_ros.train.ema import ModelEma, measure_batchnorm
from dan_ros.train.epoch import Learner, Objective, autocast, judge, predict, train_epoch
from dan_ros.train.optimizer import build_optimizer
from dan_ros.train.pretrained import load_start
from dan_ros.train.progress import TrainingProgress
from dan_ros.train.recipe import Recipe, recipe_from_dict, recipe_to_dict

BATCHNORM_FACES = 1024  # faces that BatchNorm statistics of averaged weights are measured on
LONGEST_REASON = 300  # characters of torch's own, which may name every tensor
LISTED_SKIPS = 20  # unreadable pictures named on the screen; skipped.txt names all
PLAN = ('stages', 'workers')  # what may change when a training goes on


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
    """Train by a recipe.

    Args:
        recipe: how.
        data: the data set's folder, see `datasets`.
        out: the folder to write to; made if need be.
        start: a DAN or a ResNet-18 to start from, see `start`.
        resume: go on from `out`/last.pt. On a CPU the end is bit by bit that of a training that
            never stopped. `stages` may differ from before, to lengthen or cut a training. Where
            the number of faces of a class differs, a warning says so.
        device: cpu, cuda or cuda:N; by default a GPU where there is one.
        console: for progress; standard error by default.

    Returns:
        The log's line of the best epoch.

    Raises:
        DataError, ModelError, TrainingError: one line that names what is wrong and what to do.
    """
    trainer = Trainer(
        recipe, data, out, _pick_device(recipe, device), console or Console(stderr=True)
    )
    if resume:
        trainer.load()
    else:
        trainer.begin(start)
    return trainer.run()


class Trainer:
    """The state of a training. Arguments as in `train`."""

    def __init__(
        self, recipe: Recipe, data: Path, out: Path, device: torch.device, console: Console
    ) -> None:
        self.recipe, self.out, self.device, self.console = recipe, Path(out), device, console
        if Path(data).is_file():
            raise TrainingError(
                f'{data} is one file; give the folder that holds faces to train on and to judge by'
            )
        self.train_faces = open_faces(recipe.dataset, data, TRAIN)
        self.valid_faces = open_faces(recipe.dataset, data, VALID)
        _report_skipped(self.train_faces, self.valid_faces, console)
        if len(self.train_faces) < recipe.batch_size:
            raise TrainingError(
                f'{data} has {len(self.train_faces)} faces to train on, fewer than batch_size '
                f'{recipe.batch_size}; lower batch_size in the recipe'
            )
        torch.manual_seed(recipe.seed)
        num_class = len(self.train_faces.labels)
        dan = DAN(num_class, recipe.num_head).to(device)
        dan.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        objective = Objective(recipe, num_class).to(device)
        self.learner = Learner(
            dan,
            objective,
            build_optimizer(recipe, (dan, objective)),
            torch.amp.GradScaler(device.type, enabled=recipe.precision == 'fp16'),
        )
        self.average: ModelEma[DAN] | None = None
        self.history: list[dict[str, Any]] = []
        self.saved_epochs = 0

    @property
    def checkpoint_path(self) -> Path:
        """Where everything to go on from is kept."""
        return self.out / 'last.pt'

    @property
    def weights_path(self) -> Path:
        """Where the best weights are kept."""
        return self.out / 'best.safetensors'

    @property
    def best(self) -> dict[str, Any]:
        """The line of the best epoch so far, the first of equals; {} before the first epoch."""
        return max(self.history, key=lambda line: line['accuracy'], default={})

    def begin(self, start: Path | None) -> None:
        """Start anew, in a folder that holds no training yet."""
        if self.checkpoint_path.exists():
            raise TrainingError(
                f'{self.out} holds a training already; --resume it, or name another'
            )
        if start is not None:
            self.console.print(f'start: {load_start(self.learner.dan, start)}', soft_wrap=True)
        self._start_average()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f'{self.out} can not be made a folder: {error.strerror}') from None

    def load(self) -> None:
        """Go on from the checkpoint."""
        content = checkpoints.load_checkpoint(self.checkpoint_path)
        _check_same_recipe(recipe_from_dict(content['recipe'], 'checkpoint'), self.recipe)
        try:
            self._restore(content)
        except KeyError as error:
            raise TrainingError(
                f'{self.checkpoint_path} lacks {error}; train without --resume in another folder'
            ) from None
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = ' '.join(str(error).split())[:LONGEST_REASON]
            raise TrainingError(
                f'{self.checkpoint_path} does not fit its own recipe ({reason}); train without '
                '--resume in another folder'
            ) from None
        if self.history and not self.weights_path.exists():
            raise TrainingError(
                f'{self.weights_path} is gone, the weights of epoch {self.best["epoch"]}; put it '
                'back, or train without --resume in another folder'
            )
        self._warn_of_other_faces(content.get('faces', {}))

    def _warn_of_other_faces(self, before: dict[str, dict[str, int]]) -> None:
        """Say where the data is not what it was; older checkpoints do not know."""
        for split, now in self._count_faces().items():
            if split in before and before[split] != now:
                self.console.print(
                    f'Warning: the {split} faces are not those of before, so this is not the '
                    f'training that was stopped. Before: {_name_counts(before[split])}; now: '
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
        self._start_average()
        if self.average:
            self.average.load_state_dict(content['average'])
        self.history = content['history']
        self.saved_epochs = len(self.history)
        random = content['random']
        torch.set_rng_state(random['cpu'])
        if self.device.type == 'cuda' and 'cuda' in random:  # it may have begun on a CPU
            torch.cuda.set_rng_state(random['cuda'], self.device)

    def run(self) -> dict[str, Any]:
        """Train the epochs that are left; gives the best epoch's line."""
        recipe_text = yaml.safe_dump(recipe_to_dict(self.recipe), sort_keys=False)
        checkpoints.save_text(self.out / 'recipe.yaml', recipe_text)
        skipped = self.train_faces.skipped + self.valid_faces.skipped
        checkpoints.save_text(self.out / 'skipped.txt', ''.join(f'{name}\n' for name in skipped))
        if self.history:  # a kill may have fallen between the checkpoint and the log
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
            on_step=lambda step, steps: progress.step(epoch, step, steps),
        )
        seconds = time.monotonic() - began
        network = self._network_to_judge(epoch)
        scores = judge(
            predict(network, self.valid_faces, self.recipe, self.device), self.valid_faces
        )
        line = {
            'epoch': epoch + 1,
            'size': self.recipe.size_at(epoch),
            'learning_rate': self.learner.optimizer.param_groups[0]['lr'],
            **losses,
            **scores,
            'best_accuracy': max([scores['accuracy'], *(old['accuracy'] for old in self.history)]),
            'seconds': round(time.monotonic() - began, 1),
            'faces_per_s': round(len(self.train_faces) / seconds, 1),
            'skipped': len(self.train_faces.skipped) + len(self.valid_faces.skipped),
        }
        self.history.append(line)
        self._save(network)
        return line

    def _network_to_judge(self, epoch: int) -> DAN:
        """The averaged network; its BatchNorm measured anew where it trains at another size.

        Measured on plain faces they are worse than averaged over augmented ones (FER+, 96 px:
        cross-entropy 0.561 against 0.545), so at its own size the averaged ones are kept.
        """
        if self.average is None:
            return self.learner.dan.eval()
        if self.recipe.size_at(epoch) == self.recipe.input_size:
            return self.average.model
        rng = np.random.default_rng(self.recipe.seed)
        count = min(BATCHNORM_FACES, len(self.train_faces)) // self.recipe.batch_size
        chosen = rng.permutation(len(self.train_faces))[: count * self.recipe.batch_size]
        network = copy.deepcopy(self.average.model)
        batches = plain_batches(self.train_faces, self.recipe, self.device, chosen)
        measure_batchnorm(network, batches, autocast(self.recipe, self.device))
        return network

    def _save(self, network: DAN) -> None:
        """Best weights first: if a kill falls between, the epoch is done again and they too."""
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
        return {
            'recipe': recipe_to_dict(self.recipe),
            'dan': self.learner.dan.state_dict(),
            'objective': self.learner.objective.state_dict(),
            'optimizer': self.learner.optimizer.state_dict(),
            'scaler': self.learner.scaler.state_dict(),
            'average': self.average.state_dict() if self.average else {},
            'history': self.history,
            'faces': self._count_faces(),
            'random': random,
        }

    def _start_average(self) -> None:
        if self.recipe.average_decay:
            self.average = ModelEma(self.learner.dan, self.recipe.average_decay)
            self.learner.after_step.append(self.average.update)

    def _last_good(self) -> str:
        if not self.saved_epochs:
            return ''
        return f'. {self.checkpoint_path} keeps epoch {self.saved_epochs}, the last good one'


def _pick_device(recipe: Recipe, name: str | None) -> torch.device:
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    if not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise TrainingError(f'{name!r} is no device; use cpu, cuda or cuda:0')
    device = torch.device(name)
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            f'torch sees {torch.cuda.device_count()} CUDA GPUs, {name} is not there; train with '
            '--device cpu'
        )
    if device.type == 'cpu' and recipe.precision == 'fp16':
        raise TrainingError('precision fp16 needs a GPU; set precision to bf16 in the recipe')
    return device


def _check_same_recipe(old: Recipe, new: Recipe) -> None:
    for item in dataclasses.fields(Recipe):
        before, now = getattr(old, item.name), getattr(new, item.name)
        if item.name not in PLAN and before != now:
            raise TrainingError(
                f'the training to resume had {item.name} {before}, the recipe has {now}; '
                'train anew in another folder, or put it back'
            )


def _name_counts(counts: dict[str, int]) -> str:
    return ', '.join(f'{count} {label}' for label, count in counts.items())


def _report_skipped(train: Faces, valid: Faces, console: Console) -> None:
    skipped = train.skipped + valid.skipped
    if not skipped:
        return
    console.print(f'{len(skipped)} pictures can not be read and are left out:', soft_wrap=True)
    for name in skipped[:LISTED_SKIPS]:
        console.print(f'  {readable(name)}', soft_wrap=True, markup=False)
    if len(skipped) > LISTED_SKIPS:
        console.print(f'  and {len(skipped) - LISTED_SKIPS} more', soft_wrap=True)
