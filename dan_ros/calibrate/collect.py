# SPDX-License-Identifier: Apache-2.0
"""Collects labeled faces of a robot's camera from class folders or from marks in a recording."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dan_ros.datasets.folders import LABEL_OF_NAME, list_class_folders
from dan_ros.errors import DanError, DataError
from dan_ros.faces.crop import crop_face
from dan_ros.images.files import open_picture
from dan_ros.images.opencv import cv2, open_capture
from dan_ros.labels import CANONICAL
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.storage.yaml_file import read_yaml
from dan_ros.types import Frame

# First words of file names that cameras, phones and programs give, in lower case.
NO_PERSONS = {'img', 'dsc', 'dscn', 'dscf', 'pxl', 'image', 'photo', 'picture', 'pic', 'frame'}
NO_PERSONS |= {'face', 'capture', 'screenshot', 'webcam', 'camera', 'test', 'train', 'valid', 'val'}
FACES_PER_MARK = 3  # faces per mark, evenly spaced, since consecutive images are nearly equal
TimedFrame = tuple[float, Callable[[], Frame]]  # seconds since the start, and the decoder


@dataclass(frozen=True)
class LabeledFace:
    """One face.

    Attributes:
        crop: uint8 [H, W, 3] RGB, the model's input.
        label: its canonical label.
        person: who it is, or ''.
        origin: file or time, for messages.
    """

    crop: np.ndarray
    label: str
    person: str
    origin: str


@dataclass(frozen=True)
class Mark:
    """A time span of a recording in which one person shows one expression.

    Attributes:
        start_s, end_s: seconds since the start of the recording.
        label: canonical label.
        person: who it is, or ''.
    """

    start_s: float
    end_s: float
    label: str
    person: str = ''


class FaceCutter:
    """Cuts the largest face out of each image, as the node does.

    Args:
        pipeline: finds faces; its model defines the crop.
        is_whole: whether each image is already a cropped face.

    Attributes:
        without_face: origin of each image in which no face was found.
        repeated: number of faces left out because an earlier image is the same.
        contradictory: a sentence for each repeated image with a different label than its copy.
    """

    def __init__(self, pipeline: ExpressionPipeline, is_whole: bool = False) -> None:
        self._pipeline, self._is_whole = pipeline, is_whole
        self._seen: dict[bytes, tuple[str, str]] = {}  # crop -> label and origin of the first
        self.without_face: list[str] = []
        self.repeated = 0
        self.contradictory: list[str] = []

    def cut(self, frame: Frame, label: str, person: str, origin: str) -> LabeledFace | None:
        """Return the face; None if there is none, or an earlier image is the same."""
        model = self._pipeline.backend.model
        crop = np.empty((*model.input_size, 3), np.uint8)
        if self._is_whole:
            crop_face(frame, np.array([0, 0, *frame.size], np.float32), 1.0, crop)
        else:
            found = self._pipeline.find_faces(frame)
            if not found:
                self.without_face.append(origin)
                return None
            crop_face(frame, found[0].box_xyxy, model.crop_scale, crop)
        if earlier := self._seen.get(crop.tobytes()):
            self.repeated += 1
            if earlier[0] != label:
                self.contradictory.append(
                    f'{earlier[1]} is labeled {earlier[0]}, but its copy {origin} is labeled '
                    f'{label}; only the first label is used: delete the wrong picture or mark'
                )
            return None
        self._seen[crop.tobytes()] = label, origin
        return LabeledFace(crop, label, person, origin)


def faces_in_folder(root: Path, cutter: FaceCutter) -> tuple[list[LabeledFace], list[str]]:
    """Read one folder per class.

    The person is the name of a folder in the class folder (happy/anna/1.jpg), or the part of the
    file's name before the first _ or - (happy/anna_1.jpg) if it occurs in several classes and is
    neither a number, since numbers often count the pictures, nor in `NO_PERSONS`, as in IMG_1.jpg.

    Returns:
        The faces, and a sentence for each image that cannot be read.

    Raises:
        DataError: the folder has no class folder.
    """
    listing = list_class_folders(root, CANONICAL, LABEL_OF_NAME)
    entries = [(image.path, CANONICAL[image.label]) for image in listing.images]
    persons = _persons([(path, listing.folders[label], label) for path, label in entries])
    faces, problems = [], [f'{path} {reason}' for path, reason in listing.skipped.items()]
    for (path, label), person in zip(entries, persons, strict=True):
        try:
            frame = Frame(open_picture(path))
        except DataError as error:
            problems.append(str(error))
            continue
        if face := cutter.cut(frame, label, person, str(path)):
            faces.append(face)
    return faces, problems


def _persons(entries: Sequence[tuple[Path, Path, str]]) -> list[str]:
    """Return the person of each (file, class folder, label), '' where unknown."""
    subfolders = [path.relative_to(folder).parts[:-1] for path, folder, _ in entries]
    if all(subfolders):
        return [parts[0] for parts in subfolders]
    parts = [path.stem.replace('-', '_').partition('_') for path, _, _ in entries]
    prefixes = [name if mark and _may_be_person(name) else '' for name, mark, _ in parts]
    classes: dict[str, set[str]] = {}
    for prefix, (_, _, label) in zip(prefixes, entries, strict=True):
        classes.setdefault(prefix, set()).add(label)
    is_person = '' not in classes and all(len(labels) > 1 for labels in classes.values())
    return prefixes if is_person else [names[0] if names else '' for names in subfolders]


def _may_be_person(word: str) -> bool:
    return not word.isdecimal() and word.lower() not in NO_PERSONS


def faces_at_marks(
    frames: Iterator[TimedFrame], marks: Sequence[Mark], cutter: FaceCutter
) -> tuple[list[LabeledFace], list[str]]:
    """Cut faces out of the marked time spans of a recording, whose frames are in order of time.

    Returns:
        The faces, and a sentence for each image that cannot be read and each mark without an image.
    """
    faces: list[LabeledFace] = []
    problems: list[str] = []
    used: set[Mark] = set()
    for mark, time_s, decode in _images_of_marks(frames, marks):
        used.add(mark)
        try:
            frame = decode()
        except DanError as error:
            problems.append(f'the image at {time_s:.2f} s is left out: {error}')
            continue
        face = cutter.cut(frame, mark.label, mark.person, f'{time_s:.2f} s')
        if face:
            faces.append(face)
    problems += [
        f'no image was taken from {mark.start_s:g} to {mark.end_s:g} s, marked {mark.label}: the '
        'recording has none there, or too few; mark a longer time'
        for mark in marks
        if mark not in used
    ]
    return faces, problems


def _images_of_marks(
    frames: Iterator[TimedFrame], marks: Sequence[Mark]
) -> Iterator[tuple[Mark, float, Callable[[], Frame]]]:
    """Yield `FACES_PER_MARK` evenly spaced images of each mark: mark, seconds, and the decoder."""
    wanted = [
        (mark.start_s + (index + 0.5) / FACES_PER_MARK * (mark.end_s - mark.start_s), mark)
        for mark in marks
        for index in range(FACES_PER_MARK)
    ]
    wanted.sort(key=lambda pair: pair[0])
    starts_s = {mark.start_s for mark in marks}
    position = 0
    for time_s, decode in frames:
        while position < len(wanted) and wanted[position][0] <= time_s:
            mark = wanted[position][1]
            position += 1
            if time_s < mark.end_s or (time_s == mark.end_s and time_s not in starts_s):
                yield mark, time_s, decode
        if position == len(wanted):
            break


def frames_of_video(path: Path) -> Iterator[TimedFrame]:
    """Yield the frames of a video file.

    Raises:
        DataError: OpenCV cannot read it; or, from the decoder, a frame is damaged.
    """
    with open_capture(str(path)) as capture:
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        if not capture.isOpened() or not rate_hz > 0:
            raise DataError(
                f'{path} is neither a bag, nor a folder, nor a video that OpenCV can read'
            )
        index = 0
        while capture.grab():
            # A phone records at a variable rate; some formats have no times.
            time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 or index / rate_hz
            yield time_s, partial(_decode, capture)
            index += 1


def _decode(capture: cv2.VideoCapture) -> Frame:
    succeeded, image = capture.retrieve()
    if not succeeded:
        raise DataError('OpenCV cannot decode it')
    return Frame(image)


def read_marks(path: Path) -> list[Mark]:
    """Read marks from a CSV file with a header, or from a YAML list.

    Both have the keys start and end (seconds since the start), label, and optionally person.

    Raises:
        DataError: the file is missing or a mark is invalid.
    """
    try:
        rows = _read_rows(path)
    except OSError as error:
        raise DataError(f'the marks {path} cannot be read: {error.strerror}') from None
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f'{path} is not a CSV file') from None
    if not rows:
        raise DataError(f'{path} contains no marks; give start, end and label of each')
    if not isinstance(rows, list):
        raise DataError(f'{path} is not a YAML list of marks')
    return [_to_mark(path, number, row) for number, row in enumerate(rows, 1)]


def _read_rows(path: Path) -> Any:
    if path.suffix.lower() != '.csv':
        return read_yaml(path, 'list of marks', DataError)
    text = path.read_text(encoding='utf-8-sig')  # spreadsheets write a byte order mark
    return list(csv.DictReader(text.splitlines()))


def _to_mark(path: Path, number: int, row: Any) -> Mark:
    where = f'{path}, mark {number}'
    try:
        fields: Mapping[str, Any] = {str(key).strip(): value for key, value in row.items()}
        start_s, end_s = float(fields['start']), float(fields['end'])
        label = LABEL_OF_NAME[str(fields['label']).strip().lower()]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise DataError(
            f'{where}: it needs start and end in seconds and a label of {", ".join(CANONICAL)}'
        ) from None
    if not (start_s >= 0 and math.isfinite(end_s)):
        raise DataError(
            f'{where}: start and end must be seconds, at least 0, not {start_s:g} and {end_s:g}'
        )
    if start_s >= end_s:
        raise DataError(f'{where}: its end {end_s:g} is not after its start {start_s:g}')
    return Mark(start_s, end_s, label, str(fields.get('person') or '').strip())
