# SPDX-License-Identifier: Apache-2.0
"""Decides which parts of a camera's next image must be searched for new faces."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dan_ros.faces.boxes import area
from dan_ros.images.opencv import cv2
from dan_ros.types import Frame

# Lengths are in pixels of the reduced copy in which faces are searched.
CELL_PX = 8  # side of the square cells whose brightness is compared
MARGIN_PX = 32  # margin searched around changed cells
FACE_MARGIN_PX = 8  # margin of a known face; changes beyond it may be another face
SAMPLES = 4  # pixels per side of a cell that are averaged
MIN_CHANGE = 6.0  # change of a cell's mean, gray levels; sensor noise causes about 1
CALL_PX = 8_000  # overhead of each additional search, as a number of pixels


class SceneChanges:
    """Remembers what each part of a camera's images looked like when it was last searched.

    A new face changes the image where it appears, so that the rest need not be searched again. In
    every second image, the changed parts are searched; in the others, only the surroundings of
    known faces. So a new face is found at most one image late.

    Example:
        >>> changes = SceneChanges()
        >>> frame = Frame(np.zeros((480, 640, 3), np.uint8))
        >>> changes.parts_to_search(frame, [], 640) is None  # the first image: all of it
        True
        >>> changes.mark_searched()
        >>> changes.parts_to_search(frame, [], 640)
        []
    """

    def __init__(self) -> None:
        self._searched: _Cells | None = None  # each cell as it was last searched
        self._next: _Cells | None = None  # `_searched` after a search of the newest image
        self._was_searched = False  # whether the last search covered more than known faces

    def parts_to_search(
        self,
        frame: Frame,
        known_boxes: Sequence[np.ndarray],
        max_side_px: int,
        is_full: bool = False,
        missing_boxes: Sequence[np.ndarray] = (),
    ) -> list[np.ndarray] | None:
        """Return the parts of the newest image in which new faces may be.

        Args:
            frame: the newest image.
            known_boxes: float [4] each, where known faces are searched anyway.
            max_side_px: longer side of the reduced copy in which faces are searched.
            is_full: whether the full frame will be searched anyway.
            missing_boxes: float [4] each, where known faces were lost: they are searched as well.

        Returns:
            float [4] each, left, top, right, bottom in pixels of the frame; None if the full frame
            must be searched.
        """
        if self._was_searched and not is_full:
            self._next = None
            return []
        cells = _Cells.of(frame, max_side_px)
        self._next = cells
        if is_full or self._searched is None or not cells.is_comparable(self._searched):
            return None
        changed = cells.changed_since(self._searched)
        for box in missing_boxes:
            changed[_cells_around(box / cells.scale)] = True
        for box in known_boxes:
            changed[_cells_around(box / cells.scale)] = False
        parts = _boxes_around(changed)
        cost = sum(CALL_PX + area(part) for part in parts)  # pixels of the reduced copy
        if cost > changed.size * CELL_PX**2:
            return None
        self._next = cells.replace_in(self._searched, changed)
        return [part * cells.scale for part in parts]

    def mark_searched(self) -> None:
        """Record that the newest image was searched."""
        self._was_searched = self._next is not None
        self._searched = self._next or self._searched


@dataclass(frozen=True)
class _Cells:
    """Brightness of an image by cells."""

    size: tuple[int, int]  # (width, height) of the image
    scale: float  # pixels of the image per pixel of the reduced copy
    means: np.ndarray  # float32 [rows, columns], gray levels

    @classmethod
    def of(cls, frame: Frame, max_side_px: int) -> '_Cells':
        scale = max(1.0, max(frame.size) / max_side_px)
        size = [max(1, round(side / scale / CELL_PX)) for side in frame.size]
        return cls(frame.size, scale, _mean_of_cells(frame.pixels(1 / scale), size))

    def is_comparable(self, other: '_Cells') -> bool:
        return (self.size, self.scale) == (other.size, other.scale)

    def changed_since(self, before: '_Cells') -> np.ndarray:
        """Return where the images differ, bool [rows, columns]; a change of light is ignored."""
        change = self.means - before.means
        is_changed: np.ndarray = np.abs(change - np.median(change)) > MIN_CHANGE
        return is_changed

    def replace_in(self, before: '_Cells', where: np.ndarray) -> '_Cells':
        """Return `before` with these cells at the places `where`, bool [rows, columns]."""
        return replace(self, means=np.where(where, self.means, before.means))


def _mean_of_cells(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return the mean of each cell, float32 [rows, columns]; `size` is (columns, rows)."""
    step = max(1, round(image.shape[1] / size[0] / SAMPLES))
    # Green is the second channel in all color encodings, and close to the brightness.
    samples = image[::step, ::step] if image.ndim == 2 else image[::step, ::step, 1]
    return cv2.resize(samples, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _cells_around(box_xyxy: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns of a face and its margin; the box is in pixels of the copy."""
    left, top, right, bottom = box_xyxy.tolist()
    first = [max(0, int((side - FACE_MARGIN_PX) / CELL_PX)) for side in (top, left)]
    end = [max(0, int((side + FACE_MARGIN_PX) / CELL_PX) + 1) for side in (bottom, right)]
    return slice(first[0], end[0]), slice(first[1], end[1])


def _boxes_around(changed: np.ndarray) -> list[np.ndarray]:
    """Return boxes around the changed cells with a margin, in pixels of the reduced copy."""
    if not changed.any():
        return []
    side = 2 * MARGIN_PX // CELL_PX + 1
    grown = cv2.dilate(changed.astype(np.uint8), np.ones((side, side), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(grown)
    limits = np.array(changed.shape[::-1]) * CELL_PX
    boxes = []
    for left, top, width, height, _ in stats[1:] * CELL_PX:
        end = np.minimum([left + width, top + height], limits)
        boxes.append(np.array([left, top, *end], np.float32))
    return boxes
