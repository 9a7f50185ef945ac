# SPDX-License-Identifier: Apache-2.0
"""Suggests parameters of the node from measured times."""

from dataclasses import dataclass

TARGET_HZ = 30.0  # image rate of a typical camera
MIN_SAVED_SHARE = 0.1  # smallest suggested saving, as a share of the pipeline's time
MAX_SAVED_SHARE = 0.9  # limit for the sum of savings, as a share of the pipeline's time


@dataclass(frozen=True)
class Saving:
    """Time that a change of parameters saves."""

    settings: str  # as in a parameter file
    saved_ms: float  # per image
    kind: str  # savings of one kind overlap, so at most one of them is suggested


@dataclass(frozen=True)
class Advice:
    """Suggested settings."""

    default_hz: float  # images per second at the default settings
    settings: tuple[str, ...]  # what to set, may be empty
    advised_hz: float  # estimated images per second with `settings`
    text: str  # the above in one or two sentences


def advise(time_ms: float, savings: list[Saving], defaults: str) -> Advice:
    """Suggest as few changes as are needed for 30 images per second.

    Example:
        >>> advise(50.0, [Saving('detector.interval: 5', 25.0, 'detector')], 'x').settings
        ('detector.interval: 5',)
    """
    default_hz = 1e3 / time_ms
    summary = (
        f'One camera of 640x480 with one face: {time_ms:.1f} ms per image, about '
        f'{_rate(default_hz)} images per second at the default settings ({defaults}), without the '
        'overhead of ROS.'
    )
    if default_hz >= TARGET_HZ:
        text = f'{summary} No change is needed for {TARGET_HZ:.0f} images per second.'
        return Advice(default_hz, (), default_hz, text)
    chosen = _choose(time_ms, savings)
    saved_ms = min(sum(saving.saved_ms for saving in chosen), time_ms * MAX_SAVED_SHARE)
    advised_hz = 1e3 / (time_ms - saved_ms)
    settings = tuple(saving.settings for saving in chosen)
    if advised_hz < TARGET_HZ:
        settings = (*settings, f'rate.max_hz: {max(1, int(advised_hz))}')
    if chosen:
        hint = f'To go faster, set {" and ".join(settings)}: about {_rate(advised_hz)} per second.'
    else:
        hint = f'No measured setting is faster. Limit the rate: set {settings[0]}.'
    return Advice(default_hz, settings, advised_hz, f'{summary} {hint}')


def _choose(time_ms: float, savings: list[Saving]) -> list[Saving]:
    """Choose the largest savings until the target rate is reached."""
    chosen: list[Saving] = []
    left_ms = time_ms
    for saving in sorted(savings, key=lambda one: -one.saved_ms):
        is_worth_it = saving.saved_ms >= MIN_SAVED_SHARE * time_ms
        is_new_kind = saving.kind not in {one.kind for one in chosen}
        if left_ms > 1e3 / TARGET_HZ and is_worth_it and is_new_kind:
            chosen.append(saving)
            left_ms -= saving.saved_ms
    return chosen


def _rate(hz: float) -> str:
    return f'{hz:.0f}' if hz >= 10 else f'{hz:.1f}'
