# SPDX-License-Identifier: Apache-2.0
"""CREMA-D: clips of 91 actors who speak with an emotion.

Cao et al. 2014, https://doi.org/10.1109/TAFFC.2014.2336244. Source of the clips, the votes and the
file names: https://github.com/CheyneyComputerScience/CREMA-D (ODbL, contents DbCL).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dan_ros.datasets.base import READ_THREADS, FaceDataset, try_picture, visible_files, why_empty
from dan_ros.datasets.csv_files import read_table
from dan_ros.datasets.faces import TEST, TRAIN, VALID, Faces, in_memory
from dan_ros.errors import DataError, count_of
from dan_ros.faces.boxes import area
from dan_ros.faces.crop import crop_face
from dan_ros.images.opencv import cv2, open_capture
from dan_ros.images.resize import resize
from dan_ros.model.metadata import DEFAULT_CROP_SCALE
from dan_ros.storage.file_content import VIDEO, explain_wrong_file
from dan_ros.types import Frame

LABELS = ('anger', 'disgust', 'fear', 'happy', 'neutral', 'sad')
CODES = ('ANG', 'DIS', 'FEA', 'HAP', 'NEU', 'SAD')  # emotion codes in the names of clips
LETTERS = ('A', 'D', 'F', 'H', 'N', 'S')  # columns of the votes
CLIP_NAME = re.compile(rf'(\d{{4}})_[A-Z]{{3}}_({"|".join(CODES)})_[A-Z]{{2}}')
# Clips with wrong names, according to the authors' README.
BROKEN = ('1064_IEO_DIS_MD', '1064_TIE_SAD_XX', '1076_MTI_NEU_XX', '1076_MTI_SAD_XX')
VIDEO_SUFFIXES = ('.flv', '.mp4', '.avi', '.mkv', '.mov')
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
VOTES_FILE = Path('processedResults', 'tabulatedVotes.csv')
FACE_ONLY = '2'  # first digit of rows with votes of raters who saw the face without sound
FACE_PX = 112  # side of faces held in memory, pixels; all 7442 take 280 MB
# Last digits of the actors' numbers per split; validation and test have nine actors each.
SPLIT_DIGITS = {VALID: '0', TEST: '5', TRAIN: '12346789'}


@dataclass(frozen=True)
class _Clip:
    """A clip: its name, such as `1001_DFA_ANG_XX`, and its video or its middle image."""

    name: str
    path: Path

    @property
    def acted(self) -> int:
        """The acted emotion, an index into `LABELS`."""
        return CODES.index(self.name.split('_')[2])


class CremaD(FaceDataset):
    """CREMA-D; the actors are split: 73 for training, 9 for validation, 9 for test.

    Two layouts are supported:

    * as distributed: videos named like `VideoFlash/1001_DFA_ANG_XX.flv`, also as `.mp4`. The face
      in the middle of each clip is found and cut out.
    * images of faces, one or more per clip: `1001_DFA_ANG_XX.jpg`, `1001_DFA_ANG_XX_12.jpg`, or in
      folders named like clips. The middle image of each clip is used, uncropped.

    With `processedResults/tabulatedVotes.csv` the targets are the votes of the raters who saw the
    face without sound, and the class is their first choice; clips without a single first choice
    are excluded. Without this file, target and class are the acted emotion, which the raters
    recognized in only 69 % of the faces; `Faces.layout` tells which of the two is used.
    """

    labels = LABELS

    def open(self, root: Path, split: str) -> Faces:
        """Read the middle of each clip of the split's actors."""
        clips, layout = _find_clips(root)
        clips = [clip for clip in clips if clip.name[3] in SPLIT_DIGITS[split]]
        votes = _read_votes(root / VOTES_FILE)
        chosen, targets, excluded = _label(clips, votes)
        layout = f'{layout}, actors with numbers ending in {", ".join(SPLIT_DIGITS[split])}'
        if votes is None:
            layout += f', {len(chosen)} labeled by the acted emotion: no {root / VOTES_FILE}'
        else:
            layout += f', {len(chosen)} labeled by the votes of {root / VOTES_FILE}'
        is_video = bool(chosen) and chosen[0].path.suffix.lower() in VIDEO_SUFFIXES
        images, reasons = _cut_out(chosen) if is_video else _read_images(chosen)
        good = [index for index, image in enumerate(images) if image is not None]
        skipped = {str(clip.path): why for clip, why in zip(chosen, reasons, strict=True) if why}
        if not good:
            raise DataError(f'{root}: {why_empty(layout, skipped)}')
        kept = targets[good]  # [N, 6]
        stack = np.stack([image for image in images if image is not None])  # [N, 112, 112, 3]
        return Faces(
            self.labels,
            kept,
            kept.argmax(axis=1),
            in_memory(stack),
            native_size=FACE_PX,
            layout=layout,
            skipped=skipped,
            excluded=excluded,
            paths=() if is_video else tuple(chosen[index].path for index in good),
        )

    def matches(self, root: Path, model_labels: tuple[str, ...]) -> bool:
        """Look for a file or folder that is named like a clip."""
        folders = (root, root / 'VideoFlash')
        return any(
            CLIP_NAME.match(path.name)
            for folder in folders
            if folder.is_dir()
            for path in folder.iterdir()
        )


def _find_clips(root: Path) -> tuple[list[_Clip], str]:
    """Find all clips by their names: images if there are any, otherwise videos."""
    images: dict[str, list[Path]] = defaultdict(list)
    videos: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(visible_files(root)):
        match = CLIP_NAME.match(path.name) or CLIP_NAME.match(path.parent.name)
        if match and path.suffix.lower() in IMAGE_SUFFIXES:
            images[match[0]].append(path)
        elif match and path.suffix.lower() in VIDEO_SUFFIXES:
            videos[match[0]].append(path)
    found, what = (images, 'images') if images else (videos, 'videos')
    if not found:
        raise DataError(
            f'{root} has no clips of CREMA-D, which are named like 1001_DFA_ANG_XX.flv; the clips '
            'are in the folder VideoFlash of its repository, and need Git LFS'
        )
    clips = [_Clip(name, paths[len(paths) // 2]) for name, paths in sorted(found.items())]
    return clips, f'{what} of {count_of(len(clips), "clip")} in {root}'


def _read_votes(path: Path) -> dict[str, np.ndarray] | None:
    """Read the votes on the face without sound, int64 [6] per clip; None without the file."""
    if not path.is_file():
        return None
    votes = {}
    columns = [letter.lower() for letter in LETTERS]
    for number, row in read_table(path, ('', *columns, 'filename')):
        if not row[''].startswith(FACE_ONLY):
            continue
        try:
            votes[row['filename']] = np.array([int(row[name]) for name in columns])
        except ValueError:
            raise DataError(f'{path}, line {number}: the votes are not six numbers') from None
    return votes


def _label(
    clips: Sequence[_Clip], votes: Mapping[str, np.ndarray] | None
) -> tuple[list[_Clip], np.ndarray, dict[str, int]]:
    """Return clips with a class, their targets, float32 [N, 6], and numbers of excluded ones."""
    chosen: list[_Clip] = []
    targets: list[np.ndarray] = []
    excluded: Counter[str] = Counter()
    for clip in clips:
        counts = np.eye(len(LABELS))[clip.acted] if votes is None else votes.get(clip.name)
        if clip.name in BROKEN:
            excluded['broken clips'] += 1
        elif counts is None or not counts.any():
            excluded['without votes'] += 1
        elif (counts == counts.max()).sum() > 1:
            excluded['no single first choice'] += 1
        else:
            chosen.append(clip)
            targets.append(counts / counts.sum())
    return chosen, np.array(targets, np.float32).reshape(-1, len(LABELS)), dict(excluded)


Read = tuple[list[np.ndarray | None], list[str]]  # faces, uint8 [112, 112, 3] RGB, and reasons


def _read_images(clips: Sequence[_Clip]) -> Read:
    with ThreadPoolExecutor(READ_THREADS) as threads:
        read = list(threads.map(lambda clip: try_picture(clip.path), clips))
    faces = [None if p is None else resize(p, FACE_PX, FACE_PX)[..., ::-1] for p, _ in read]
    return faces, [reason for _, reason in read]


def _cut_out(clips: Sequence[_Clip]) -> Read:
    """Cut the largest face out of the middle of each video."""
    from dan_ros.detect import open_detector

    detector = open_detector('auto')
    faces: list[np.ndarray | None] = []
    reasons: list[str] = []
    with ThreadPoolExecutor(READ_THREADS) as threads:
        images = threads.map(lambda clip: _middle_image(clip.path), clips)
        for clip, image in zip(clips, images, strict=True):
            found = [] if image is None else detector.detect(image)
            face, reason = None, 'shows no face'
            if image is None:
                wrong = explain_wrong_file(clip.path, 'a video', VIDEO)
                reason = wrong or 'has no readable image'
            elif found:
                box = max((one.box_xyxy for one in found), key=area)
                face, reason = np.empty((FACE_PX, FACE_PX, 3), np.uint8), ''
                crop_face(Frame(image), box, DEFAULT_CROP_SCALE, face)
            faces.append(face)
            reasons.append(reason)
    return faces, reasons


def _middle_image(path: Path) -> np.ndarray | None:
    """Return the middle image of a video, uint8 [H, W, 3] BGR; None if it cannot be read.

    Images are counted by decoding them, because the headers of Flash videos are often wrong.
    """
    count = sum(1 for _ in _grab(path))
    for index, video in enumerate(_grab(path)):
        if index == count // 2:
            good, image = video.retrieve()
            return image if good else None
    return None


def _grab(path: Path) -> Iterator[cv2.VideoCapture]:
    with open_capture(str(path)) as video:
        while video.grab():
            yield video
