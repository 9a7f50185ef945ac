# SPDX-License-Identifier: Apache-2.0
"""The page's server: who may open it, what it says, and that no browser delays it."""

import asyncio
import contextlib
import importlib.util
import itertools
import json
import re
import signal
import sys
import threading
import time
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import pytest
from aiohttp import web
from processes import Process

from dan_ros import labels, palette
from dan_ros.errors import DataError
from dan_ros.images import playback as playback_images
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import Frame
from dan_ros.video_parameters import Spec
from dan_ros.video_pipeline import VideoPipeline
from dan_ros.view import local, playback
from dan_ros.view import server as server_module
from dan_ros.view.access import Access
from dan_ros.view.board import (
    PICTURE_S,
    Board,
    SeenEvent,
    SeenFace,
    ViewStatus,
    parameter_json,
)
from dan_ros.view.local import SETTINGS, LocalSource
from dan_ros.view.server import MAX_CLIENTS, MAX_HZ, ViewServer

CAMERA = '/camera/image_raw'
PATIENCE_S = 20.0


class Source:
    """A source that records the requests of the page; setting the parameter `slow` takes time."""

    title, kind = '/dan_node', 'test'

    def __init__(self):
        self.requests = []

    def set_parameter(self, name, value):
        self.requests.append((name, value))
        if name == 'slow':
            time.sleep(0.3)
        if name == 'broken':
            raise ValueError('no')
        return '' if value else f'{name} cannot be {value!r}'

    def set_enabled(self, is_enabled):
        self.requests.append(is_enabled)
        return ''


def seen(face_id='f1', expression=1):
    probabilities = np.eye(8)[expression]
    return SeenFace(face_id, (10, 20, 30, 40), expression, 1.0, probabilities, 0.9, True, 0.8)


class Site:
    """A server on a free port, with its board and source."""

    def __init__(self, access):
        self.board, self.source = Board(), Source()
        self.server = ViewServer(self.board, self.source, access)
        self.encoded = 0

    def put(self, stamp, content=b'jpeg', faces=()):
        """Show a picture; return how long that takes, seconds."""

        def encode():
            self.encoded += 1
            return content

        start_s = time.perf_counter()
        self.board.add_frame(CAMERA, stamp, faces or [seen()])
        self.board.put_picture(CAMERA, stamp, (640, 480), encode)
        return time.perf_counter() - start_s

    async def connect(self, session, **options):
        options.setdefault('origin', self.url)
        return await session.ws_connect(f'{self.url}/socket', **options)


@contextlib.asynccontextmanager
async def site_of(access=None):
    site = Site(access or Access.create('127.0.0.1'))
    runner = web.AppRunner(site.server.app())
    await runner.setup()
    tcp = web.TCPSite(runner, '127.0.0.1', 0)
    await tcp.start()
    site.port = runner.addresses[0][1]
    site.url = f'http://127.0.0.1:{site.port}'
    async with aiohttp.ClientSession() as session:
        yield site, session
    start_s = time.monotonic()
    await runner.cleanup()
    assert time.monotonic() - start_s < 5


def run(test):
    """Run a test that takes a site and a session."""

    async def whole():
        async with site_of() as (site, session):
            await asyncio.wait_for(test(site, session), PATIENCE_S)

    asyncio.run(whole())


async def receive(socket, kind, ack=True):
    """Return the next message of a kind; show every state on the way."""
    while True:
        message = await socket.receive()
        if message.type == aiohttp.WSMsgType.BINARY:
            if kind == 'picture':
                return message.data
            continue
        assert message.type == aiohttp.WSMsgType.TEXT, message
        content = json.loads(message.data)
        if content['type'] == 'state' and ack:
            await socket.send_json({'type': 'shown'})
        if content['type'] == kind:
            return content


def wait_until(condition):
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.02)


# --- who may open the page ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ('host', 'allowed'),
    [
        ('localhost:8765', True),
        ('127.0.0.1', True),
        ('[::1]:1', True),
        ('evil.example:8765', False),
        ('127.0.0.1.evil.example', False),
        ('192.168.0.7:8765', False),
        ('localhost@evil.example', False),
        ('localhost:x', False),
        ('localhost:1; script-src *', False),
        ('', False),
    ],
)
def test_only_names_of_this_machine_are_served_on_loopback(host, allowed):
    """Otherwise a site that an attacker's DNS points to this machine could read the page."""
    assert (Access.create('127.0.0.1').problem_with_host(host) == '') is allowed


def test_another_host_gets_neither_page_nor_socket():
    async def test(site, session):
        for path in ('/', '/socket', '/elsewhere'):
            async with session.get(site.url + path, headers={'Host': 'evil.example'}) as answer:
                assert answer.status == 421
        async with session.get(f'{site.url}/../../etc/passwd') as answer:
            assert answer.status == 404
        async with session.post(site.url) as answer:
            assert answer.status == 405

    run(test)


@pytest.mark.parametrize(
    'origin', [None, 'null', 'https://evil.example', 'http://127.0.0.1:1', 'file://', 'http://']
)
def test_a_page_of_another_site_cannot_connect(origin):
    async def test(site, session):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await site.connect(session, origin=origin)
        assert caught.value.status == 403

    run(test)


def test_the_page_may_load_nothing_but_itself():
    async def test(site, session):
        async with session.get(site.url) as answer:
            policy, text = answer.headers['Content-Security-Policy'], await answer.text()
        assert "default-src 'none'" in policy
        assert "'unsafe" not in policy
        assert f'ws://127.0.0.1:{site.port}' in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers['Cache-Control'] == 'no-store'
        assert text.count('<script>') == text.count('<style>') == 1
        links = re.findall(r'(?:src|href)="([^"]*)"', text)
        assert all(link.startswith(('data:', '#')) for link in links), links
        assert not re.search(r'@import|url\(', text)

    run(test)


def test_a_network_address_needs_the_token():
    access = Access.create('0.0.0.0')
    assert len(access.token) >= 32
    assert access.token != Access.create('0.0.0.0').token
    assert not access.is_token(access.token[:-1])
    assert not access.is_token('é')

    async def whole():
        async with site_of(access) as (site, session):
            for query in ('', '?token=wrong', '?token=', '?token=%C3%A9'):
                async with session.get(f'{site.url}/{query}') as answer:
                    assert answer.status == 401
                    assert access.token not in await answer.text()
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await site.connect(session)
        async with site_of(access) as (site, _):
            jar = aiohttp.CookieJar(unsafe=True)  # accepts cookies of addresses
            async with aiohttp.ClientSession(cookie_jar=jar) as session:
                async with session.get(f'{site.url}/?token={access.token}') as answer:
                    assert answer.status == 200
                    assert str(answer.url) == f'{site.url}/'
                    (moved,) = answer.history
                    cookie = moved.headers['Set-Cookie']
                    assert 'HttpOnly' in cookie
                    assert 'SameSite=Strict' in cookie
                socket = await site.connect(session)
                assert (await receive(socket, 'hello'))['title'] == '/dan_node'

    asyncio.run(whole())


# --- what it says -------------------------------------------------------------------------------


def test_a_browser_sees_faces_events_status_parameters_and_pictures():
    async def test(site, session):
        spec = Spec('a.b', 0.3, 'Text.', 'seconds', (0, 1))
        site.board.set_parameters([parameter_json(spec, 0.5)])
        site.board.set_status(ViewStatus(0, 'active', {'fps': '9.0'}))
        site.board.add_event(SeenEvent(0, CAMERA, 'f1', labels.UNKNOWN, labels.UNKNOWN, 0.0))
        socket = await site.connect(session)
        hello = await receive(socket, 'hello')
        assert hello['labels'] == list(labels.CANONICAL)
        assert len(set(hello['colors'])) == len(labels.CANONICAL)
        site.put(7, b'\xff\xd8 picture')
        picture = await receive(socket, 'picture')
        length = int.from_bytes(picture[:4], 'big')
        header = json.loads(picture[4 : 4 + length])
        assert picture[4 + length :] == b'\xff\xd8 picture'
        assert (header['camera'], header['size']) == (CAMERA, [640, 480])
        assert [face['id'] for face in header['faces']] == ['f1']
        socket = await site.connect(session)
        state = await receive(socket, 'state')
        assert state['status']['values'] == {'fps': '9.0'}
        assert state['parameters'][0]['unit'] == 'seconds'
        assert [event['kind'] for event in state['events']] == [0]
        assert state['faces'][CAMERA][0]['box'] == [10, 20, 30, 40]
        assert state['samples'][0][1:] == ['f1', 1, *(1000 * np.eye(8)[1]).astype(int).tolist()]
        site.board.change_parameter('a.b', 0.75)
        site.board.change_parameter('unknown', 1)
        while 'parameters' not in (state := await receive(socket, 'state')):
            assert 'status' not in state
            assert state['samples'] == state['events'] == []
        assert [p['value'] for p in state['parameters']] == [0.75]

    run(test)


def test_requests_are_answered_and_refusals_have_a_reason():
    async def test(site, session):
        socket = await site.connect(session)
        for number, (request, reason) in enumerate(
            [
                ({'type': 'set', 'name': 'x', 'value': 1}, ''),
                ({'type': 'set', 'name': 'x', 'value': 0}, 'x cannot be 0'),
                ({'type': 'set', 'name': 'broken', 'value': 1}, 'ValueError: no'),
                ({'type': 'enable', 'value': False}, ''),
            ]
        ):
            await socket.send_json({**request, 'id': number})
            answer = await receive(socket, 'answer')
            assert (answer['id'], answer['reason']) == (number, reason)
        assert site.source.requests == [('x', 1), ('x', 0), ('broken', 1), False]
        for number in range(6):
            request = {'type': 'set', 'name': 'slow', 'value': 1, 'id': number}
            await socket.send_json(request)
        answers = [await receive(socket, 'answer') for _ in range(6)]
        refused = {answer['id']: answer['reason'] for answer in answers if answer['reason']}
        assert refused == dict.fromkeys((4, 5), '4 requests are being answered; wait for one')

    run(test)


@pytest.mark.parametrize(
    'garbage',
    [
        '',
        '{',
        'null',
        '[]',
        '[' * 10_000,
        '{"type": "set", "id": 1, "name": 5, "value": 1}',
        '{"type": "set", "id": 1, "name": "x", "value": {}}',
        '{"type": "visible", "value": "yes"}',
        '{"type": ["shown"]}',
        b'\x00\xff',
    ],
)
def test_garbage_gets_an_error_then_the_end(garbage):
    async def test(site, session):
        socket = await site.connect(session)
        send = socket.send_bytes if isinstance(garbage, bytes) else socket.send_str
        await send(garbage)
        assert (await receive(socket, 'error'))['reason']
        for _ in range(server_module.MAX_BAD_MESSAGES):
            await send(garbage)
        while (message := await socket.receive()).type != aiohttp.WSMsgType.CLOSE:
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
        assert message.data == aiohttp.WSCloseCode.POLICY_VIOLATION
        other = await site.connect(session)  # nobody else notices
        assert await receive(other, 'hello')
        assert site.source.requests == []

    run(test)


def test_a_huge_message_ends_the_connection():
    async def test(site, session):
        socket = await site.connect(session)
        await socket.send_str('x' * 100_000)
        while not socket.closed:
            await socket.receive()
        assert socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG

    run(test)


# --- browsers that are slow, many, hidden, or gone -----------------------------------------------


def test_slow_and_leaving_browsers_delay_nobody():
    """Ten browsers show nothing and one disconnects; each picture has 200 kB."""

    async def test(site, session):
        slow = [await site.connect(session) for _ in range(10)]
        leaving = await site.connect(session)
        fast = await site.connect(session)
        await receive(fast, 'hello')
        leaving._response.connection.transport.abort()
        stop, puts_s = threading.Event(), []

        def feed():
            while not stop.wait(0.01):
                puts_s.append(site.put(len(puts_s), bytes(200_000)))

        feeding = threading.Thread(target=feed)
        feeding.start()
        start_s = time.monotonic()
        for _ in range(15):
            await receive(fast, 'picture')
        seconds = time.monotonic() - start_s
        stop.set()
        feeding.join()
        assert seconds < 3 * 15 / MAX_HZ
        assert site.encoded <= (time.monotonic() - start_s) * MAX_HZ + 3  # once for all
        assert np.median(puts_s) < 0.001  # time that the source needs, seconds
        for socket in slow:
            pictures = 0
            with contextlib.suppress(asyncio.TimeoutError):
                while True:
                    message = await socket.receive(timeout=0.05)
                    pictures += message.type == aiohttp.WSMsgType.BINARY
            assert pictures <= server_module.MAX_UNSHOWN

    run(test)


def test_a_fast_browser_gets_no_more_states_than_others():
    async def test(site, session):
        socket = await site.connect(session)
        await receive(socket, 'state')
        start_s, states = time.monotonic(), 0
        while time.monotonic() - start_s < 1:
            await receive(socket, 'state')
            states += 1
        assert 2 <= states <= MAX_HZ * (time.monotonic() - start_s) + 2

    run(test)


def test_nothing_is_encoded_while_nobody_looks(monkeypatch):
    async def test(site, session):
        site.put(0)
        await asyncio.sleep(0.2)
        assert not site.board.is_watched
        socket = await site.connect(session)
        await receive(socket, 'picture')
        assert site.board.is_watched
        await socket.send_json({'type': 'visible', 'value': False})
        await until(lambda: not site.board.is_watched)
        before = site.encoded
        site.put(1)
        await asyncio.sleep(0.2)
        assert site.encoded == before == 1
        await socket.send_json({'type': 'visible', 'value': True})
        assert await receive(socket, 'hello')
        monkeypatch.setattr(server_module, 'SILENT_S', 0.3)
        await until(lambda: not site.board.is_watched)  # the browser confirms no state: idle
        await socket.close()

    run(test)


def test_a_picture_that_cannot_be_encoded_is_told_beside_other_notices_until_the_next_one():
    async def test(site, session):
        def fail():
            raise ValueError('no memory')

        socket = await site.connect(session)
        site.board.add_frame(CAMERA, 1, [seen()])
        site.board.put_picture(CAMERA, 1, (640, 480), fail)
        site.board.set_notice('consent', 'ask')
        notices = []
        while set(notices) != {'a picture cannot be shown: no memory', 'ask'}:
            notices = (await receive(socket, 'state'))['notice'].split('\n')
        site.put(2, b'good')
        assert (await receive(socket, 'picture')).endswith(b'good')
        while notices != ['ask']:
            notices = (await receive(socket, 'state'))['notice'].split('\n')

    run(test)


def test_a_page_too_many_is_refused():
    async def test(site, session):
        sockets = [await site.connect(session) for _ in range(MAX_CLIENTS)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await site.connect(session)
        assert caught.value.status == 503
        await sockets.pop().close()
        assert await receive(await site.connect(session), 'hello')

    run(test)


# --- the board ----------------------------------------------------------------------------------


def test_a_picture_may_arrive_before_its_faces():
    board = Board()
    board.put_picture(CAMERA, 1, (4, 4), bytes)
    board.add_frame(CAMERA, 1, [seen('f1')])
    board.add_frame(CAMERA, 2, [seen('f2')])
    (picture,) = board.pictures()
    assert [face.face_id for face in picture.faces] == ['f1']


def test_a_face_that_left_and_old_faces_and_pictures_are_forgotten(monkeypatch):
    board = Board()
    board.add_event(SeenEvent(SeenEvent.LEFT, CAMERA, 'f0', 1, 1, 2.0))
    board.add_frame(CAMERA, 1, [seen('f1'), seen('f2')])
    board.put_picture(CAMERA, 1, (4, 4), bytes)
    assert len(board.changes()[1]['samples']) == 2
    board.add_event(SeenEvent(SeenEvent.LEFT, CAMERA, 'f1', 1, 1, 2.0))
    state = board.changes()[1]
    assert [sample[1] for sample in state['samples']] == ['f2']
    assert [face['id'] for face in state['faces'][CAMERA]] == ['f2']
    assert len(board.pictures()) == 1
    start_s = time.monotonic()
    monkeypatch.setattr(time, 'monotonic', lambda: start_s + PICTURE_S + 0.1)
    assert board.pictures() == []
    assert board.changes()[1]['faces'] == {}  # without an event: the camera is silent
    monkeypatch.setattr(time, 'monotonic', lambda: start_s + 31)
    assert board.changes()[1]['samples'] == []
    board.add_frame(CAMERA, 2, [seen()])
    board.clear()
    assert board.changes()[1]['faces'] == {}


# --- without ROS --------------------------------------------------------------------------------


def test_pictures_are_shown_without_ros_and_settings_change_them(pipeline, portrait):
    board = Board()
    board.is_watched = True
    pictures = []

    def images():
        while True:
            time.sleep(0.02)
            yield 'camera', Frame(portrait)

    own = ExpressionPipeline(pipeline.detector, pipeline.backend)
    source = LocalSource('portrait.png', images(), VideoPipeline(own), board)
    source.start()
    seen = 0

    def wait_for(condition):
        nonlocal seen
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            seen, state = board.changes(seen)
            pictures[:] = board.pictures()
            if condition(state):
                return state
            time.sleep(0.02)
        raise AssertionError(state)

    def label_is(expression):
        return lambda state: any(
            face['expression'] == expression for face in state['faces'].get('camera', [])
        )

    def faces_in_the_picture():
        content = np.frombuffer(pictures[0].encode(), np.uint8)
        return len(pipeline.find_faces(Frame(cv2.imdecode(content, cv2.IMREAD_COLOR))))

    try:
        first = board.changes()[1]
        assert {p['name'] for p in first['parameters']} == set(SETTINGS)
        wait_for(label_is(1))
        wait_for(lambda state: state.get('status', {}).get('values', {}).get('fps', '0.0') != '0.0')
        wait_for(lambda _: pictures)
        for _ in range(2):  # no image between two statuses, as from a slow camera
            source._show_status()
        assert board.changes()[1]['status']['message'] == 'active'
        assert faces_in_the_picture() == 1
        reason = source.set_parameter('expression.min_confidence', 2)
        assert 'cannot be 2: it must be a number from 0 to 1' in reason
        assert source.set_parameter('no.such', 1) == "unknown parameter 'no.such'"
        assert source.set_parameter('privacy.blur', True) == ''
        wait_for(lambda _: pictures and faces_in_the_picture() == 0)
        assert source.set_parameter('expression.min_confidence', 1.0) == ''
        wait_for(label_is(labels.UNKNOWN))
        assert source.set_enabled(False) == ''
        wait_for(lambda state: not state['faces'] and not pictures)
    finally:
        source.close()


@pytest.mark.parametrize('end', ['silent', 'over', 'broken', 'paused', 'backend'])
def test_faces_leave_when_no_more_images_are_shown(end, pipeline, portrait, monkeypatch):
    """No face may stay on the page as if it were in view, whatever ended the images."""
    monkeypatch.setattr(local, 'SILENT_S', 0.3)
    monkeypatch.setattr(local, 'STATUS_S', 0.1)
    board, is_seen = Board(), threading.Event()

    def images():
        while not is_seen.is_set() or end == 'backend':
            time.sleep(0.02)
            yield 'camera', Frame(portrait)
        if end == 'broken':
            raise DataError('unplugged')
        while end != 'over':
            time.sleep(0.02)
            yield 'camera', Frame(portrait) if end == 'paused' else None

    video = VideoPipeline(ExpressionPipeline(pipeline.detector, pipeline.backend))
    source = LocalSource('portrait.png', images(), video, board)
    source.start()
    try:
        wait_until(lambda: board.changes()[1]['events'])  # the face is shown before its event
        is_seen.set()
        if end == 'paused':
            source.set_enabled(False)
        if end == 'backend':
            video.run = None
        wait_until(lambda: board.changes()[1]['events'][-1]['kind'] == SeenEvent.LEFT)
        state = board.changes()[1]
        assert not state['faces'].get('camera')
        assert state['samples'] == []
    finally:
        source.close()


def test_a_pause_during_an_image_leaves_no_picture(pipeline, portrait, monkeypatch):
    board, is_shown = Board(), threading.Event()
    board.is_watched = True

    def images():
        while True:
            time.sleep(0.02)
            yield 'camera', Frame(portrait)

    def seen_face_later(*arguments):
        is_shown.set()
        time.sleep(0.2)
        return seen_face(*arguments)

    seen_face = local.seen_face
    monkeypatch.setattr(local, 'seen_face', seen_face_later)
    video = VideoPipeline(ExpressionPipeline(pipeline.detector, pipeline.backend))
    source = LocalSource('photo.png', images(), video, board)
    source.start()
    try:
        assert is_shown.wait(PATIENCE_S)
        source.set_enabled(False)
        wait_until(lambda: SeenEvent.LEFT in [e['kind'] for e in board.changes()[1]['events']])
        assert board.pictures() == []
        assert not board.changes()[1]['faces'].get('camera')
    finally:
        source.close()


@pytest.mark.parametrize('is_live', [True, False])
def test_a_camera_sets_the_pace_itself_and_a_video_is_played_at_its_rate(portrait, is_live):
    rate_hz = 0.1 if is_live else 5.0
    images = playback_images.Source(iter([portrait, None, portrait]), rate_hz, is_live)
    start_s = time.monotonic()
    shown = list(playback.play_source(images, 'eye'))
    assert [camera for camera, _ in shown] == ['eye'] * 3
    assert [frame is not None for _, frame in shown] == [True, False, True]
    seconds = time.monotonic() - start_s
    assert playback.RETRY_S <= seconds < 9 if is_live else seconds >= 2 / rate_hz


def test_a_bag_is_played_at_its_pace_again_and_again(smile, nobody, tmp_path):
    from recording import record_images

    from dan_ros.bag.reader import Bag

    path = record_images(tmp_path / 'bag', [smile, nobody])
    assert playback.is_bag(str(path))
    assert not any(map(playback.is_bag, ('0', 'rtsp://camera/1', 'video.mp4', str(tmp_path))))
    bag = Bag(path)
    images = playback.play_bag(bag, list(bag.topics.values()))
    start_s = time.monotonic()
    shown = list(itertools.islice(images, 4))
    assert time.monotonic() - start_s >= 0.2  # twice the 0.1 s between two images
    for (camera, frame), expected in zip(shown, [smile, nobody] * 2, strict=True):
        assert camera == CAMERA
        np.testing.assert_array_equal(frame.image, expected)


def test_a_bag_of_one_image_does_not_keep_the_processor_busy(smile, tmp_path):
    from recording import record_images

    from dan_ros.bag.reader import Bag

    bag = Bag(record_images(tmp_path / 'bag', [smile]))
    start_s = time.monotonic()
    list(itertools.islice(playback.play_bag(bag, list(bag.topics.values())), 4))
    assert time.monotonic() - start_s >= 3 * playback.REPLAY_S


def test_a_bag_without_a_valid_image_says_why(smile, tmp_path):
    from recording import IMAGE, START_NS, raw, record

    from dan_ros.bag.reader import Bag

    message = CAMERA, IMAGE, START_NS, raw(smile, START_NS, 'foo8')
    bag = Bag(record(tmp_path / 'bag', [message]))
    with pytest.raises(DataError, match='no image that can be read: .*foo8'):
        list(playback.play_bag(bag, list(bag.topics.values())))


# --- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize('host', ['192.0.2.1', 'no host'])  # 192.0.2.1 belongs to nobody
def test_a_host_that_cannot_be_served_is_named(run, portrait_file, host):
    result = run('view', portrait_file, '--host', host)
    assert result.exit_code == 1
    assert f'cannot listen on {host} port 8765' in result.stderr
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize(
    ('arguments', 'exit_code', 'words'),
    [
        (('0', '--node', '/dan_node'), 2, 'either a SOURCE or --node'),
        *[
            (option, 2, 'need a SOURCE')
            for option in (
                ('--blur',),
                ('--topic', '/image'),
                ('--model', 'mine.onnx'),
                ('--backend', 'auto'),
                ('--detector', 'haar'),
            )
        ],
        (('no/such.mp4',), 1, 'there is no file or folder no/such.mp4'),
        (('no/such.mcap',), 1, 'there is no bag at no/such.mcap'),
        (('--port', '70000'), 2, '65535'),
    ],
)
def test_a_wrong_command_says_what_to_do(run, arguments, exit_code, words):
    result = run('view', *arguments)
    assert result.exit_code == exit_code
    assert words in result.stderr
    assert 'Traceback' not in result.stderr


def test_a_missing_package_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, 'aiohttp', None)
    assert '`pip install aiohttp`' in run('view', '0').stderr


def test_without_ros_the_command_names_the_other_sources(run, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert 'dan-ros view 0' in run('view').stderr


def test_the_command_serves_until_a_signal(portrait_file, tmp_path):
    command = [sys.executable, '-m', 'dan_ros.cli.main', 'view', portrait_file, '--port', '0']
    process = Process(command, tmp_path / 'log')
    process.wait_for_output('portrait.png: http://127.0.0.1:')
    url = process.output.split()[-1]

    async def first_face():
        async with aiohttp.ClientSession() as session:
            socket = await session.ws_connect(f'{url}socket', origin=url.rstrip('/'))
            while True:
                faces = (await receive(socket, 'state'))['faces'].get('camera')
                if faces and faces[0]['expression'] == 1:
                    return

    asyncio.run(asyncio.wait_for(first_face(), PATIENCE_S))
    port = url.rstrip('/').rpartition(':')[2]
    second = Process([*command[:-1], port], tmp_path / 'second')
    assert second.wait() == 1
    assert f'cannot listen on 127.0.0.1 port {port}' in second.output
    assert 'Traceback' not in second.output
    assert process.stop(signal.SIGTERM) == 130
    assert process.output.endswith('Stopped\n')


def test_the_page_has_the_colors_of_all_pictures():
    page = server_module.PAGE.read_text()
    for theme in (palette.LIGHT, palette.DARK):
        assert [color for color in vars(theme).values() if color not in page] == []


def test_all_pages_are_part_of_every_installation():
    root = Path(__file__).parents[2]
    pages = list((root / 'dan_ros').rglob('*.html'))
    assert server_module.PAGE in pages
    for page in pages:
        package = '.'.join(page.parent.relative_to(root).parts)
        assert f'"{package}" = ["{page.name}"]' in (root / 'pyproject.toml').read_text()
