"""How long each step of repeated work takes."""

import time


class Stopwatch:
    """Adds up the time of steps that follow each other.

    Attributes:
        seconds: since `restart`, by step.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew, with no step taken yet."""
        self.seconds: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def lap(self, step: str) -> None:
        """A step ends here, and the next begins."""
        now_s = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now_s - self._last_s
        self._last_s = now_s
