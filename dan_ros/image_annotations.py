# SPDX-License-Identifier: Apache-2.0
"""Converts the faces of a frame to `foxglove_msgs/ImageAnnotations`, for ROS or rosbags."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dan_ros.annotate import caption
from dan_ros.palette import color_of, ink_on, to_rgb
from dan_ros.tracking.face_tracker import TrackedFace

TOPIC_SUFFIX = '/annotations'  # appended to the name of the image topic
POINTS, LINE_LOOP = 1, 2  # constants of foxglove_msgs/PointsAnnotation
MIN_FONT_PX = 12.0


class AnnotationClasses:
    """Message classes of foxglove_msgs; argument and requirement as for `MessageClasses`."""

    def __init__(self, find: Callable[[str], Any]) -> None:
        self.ImageAnnotations = find('foxglove_msgs/msg/ImageAnnotations')
        self.PointsAnnotation = find('foxglove_msgs/msg/PointsAnnotation')
        self.TextAnnotation = find('foxglove_msgs/msg/TextAnnotation')
        self.Point2 = find('foxglove_msgs/msg/Point2')
        self.Color = find('foxglove_msgs/msg/Color')

    def annotations(self, faces: Sequence[TrackedFace], stamp: Any, size: tuple[int, int]) -> Any:
        """Return the ImageAnnotations of one frame: a box, the landmarks and a caption per face.

        Without faces it is empty, so that a viewer removes the previous ones. `stamp` is the
        builtin_interfaces/Time of the image, `size` its (width, height), pixels.
        """
        shapes = [shape for face in faces for shape in self._shapes(face, stamp, max(size) / 500)]
        font_px = max(MIN_FONT_PX, max(size) / 50)
        texts = [self._text(face, stamp, font_px) for face in faces]
        return self.ImageAnnotations(timestamp=stamp, circles=[], points=shapes, texts=texts)

    def _shapes(self, face: TrackedFace, stamp: Any, thickness: float) -> list[Any]:
        left, top, right, bottom = face.detection.box_xyxy.tolist()
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        shapes = [(LINE_LOOP, corners, max(thickness, 1.0))]
        if len(face.detection.landmarks):
            shapes.append((POINTS, face.detection.landmarks, max(3 * thickness, 3.0)))
        color = self._color(color_of(face.expression))
        return [
            self.PointsAnnotation(
                timestamp=stamp,
                type=kind,
                points=[self.Point2(x=x, y=y) for x, y in points.tolist()],
                outline_color=color,
                outline_colors=[],
                fill_color=self.Color(r=0.0, g=0.0, b=0.0, a=0.0),
                thickness=float(width),
            )
            for kind, points, width in shapes
        ]

    def _text(self, face: TrackedFace, stamp: Any, font_px: float) -> Any:
        left, top = face.detection.box_xyxy[:2].tolist()
        return self.TextAnnotation(
            timestamp=stamp,
            position=self.Point2(x=max(left, 0.0), y=max(top, font_px)),
            text=caption(face.smoothed, face.face_id, face.expression),
            font_size=font_px,
            text_color=self._color(ink_on(color_of(face.expression))),
            background_color=self._color(color_of(face.expression)),
        )

    def _color(self, color: str) -> Any:
        red, green, blue = (value / 255 for value in to_rgb(color))
        return self.Color(r=red, g=green, b=blue, a=1.0)
