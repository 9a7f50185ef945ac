# SPDX-License-Identifier: Apache-2.0
"""Writes the faces of a bag to the table faces.csv."""

import csv
from pathlib import Path
from typing import Any

from dan_ros import labels
from dan_ros.messages import stamp_to_ns
from dan_ros.tracking.face_tracker import TrackedFace

FILENAME = 'faces.csv'
COLUMNS = (
    'bag_time_ns',
    'stamp_ns',
    'camera',
    'face_id',
    'label',
    'confidence',
    'not_judged_because',
    'left',
    'top',
    'right',
    'bottom',
    'detection_confidence',
    *labels.CANONICAL,
    *(f'raw_{label}' for label in labels.CANONICAL),
    'looking_at_camera',
    'looking',
    'looking_s',
)


class FaceTable:
    """Writes faces.csv into a folder, one row per face and frame. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / FILENAME).open('w', newline='', encoding='utf-8')
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def __enter__(self) -> 'FaceTable':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, faces: list[TrackedFace], header: Any, camera: str, time_ns: int) -> None:
        """Write the faces of one frame.

        Args:
            faces: faces of the frame.
            header: std_msgs/Header of the image.
            camera: name of the image topic.
            time_ns: bag time, nanoseconds.
        """
        for face in faces:
            detection = face.detection
            self._writer.writerow(
                (
                    time_ns,
                    stamp_to_ns(header.stamp),
                    camera,
                    face.face_id,
                    labels.label_of(face.expression),
                    f'{face.confidence:.4f}',
                    face.raw.reason,
                    *(f'{value:.2f}' for value in detection.box_xyxy.tolist()),
                    f'{detection.score:.4f}',
                    *(f'{value:.4f}' for value in face.probabilities.tolist()),
                    *(f'{value:.4f}' for value in face.raw.probabilities.tolist()),
                    f'{face.attention.score:.4f}',
                    str(face.attention.is_looking).lower(),
                    f'{face.attention.seconds:.3f}',
                )
            )
