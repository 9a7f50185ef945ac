# SPDX-License-Identifier: Apache-2.0
"""Runs the pipeline on images without ROS and shows its results on a board."""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dan_ros.errors import DanError
from dan_ros.faces.blur import blur_faces
from dan_ros.images.jpeg import to_preview
from dan_ros.messages import box_to_region
from dan_ros.tracking.events import EventDetector, FaceEvent
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Frame
from dan_ros.video_parameters import VIDEO_PARAMETERS, to_video_config
from dan_ros.video_pipeline import StampedFrame, VideoPipeline
from dan_ros.view.board import PICTURE_S, Board, SeenEvent, SeenFace, ViewStatus, parameter_json
from dan_ros.view.playback import TimedImages

STATUS_S = 1.0  # interval of the status, seconds
SILENT_S = PICTURE_S  # time without an image after which a camera's faces count as gone, seconds
PAUSE_S = 0.05  # interval at which a paused source checks whether it is resumed, seconds
HIDDEN_SETTINGS = {  # parameters of the node that the page does not show
    'attention.min_duration_s',
    'expression.prior',
    'image_rotation',
    'tracker.max_distance',
    'tracker.min_hits',
}
SETTINGS = {s.name: s for s in VIDEO_PARAMETERS if s.live and s.name not in HIDDEN_SETTINGS}


class LocalSource:
    """Reads images in one thread and processes the newest ones in another.

    It shows the results on `board`. Nothing else may use `video`.
    """

    kind = 'without ROS'

    def __init__(self, title: str, images: TimedImages, video: VideoPipeline, board: Board) -> None:
        self.title = title
        self._images, self._video, self._board = images, video, board
        self._values = {spec.name: spec.default for spec in VIDEO_PARAMETERS}
        self._values['privacy.blur'] = video.config.blur
        self._values['detector.min_score'] = video.pipeline.detector.min_score
        self._config = to_video_config(self._values)
        self._is_enabled = True
        self._newest: dict[str, StampedFrame] = {}  # stamped with their arrival, monotonic
        self._received_ns: dict[str, int] = {}  # arrival of a camera's last image, monotonic
        self._changed = threading.Condition()
        self._showing = threading.Lock()  # held while an image is shown
        self._is_closed = False
        self._events: dict[str, EventDetector] = defaultdict(EventDetector)
        self._counts = {'received': 0, 'processed': 0, 'superseded': 0, 'bad_data': 0}
        self._latencies_s: list[float] = []  # latencies since the last status
        self._status_s = time.monotonic()
        self._failure = ''
        board.set_parameters(parameter_json(s, self._values[n]) for n, s in SETTINGS.items())
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
            for name, work in (('images', self._read), ('inference', self._process))
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop both threads after the current image."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=2.0)

    def set_parameter(self, name: str, value: Any) -> str:
        """Change a setting; return why it is refused, or ''."""
        if name not in SETTINGS:
            return f'unknown parameter {name!r}'
        if problem := SETTINGS[name].problem_with(value):
            return problem
        self._values[name] = SETTINGS[name].to_value(value)
        self._config = to_video_config(self._values)
        self._board.change_parameter(name, self._values[name])
        return ''

    def set_enabled(self, is_enabled: bool) -> str:
        """Pause or resume."""
        with self._showing:  # an image that is being shown is cleared, too
            self._is_enabled = is_enabled
            if not is_enabled:
                self._board.clear()
        self._show_status()
        return ''

    # --- threads ---

    def _guard(self, work: Any) -> None:
        try:
            work()
            self._failure = self._failure or 'there are no more images'
        except DanError as error:
            self._failure = str(error)
        except Exception as error:  # the page must be informed
            self._failure = f'{type(error).__name__}: {error}'
        if not self._is_closed:
            self._show_status()

    def _read(self) -> None:
        for camera, frame in self._images:
            while not self._is_enabled and not self._is_closed:
                time.sleep(PAUSE_S)
            if self._is_closed:
                return
            with self._changed:
                self._counts['received'] += 1
                if frame is None:
                    self._counts['bad_data'] += 1
                    continue
                self._counts['superseded'] += camera in self._newest
                self._received_ns[camera] = time.monotonic_ns()
                self._newest[camera] = StampedFrame(frame, self._received_ns[camera])
                self._changed.notify()

    def _process(self) -> None:
        try:
            while not self._is_closed:
                self._process_newest()
        finally:
            self._end_visits(list(self._events))

    def _process_newest(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._is_closed, STATUS_S)
            taken, self._newest = self._newest, {}
        if taken and self._is_enabled:
            self._run(taken)
        self._end_visits(self._silent_cameras())
        if time.monotonic() - self._status_s >= STATUS_S:
            self._show_status()

    def _silent_cameras(self) -> list[str]:
        """Return the cameras whose faces must be removed: without images, or paused."""
        oldest_ns = time.monotonic_ns() - round(SILENT_S * 1e9)
        return [
            camera
            for camera in self._events
            if not self._is_enabled or self._received_ns[camera] < oldest_ns
        ]

    def _end_visits(self, cameras: Iterable[str]) -> None:
        """Remove the faces of cameras."""
        for camera in cameras:
            self._add_events(camera, self._events.pop(camera).end())
            self._video.end_visits(camera)

    def _run(self, taken: dict[str, StampedFrame]) -> None:
        self._video.config = self._config
        self._video.pipeline.detector.min_score = self._values['detector.min_score']
        for camera, faces in self._video.run(taken).items():
            with self._showing:
                self._show(camera, taken[camera], faces)
            self._latencies_s.append((time.monotonic_ns() - taken[camera].stamp_ns) / 1e9)
            self._counts['processed'] += 1

    def _show(self, camera: str, stamped: StampedFrame, faces: Sequence[TrackedFace]) -> None:
        board, frame = self._board, stamped.frame
        if not self._is_enabled:  # paused in the meantime
            return
        board.add_frame(camera, stamped.stamp_ns, [seen_face(face, frame.size) for face in faces])
        self._events[camera].config = self._config.events
        ids = self._video.face_ids(camera)
        self._add_events(camera, self._events[camera].update(faces, ids))
        if board.is_watched:
            encode = partial(_encode, frame, self._video.hidden_boxes(camera))
            board.put_picture(camera, stamped.stamp_ns, frame.size, encode)

    def _add_events(self, camera: str, events: Iterable[FaceEvent]) -> None:
        for event in events:
            state = event.state
            self._board.add_event(
                SeenEvent(
                    int(event.kind),
                    camera,
                    state.face_id,
                    state.expression,
                    event.previous_expression,
                    event.lasted_s,
                )
            )

    def _show_status(self) -> None:
        now_s = time.monotonic()
        latencies_s, self._latencies_s = self._latencies_s, []
        fps = len(latencies_s) / max(now_s - self._status_s, 1e-3)
        self._status_s = now_s
        latency_ms = 1000 * sum(latencies_s) / len(latencies_s) if latencies_s else 0.0
        backend, counts = self._video.pipeline.backend, self._counts
        values = {
            'frames_received': str(counts['received']),
            'frames_processed': str(counts['processed']),
            'frames_dropped.superseded': str(counts['superseded']),
            'frames_dropped.bad_data': str(counts['bad_data']),
            'fps': f'{fps:.1f}',
            'latency_ms': f'{latency_ms:.1f}',
            'model': backend.model_name,
            'backend': backend.name,
            'device': backend.device,
            'detector': self._video.pipeline.detector.name,
        }
        last_s = max(list(self._received_ns.values()), default=-math.inf) / 1e9
        level, message = self._level_and_message(now_s - last_s < SILENT_S)
        self._board.set_status(ViewStatus(level, message, values, self._is_enabled))

    def _level_and_message(self, has_images: bool) -> tuple[int, str]:
        if self._failure:
            return 2, self._failure
        if not self._is_enabled:
            return 0, 'paused'
        if not has_images:
            return 1, f'no image from {self.title}'
        warning = self._video.pipeline.detector.warning
        return (1, warning) if warning else (0, 'active')


def seen_face(face: TrackedFace, size: tuple[int, int]) -> SeenFace:
    """Return what the page shows of a face with its attention, in an image of (width, height)."""
    return SeenFace(
        face.face_id,
        box_to_region(face.detection.box_xyxy, size),
        face.expression,
        face.confidence,
        face.probabilities.tolist(),
        face.detection.score,
        face.attention.is_looking,
        face.attention.score,
    )


def _encode(frame: Frame, hidden_boxes: Sequence[np.ndarray]) -> bytes:
    return to_preview(blur_faces(frame, hidden_boxes))
