# SPDX-License-Identifier: Apache-2.0
"""`dan-ros bag`: convert recorded bags of images to bags of expressions, without ROS."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dan_ros.bag.settings import BagSettings
from dan_ros.cli.common import (
    PATH,
    FloatRange,
    max_side_option,
    need,
    pipeline_options,
    probability_options,
    progress_bar,
    warn,
)
from dan_ros.errors import count_of
from dan_ros.pipeline import ExpressionPipeline, PipelineConfig
from dan_ros.storage.atomic import remove_abandoned
from dan_ros.tracking.config import TrackerConfig
from dan_ros.video_pipeline import VideoPipeline

if TYPE_CHECKING:
    from dan_ros.bag.converter import ConversionSummary

PIPELINE, TRACKER = PipelineConfig(), TrackerConfig()


@click.command('bag')
@click.argument('sources', metavar='IN...', nargs=-1, required=True, type=PATH)
@click.argument('out', metavar='OUT', type=PATH)
@click.option('--video', is_flag=True, help='Also write an annotated MP4 per camera.')
@click.option('--blur', is_flag=True, help='Hide the faces in the videos.')
@click.option(
    '--annotations',
    is_flag=True,
    help='Also write foxglove_msgs/ImageAnnotations on each image topic plus /annotations.',
)
@click.option(
    '--force',
    is_flag=True,
    help='Replace OUT if it is a result of this command; with many bags, convert all again.',
)
@click.option(
    '--topic',
    'topics',
    multiple=True,
    metavar='NAME',
    help='Image topic to process; repeat it for several: --topic /a --topic /b. Default: all '
    'cameras, without depth images and copies.',
)
@pipeline_options
@max_side_option
@click.option(
    '--max-faces',
    default=PIPELINE.max_faces,
    show_default=True,
    type=click.IntRange(1, 1000),
    help='Faces to classify per image, the largest first.',
)
@click.option(
    '--rotation',
    default=str(PIPELINE.rotation),
    show_default=True,
    type=click.Choice(['0', '90', '180', '270']),
    help='Clockwise rotation that makes the images upright, degrees.',
)
@click.option(
    '--half-life',
    'half_life_s',
    default=TRACKER.half_life_s,
    show_default=True,
    type=FloatRange(0, 60),
    help='Half-life of the smoothing, seconds; 0 turns it off.',
)
@click.option(
    '--min-confidence',
    default=TRACKER.min_confidence,
    show_default=True,
    type=FloatRange(0, 1),
    help='Faces with a lower confidence are labeled unknown.',
)
@click.option(
    '--jobs',
    metavar='N',
    type=click.IntRange(1, 1000),
    help='Bags to process at the same time. Default: one per core, or fewer if memory is short.',
)
@click.option(
    '--ray',
    'ray_address',
    metavar='ADDRESS',
    help='Use a Ray cluster: local starts one, auto finds one on this machine, or '
    'HOST:PORT. All nodes must see IN and OUT under the same paths.',
)
@probability_options
def command(
    sources: tuple[Path, ...],
    out: Path,
    force: bool,
    rotation: str,
    jobs: int | None,
    ray_address: str | None,
    **options: Any,  # the other fields of BagSettings
) -> None:
    """Classify every image of the bag IN and write the bag OUT.

    IN is a rosbag2, sqlite3 or mcap, with raw or compressed images. OUT is a rosbag2 of the same
    kind with the topics facial_expression, facial_expressions and facial_expression_events in each
    camera's namespace, as the node publishes them. It also contains faces.csv and a timeline
    picture per face.

    Depth images, and annotated or rectified copies of a camera, are left out unless --topic names
    them.

    If the bag is damaged or an image cannot be read, the others are processed and the exit code is
    1. If no image can be processed, nothing is written.

    With several bags, a pattern such as 'recordings/*', a folder of bags, --jobs or --ray, OUT is a
    folder with such a bag per input in bags/, tables of all images and faces in parquet/, and a
    summary, index.html. The same command continues an interrupted run: a bag is converted again
    only if its content, the options, the model or the version of dan_ros changed.
    """
    settings = BagSettings(rotation=int(rotation), **options)
    if settings.blur and not settings.video:
        raise click.UsageError('--blur needs --video')
    need('rosbags', 'matplotlib', 'yaml', 'mcap', extra='bag')
    from dan_ros.bag.many.sources import means_many

    if out.name in ('', '..'):  # an error such as that OUT is the current folder
        out = out.resolve()
    if not (jobs or ray_address or means_many(sources, out)):
        sys.exit(_convert_one(sources[0], out, settings, force))
    need('pyarrow', 'jinja2', extra='bag')
    if ray_address:
        need('ray', extra='ray')
    from dan_ros.cli.many_bags import convert_many

    sys.exit(convert_many(sources, out, settings, force, jobs, ray_address))


def _convert_one(source: Path, out: Path, settings: BagSettings, force: bool) -> int:
    """Convert one bag to another, and return the exit code."""
    from dan_ros.bag.cameras import choose_image_topics
    from dan_ros.bag.converter import BagConverter, check_output_folder
    from dan_ros.bag.reader import Bag

    bag = Bag(source)
    choice = choose_image_topics(bag, settings.topics)
    for name, reason in choice.left_out.items():
        warn(f'{name} is left out: {reason}; to process it, use --topic {name}')
    if len(choice.topics) > 1:
        names = ', '.join(topic.name for topic in choice.topics)
        click.echo(f'{count_of(len(choice.topics), "camera")}: {names}', err=True)
    if remove_abandoned(out):
        warn(f'a run was killed while it replaced {out}; the old folder was restored')
    check_output_folder(out, source, force)
    converter = BagConverter(bag, choice.topics, _open_pipeline(settings), settings.annotations)
    with progress_bar() as bar:
        task = bar.add_task('images', total=sum(topic.count for topic in choice.topics) or None)
        summary = converter.run(
            out, settings.video, lambda images: bar.update(task, completed=images)
        )
    _print_summary(summary, out)
    return 1 if summary.damage or summary.dropped else 0


def _open_pipeline(settings: BagSettings) -> VideoPipeline:
    config = settings.to_config()
    pipeline = ExpressionPipeline.open(
        settings.model,
        settings.backend,
        settings.detector,
        settings.calibration,
        **vars(config.pipeline),
    )
    warn(pipeline.detector.warning)
    return VideoPipeline(pipeline, config)


def _print_summary(summary: 'ConversionSummary', out: Path) -> None:
    click.echo(f'{out}: {summary.describe()}')
    for drop in summary.describe_drops():
        click.echo(f'Error: {drop}', err=True)
    for warning in sorted(summary.warnings):
        warn(warning)
    if summary.damage:
        click.echo(f'Error: {summary.damage}; the readable part is in {out}', err=True)
