# SPDX-License-Identifier: Apache-2.0
"""Turns labeled faces into a calibration, with its expected gain and warnings."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dan_ros.calibrate.collect import LabeledFace
from dan_ros.calibrate.fit import WIDE, Fit, Penalty, choose_penalty, fit_scores
from dan_ros.calibrate.validation import CHANCE, GROUPS, Validation, cross_validate
from dan_ros.errors import DataError, count_of
from dan_ros.model.metadata import ModelInfo
from dan_ros.probabilities import MODEL_PRIOR, Calibration, Calibrator

FEW = 3  # faces per class below which its bias is mostly a guess
MIN_PERSONS = 2  # number of persons from which each can be held out
ENOUGH_PERSONS = 5  # number of persons from which the result may also hold for others
OFTEN_NEUTRAL = '0.3,0.1,0.1,0.1,0.1,0.1,0.1,0.1'  # a prior for robots that see neutral faces most
NEAR_CHANCE = 1.5  # accuracy relative to guessing below which the labels are suspicious


@dataclass(frozen=True)
class Result:
    """A calibration with its validation and warnings.

    Attributes:
        calibration: the calibration.
        validation: cross-validated results of the faces.
        warnings: one sentence per problem.
        labels: canonical labels of the model.
    """

    calibration: Calibration
    validation: Validation
    warnings: list[str]
    labels: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One sentence: the expected gain, and whether it is significant."""
        validation = self.validation
        low, high = validation.interval
        p_value = f' (p = {validation.p_value:.2g})' if validation.gain > 0 else ''
        return (
            f'balanced accuracy on held-out faces {validation.balanced_accuracy_before:.1%} -> '
            f'{validation.balanced_accuracy_after:.1%}, gain {100 * validation.gain:+.1f} points '
            f'(90 % interval {100 * low:+.1f} to {100 * high:+.1f}), {self.verdict}{p_value}'
        )

    @property
    def verdict(self) -> str:
        """Whether there is a gain, and whether it is significant."""
        if self.validation.balanced_accuracy_before == 1:
            return 'no gain: the model already classifies these faces correctly'
        if self.validation.gain <= 0:
            return 'no gain: check the labels, or add faces'
        if self.validation.p_value < CHANCE:
            is_sure = self.validation.interval[0] > 0
            return 'significant' if is_sure else 'significant, but its size is uncertain'
        return 'which may be chance: use more faces'


def calibrate(faces: Sequence[LabeledFace], logits: np.ndarray, model: ModelInfo) -> Result:
    """Fit a calibration and validate it.

    Args:
        faces: labeled faces; those of classes that the model lacks are left out.
        logits: float [N, C], of these faces.
        model: metadata of the model.

    Raises:
        DataError: there are faces of fewer than two classes, or a logit is not finite.
    """
    used = np.array([face.label in model.labels for face in faces], bool)
    chosen = [face for face in faces if face.label in model.labels]
    logits = np.asarray(logits)[used]
    classes = np.array([model.labels.index(face.label) for face in chosen], np.int64)
    if (found := len(set(classes.tolist()))) < 2:
        raise DataError(
            f'{count_of(len(chosen), "usable face")} of {count_of(found, "class", "classes")}: a '
            'calibration needs faces of at least two classes, better three to ten of each'
        )
    if not np.isfinite(logits).all():
        raise DataError('the model does not give finite numbers for these faces: use another one')
    calibrator = Calibrator.create(model)
    before = Fit(calibrator.offset(MODEL_PRIOR), model.temperature)
    fitted_classes = _fitted_classes(classes, model.labels)
    start = _start(calibrator, classes, fitted_classes)
    default = Penalty() if model.log_prior else WIDE
    units, by_person = _units(chosen)
    # Without neutral the others must not move far; with two persons, a fit of the validation sees
    # one, so it could not choose.
    may_choose = len(fitted_classes) == len(model.labels) and len(np.unique(units)) > MIN_PERSONS

    def fit(mask: np.ndarray) -> Fit:
        some, theirs = logits[mask][:, fitted_classes], classes[mask]
        theirs = np.searchsorted(fitted_classes, theirs)
        begin = Fit(start.bias[fitted_classes], start.temperature)
        penalty = default
        if may_choose:
            penalty = choose_penalty(some, theirs, units[mask], begin, default)
        return _with_others(start, fitted_classes, theirs, fit_scores(some, theirs, begin, penalty))

    validation = cross_validate(logits, classes, units, before, fit)
    fitted = fit(np.ones(len(classes), bool))
    warnings = _warnings(chosen, model, validation, by_person)
    left_out = Counter(face.label for face in faces if face.label not in model.labels)
    warnings += [
        f'{count_of(n, "face")} left out: the model lacks {name}' for name, n in left_out.items()
    ]
    notes = _notes(chosen, validation, by_person)
    bias = fitted.bias - fitted.bias.mean()
    values = {label: round(float(b), 4) for label, b in zip(model.labels, bias, strict=True)}
    temperature = round(fitted.temperature, 4)
    rows = [] if fitted.weights is None else fitted.weights.round(4).tolist()
    weights = tuple(map(tuple, rows))
    calibration = Calibration(values, temperature, model.source_sha256, notes, weights)
    return Result(calibration, validation, warnings, model.labels)


def _start(calibrator: Calibrator, classes: np.ndarray, fitted_classes: np.ndarray) -> Fit:
    """Return the start of a fit: the learned prior subtracted.

    Fitted classes without faces keep the model's default.
    """
    usual = calibrator.offset(MODEL_PRIOR)
    if not calibrator.log_prior:
        return Fit(usual, calibrator.temperature)
    present = np.unique(classes)
    bias = -np.array(calibrator.log_prior)
    bias -= bias[present].mean()
    missing = np.setdiff1d(fitted_classes, present)
    bias[missing] = usual[missing] - usual[present].mean()
    return Fit(bias, calibrator.temperature)


def _fitted_classes(classes: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Return the classes whose bias is fitted, int64 [F]: all but neutral if it has no faces.

    Without them nothing would hold neutral back from falling, and robots see it most.
    """
    present = set(classes.tolist())
    return np.array([k for k, label in enumerate(labels) if label != 'neutral' or k in present])


def _with_others(start: Fit, fitted_classes: np.ndarray, classes: np.ndarray, fitted: Fit) -> Fit:
    """Add the classes that are not fitted; they keep their distance to the mean of `classes`."""
    change = fitted.bias - start.bias[fitted_classes]
    bias = start.bias.copy()
    bias[fitted_classes] = fitted.bias - change[np.unique(classes)].mean()
    return Fit(bias, fitted.temperature, fitted.weights)


def _units(faces: Sequence[LabeledFace]) -> tuple[np.ndarray, bool]:
    """Return the groups to hold out, int64 [N], and whether each group is a person."""
    names = [face.person for face in faces]
    if '' in names or len(set(names)) < MIN_PERSONS:
        return np.arange(len(faces)), False
    return np.unique(names, return_inverse=True)[1], True


def _notes(
    faces: Sequence[LabeledFace], validation: Validation, by_person: bool
) -> dict[str, object]:
    counts = Counter(face.label for face in faces)
    low, high = validation.interval
    persons = len({face.person for face in faces if face.person})
    unit, count = ('person', persons) if by_person else ('face', len(faces))
    return {
        'faces': dict(counts),
        'persons': persons or 'unknown',
        'held_out': f'each {unit}' if count <= GROUPS else f'{GROUPS} groups of {unit}s',
        'balanced_accuracy_before': round(validation.balanced_accuracy_before, 4),
        'balanced_accuracy_after': round(validation.balanced_accuracy_after, 4),
        'gain': round(validation.gain, 4),
        'gain_interval': [round(low, 4), round(high, 4)],
        'p_value': round(validation.p_value, 4),
    }


def _warnings(
    faces: Sequence[LabeledFace], model: ModelInfo, validation: Validation, by_person: bool
) -> list[str]:
    warnings = []
    counts = Counter(face.label for face in faces)
    missing = [label for label in model.labels if label not in counts]
    if 'neutral' in missing:
        missing.remove('neutral')
        warnings.append(
            'no face of neutral: nothing is fitted for it, and it keeps the place of a balanced '
            'prior, so neutral faces may be mistaken for others, and others for neutral; add '
            'neutral faces'
        )
    if missing:
        warnings.append(
            f'no face of {", ".join(missing)}: the robot will report it as rarely as before, or '
            'more rarely; add faces if it should be recognized'
        )
    if few := [label for label, count in counts.items() if count < FEW]:
        warnings.append(f'fewer than {FEW} faces of {", ".join(few)}: add some')
    if not by_person:
        warnings.append(_about_persons(faces))
    elif len({face.person for face in faces}) < ENOUGH_PERSONS:
        warnings.append(
            f'fewer than {ENOUGH_PERSONS} people: significance was tested for these people only'
        )
    reached = validation.balanced_accuracy_after
    if reached < NEAR_CHANCE / len(counts):
        warnings.append(
            f'after calibration {reached:.0%} of the held-out faces are right, and guessing gives '
            f'{1 / len(counts):.0%}: the labels do not fit the pictures; check folders or marks'
        )
    if words := _about_neutral(validation, model.labels):
        warnings.append(words)
    for index in validation.suspects():
        own, seen = faces[index].label, int(validation.after[index].argmax())
        share = np.exp(validation.after[index, seen])
        warnings.append(
            f'{faces[index].origin} is labeled {own}, but the model sees {model.labels[seen]} '
            f'({share:.0%}): if the label is wrong, it impairs the result'
        )
    return warnings


def _about_neutral(validation: Validation, labels: Sequence[str]) -> str:
    """Name the price of a calibration in neutral faces, if there is one."""
    if 'neutral' not in labels:
        return ''
    neutral = labels.index('neutral')
    before, after = (
        validation.recall(rows)[neutral] for rows in (validation.before, validation.after)
    )
    if not after < before:  # also NaN, without neutral faces
        return ''
    return (
        f'{after:.0%} instead of {before:.0%} of the neutral faces are recognized, because a '
        'calibration takes all expressions as equally frequent: for a robot that mostly sees '
        f'neutral faces, also set expression.prior, or --prior, to {OFTEN_NEUTRAL}'
    )


def _about_persons(faces: Sequence[LabeledFace]) -> str:
    persons = {face.person for face in faces}
    if persons == {''}:
        return (
            'it is unknown who the faces show: if all are one person, the gain holds for this '
            'person only; name persons by folders (happy/anna/1.jpg) or by the marks'
        )
    if '' in persons:
        unknown = next(face.origin for face in faces if not face.person)
        return (
            f'the person of some faces is unknown, such as {unknown}, so each face was held out '
            'separately'
        )
    return (
        f'all faces are of one person ({", ".join(persons)}): the gain holds for this person; '
        'others may gain less or lose, so add faces of other people'
    )
