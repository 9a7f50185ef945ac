# SPDX-License-Identifier: Apache-2.0
"""Smoothed probabilities and a stable label for one face."""

from collections import deque

import numpy as np

from dan_ros import labels
from dan_ros.tracking.config import TrackerConfig

CLEAR_LEAD = 0.25  # lead in probability that changes the label without two agreeing frames
MEDIAN_FRAMES = 3  # frames in the median that ignores a single outlier
FIRST_S = 0.1  # duration for which the first frame of a face counts, seconds


class Smoother:
    """Exponential smoothing of probabilities, with hysteresis for the label.

    The weight of past frames halves every `half_life_s` seconds, so that the result does not depend
    on the frame rate. The label changes once two consecutive frames favor a class that leads by
    `margin`: a single frame never changes it, neither to another class nor to UNKNOWN and back.
    While the average moves from one class to another and neither leads clearly, the label stays.

    Attributes:
        config: `half_life_s`, `margin` and `min_confidence` apply; may be replaced between two
            frames. A face that became UNKNOWN gets a label again once its probability exceeds
            `min_confidence` by `margin`. UNKNOWN requires that both the average and the median of
            the last three frames fall below `min_confidence`.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self._sum = np.zeros(len(labels.CANONICAL))  # weighted sum of the frames
        self._weight = 0.0  # sum of the weights
        self._last_ns = 0
        self._last_raw = self._sum
        self._label = labels.UNKNOWN  # leading class, whether confident or not
        self._is_confident = True
        self._frames: deque[np.ndarray] = deque(maxlen=MEDIAN_FRAMES)  # raw probabilities, [8] each

    def update(self, raw: np.ndarray, stamp_ns: int) -> tuple[np.ndarray, int]:
        """Add one frame.

        Args:
            raw: float [8], canonical probabilities of this frame, with sum 1.
            stamp_ns: time of the frame, nanoseconds, not before the last one.

        Returns:
            Smoothed probabilities, float32 [8] with sum 1, and the canonical index of the label or
            `labels.UNKNOWN`.
        """
        smoothed = self._average(np.asarray(raw, np.float64), stamp_ns)
        self._choose_label(smoothed, raw)
        self._last_raw = raw
        self._is_confident = self._check_confidence(smoothed, raw)
        label = self._label if self._is_confident else labels.UNKNOWN
        return smoothed.astype(np.float32), label

    def _check_confidence(self, smoothed: np.ndarray, raw: np.ndarray) -> bool:
        minimum = self.config.min_confidence
        if self.config.half_life_s == 0:
            return bool(raw.max() >= minimum)
        if not self._frames:  # the first frame decides until two others disagree
            self._frames.extend([raw] * MEDIAN_FRAMES)
            return bool(raw.max() >= minimum)
        self._frames.append(raw)
        # Ten times as fast as np.median.
        median = float(np.sort(self._frames, axis=0)[MEDIAN_FRAMES // 2].max())
        average = float(smoothed.max())
        if self._is_confident:
            return max(median, average) >= minimum
        lead = min(self.config.margin, (1 - minimum) / 2)
        return median >= minimum + lead and average >= minimum

    def _average(self, raw: np.ndarray, stamp_ns: int) -> np.ndarray:
        if self.config.half_life_s == 0:
            return raw
        is_first = self._weight == 0
        seconds = FIRST_S if is_first else (stamp_ns - self._last_ns) / 1e9
        self._last_ns = stamp_ns
        past = 0.5 ** (seconds / self.config.half_life_s)
        self._sum = past * self._sum + (1 - past) * raw
        self._weight = past * self._weight + (1 - past)
        return self._sum / self._weight

    def _choose_label(self, smoothed: np.ndarray, raw: np.ndarray) -> None:
        if self._label == labels.UNKNOWN or self.config.half_life_s == 0:
            self._label = int(smoothed.argmax())
            return
        newest, top = int(raw.argmax()), int(smoothed.argmax())
        lead = smoothed - smoothed[self._label]  # [8]
        # Two frames that agree show the new expression. During the change, a class that is second
        # in every frame may lead the average for a while.
        if newest == int(self._last_raw.argmax()) and lead[newest] >= self.config.margin:
            self._label = newest
        elif lead[top] >= CLEAR_LEAD and self._is_favored(top, raw):
            self._label = top

    def _is_favored(self, label: int, raw: np.ndarray) -> bool:
        """Whether `label` is more probable than the current one in this frame and the last."""
        return all(frame[label] > frame[self._label] for frame in (raw, self._last_raw))
