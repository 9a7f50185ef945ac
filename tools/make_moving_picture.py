# SPDX-License-Identifier: Apache-2.0
"""Make docs/moving.webp: results of the pipeline for a moving picture, timeline and events.

A virtual camera moves over the astronaut portrait of scikit-image (NASA, public domain) and its
mirror image. Boxes, ids, labels, probabilities and events come from the pipeline; only the time
stamps are synthetic. Run it in the shell that `. ./env.sh` prepares.
"""

from dataclasses import dataclass, field
from pathlib import Path

import click
import cv2
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from skimage.data import astronaut

from dan_ros import labels
from dan_ros.annotate import annotate_tracked
from dan_ros.palette import DARK, color_of
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.tracking.events import EventDetector, EventKind, FaceEvent
from dan_ros.tracking.face_tracker import TrackedFace
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoPipeline

OUT = Path(__file__).resolve().parents[1] / 'docs' / 'moving.webp'
DURATION_S = 8.4
CAMERA = (560, 420)  # width, height of the camera image, pixels
SIZE = (900, 420)  # size of the whole picture, pixels
# The camera: time in seconds, center x and y in the scene, zoom, blur in pixels.
PATH = np.array(
    [
        [0.0, 690, 200, 1.1, 0],
        [0.9, 735, 150, 1.5, 0],
        [2.2, 735, 150, 2.0, 0],
        [2.8, 735, 150, 2.0, 19],
        [3.7, 735, 150, 2.0, 19],
        [4.0, 735, 150, 2.0, 0],
        [5.2, 512, 230, 0.95, 0],
        [6.2, 512, 230, 0.95, 0],
        [7.2, 300, 160, 1.7, 0],
        [8.4, 289, 150, 1.9, 0],
    ]
)
TEXTS = {
    EventKind.APPEARED: 'appeared',
    EventKind.LEFT: 'left',
    EventKind.EXPRESSION_CHANGED: 'is now {}',
    EventKind.STARTED_LOOKING: 'looks at the camera',
    EventKind.STOPPED_LOOKING: 'looks away',
}

Moment = tuple[float, np.ndarray, int]  # seconds, smoothed probabilities, published expression


@dataclass
class History:
    """What was seen so far: moments per face id, and a line per event."""

    faces: dict[str, list[Moment]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    def add(self, time_s: float, faces: list[TrackedFace], events: list[FaceEvent]) -> None:
        """Add one frame."""
        for face in faces:
            moment = (time_s, face.probabilities, face.expression)
            self.faces.setdefault(face.face_id, []).append(moment)
        for event in events:
            text = TEXTS[event.kind].format(labels.label_of(event.state.expression))
            self.events.append(f'{time_s:.1f} s  {event.state.face_id} {text}')


def view(scene: np.ndarray, time_s: float) -> np.ndarray:
    """Return the camera image at a time."""
    x, y, zoom, blur = (np.interp(time_s, PATH[:, 0], column) for column in PATH.T[1:])
    placement = np.array(
        [[zoom, 0, CAMERA[0] / 2 - zoom * x], [0, zoom, CAMERA[1] / 2 - zoom * y]], np.float32
    )
    image = cv2.warpAffine(
        scene, placement, CAMERA, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return cv2.GaussianBlur(image, (0, 0), blur) if blur > 0.3 else image


def draw(image: np.ndarray, history: History, time_s: float) -> Image.Image:
    """Draw the annotated camera image with the timelines and events beside it."""
    canvas = Image.new('RGB', SIZE, DARK.paper)
    canvas.paste(Image.fromarray(np.ascontiguousarray(image[..., ::-1])))
    pen = ImageDraw.Draw(canvas)
    left, right = CAMERA[0] + 16, SIZE[0] - 16
    for row, face_id in enumerate(list(history.faces)[:2]):
        moments = history.faces[face_id]
        caption = caption_of(face_id, moments[-1], time_s)
        draw_timeline(canvas, moments, (left, 14 + 130 * row, right), caption)
    pen.text((left, 278), 'events', fill=DARK.muted, font=font(13))
    for row, line in enumerate(history.events[-5:]):
        pen.text((left, 300 + 20 * row), line, fill=DARK.ink, font=font(14))
    x = left + (right - left) * time_s / DURATION_S
    pen.line([(x, 36), (x, 264)], fill=DARK.muted)
    return canvas


def draw_timeline(
    canvas: Image.Image, moments: list[Moment], place: tuple[int, int, int], caption: str
) -> None:
    """Draw the probabilities of one face over time, and its label as a band below."""
    left, top, right = place
    pen = ImageDraw.Draw(canvas)
    pen.text((left, top), caption, fill=DARK.ink, font=font(15))
    top, bottom = top + 24, top + 100
    pen.rectangle([left, top, right, bottom + 14], fill=DARK.panel)
    x = [left + (right - left) * moment[0] / DURATION_S for moment in moments]
    ends = [*x[1:], x[-1] + 3]
    for index in range(len(labels.CANONICAL)):
        y = [bottom - 2 - (bottom - top - 4) * float(moment[1][index]) for moment in moments]
        pen.line(list(zip(x, y, strict=True)), fill=color_of(index), width=2)
    for start, end, moment in zip(x, ends, moments, strict=True):
        pen.rectangle([start, bottom + 4, end, bottom + 14], fill=color_of(moment[2]))


def caption_of(face_id: str, last: Moment, time_s: float) -> str:
    """Return the caption of a face at a time."""
    seen_s, probabilities, expression = last
    if seen_s < time_s:
        return f'{face_id}  not in view'
    confidence = f'{probabilities.max():.0%}' if probabilities.any() else ''
    return f'{face_id}  {labels.label_of(expression)} {confidence}'


def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return the font that is included in matplotlib."""
    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), size_px)


@click.command()
@click.option('--out', type=click.Path(path_type=Path), default=OUT, show_default=True)
@click.option('--rate', 'rate_hz', default=10.0, show_default=True, help='Images per second.')
def main(out: Path, rate_hz: float) -> None:
    """Run the pipeline on the moving picture and write it as an animated WebP."""
    portrait = astronaut()[..., ::-1]
    scene = np.hstack([portrait[:, ::-1], portrait])
    video = VideoPipeline(ExpressionPipeline.open())
    detector, history = EventDetector(), History()
    pictures = []
    for time_s in np.arange(0, DURATION_S, 1 / rate_hz):
        frame = Frame(view(scene, time_s))
        faces = video.run({'image': StampedFrame(frame, round((1 + time_s) * 1e9))})['image']
        history.add(time_s, faces, detector.update(faces, video.face_ids('image')))
        pictures.append(draw(annotate_tracked(frame, faces), history, time_s))
    pictures[0].save(
        out,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / rate_hz),
        loop=0,
        quality=45,
        method=6,
    )
    print(f'{out}: {len(pictures)} images, {out.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
