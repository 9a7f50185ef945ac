# SPDX-License-Identifier: Apache-2.0
"""Make docs/timeline.png: the timeline of a smile that fades, as `dan-ros bag` draws it.

The smile of the astronaut portrait of scikit-image (NASA, public domain) is warped away. Labels and
probabilities come from the pipeline; only the time stamps are synthetic. Run it in the shell that
`. ./env.sh` prepares.
"""

import tempfile
from pathlib import Path

import click
import numpy as np
from skimage.data import astronaut
from smile import without_smile

from dan_ros.bag.timeline import Timelines
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import Frame
from dan_ros.video_pipeline import StampedFrame, VideoPipeline

OUT = Path(__file__).resolve().parents[1] / 'docs' / 'timeline.png'
RATE_HZ = 15
# The smile at times in seconds: 1 is that of the portrait, 0 is none.
PATH = np.array([[0.0, 1], [2.5, 1], [3.3, 0], [5.0, 0]])


@click.command()
@click.option('--out', type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(out: Path) -> None:
    """Run the pipeline on the fading smile and write its timeline."""
    portrait = np.ascontiguousarray(astronaut()[..., ::-1])
    video = VideoPipeline(ExpressionPipeline.open())
    with tempfile.TemporaryDirectory() as folder:
        timelines = Timelines(Path(folder))
        for time_s in np.arange(0, PATH[-1, 0], 1 / RATE_HZ):
            image = without_smile(portrait, 1 - np.interp(time_s, *PATH.T))
            stamp_ns = round(time_s * 1e9)
            faces = video.run({'camera': StampedFrame(Frame(image), stamp_ns)})['camera']
            timelines.add('camera', faces, stamp_ns)
        timelines.finish()
        (picture,) = Path(folder).iterdir()
        out.write_bytes(picture.read_bytes())
    print(f'{out}: {out.stat().st_size / 1e3:.0f} kB')


if __name__ == '__main__':
    main()
