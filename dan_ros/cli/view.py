# SPDX-License-Identifier: Apache-2.0
"""`dan-ros view`: a local web page that shows a node, a camera, a video, pictures or a bag."""

import asyncio
import importlib.util
import socket
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dan_ros.cli.common import need, pipeline_options, warn
from dan_ros.errors import DanError

if TYPE_CHECKING:
    from dan_ros.pipeline import ExpressionPipeline
    from dan_ros.view.board import Board
    from dan_ros.view.playback import TimedImages

DEFAULT_NODE = '/dan_node'
PORT = 8765


@click.command('view')
@click.argument('source', required=False)
@click.option('--node', metavar='NAME', help=f'Node to show; default: {DEFAULT_NODE}.')
@click.option(
    '--host',
    default='127.0.0.1',
    show_default=True,
    help='Address to listen on. By default, only this machine can open the page. With 0.0.0.0, '
    'other machines can open it with the token that is printed.',
)
@click.option(
    '--port', default=PORT, show_default=True, type=click.IntRange(0, 65535), help='0: any.'
)
@click.option('--open/--no-open', 'opens', default=False, help='Open the page in a browser.')
@click.option('--blur', is_flag=True, help='Hide the faces.')
@click.option(
    '--topic', 'topics', multiple=True, metavar='NAME', help='Image topic of a bag; repeatable.'
)
@pipeline_options
def command(
    source: str | None,
    node: str | None,
    host: str,
    port: int,
    opens: bool,
    blur: bool,
    topics: tuple[str, ...],
    model: str,
    backend: str,
    detector: str,
) -> None:
    """Show faces, expressions, events and settings on a local web page until Ctrl-C.

    Without SOURCE, the page shows a running node. SOURCE is the number of a camera, the URL of a
    stream, or the path of a video, a picture, a folder of pictures or a bag; it needs no ROS. The
    options --blur, --topic, --model, --backend and --detector are for a SOURCE.

    The page does not show faces that the node hides or does not publish.
    """
    if source is not None and node is not None:
        raise click.UsageError('give either a SOURCE or --node')
    context = click.get_current_context()
    if source is None and any(
        context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        for name in ('blur', 'topics', 'model', 'backend', 'detector')
    ):
        raise click.UsageError(
            '--blur, --topic, --model, --backend and --detector need a SOURCE; '
            'for a node, set its parameters, such as privacy.blur'
        )
    need('aiohttp')
    from dan_ros.view.board import Board

    board = Board()
    shown: Any
    if source is None:
        shown = _open_node(node or DEFAULT_NODE, board)
    else:
        from dan_ros.pipeline import ExpressionPipeline

        images = _open_images(source, topics)
        pipeline = ExpressionPipeline.open(model, backend, detector)
        shown = _show_images(source, images, pipeline, blur, board)
    try:
        asyncio.run(_serve(board, shown, host, port, opens))
    finally:
        shown.close()


def _open_node(name: str, board: 'Board') -> Any:
    if importlib.util.find_spec('rclpy') is None:
        raise DanError(
            'showing a node needs ROS: source its setup.bash, or give a camera, '
            'a video, a folder or a bag, such as `dan-ros view 0`'
        )
    from dan_ros.ros.view_source import NodeSource

    return NodeSource(name, board)


def _show_images(
    source: str, images: 'TimedImages', pipeline: 'ExpressionPipeline', blur: bool, board: 'Board'
) -> Any:
    from dan_ros.video_pipeline import VideoConfig, VideoPipeline
    from dan_ros.view.local import LocalSource

    title = f'camera {source}' if source.isdecimal() else Path(source).name or source
    return LocalSource(title, images, VideoPipeline(pipeline, VideoConfig(blur=blur)), board)


def _open_images(source: str, topics: tuple[str, ...]) -> 'TimedImages':
    from dan_ros.view import playback

    if playback.is_bag(source):
        need('rosbags', 'yaml', 'mcap')
        from dan_ros.bag.cameras import choose_image_topics
        from dan_ros.bag.reader import Bag

        bag = Bag(Path(source))
        warn(bag.warning)
        return playback.play_bag(bag, choose_image_topics(bag, topics).topics)
    if topics:
        raise click.UsageError('--topic needs a bag')
    from dan_ros.images.playback import open_source

    return playback.play_source(open_source(source, warn=warn), 'camera')


async def _serve(board: 'Board', source: Any, host: str, port: int, opens: bool) -> None:
    from aiohttp import web

    from dan_ros.view.access import Access
    from dan_ros.view.server import ViewServer

    access = Access.create(host)
    runner = web.AppRunner(ViewServer(board, source, access).app(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise DanError(
                f'cannot listen on {host} port {port}: {error.strerror or error}; choose another '
                '--port or --host'
            ) from None
        url = _url(host, runner.addresses[0][1], access.token)
        click.echo(f'{source.title}: {url}')
        if opens:
            webbrowser.open(url)
        source.start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _url(host: str, port: int, token: str) -> str:
    shown = socket.gethostname() if host in ('', '0.0.0.0', '::') else host  # noqa: S104
    place = f'[{shown}]' if ':' in shown else shown
    return f'http://{place}:{port}/' + (f'?token={token}' if token else '')
