"""A face's probabilities over time, and a label that does not flicker."""

from collections import deque

import numpy as np

from dan_ros import labels

CLEAR_LEAD = 0.25  # in probability, with which a class is named that no two frames agree on
TYPICAL_FRAMES = 3  # the median of so many is what a face shows without the odd frame out
FIRST_S = 0.1  # what a face's first frame counts for: as much as so many seconds of it


class Smoother:
    """Probabilities and label of one face, frame by frame.

    Probabilities are averaged over time with weights that halve every `half_life_s` seconds, so the
    outcome does not depend on the frame rate. The label changes once two frames in a row
    speak for a class that leads by `margin`: one frame alone never changes it, neither to another
    class nor to UNKNOWN and back. While the average passes from one class to the next, where it
    may be sure of neither, the old label stays.

    Attributes:
        half_life_s: seconds; 0 switches averaging and hysteresis off.
        margin: least lead in probability for a change of the label, [0, 1]; a face that was not
            sure enough is named again when it is surer than `min_confidence` by as much.
        min_confidence: a face less sure than this is `labels.UNKNOWN`, [0, 1]: in the average,
            and in the median of the last three frames.
    """

    def __init__(
        self, half_life_s: float = 0.3, margin: float = 0.05, min_confidence: float = 0.0
    ) -> None:
        self.half_life_s = half_life_s
        self.margin = margin
        self.min_confidence = min_confidence
        self._sum = np.zeros(len(labels.CANONICAL))  # of the weighted frames
        self._weight = 0.0  # of all of them
        self._last_ns = 0
        self._last_raw = self._sum
        self._label = labels.UNKNOWN  # the class it is nearest to, sure enough or not
        self._is_named = True
        self._frames: deque[np.ndarray] = deque(maxlen=TYPICAL_FRAMES)  # raw, [8] each

    def update(self, raw: np.ndarray, stamp_ns: int) -> tuple[np.ndarray, int]:
        """Take in one frame.

        Args:
            raw: [8], canonical probabilities of this frame, sum 1.
            stamp_ns: its time, nanoseconds, not before the last one's.

        Returns:
            Smoothed probabilities, float32 [8], sum 1, and the canonical index of the label, or
            `labels.UNKNOWN`.
        """
        smoothed = self._average(np.asarray(raw, np.float64), stamp_ns)
        self._choose(smoothed, raw)
        self._last_raw = raw
        self._is_named = self._is_sure(smoothed, raw)
        return smoothed.astype(np.float32), self._label if self._is_named else labels.UNKNOWN

    def _is_sure(self, smoothed: np.ndarray, raw: np.ndarray) -> bool:
        if self.half_life_s == 0:
            return bool(raw.max() >= self.min_confidence)
        if not self._frames:  # then the first is the usual one, until two others say otherwise
            self._frames.extend([raw] * TYPICAL_FRAMES)
            return bool(raw.max() >= self.min_confidence)
        self._frames.append(raw)
        median = np.sort(self._frames, axis=0)[
            TYPICAL_FRAMES // 2
        ]  # np.median takes ten times as long
        usual, average = float(median.max()), float(smoothed.max())
        if self._is_named:
            return max(usual, average) >= self.min_confidence
        lead = min(self.margin, (1 - self.min_confidence) / 2)
        return usual >= self.min_confidence + lead and average >= self.min_confidence

    def _average(self, raw: np.ndarray, stamp_ns: int) -> np.ndarray:
        if self.half_life_s == 0:
            return raw
        first = self._weight == 0
        seconds = FIRST_S if first else (stamp_ns - self._last_ns) / 1e9
        self._last_ns = stamp_ns
        past = 0.5 ** (seconds / self.half_life_s)
        self._sum = past * self._sum + (1 - past) * raw
        self._weight = past * self._weight + (1 - past)
        return self._sum / self._weight

    def _choose(self, smoothed: np.ndarray, raw: np.ndarray) -> None:
        if self._label == labels.UNKNOWN or self.half_life_s == 0:
            self._label = int(smoothed.argmax())
            return
        newest, top = int(raw.argmax()), int(smoothed.argmax())
        lead = smoothed - smoothed[self._label]  # [8]
        # What two frames say alike is where the face is going; in between a class that was second
        # all along may be on top for a while.
        if newest == int(self._last_raw.argmax()) and lead[newest] >= self.margin:
            self._label = newest
        elif lead[top] >= CLEAR_LEAD and self._is_backed(top, raw):
            self._label = top

    def _is_backed(self, label: int, raw: np.ndarray) -> bool:
        """Whether this frame and the last both speak for `label` rather than the present one."""
        return all(frame[label] > frame[self._label] for frame in (raw, self._last_raw))
