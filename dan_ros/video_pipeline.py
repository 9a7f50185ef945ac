# SPDX-License-Identifier: Apache-2.0
"""The pipeline over time: stamped frames of several cameras in, tracked faces out."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dan_ros.detect.scene_changes import SceneChanges
from dan_ros.faces.boxes import area
from dan_ros.faces.camera_model import Camera
from dan_ros.faces.head_pose import solve_poses
from dan_ros.pipeline import ExpressionPipeline, PipelineConfig
from dan_ros.tracking.attention import AttentionConfig, AttentionTracker
from dan_ros.tracking.config import TrackerConfig
from dan_ros.tracking.consent import ConsentRegistry
from dan_ros.tracking.events import EventConfig
from dan_ros.tracking.face_tracker import FaceTracker, TrackedFace
from dan_ros.tracking.frame_clock import FrameClock
from dan_ros.types import Frame, SearchHint


@dataclass(frozen=True)
class VideoConfig:
    """Settings of a `VideoPipeline`.

    Attributes:
        detector_interval: run full-frame detection on every Nth image of a camera. In between,
            search around known faces and where the image changed, and in the full frame if a face
            is lost or new.
        blur: hide every face in images that are shown, see `VideoPipeline.hidden_boxes`. Every
            image is then searched in full, so that a new face is hidden in its first image too.
        consent_required: classify and return only faces that were released in
            `VideoPipeline.consent`, and hide the others in images that are shown.
        pipeline: settings of each run.
        tracker: settings of every camera's tracker.
        attention: settings for the attention of the faces.
        events: settings for the events.
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
    are documented as thread-safe.

    Args:
        pipeline: finds and classifies faces.
        config: see `VideoConfig`.
        new_ids: source of face ids, which must start with a letter; default f1, f2, ...

    Attributes:
        pipeline: as given; its config is replaced in each run.
        config: may be replaced between two runs.
        consent: the released faces, if `config.consent_required` is set.
        calibrations: calibration of a camera by its name, None if it is invalid; used for poses and
            attention. Any thread may add one.

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
        self.calibrations: dict[str, Camera | None] = {}
        self._released: set[str] = set()  # ids released at the last run
        self._cameras: dict[str, _Camera] = {}

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
        if self.pipeline.config != self.config.pipeline:
            self.search_again()
        self.pipeline.config = self.config.pipeline
        cameras = {camera: self._camera(camera, one.frame.size) for camera, one in frames.items()}
        released = self.consent.released
        hints = [
            cameras[camera].hint(stamped.frame, self.config, released)
            for camera, stamped in frames.items()
        ]
        results = self.pipeline.run([stamped.frame for stamped in frames.values()], hints)
        for known in cameras.values():
            known.changes.mark_searched()
            known.frames += 1
        tracked = {
            camera: cameras[camera].tracker.update(faces, stamped.stamp_ns, stamped.arrived_ns)
            for (camera, stamped), faces in zip(frames.items(), results, strict=True)
        }
        if self.config.consent_required:
            tracked = self._only_released(tracked, cameras)
        return {
            camera: self._with_poses(camera, cameras[camera], faces)
            for camera, faces in tracked.items()
        }

    def face_ids(self, camera: str) -> set[str]:
        """Return the ids of the faces in view of a camera and of missing faces that may return.

        If consent is required, only those of released faces.
        """
        known = self._cameras.get(camera)
        ids = known.tracker.face_ids if known else set()
        return ids & self._released if self.config.consent_required else ids

    def hidden_boxes(self, camera: str) -> list[np.ndarray]:
        """Return the boxes that `blur_faces` must hide in the last frame of a camera.

        Returns:
            float [4] each: every face, including those without an id, and where faces may be that
            the detector missed in this frame. If only `config.consent_required` is set, those that
            were not released; without it and `config.blur`, none.
        """
        known = self._cameras.get(camera)
        if known is None or not (self.config.blur or self.config.consent_required):
            return []
        shown = set() if self.config.blur else self._released
        return [box for face_id, box in known.tracker.places if face_id not in shown]

    @property
    def clocks(self) -> dict[str, FrameClock]:
        """The clock of each camera, which tells whether its stamps are good. Thread-safe."""
        return {camera: known.tracker.clock for camera, known in self._cameras.copy().items()}

    def search_again(self) -> None:
        """Search the next images in full, because the detector has changed."""
        for known in self._cameras.copy().values():
            known.changes = SceneChanges()

    def end_visits(self, camera: str) -> None:
        """Withdraw all consent and restart the attention, since a camera sends no images.

        The ids of its faces are kept. Thread-safe.
        """
        self.consent.forget(camera)
        if known := self._cameras.get(camera):
            known.attention = AttentionTracker()

    def forget(self, camera: str) -> None:
        """Forget the faces of a camera. May be called by any thread."""
        self._cameras.pop(camera, None)
        self.consent.forget(camera)

    def reset(self) -> None:
        """Forget the faces and the calibration of every camera."""
        self._cameras.clear()
        self.calibrations.clear()
        self.consent.clear()

    def _only_released(
        self, tracked: dict[str, list[TrackedFace]], cameras: Mapping[str, '_Camera']
    ) -> dict[str, list[TrackedFace]]:
        for camera, faces in tracked.items():
            areas = {face.face_id: area(face.detection.box_xyxy) for face in faces}
            self.consent.update(camera, areas, cameras[camera].tracker.face_ids)
        # Kept until the next run, so that faces, ids and hidden boxes of an image agree.
        self._released = self.consent.released
        return {
            camera: [face for face in faces if face.face_id in self._released]
            for camera, faces in tracked.items()
        }

    def _with_poses(
        self, name: str, camera: '_Camera', faces: Sequence[TrackedFace]
    ) -> list[TrackedFace]:
        """Return the faces with their poses and their attention."""
        attention = camera.attention  # `end_visits` may replace it meanwhile
        attention.config = self.config.attention
        known = self.calibrations.get(name)
        calibration = known and known.scaled_to(camera.size)
        faces = attention.update(faces, self.face_ids(name), calibration, camera.size)
        landmarks = [face.detection.landmarks for face in faces]
        poses = solve_poses(landmarks, calibration, camera.size)
        return [replace(face, pose=pose) for face, pose in zip(faces, poses, strict=True)]

    def _camera(self, name: str, size: tuple[int, int]) -> '_Camera':
        camera = self._cameras.get(name)
        if camera is None:
            # Different starts, so that the cameras are searched in full at different times.
            camera = _Camera(FaceTracker(self._new_ids), size, frames=len(self._cameras))
            self._cameras[name] = camera
        if camera.size != size:
            camera.tracker.rescale(size[0] / camera.size[0], size[1] / camera.size[1])
            camera.size = size
        camera.tracker.config = self.config.tracker
        return camera


@dataclass
class _Camera:
    """The state of one camera."""

    tracker: FaceTracker  # its faces
    size: tuple[int, int]  # (width, height) of its images, pixels
    frames: int  # number of its images so far, plus an offset
    changes: SceneChanges = field(default_factory=SceneChanges)  # parts of the images that changed
    attention: AttentionTracker = field(default_factory=AttentionTracker)  # attention of its faces

    def hint(self, frame: Frame, config: VideoConfig, released: set[str]) -> SearchHint:
        """Return the hints for the search in the next frame, with the ids of the released faces."""
        tracker = self.tracker
        hint = SearchHint(tracker.classified_boxes)
        if config.consent_required:
            allowed = [box for face_id, box in tracker.places if face_id in released]
            return replace(hint, allowed_boxes=allowed)
        if config.blur or config.detector_interval == 1:
            return hint
        parts = self.changes.parts_to_search(
            frame,
            tracker.boxes,
            config.pipeline.max_side_px,
            self.frames % config.detector_interval == 0,
            tracker.missing_boxes,
        )
        if parts is None:
            return hint
        return replace(hint, predicted_boxes=tracker.boxes, changed_boxes=parts)
