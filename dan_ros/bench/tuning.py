"""What to set, as it follows from measured times."""

from dataclasses import dataclass

WANTED_HZ = 30.0
WORTH = 0.1  # a setting is named if it saves such a part of the pipeline's time
MAX_SAVED = 0.9  # of the time; estimated savings may not be more together


@dataclass(frozen=True)
class Saving:
    """What a change of parameters saves.

    Attributes:
        settings: as in a parameter file.
        saved_ms: of each image's time.
        kind: of two that save the same work only one counts.
    """

    settings: str
    saved_ms: float
    kind: str


@dataclass(frozen=True)
class Advice:
    """Attributes: images a second at the defaults and with `settings`, and a sentence of it all."""

    default_hz: float
    settings: tuple[str, ...]
    advised_hz: float
    text: str


def advise(time_ms: float, savings: list[Saving], defaults: str) -> Advice:
    """What to change, if anything.

    Args:
        time_ms: of an image with one face at the default settings.
        savings: that were measured.
        defaults: what the default settings come to here, for people.
    """
    default_hz = 1e3 / time_ms
    begin = (
        f'One camera of 640x480 with one face: {time_ms:.1f} ms an image, so about '
        f'{_rate(default_hz)} images a second at the default settings ({defaults}), less what ROS '
        'takes.'
    )
    if default_hz >= WANTED_HZ:
        return Advice(
            default_hz, (), default_hz, f'{begin} Nothing needs to be set for {WANTED_HZ:.0f}.'
        )
    chosen = _choose(time_ms, savings)
    left_ms = max(time_ms - sum(saving.saved_ms for saving in chosen), time_ms * (1 - MAX_SAVED))
    advised_hz = 1e3 / left_ms
    settings = tuple(saving.settings for saving in chosen)
    if advised_hz < WANTED_HZ:
        settings = (*settings, f'rate.max_hz: {max(1, int(advised_hz))}')
    told = f'For more, set {" and ".join(settings)}: about {_rate(advised_hz)} a second.'
    if not chosen:
        told = f'No setting that was measured gives more: set {settings[0]}.'
    return Advice(default_hz, settings, advised_hz, f'{begin} {told}')


def _choose(time_ms: float, savings: list[Saving]) -> list[Saving]:
    """As few as make it fast enough, those that save most first."""
    chosen: list[Saving] = []
    left_ms = time_ms
    for saving in sorted(savings, key=lambda one: -one.saved_ms):
        is_worth_it = saving.saved_ms >= WORTH * time_ms
        if left_ms > 1e3 / WANTED_HZ and is_worth_it and saving.kind not in _kinds(chosen):
            chosen.append(saving)
            left_ms -= saving.saved_ms
    return chosen


def _kinds(savings: list[Saving]) -> set[str]:
    return {saving.kind for saving in savings}


def _rate(hz: float) -> str:
    return f'{hz:.0f}' if hz >= 10 else f'{hz:.1f}'
