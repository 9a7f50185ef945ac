"""`dan-ros bag`: a recorded bag of images becomes a bag of expressions, without ROS."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dan_ros.backends import BACKENDS
from dan_ros.cli.common import need, progress_bar
from dan_ros.detect import DETECTORS
from dan_ros.model import store
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.storage.atomic import remove_abandoned
from dan_ros.tracking.config import TrackerConfig

if TYPE_CHECKING:
    from dan_ros.bag.converter import Summary

DEFAULTS = TrackerConfig()


@click.command('bag')
@click.argument('source', metavar='IN', type=click.Path(path_type=Path))
@click.argument('out', metavar='OUT', type=click.Path(path_type=Path))
@click.option('--video', is_flag=True, help='Also write an annotated MP4 of each camera.')
@click.option('--force', is_flag=True, help='Replace OUT if it is a bag already.')
@click.option(
    '--topic', 'topics', multiple=True, help='Images to judge, may be repeated; all cameras.'
)
@click.option('--model', default=store.DEFAULT_MODEL, show_default=True)
@click.option('--backend', default='auto', show_default=True, type=click.Choice(BACKENDS))
@click.option('--detector', default='auto', show_default=True, type=click.Choice(DETECTORS))
@click.option('--max-side', default=640, show_default=True, type=click.IntRange(64, 4096))
@click.option('--max-faces', default=16, show_default=True, type=click.IntRange(1, 1000))
@click.option(
    '--rotation', default='0', show_default=True, type=click.Choice(['0', '90', '180', '270'])
)
@click.option(
    '--half-life',
    default=DEFAULTS.half_life_s,
    show_default=True,
    type=click.FloatRange(0, 60),
    help='Of smoothing, seconds; 0 switches it off.',
)
@click.option(
    '--min-confidence',
    default=DEFAULTS.min_confidence,
    show_default=True,
    type=click.FloatRange(0, 1),
    help='A face less sure than this is labelled unknown.',
)
def command(
    source: Path,
    out: Path,
    video: bool,
    force: bool,
    topics: tuple[str, ...],
    model: str,
    backend: str,
    detector: str,
    max_side: int,
    max_faces: int,
    rotation: str,
    half_life: float,
    min_confidence: float,
) -> None:
    """Judge every image of the bag IN and write the bag OUT.

    IN is a rosbag2, sqlite3 or mcap, with raw or compressed images. OUT is a rosbag2 of the same
    kind with the topics facial_expression and facial_expressions in each camera's namespace, as
    the node publishes them; beside them lie faces.csv and a timeline picture of each face.

    Of a damaged bag everything up to the damage is judged, and the exit code is 1.
    """
    need('rosbags', 'matplotlib', 'yaml')
    from dan_ros.bag.converter import Conversion, check_room
    from dan_ros.bag.reader import Bag, choose_image_topics

    if out.name in ('', '..'):  # such as the folder we are in
        out = out.resolve()
    bag = Bag(source)
    chosen = choose_image_topics(bag, topics)
    if remove_abandoned(out):
        click.echo(
            f'Warning: a run was killed while it replaced {out}: the old one is back', err=True
        )
    check_room(out, source, force)
    pipeline = ExpressionPipeline.open(
        model,
        backend,
        detector,
        max_side_px=max_side,
        max_faces=max_faces,
        rotation=int(rotation),
    )
    if pipeline.detector.warning:
        click.echo(f'Warning: {pipeline.detector.warning}', err=True)
    settings = TrackerConfig(half_life_s=half_life, min_confidence=min_confidence)
    conversion = Conversion(bag, chosen, pipeline, settings)
    with progress_bar() as bar:
        task = bar.add_task('images', total=sum(topic.count for topic in chosen) or None)
        summary = conversion.run(out, video, lambda done: bar.update(task, completed=done))
    _print(summary, out)
    sys.exit(1 if summary.damage else 0)


def _print(summary: 'Summary', out: Path) -> None:
    common = ', '.join(f'{label} {count}' for label, count in summary.labels.most_common())
    click.echo(
        f'{out}: {summary.frames} images, {summary.faces} faces, {len(summary.ids)} ids'
        + (f' ({common})' if common else '')
    )
    for cause, count in summary.dropped.items():
        click.echo(f'{count} messages dropped, {cause}: {summary.examples[cause]}', err=True)
    for camera in sorted(summary.lacking_stamps):
        click.echo(
            f'Warning: the stamps of {camera} stand still: faces were followed by bag time',
            err=True,
        )
    for camera, reason in sorted(summary.lacking_videos.items()):
        click.echo(f'Warning: no video of {camera}: {reason}', err=True)
    if summary.damage:
        click.echo(f'Error: {summary.damage}; what comes before is in {out}', err=True)
