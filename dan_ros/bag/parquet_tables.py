# SPDX-License-Identifier: Apache-2.0
"""Writes the frames and the faces of a bag as two Parquet tables.

Times are integers in nanoseconds, because Spark does not read Parquet's nanosecond timestamps.
"""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from dan_ros import labels
from dan_ros.bag.reader import Record
from dan_ros.messages import stamp_to_ns
from dan_ros.tracking.face_tracker import TrackedFace

FRAMES, FACES = 'frames', 'faces'
ROWS_PER_GROUP = 20_000  # rows that are held in memory and written at once
INT32, INT64 = pyarrow.int32(), pyarrow.int64()
FLOAT, TEXT, BOOL = pyarrow.float32(), pyarrow.string(), pyarrow.bool_()

KEYS = (
    ('camera', TEXT, 'name of the image topic, without /compressed'),
    ('frame', INT64, 'number of the image among those of its camera, from 0'),
    ('bag_time_ns', INT64, 'time at which the image was recorded, nanoseconds since 1970'),
    ('stamp_ns', INT64, 'stamp of the image, nanoseconds; null if the message is unreadable'),
)
FRAME_COLUMNS = (
    *KEYS,
    ('width', INT32, 'pixels; null if the image was dropped'),
    ('height', INT32, 'pixels; null if the image was dropped'),
    ('faces', INT32, 'number of faces in the image; 0 if it was dropped'),
    ('dropped', TEXT, 'why the image could not be processed; null if it was'),
)
FACE_COLUMNS = (
    *KEYS,
    ('face_id', TEXT, 'unique within its bag'),
    ('label', TEXT, 'smoothed label over time, or unknown'),
    ('confidence', FLOAT, 'probability of the most likely expression, [0, 1]'),
    ('not_judged_because', TEXT, 'why the face was not classified in this image; null if it was'),
    ('left', FLOAT, 'left edge of the box, pixels'),
    ('top', FLOAT, 'upper edge of the box, pixels'),
    ('right', FLOAT, 'right edge of the box, pixels'),
    ('bottom', FLOAT, 'lower edge of the box, pixels'),
    ('detection_confidence', FLOAT, 'score of the detector, [0, 1]'),
    *((label, FLOAT, 'smoothed probability, [0, 1]') for label in labels.CANONICAL),
    *(
        (f'raw_{label}', FLOAT, 'probability in this image, not smoothed')
        for label in labels.CANONICAL
    ),
    ('looking_at_camera', FLOAT, 'how directly the head faces the camera, [0, 1]; NaN if unknown'),
    ('looking', BOOL, 'whether the head is turned to the camera'),
    ('looking_s', FLOAT, 'how long looking has had its value, seconds'),
)
TABLES = {FRAMES: FRAME_COLUMNS, FACES: FACE_COLUMNS}


def schema(table: str) -> pyarrow.Schema:
    """Return the schema of `FRAMES` or `FACES`; each field contains its description."""
    return pyarrow.schema(
        [
            pyarrow.field(name, kind, metadata={'description': description})
            for name, kind, description in TABLES[table]
        ]
    )


class ParquetTables:
    """Writes `frames.parquet`, a row per image, and `faces.parquet`, a row per face and image.

    A context manager for both files in an existing folder. Equal rows give equal bytes. At most
    `ROWS_PER_GROUP` rows of each table are in memory.
    """

    def __init__(self, folder: Path) -> None:
        # pyarrow itself opens only paths in UTF-8.
        self._files = {table: (folder / f'{table}.parquet').open('wb') for table in TABLES}
        self._writers = {
            table: parquet.ParquetWriter(file, schema(table), compression='zstd')
            for table, file in self._files.items()
        }
        self._rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
        self._next_frame: Counter[str] = Counter()

    def __enter__(self) -> 'ParquetTables':
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with ExitStack() as stack:
            for table, writer in self._writers.items():
                stack.callback(self._files[table].close)
                stack.callback(writer.close)
            if kind is None:
                for table in TABLES:
                    self._flush(table)

    def add_dropped(self, record: Record, cause: str) -> None:
        """Add an image that could not be processed."""
        self._add(FRAMES, (*self._keys(record), None, None, 0, cause))

    def add_frame(self, record: Record, size: tuple[int, int], faces: list[TrackedFace]) -> None:
        """Add an image of a (width, height), pixels, and its faces."""
        keys = self._keys(record)
        self._add(FRAMES, (*keys, *size, len(faces), None))
        for face in faces:
            self._add(FACES, (*keys, *_face_values(face)))

    def _keys(self, record: Record) -> tuple[str, int, int, int | None]:
        camera, message = record.topic.camera, record.message
        frame = self._next_frame[camera]
        self._next_frame[camera] += 1
        stamp_ns = None if message is None else stamp_to_ns(message.header.stamp)
        return camera, frame, record.time_ns, stamp_ns

    def _add(self, table: str, row: tuple[Any, ...]) -> None:
        self._rows[table].append(row)
        if len(self._rows[table]) >= ROWS_PER_GROUP:
            self._flush(table)

    def _flush(self, table: str) -> None:
        if rows := self._rows[table]:
            columns = schema(table)
            arrays = [
                pyarrow.array(values, field.type)
                for values, field in zip(zip(*rows, strict=True), columns, strict=True)
            ]
            self._writers[table].write_table(pyarrow.Table.from_arrays(arrays, schema=columns))
            rows.clear()


def _face_values(face: TrackedFace) -> tuple[Any, ...]:
    """Return the columns of a face that follow `KEYS`."""
    return (
        face.face_id,
        labels.label_of(face.expression),
        float(face.confidence),
        face.raw.reason or None,
        *face.detection.box_xyxy.tolist(),
        float(face.detection.score),
        *face.probabilities.tolist(),
        *face.raw.probabilities.tolist(),
        float(face.attention.score),
        bool(face.attention.is_looking),
        float(face.attention.seconds),
    )
