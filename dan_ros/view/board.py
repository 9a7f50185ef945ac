# SPDX-License-Identifier: Apache-2.0
"""The current content of the page: a source writes it, the web server reads it.

Writing stores a reference and returns at once, so that a source never waits for a browser.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dan_ros.video_parameters import Spec

HISTORY_S = 30.0  # length of the history of probabilities, seconds
SAMPLE_S = 0.1  # shortest time between two samples of a face, seconds
PICTURE_S = 3.0  # age at which a picture and the faces of an image are forgotten, seconds
MAX_FACES = 12  # faces per camera with a history; the largest come first
MAX_SAMPLES = 10_000
MAX_EVENTS = 100
MAX_UNPAIRED = 60  # images per camera whose faces still wait for a picture


@dataclass(frozen=True)
class SeenFace:
    """A face in one image."""

    face_id: str  # stable while the face stays in view
    box_xywh: tuple[int, int, int, int]  # left, top, width and height, pixels
    expression: int  # canonical index, or `labels.UNKNOWN`
    confidence: float  # probability of the most likely class, [0, 1]
    probabilities: Sequence[float]  # smoothed probabilities of the eight classes
    detection_confidence: float  # confidence of the detector, [0, 1]
    is_looking: bool  # whether the head is turned to the camera
    looking_at_camera: float  # how directly, [0, 1]; NaN if unknown

    def to_json(self) -> dict[str, Any]:
        """Return the face as the page reads it."""
        looking = self.looking_at_camera
        return {
            'id': self.face_id,
            'box': self.box_xywh,
            'expression': self.expression,
            'confidence': round(self.confidence, 3),
            'probabilities': [round(float(value), 3) for value in self.probabilities],
            'detection': round(self.detection_confidence, 3),
            'looking': self.is_looking,
            'looking_at_camera': None if math.isnan(looking) else round(looking, 2),
        }


@dataclass(frozen=True)
class SeenEvent:
    """A change of a face; the fields are those of FacialExpressionEvent.msg."""

    LEFT = 1  # value of `kind`

    kind: int
    camera: str
    face_id: str
    expression: int
    previous_expression: int
    lasted_s: float


@dataclass(frozen=True)
class ViewStatus:
    """State of what is shown."""

    level: int  # 0 OK, 1 warning, 2 error, 3 stale
    message: str  # a sentence
    values: Mapping[str, str] = field(default_factory=dict)  # as in the diagnostics of the node
    is_enabled: bool = True  # whether images are processed


@dataclass(frozen=True)
class Picture:
    """The newest picture of a camera."""

    number: int  # grows with each picture
    camera: str  # name of the camera
    stamp_ns: int  # time of the image, nanoseconds
    size: tuple[int, int]  # (width, height) of the camera's image, to which boxes refer; pixels
    encode: Callable[[], bytes]  # returns it as JPEG, without hidden faces; may be slow
    put_s: float  # arrival time, monotonic, seconds
    faces: Sequence[SeenFace] = ()  # faces in it, if they have arrived


class Board:
    """The present state, a short history, and nothing else; every method is thread-safe.

    Attributes:
        is_watched: whether a browser shows the page; pictures are needed only then.
    """

    def __init__(self) -> None:
        self.is_watched = False
        self._lock = threading.Lock()
        self._started_s = time.monotonic()
        self._count = 0  # grows with each change
        self._faces: dict[str, tuple[float, Sequence[SeenFace]]] = {}  # with the arrival time
        self._by_stamp: dict[str, dict[int, Sequence[SeenFace]]] = {}
        self._pictures: dict[str, Picture] = {}
        self._samples: deque[tuple[int, list[Any]]] = deque(maxlen=MAX_SAMPLES)
        self._sampled_s: dict[str, float] = {}
        self._events: deque[tuple[int, dict[str, Any]]] = deque(maxlen=MAX_EVENTS)
        self._status = (0, ViewStatus(3, 'starting'))
        self._parameters: dict[str, tuple[int, dict[str, Any]]] = {}
        self._notices: dict[str, str] = {}

    # --- written by the source ---

    def add_frame(self, camera: str, stamp_ns: int, faces: Sequence[SeenFace]) -> None:
        """Show the faces of an image; a picture with the same stamp may precede or follow."""
        now_s = time.monotonic()
        with self._lock:
            self._faces[camera] = now_s, faces
            waiting = self._by_stamp.setdefault(camera, {})
            waiting[stamp_ns] = faces
            while len(waiting) > MAX_UNPAIRED:
                del waiting[next(iter(waiting))]
            for face in faces[:MAX_FACES]:
                if now_s - self._sampled_s.get(face.face_id, -math.inf) >= SAMPLE_S:
                    self._sampled_s[face.face_id] = now_s
                    self._samples.append((self._next(), self._sample(face, now_s)))
            self._forget_old(now_s)

    def put_picture(
        self, camera: str, stamp_ns: int, size: tuple[int, int], encode: Callable[[], bytes]
    ) -> None:
        """Show a picture, which replaces the last one; see `Picture`."""
        with self._lock:
            self._pictures[camera] = Picture(
                self._next(), camera, stamp_ns, size, encode, time.monotonic()
            )

    def add_event(self, event: SeenEvent) -> None:
        """List an event; a face that left is forgotten, with its history."""
        entry = {**vars(event), 'lasted_s': round(event.lasted_s, 1), 'time_s': time.time()}
        with self._lock:
            self._events.append((self._next(), entry))
            if event.kind == SeenEvent.LEFT:
                kept = [item for item in self._samples if item[1][1] != event.face_id]
                self._samples = deque(kept, MAX_SAMPLES)
                self._sampled_s.pop(event.face_id, None)
                if event.camera in self._faces:
                    seen_s, faces = self._faces[event.camera]
                    here = [face for face in faces if face.face_id != event.face_id]
                    self._faces[event.camera] = seen_s, here

    def set_status(self, status: ViewStatus) -> None:
        """Replace the status."""
        with self._lock:
            if status != self._status[1]:
                self._status = (self._next(), status)

    def set_notice(self, subject: str, notice: str) -> None:
        """Show a sentence about a subject above the pictures; '' removes it."""
        with self._lock:
            self._notices[subject] = notice

    def set_parameters(self, parameters: Iterable[Mapping[str, Any]]) -> None:
        """Add or replace parameters, each as `parameter_json` returns it."""
        with self._lock:
            for parameter in parameters:
                self._parameters[parameter['name']] = (self._next(), dict(parameter))

    def change_parameter(self, name: str, value: Any) -> None:
        """Show a new value of a parameter, if the parameter is shown."""
        with self._lock:
            if name in self._parameters:
                entry = {**self._parameters[name][1], 'value': value}
                self._parameters[name] = (self._next(), entry)

    def clear(self) -> None:
        """Forget faces, pictures and history, because the source has stopped."""
        with self._lock:
            for kept in (self._faces, self._by_stamp, self._pictures, self._sampled_s):
                kept.clear()
            self._samples.clear()

    # --- read by the server ---

    def pictures(self) -> list[Picture]:
        """Return the picture of each camera, except old ones."""
        oldest_s = time.monotonic() - PICTURE_S
        with self._lock:
            stale = [c for c, picture in self._pictures.items() if picture.put_s < oldest_s]
            for camera in stale:
                del self._pictures[camera]
            return [
                replace(picture, faces=self._by_stamp.get(camera, {}).get(picture.stamp_ns, ()))
                for camera, picture in self._pictures.items()
            ]

    def changes(self, seen: int = 0) -> tuple[int, dict[str, Any]]:
        """Return what a page has not seen yet.

        Args:
            seen: number that the last call for this page returned; 0 at first.

        Returns:
            The number for the next call, and what is new.
        """
        with self._lock:
            self._forget_old(time.monotonic())
            state: dict[str, Any] = {
                'now': self._elapsed_ms(time.monotonic()),
                'faces': {
                    camera: [face.to_json() for face in faces[:MAX_FACES]]
                    for camera, (_, faces) in self._faces.items()
                },
                'notice': '\n'.join(filter(None, self._notices.values())),
                'samples': _newer(self._samples, seen),
                'events': _newer(self._events, seen),
            }
            if self._status[0] > seen or not seen:
                state['status'] = vars(self._status[1])
            changed = [p for number, p in self._parameters.values() if number > seen]
            if changed:
                state['parameters'] = changed
            return self._count, state

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _elapsed_ms(self, now_s: float) -> int:
        return round((now_s - self._started_s) * 1000)

    def _sample(self, face: SeenFace, now_s: float) -> list[Any]:
        permille = [round(1000 * float(value)) for value in face.probabilities]
        return [self._elapsed_ms(now_s), face.face_id, face.expression, *permille]

    def _forget_old(self, now_s: float) -> None:
        for camera in [c for c, (seen_s, _) in self._faces.items() if seen_s < now_s - PICTURE_S]:
            del self._faces[camera], self._by_stamp[camera]
        oldest_ms = self._elapsed_ms(now_s - HISTORY_S)
        while self._samples and self._samples[0][1][0] < oldest_ms:
            _, (_, face_id, *_) = self._samples.popleft()
            if now_s - self._sampled_s.get(face_id, now_s) > HISTORY_S:
                del self._sampled_s[face_id]


def _newer(items: 'deque[tuple[int, Any]]', number: int) -> list[Any]:
    """Return the items after a number, oldest first, without a search through older ones."""
    newer = []
    for count, item in reversed(items):
        if count <= number:
            break
        newer.append(item)
    return newer[::-1]


def parameter_json(spec: Spec, value: Any) -> dict[str, Any]:
    """Return a parameter as the page reads it."""
    minimum, maximum = spec.limits or (None, None)
    return {
        'name': spec.name,
        'value': value,
        'default': spec.default,
        'kind': type(spec.default).__name__,
        'description': spec.description,
        'unit': spec.unit,
        'minimum': minimum,
        'maximum': maximum,
        'choices': list(spec.choices),
        'live': spec.live,
    }
