# SPDX-License-Identifier: Apache-2.0
"""Keeps track of the faces that may be published, while they are in view."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from dan_ros.errors import ConsentError


@dataclass(frozen=True)
class Granted:
    """A released face: its id, and the camera that sees it."""

    face_id: str
    camera: str


@dataclass
class _View:
    """The faces of one camera.

    Attributes:
        areas: area of each face of the last frame by id, square pixels.
        alive: ids of these faces, and of missing faces that may come back.
    """

    areas: Mapping[str, float] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)


class ConsentRegistry:
    """Stores the released faces. All methods are thread-safe.

    A face that leaves the view is forgotten; since ids are never used again, it has to be released
    again when it returns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._views: dict[str, _View] = {}
        self._released: set[str] = set()

    def update(self, camera: str, areas: Mapping[str, float], alive: set[str]) -> None:
        """Record the faces of a frame, and forget those that have left.

        `areas` has the area of each face, square pixels. `alive` has the ids of these faces, and of
        missing faces that may come back.
        """
        with self._lock:
            last = self._views.get(camera, _View())
            self._released -= last.alive - alive
            self._views[camera] = _View(areas, alive)

    def grant(self, face_id: str = '', camera: str = '') -> Granted:
        """Release a face.

        Args:
            face_id: id of the face; '' for the largest face in the last frames. The
                largest face is taken even if it was released before, so a repeated request never
                releases a second person.
            camera: consider only this camera; '' for all.

        Raises:
            ConsentError: there is no such face.
        """
        with self._lock:
            views = self._views_of(camera)
            if face_id:
                found = [Granted(face_id, name) for name, v in views.items() if face_id in v.alive]
            else:
                faces = [(a, i, name) for name, v in views.items() for i, a in v.areas.items()]
                found = [Granted(i, name) for _, i, name in sorted(faces, reverse=True)]
            if not found:
                raise ConsentError(_nobody(face_id, camera))
            self._released.add(found[0].face_id)
            return found[0]

    def withdraw(self, face_id: str = '', camera: str = '') -> None:
        """Stop the publication of a face.

        A `face_id` of '' stands for every face, a `camera` of '' for all cameras.

        Raises:
            ConsentError: there is no such face or camera.
        """
        with self._lock:
            views = self._views_of(camera)
            alive = set[str]().union(*(view.alive for view in views.values()))
            if (face_id and face_id not in alive) or (camera and not views):
                raise ConsentError(_nobody(face_id, camera))
            self._released -= {face_id} if face_id else alive

    def forget(self, camera: str) -> None:
        """Forget the faces of a camera."""
        with self._lock:
            self._released -= self._views.pop(camera, _View()).alive

    def clear(self) -> None:
        """Forget all faces."""
        with self._lock:
            self._views.clear()
            self._released.clear()

    @property
    def released(self) -> set[str]:
        """Ids of the faces that may be published."""
        with self._lock:
            return set(self._released)

    @property
    def is_awaited(self) -> bool:
        """Whether the last frame of a camera shows a face that was not released."""
        with self._lock:
            return any(view.areas.keys() - self._released for view in self._views.values())

    def _views_of(self, camera: str) -> dict[str, _View]:
        return {name: view for name, view in self._views.items() if camera in ('', name)}


def _nobody(face_id: str, camera: str) -> str:
    face = f'no face with the id {face_id!r}' if face_id else 'no face'
    return f'{face} is in view of {camera!r}' if camera else f'{face} is in view'
