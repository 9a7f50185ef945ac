# SPDX-License-Identifier: Apache-2.0
"""Converts a bag of images to a bag of expressions, frame by frame, in bounded memory."""

import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dan_ros.annotate import annotate_tracked
from dan_ros.bag.csv_table import FILENAME, FaceTable
from dan_ros.bag.reader import CAMERA_INFO, METADATA, Bag, Record, Topic, record_to_frame
from dan_ros.bag.timeline import Timelines
from dan_ros.bag.video import Videos, frame_rate_hz
from dan_ros.bag.writer import ExpressionBagWriter
from dan_ros.errors import DataError, FrameError, count_of, one_line
from dan_ros.faces.blur import blur_faces
from dan_ros.faces.camera_model import describe_problem, info_to_camera, info_topic
from dan_ros.messages import stamp_to_ns
from dan_ros.storage.atomic import atomic_directory
from dan_ros.tracking.events import EventDetector
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoPipeline

if TYPE_CHECKING:
    from dan_ros.bag.parquet_tables import ParquetTables

CLEANUP_FRAMES = 100  # interval at which the timelines of lost faces are drawn and forgotten


@dataclass
class ConversionSummary:
    """Result of a conversion."""

    frames: int = 0  # number of processed frames
    faces: int = 0  # number of faces in all frames
    ids: set[str] = field(default_factory=set)  # all face ids
    labels: Counter[str] = field(default_factory=Counter)  # number of faces per label
    dropped: Counter[str] = field(default_factory=Counter)  # number of dropped messages per cause
    # Error of the first dropped message per cause.
    examples: dict[str, str] = field(default_factory=dict)
    # Problems that do not make the result incomplete.
    warnings: set[str] = field(default_factory=set)
    damage: str = ''  # damage of the bag, see `Bag`; '' for none

    def add_frame(self, array: Any) -> None:
        """Count the faces of a FacialExpressionArray."""
        self.frames += 1
        self.faces += len(array.faces)
        self.ids.update(face.face_id for face in array.faces)
        self.labels.update(face.label for face in array.faces)

    def describe(self) -> str:
        """Return the numbers in words."""
        labels = ', '.join(f'{label} {count}' for label, count in self.labels.most_common())
        counts = (
            count_of(self.frames, 'image'),
            count_of(self.faces, 'face'),
            count_of(len(self.ids), 'id'),
        )
        return ', '.join(counts) + (f' ({labels})' if labels else '')

    def describe_drops(self) -> list[str]:
        """Return a text per cause of dropped messages: their number and the first error."""
        return [
            f'{count_of(count, "message")} dropped, {cause}: {self.examples[cause]}'
            for cause, count in self.dropped.items()
        ]

    def add_error(self, error: FrameError) -> None:
        """Count a dropped message."""
        self.dropped[error.cause] += 1
        self.examples.setdefault(error.cause, str(error))


class BagConverter:
    """Converts one bag, once.

    `topics` has one image topic per camera. With `with_annotations`, it also writes
    foxglove_msgs/ImageAnnotations. `tables` also gets every frame and every face.

    Attributes:
        summary: the result so far.
    """

    def __init__(
        self,
        bag: Bag,
        topics: list[Topic],
        pipeline: VideoPipeline,
        with_annotations: bool = False,
        tables: 'ParquetTables | None' = None,
    ) -> None:
        self._empty = [f'{topic.name} has no messages' for topic in topics if not topic.count]
        self.summary = ConversionSummary(warnings={bag.warning, *self._empty} - {''})
        self._with_annotations, self._tables = with_annotations, tables
        self._bag, self._topics, self._pipeline = bag, topics, pipeline
        self._events: defaultdict[str, EventDetector] = defaultdict(
            lambda: EventDetector(pipeline.config.events)
        )
        self._headers: dict[str, Any] = {}  # header of the last image per camera
        self._cameras_by_info_topic: dict[str, list[str]] = defaultdict(list)
        for topic in topics:
            self._cameras_by_info_topic[info_topic(topic.camera)].append(topic.camera)

    def run(
        self,
        out: Path,
        with_videos: bool = False,
        on_progress: Callable[[int], object] = lambda images: None,
    ) -> ConversionSummary:
        """Write the results into the folder `out`, replacing its content.

        Until the results are complete, they are in a hidden folder beside `out`. An error removes
        that folder and leaves `out` as it was. `on_progress` gets the number of images read so far.

        Raises:
            DataError: no image could be processed, or the results cannot be written.
        """
        try:
            with atomic_directory(out) as folder:  # named as `out`, like the storage file
                self._write(folder, with_videos, on_progress)
                self._check_not_empty()
        except (OSError, sqlite3.Error) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise DataError(
                f'cannot write {out}: {reason}; free some disk space or choose another folder'
            ) from error
        return self.summary

    def _write(self, folder: Path, with_videos: bool, on_progress: Callable[[int], object]) -> None:
        images_read = last_ns = 0
        with ExitStack() as stack:
            bag = stack.enter_context(
                ExpressionBagWriter(folder, self._bag.storage, self._bag.version)
            )
            table = stack.enter_context(FaceTable(folder))
            timelines = Timelines(folder)
            videos = None
            if with_videos:
                times_ns = self._bag.times_ns([topic.name for topic in self._topics])
                rates_hz = {t.camera: frame_rate_hz(times_ns[t.name]) for t in self._topics}
                videos = stack.enter_context(Videos(folder, rates_hz))
            for record in self._bag.records(self._topic_names()):
                if record.topic.kind == CAMERA_INFO:
                    self._calibrate(record)
                    continue
                images_read += 1
                on_progress(images_read)
                frame = self._decode(record)
                if frame is None:
                    continue
                faces = self._process(record, frame, bag, table)
                timelines.add(record.topic.camera, faces, record.time_ns)
                if videos:
                    shown = blur_faces(frame, self._pipeline.hidden_boxes(record.topic.camera))
                    annotated = annotate_tracked(shown, faces)
                    videos.write(record.topic.camera, record.time_ns, annotated)
                if images_read % CLEANUP_FRAMES == 0:
                    timelines.finish(self._ids_in_view())
                last_ns = record.time_ns
            timelines.finish()
            if videos:
                self.summary.warnings.update(videos.problems.values())
            for camera, detector in self._events.items():
                bag.write_events(detector.end(), self._headers[camera], camera, last_ns)
        self.summary.damage = self._bag.damage

    def _check_not_empty(self) -> None:
        if self.summary.frames:
            return
        names = ', '.join(topic.name for topic in self._topics)
        reasons = [f'no image of {names} could be processed']
        reasons += filter(None, [*self._empty, self.summary.damage])
        reasons += self.summary.describe_drops()
        raise DataError(f'{self._bag.path}: {"; ".join(reasons)}; nothing was written')

    def _topic_names(self) -> set[str]:
        """Return the names of the topics to read: images and their calibrations."""
        topics = self._bag.topics
        infos = {
            n for n in self._cameras_by_info_topic if n in topics and topics[n].kind == CAMERA_INFO
        }
        return infos | {topic.name for topic in self._topics}

    def _calibrate(self, record: Record) -> None:
        if record.message is None:
            self.summary.add_error(record.to_error())
            return
        for camera in self._cameras_by_info_topic[record.topic.name]:
            self._pipeline.calibrations[camera] = info_to_camera(record.message, camera)

    def _decode(self, record: Record) -> Frame | None:
        """Return the image of a record, or count its error and return None."""
        try:
            return record_to_frame(record)
        except FrameError as error:
            dropped = error
        except MemoryError as error:
            dropped = FrameError('out_of_memory', one_line(error))
        self.summary.add_error(dropped)
        if self._tables:
            self._tables.add_dropped(record, dropped.cause)
        return None

    def _process(
        self, record: Record, frame: Frame, bag: ExpressionBagWriter, table: FaceTable
    ) -> list[TrackedFace]:
        """Find, classify and track the faces of a frame; write messages and table rows."""
        camera, header = record.topic.camera, record.message.header
        stamped = StampedFrame(frame, stamp_to_ns(header.stamp), record.time_ns)
        faces = self._pipeline.run({camera: stamped})[camera]
        face_ids = self._pipeline.face_ids(camera)
        self.summary.warnings.update(self._warnings(camera, frame.size))
        array = bag.classes.array(faces, header, camera, frame.size)
        bag.write(array, record.time_ns)
        bag.write_events(
            self._events[camera].update(faces, face_ids), header, camera, record.time_ns
        )
        self._headers[camera] = header
        if self._with_annotations:
            bag.write_annotations(faces, header, camera, frame.size, record.time_ns)
        table.write(faces, header, camera, record.time_ns)
        if self._tables:
            self._tables.add_frame(record, frame.size, faces)
        self.summary.add_frame(array)
        return faces

    def _warnings(self, camera: str, size: tuple[int, int]) -> Iterator[str]:
        clock = self._pipeline.clocks.get(camera)
        if clock and clock.is_frozen:
            yield f'all images of {camera} have the same stamp; faces were tracked by bag time'
        if clock and clock.is_unordered:
            yield f'the stamps of {camera} step back; the ids of its faces were kept'
        known = self._pipeline.calibrations
        if camera in known and (problem := describe_problem(camera, known[camera], size)):
            yield problem

    def _ids_in_view(self) -> set[str]:
        return set().union(*(self._pipeline.face_ids(topic.camera) for topic in self._topics))


def check_output_folder(out: Path, source: Path, force: bool) -> None:
    """Check that `out` can be written; with `force`, earlier results may be replaced.

    Raises:
        DataError: `out` exists and must not or cannot be replaced, or one of `out` and `source` is
            inside the other.
    """
    target, read = out.resolve(), source.resolve()
    if read.is_relative_to(target) or (source.is_dir() and target.is_relative_to(read)):
        raise DataError(f'one of {out} and {source} is inside the other; choose another folder')
    if not os.path.lexists(out):
        return
    if not force:
        raise DataError(f'{out} exists already; choose another folder or use --force')
    if out.is_mount():
        raise DataError(f'{out} is a mount point and cannot be replaced; choose a folder inside it')
    is_empty = out.is_dir() and not any(out.iterdir())
    for file, what in ((METADATA, 'a bag'), (FILENAME, 'a result of this command')):
        if not is_empty and not (out / file).is_file():
            raise DataError(f'{out} is not {what} and is not replaced; choose another folder')
