# SPDX-License-Identifier: Apache-2.0
"""The pipeline over time: stamped frames of several cameras in, tracked faces out."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from dan_ros.faces.boxes import area
from dan_ros.pipeline import ExpressionPipeline, PipelineConfig
from dan_ros.tracking.attention import AttentionConfig
from dan_ros.tracking.config import TrackerConfig
from dan_ros.tracking.consent import ConsentRegistry
from dan_ros.tracking.events import EventConfig
from dan_ros.tracking.face_tracker import FaceTracker, TrackedFace
from dan_ros.types import Frame, SearchHint


@dataclass(frozen=True)
class VideoConfig:
    """Settings of a `VideoPipeline`.

    Attributes:
        detector_interval: run full-frame detection on every Nth image of a camera. In between,
            search only around known faces, and on the full frame if one is lost.
        blur: hide every face in images that are shown, see `VideoPipeline.hidden_boxes`. Every
            image is then searched in full, so that no new face is shown for a moment.
        consent_required: classify and return only faces that were released in
            `VideoPipeline.consent`, and hide the others in images that are shown.
        pipeline: settings of each run.
        tracker: settings of every camera's tracker.
        attention: settings of whoever follows the attention of the faces.
        events: settings of whoever derives events.
    """

    detector_interval: int = 1
    blur: bool = False
    consent_required: bool = False
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    events: EventConfig = field(default_factory=EventConfig)


@dataclass(frozen=True)
class StampedFrame:
    """A frame and its time.

    Attributes:
        frame: the image.
        stamp_ns: time of acquisition, nanoseconds. A new recording clears the tracks of the
            camera, see `FrameClock.is_restart`.
        arrived_ns: arrival time on a monotonic clock, nanoseconds; used while the stamps of the
            camera do not change. None if unknown.
    """

    frame: Frame
    stamp_ns: int
    arrived_ns: int | None = None


class VideoPipeline:
    """Classifies the faces of several cameras in one batch and tracks them per camera.

    A video pipeline must not be used by two threads at the same time, except for the methods that
    say so.

    Args:
        pipeline: finds and classifies faces.
        config: see `VideoConfig`.
        new_ids: source of face ids, which must start with a letter; default f1, f2, ...

    Attributes:
        pipeline: as given; its config is replaced in each run.
        config: may be replaced between two runs.
        consent: the released faces, if `config.consent_required` is set.

    Example:
        >>> import numpy as np
        >>> video = VideoPipeline(ExpressionPipeline.open())
        >>> image = np.zeros((480, 640, 3), np.uint8)
        >>> video.run({'/camera/image_raw': StampedFrame(Frame(image), stamp_ns=0)})
        {'/camera/image_raw': []}
    """

    def __init__(
        self,
        pipeline: ExpressionPipeline,
        config: VideoConfig | None = None,
        new_ids: Iterator[str] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.config = config or VideoConfig(pipeline=pipeline.config)
        self._new_ids = new_ids or (f'f{number}' for number in itertools.count(1))
        self.consent = ConsentRegistry()
        self._released: set[str] = set()  # as of the last run
        self._trackers: dict[str, FaceTracker] = {}

    def run(self, frames: Mapping[str, StampedFrame]) -> dict[str, list[TrackedFace]]:
        """Process the newest frame of each camera.

        Args:
            frames: one per camera.

        Returns:
            The faces of each camera, the largest first, including those that were not classified.
            If consent is required, only those that were released.

        Raises:
            DanError: the backend failed. No tracker was changed, so the frames can be
                processed again.
        """
        self.pipeline.config = self.config.pipeline
        trackers = {camera: self._tracker(camera) for camera in frames}
        hints = [self._hint(tracker) for tracker in trackers.values()]
        results = self.pipeline.run([stamped.frame for stamped in frames.values()], hints)
        tracked = {
            camera: trackers[camera].update(faces, stamped.stamp_ns, stamped.arrived_ns)
            for (camera, stamped), faces in zip(frames.items(), results, strict=True)
        }
        if not self.config.consent_required:
            return tracked
        for camera, faces in tracked.items():
            areas = {face.face_id: area(face.detection.box_xyxy) for face in faces}
            self.consent.update(camera, areas, trackers[camera].face_ids)
        # Kept until the next run, so that faces, ids and hidden boxes of an image agree.
        self._released = self.consent.released
        return {
            camera: [face for face in faces if face.face_id in self._released]
            for camera, faces in tracked.items()
        }

    def face_ids(self, camera: str) -> set[str]:
        """Return the ids of the faces in view of a camera and of missing faces that may return.

        If consent is required, only those of released faces.
        """
        tracker = self._trackers.get(camera)
        ids = tracker.face_ids if tracker else set()
        return ids & self._released if self.config.consent_required else ids

    def hidden_boxes(self, camera: str) -> list[np.ndarray]:
        """Return the boxes that `blur_faces` must hide in the last frame of a camera.

        Returns:
            float [4] each: every face, including those without an id, and where faces may be that
            the detector missed in this frame. If only `config.consent_required` is set, those that
            were not released; without it and `config.blur`, none.
        """
        tracker = self._trackers.get(camera)
        if tracker is None or not (self.config.blur or self.config.consent_required):
            return []
        shown = set() if self.config.blur else self._released
        return [box for face_id, box in tracker.places if face_id not in shown]

    def cameras_with_frozen_stamps(self) -> list[str]:
        """Return the cameras whose images all carry the same stamp. May be called by any thread."""
        return [c for c, tracker in self._trackers.copy().items() if tracker.has_frozen_stamps]

    def cameras_with_unordered_stamps(self) -> list[str]:
        """Return the cameras whose stamps recently stepped back. May be called by any thread."""
        return [c for c, tracker in self._trackers.copy().items() if tracker.has_unordered_stamps]

    def forget(self, camera: str) -> None:
        """Forget the faces of a camera. May be called by any thread."""
        self._trackers.pop(camera, None)
        self.consent.forget(camera)

    def reset(self) -> None:
        """Forget the faces of every camera."""
        self._trackers.clear()
        self.consent.clear()

    def _hint(self, tracker: FaceTracker) -> SearchHint:
        config = self.config
        hides_faces = config.blur or config.consent_required
        hint = tracker.hint(1 if hides_faces else config.detector_interval)
        if not config.consent_required:
            return hint
        released = self.consent.released
        allowed = [box for face_id, box in tracker.places if face_id in released]
        return replace(hint, allowed_boxes=allowed)

    def _tracker(self, camera: str) -> FaceTracker:
        tracker = self._trackers.setdefault(camera, FaceTracker(self._new_ids))
        tracker.config = self.config.tracker
        return tracker
