# SPDX-License-Identifier: Apache-2.0
"""The web server: one page and one WebSocket.

Each browser gets the newest state when it has shown the last one. So a slow browser skips pictures
and delays no other browser, and memory per browser is bounded. A picture is encoded only once for
all browsers.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from dan_ros import labels, palette
from dan_ros.view.access import Access, split_host
from dan_ros.view.board import HISTORY_S, PICTURE_S, Board, Picture

MAX_HZ = 12.0  # states and pictures per second and browser
MAX_UNSHOWN = 2  # states sent to a browser and not confirmed yet
SILENT_S = 10.0  # time after which a browser that confirms no state counts as idle, seconds
MAX_CLIENTS = 32
MAX_REQUESTS = 4  # unanswered requests of one browser
MAX_BAD_MESSAGES = 10  # invalid messages after which a connection is closed
MAX_MESSAGE_BYTES = 16_384
CLOSE_S = 2.0  # longest wait for browsers at shutdown, seconds
HEARTBEAT_S = 10.0  # interval of the pings that detect lost browsers, seconds
PAGE = Path(__file__).with_name('page.html')
HEADERS = {
    'Cache-Control': 'no-store',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Permissions-Policy': 'camera=(), microphone=(), geolocation=()',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
}


class ViewSource(Protocol):
    """Source of the board's content. Methods may block and are called by other threads."""

    title: str  # name of the source, such as /dan_node
    kind: str  # kind of the source, such as ROS node

    def set_parameter(self, name: str, value: Any) -> str:
        """Change a parameter; return why it is refused, or ''."""

    def set_enabled(self, is_enabled: bool) -> str:
        """Pause or resume; return why it is refused, or ''."""


class BadMessageError(Exception):
    """A message of a browser is invalid."""


@dataclass(eq=False)
class _Client:
    """One browser."""

    socket: web.WebSocketResponse  # its WebSocket
    # Set when there may be something to send.
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    seen: int | None = None  # number of the last board state it has; None before the first
    # Number of the last picture sent per camera.
    shown: dict[str, int] = field(default_factory=dict)
    is_due: bool = False  # whether a state is to be sent as soon as it can be shown
    unshown: int = 0  # number of states sent and not confirmed
    is_visible: bool = True  # whether its page is in view
    # When it showed the last state, monotonic, seconds.
    heard_s: float = field(default_factory=time.monotonic)
    # Requests that are being answered.
    requests: set['asyncio.Task[None]'] = field(default_factory=set)

    @property
    def is_watching(self) -> bool:
        """Whether the browser shows the page now."""
        return self.is_visible and time.monotonic() - self.heard_s < SILENT_S


class ViewServer:
    """Serves a board as the page of one source, which answers the page's requests."""

    def __init__(self, board: Board, source: ViewSource, access: Access) -> None:
        self._board, self._source, self._access = board, source, access
        self._clients: set[_Client] = set()
        self._encoded: dict[str, tuple[int, bytes]] = {}  # number and message by camera
        self._states: dict[int, tuple[int, str]] = {}  # new states, by the state before
        self._encoder = ThreadPoolExecutor(1, 'jpeg')
        self._page = PAGE.read_bytes()
        self._cookie = f'dan_view_{hashlib.sha256(access.token.encode()).hexdigest()[:8]}'

    def app(self) -> web.Application:
        """Return the application for aiohttp."""
        app = web.Application(middlewares=[self._check])
        app.router.add_get('/', self._get_page)
        app.router.add_get('/socket', self._get_socket)
        app.cleanup_ctx.append(self._run)
        app.on_shutdown.append(self._close)
        return app

    # --- requests ---

    @web.middleware
    async def _check(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if problem := self._access.problem_with_host(request.host):
            return _refuse(web.HTTPMisdirectedRequest.status_code, problem)
        if self._access.token and request.path == '/' and 'token' in request.query:
            return self._welcome(request.query['token'])
        if self._access.token and not self._access.is_token(request.cookies.get(self._cookie, '')):
            return _refuse(401, 'open the address with the token that dan-ros view printed')
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _refuse(error.status, error.reason)

    def _welcome(self, token: str) -> web.StreamResponse:
        """Move a valid token from the address to a cookie, to keep it out of the history."""
        if not self._access.is_token(token):
            return _refuse(401, 'the token is wrong; open the address that dan-ros view printed')
        response = web.Response(status=303, headers={**HEADERS, 'Location': '/'})
        response.set_cookie(self._cookie, token, httponly=True, samesite='Strict', path='/')
        return response

    async def _get_page(self, request: web.Request) -> web.Response:
        policy = content_security_policy(self._page.decode(), request.host)
        return web.Response(
            body=self._page,
            content_type='text/html',
            charset='utf-8',
            headers={**HEADERS, 'Content-Security-Policy': policy},
        )

    async def _get_socket(self, request: web.Request) -> web.StreamResponse:
        origin = request.headers.get('Origin')
        if problem := self._access.problem_with_origin(origin, request.host):
            return _refuse(403, problem)
        if len(self._clients) >= MAX_CLIENTS:
            return _refuse(503, f'{MAX_CLIENTS} pages are open already; close one')
        # JPEG cannot be compressed further, and deflating blocks the loop.
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, compress=False
        )
        await socket.prepare(request)
        client = _Client(socket)
        self._clients.add(client)
        sender = asyncio.create_task(self._send(client))
        try:
            await self._receive(client)
        finally:
            self._clients.discard(client)
            for task in (sender, *client.requests):
                task.cancel()
        return socket

    # --- from the browser ---

    async def _receive(self, client: _Client) -> None:
        bad = 0
        async for message in client.socket:
            try:
                if message.type != WSMsgType.TEXT:
                    raise BadMessageError('a message must be text')
                await self._handle(client, parse_message(message.data))
            except BadMessageError as error:
                bad += 1
                if bad > MAX_BAD_MESSAGES:
                    await client.socket.close(code=WSCloseCode.POLICY_VIOLATION)
                    return
                await client.socket.send_json({'type': 'error', 'reason': str(error)})

    async def _handle(self, client: _Client, message: dict[str, Any]) -> None:
        kind = message['type']
        if kind == 'shown':
            client.unshown = max(0, client.unshown - 1)
            client.heard_s = time.monotonic()
            client.wake.set()
        elif kind == 'visible':
            client.is_visible = message['value']
            client.seen, client.unshown, client.heard_s = None, 0, time.monotonic()
        elif len(client.requests) >= MAX_REQUESTS:
            reason = f'{MAX_REQUESTS} requests are being answered; wait for one'
            await _send_answer(client, message['id'], reason)
        else:
            task = asyncio.create_task(self._answer(client, message))
            client.requests.add(task)
            task.add_done_callback(client.requests.discard)

    async def _answer(self, client: _Client, message: dict[str, Any]) -> None:
        source, value = self._source, message['value']
        try:
            if message['type'] == 'set':
                reason = await asyncio.to_thread(source.set_parameter, message['name'], value)
            else:
                reason = await asyncio.to_thread(source.set_enabled, value)
        except Exception as error:  # the page must be informed
            reason = f'{type(error).__name__}: {error}'
        await _send_answer(client, message['id'], reason)

    # --- to the browser ---

    async def _run(self, app: web.Application) -> Any:
        """Encode and wake while the application runs."""
        ticker = asyncio.create_task(self._tick())
        yield
        ticker.cancel()
        self._encoder.shutdown(wait=False)

    async def _close(self, app: web.Application) -> None:
        """Close the WebSockets before aiohttp waits for them."""
        closing = (client.socket.close(code=WSCloseCode.GOING_AWAY) for client in self._clients)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), CLOSE_S)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1 / MAX_HZ)
            self._board.is_watched = any(client.is_watching for client in self._clients)
            if not self._board.is_watched:
                self._encoded = {}
                continue
            problem = ''
            try:
                await self._encode()
            except Exception as error:  # the next picture may be valid
                problem = f'a picture cannot be shown: {error}'
            self._board.set_notice('pictures', problem)
            self._states.clear()
            for client in self._clients:
                client.is_due = True
                client.wake.set()

    async def _encode(self) -> None:
        """Encode each new picture once, in another thread."""
        pictures = self._board.pictures()
        cameras = {picture.camera for picture in pictures}
        self._encoded = {c: value for c, value in self._encoded.items() if c in cameras}
        for picture in pictures:
            if self._encoded.get(picture.camera, (0,))[0] != picture.number:
                loop = asyncio.get_running_loop()
                jpeg = await loop.run_in_executor(self._encoder, picture.encode)
                self._encoded[picture.camera] = (picture.number, picture_message(picture, jpeg))

    async def _send(self, client: _Client) -> None:
        while not client.socket.closed:
            await client.wake.wait()
            client.wake.clear()
            if client.is_due and client.is_visible and client.unshown < MAX_UNSHOWN:
                client.is_due = False
                client.unshown += 1
                if not await self._send_state(client):
                    return

    async def _send_state(self, client: _Client) -> bool:
        """Send what is new; return whether the browser is still there."""
        if client.seen is None:
            client.seen, client.shown = 0, {}
            if not await _send_quietly(client, json.dumps(self._greeting())):
                return False
        for camera, (number, message) in list(self._encoded.items()):
            if client.shown.get(camera) != number:
                client.shown[camera] = number
                if not await _send_quietly(client, message):
                    return False
        if client.seen is None:  # the page was hidden in the meantime
            return True
        client.seen, text = self._state_since(client.seen)
        return await _send_quietly(client, text)

    def _state_since(self, seen: int) -> tuple[int, str]:
        """Return the new state, encoded once for all browsers with the same previous state."""
        if seen not in self._states:
            count, state = self._board.changes(seen)
            self._states[seen] = count, json.dumps({'type': 'state', **state})
        return self._states[seen]

    def _greeting(self) -> dict[str, Any]:
        return {
            'type': 'hello',
            'title': self._source.title,
            'kind': self._source.kind,
            'labels': labels.CANONICAL,
            'unknown': labels.UNKNOWN,
            'colors': palette.EXPRESSIONS,
            'unknown_color': palette.UNKNOWN,
            'inks': [palette.ink_on(color) for color in palette.EXPRESSIONS],
            'unknown_ink': palette.ink_on(palette.UNKNOWN),
            'history_ms': HISTORY_S * 1000,
            'picture_ms': PICTURE_S * 1000,
        }


def parse_message(text: str) -> dict[str, Any]:
    """Parse a message of the page.

    Raises:
        BadMessageError: it is invalid.

    >>> parse_message('{"type": "visible", "value": true}')
    {'type': 'visible', 'value': True}
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessageError('a message must be JSON') from None
    match message:
        case {'type': 'shown'}:
            return {'type': 'shown'}
        case {'type': 'visible', 'value': bool(value)}:
            return {'type': 'visible', 'value': value}
        case {'type': 'enable', 'id': int(number), 'value': bool(value)}:
            return {'type': 'enable', 'id': number, 'value': value}
        case {
            'type': 'set',
            'id': int(number),
            'name': str(name),
            'value': bool() | int() | float() | str() as value,
        }:
            return {'type': 'set', 'id': number, 'name': name, 'value': value}
    raise BadMessageError('unknown message; reload the page')


def picture_message(picture: Picture, jpeg: bytes) -> bytes:
    """Return a binary message: length of the header, 4 bytes big endian, header in JSON, JPEG."""
    faces = [face.to_json() for face in picture.faces]
    header = json.dumps({'camera': picture.camera, 'size': picture.size, 'faces': faces}).encode()
    return len(header).to_bytes(4, 'big') + header + jpeg


def content_security_policy(page: str, host: str) -> str:
    """Return a policy that allows the page's own script, style and WebSocket, and nothing else."""
    hashes = {
        kind: ' '.join(_hash(text) for text in re.findall(rf'<{kind}>(.*?)</{kind}>', page, re.S))
        for kind in ('script', 'style')
    }
    name, port = split_host(host) or ('localhost', None)
    place = (f'[{name}]' if ':' in name else name) + (f':{port}' if port else '')
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        f"img-src data: blob:; connect-src ws://{place} wss://{place}; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _refuse(status: int, reason: str) -> web.Response:
    return web.Response(status=status, text=f'{reason}\n', headers=HEADERS)


async def _send_answer(client: _Client, number: int, reason: str) -> None:
    """Answer a request; `reason` is why it is refused, or ''."""
    await _send_quietly(client, json.dumps({'type': 'answer', 'id': number, 'reason': reason}))


async def _send_quietly(client: _Client, message: str | bytes) -> bool:
    """Send a message; return whether the browser is still there."""
    try:
        if isinstance(message, str):
            await client.socket.send_str(message)
        else:
            await client.socket.send_bytes(message)
    except (ConnectionError, RuntimeError):  # RuntimeError: the connection is closing
        return False
    return True
