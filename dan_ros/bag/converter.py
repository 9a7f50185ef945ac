"""From a bag of images to a bag of expressions, frame by frame, in bounded memory."""

import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dan_ros.annotate import annotate_tracked
from dan_ros.bag.csv_table import FaceTable
from dan_ros.bag.reader import CAMERA_INFO, COMPRESSED_IMAGE, Bag, Record, Topic
from dan_ros.bag.timeline import Timelines
from dan_ros.bag.video import Videos
from dan_ros.bag.writer import ExpressionBag
from dan_ros.errors import DataError, FrameError
from dan_ros.faces.camera_model import Camera, info_to_camera, info_topic
from dan_ros.faces.head_pose import solve_poses
from dan_ros.images.compressed import compressed_to_frame
from dan_ros.images.encodings import image_to_frame
from dan_ros.messages import stamp_to_ns
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.storage.atomic import atomic_directory
from dan_ros.tracking.config import TrackerConfig
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoConfig, VideoPipeline

MAX_PIXELS = 100_000_000
CLEANING_FRAMES = 100  # so often faces that are gone are drawn and forgotten


@dataclass
class Summary:
    """What became of a bag.

    Attributes:
        frames: processed.
        faces: in all of them.
        ids: number of different ids.
        labels: faces by label.
        dropped: messages by cause.
        examples: what was wrong with the first message of each cause.
        lacking_stamps: cameras whose images are all stamped alike.
        lacking_videos: why there is no video, by camera.
        damage: of the bag, see `Bag`.
    """

    frames: int = 0
    faces: int = 0
    ids: set[str] = field(default_factory=set)
    labels: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    lacking_stamps: set[str] = field(default_factory=set)
    lacking_videos: dict[str, str] = field(default_factory=dict)
    damage: str = ''


class Conversion:
    """One run over a bag.

    Args:
        bag: to read.
        topics: with images, one a camera.
        pipeline: judges them.
        settings: of following faces.
    """

    def __init__(
        self,
        bag: Bag,
        topics: list[Topic],
        pipeline: ExpressionPipeline,
        settings: TrackerConfig,
    ) -> None:
        self.summary = Summary()
        self._bag, self._topics = bag, topics
        self._video = VideoPipeline(
            pipeline, VideoConfig(pipeline=pipeline.config, tracker=settings)
        )
        self._infos: dict[str, list[str]] = defaultdict(list)
        for topic in topics:
            self._infos[info_topic(topic.camera)].append(topic.camera)
        self._cameras: dict[str, Camera | None] = {}

    def run(
        self, out: Path, video: bool = False, on_frame: Callable[[int], object] = lambda done: None
    ) -> Summary:
        """Write everything into the folder `out`; a folder that is there is replaced at the end.

        Until then everything lies in a hidden folder beside it, which an error removes.

        Args:
            out: the folder.
            video: also write annotated videos.
            on_frame: called with the number of images read so far.

        Raises:
            DataError: it can't be written; nothing is left behind.
        """
        try:
            with atomic_directory(out) as folder:  # the storage file is called like its folder
                self._write(folder, video, on_frame)
        except (OSError, sqlite3.Error) as error:  # of a file in the hidden folder, or of none
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise DataError(
                f'{out} can not be written: {reason}; make room, or name another place'
            ) from error
        return self.summary

    def _write(self, folder: Path, video: bool, on_frame: Callable[[int], object]) -> None:
        names = {topic.name for topic in self._topics}
        infos = {name for name in self._infos if name in self._bag.topics}
        read = 0
        with ExitStack() as stack:
            writer = stack.enter_context(
                ExpressionBag(folder, self._bag.storage, self._bag.version)
            )
            table = stack.enter_context(FaceTable(folder))
            timelines = Timelines(folder)
            videos = None
            if video:
                videos = stack.enter_context(Videos(folder, self._bag.rates_hz(self._topics)))
                self.summary.lacking_videos = videos.lacking
            for record in self._bag.records(names | infos):
                if record.topic.kind == CAMERA_INFO:
                    self._calibrate(record)
                    continue
                read += 1
                on_frame(read)
                frame = self._decode(record)
                if frame is None:
                    continue
                followed = self._judge(record, frame, writer, table)
                timelines.add(record.topic.camera, followed, record.time_ns)
                if videos:
                    videos.write(record.topic.camera, annotate_tracked(frame, followed))
                if read % CLEANING_FRAMES == 0:
                    timelines.finish(self._alive())
            timelines.finish()
        self.summary.damage = self._bag.damage

    def _calibrate(self, record: Record) -> None:
        if record.message is None:
            self._drop(record.to_error())
            return
        for camera in self._infos[record.topic.name]:
            self._cameras[camera] = info_to_camera(record.message, camera)

    def _decode(self, record: Record) -> Frame | None:
        try:
            if record.message is None:
                raise record.to_error()
            if record.topic.kind == COMPRESSED_IMAGE:
                return compressed_to_frame(bytes(record.message.data), MAX_PIXELS)
            return image_to_frame(record.message)
        except FrameError as error:
            self._drop(error)
        except MemoryError as error:
            self._drop(FrameError('out_of_memory', str(error)))
        return None

    def _drop(self, error: FrameError) -> None:
        self.summary.dropped[error.cause] += 1
        self.summary.examples.setdefault(error.cause, str(error))

    def _judge(
        self, record: Record, frame: Frame, writer: ExpressionBag, table: FaceTable
    ) -> list[TrackedFace]:
        camera, header = record.topic.camera, record.message.header
        stamped = StampedFrame(frame, stamp_to_ns(header.stamp), record.time_ns)
        faces = self._video.run({camera: stamped})[camera]
        self.summary.lacking_stamps.update(self._video.cameras_with_frozen_stamps())
        landmarks = [face.detection.landmarks for face in faces]
        poses = solve_poses(landmarks, self._cameras.get(camera), frame.size)
        array = writer.classes.array(faces, poses, header, camera, frame.size)
        writer.write(array, record.time_ns)
        table.write(faces, header, camera, record.time_ns)
        self._count(array)
        return faces

    def _count(self, array: Any) -> None:
        self.summary.frames += 1
        self.summary.faces += len(array.faces)
        self.summary.ids.update(face.face_id for face in array.faces)
        self.summary.labels.update(face.label for face in array.faces)

    def _alive(self) -> set[str]:
        return set().union(*(self._video.face_ids(topic.camera) for topic in self._topics))


def check_room(out: Path, source: Path, force: bool) -> None:
    """See to it that `out` may be written.

    Raises:
        DataError: it exists and may not or can not be replaced, or is no bag, or one of it and
            the bag to be read lies in the other.
    """
    there, read = out.resolve(), source.resolve()
    if read.is_relative_to(there) or (source.is_dir() and there.is_relative_to(read)):
        raise DataError(f'{out} and the bag to be read lie in each other; name another folder')
    if not os.path.lexists(out):
        return
    if not force:
        raise DataError(f'{out} exists already; name another folder, or say --force')
    if out.is_mount():
        raise DataError(f'{out} is a mount point, which can not be replaced; name a folder in it')
    is_empty = out.is_dir() and not any(out.iterdir())
    if not is_empty and not (out / 'metadata.yaml').is_file():
        raise DataError(f'{out} is no bag, it is not replaced; name another folder')
