# SPDX-License-Identifier: Apache-2.0
"""The page of `dan-ros view` in Chromium: with the real node and a camera, and a slow source."""

import asyncio
import re
import shutil
import signal
import socket
import sys
import threading

import pytest
from aiohttp import web
from playwright.sync_api import expect, sync_playwright
from processes import Process
from robot import Program

from dan_ros.video_parameters import Spec
from dan_ros.view.access import Access
from dan_ros.view.board import Board, parameter_json
from dan_ros.view.server import ViewServer

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'google-chrome'))), None)
ARGUMENTS = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-sync',
    '--disable-background-networking',
    '--disable-component-update',
]
PATIENCE_MS = 60_000  # timeout of each wait, long enough for a loaded machine
WIDE, PHONE, NARROW = ((1440, 900), (390, 844), (320, 640))
TOPIC = '/camera/image_raw'
SIZES = [WIDE, PHONE, NARROW]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed')

# For each visible text: its contrast with what is behind it, if that is below WCAG 2.1 AA.
LOW_CONTRAST = """() => {
  const pen = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const over = (color, below) => {
    pen.fillStyle = below; pen.fillRect(0, 0, 1, 1);
    pen.fillStyle = color; pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = pen.getImageData(0, 0, 1, 1).data;
    return `rgb(${r}, ${g}, ${b})`;
  };
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(getComputedStyle(e).backgroundColor);
    return layers.reduceRight((below, layer) => over(layer, below), 'rgb(255, 255, 255)');
  };
  const light = color => {
    const linear = color.match(/\\d+/g).map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2];
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.disabled
        || element.closest('script, style')) continue;
    const below = behind(element), [a, b] = [light(over(style.color, below)), light(below)];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) low.push([walker.currentNode.textContent, ratio]);
  }
  return low;
}"""
UNNAMED = """() => [...document.querySelectorAll('input, select, button, canvas')]
  .filter(e => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).map(e => e.outerHTML)"""
CONTROLS = """() => [...document.querySelectorAll('button, input, select, summary, a')]
  .filter(e => e.checkVisibility() && !e.disabled).map(e => e.id || e.ariaLabel || e.textContent)"""
FOCUSED = '() => { const e = document.activeElement; return e.id || e.ariaLabel || e.textContent; }'


@pytest.fixture
def view(start, portrait_file, tmp_path):
    """The node with a camera, and a function that starts `dan-ros view` on one port."""
    robot = start('-r', f'image:={TOPIC}', topic=TOPIC)
    arguments = ('-r', f'image_raw:={TOPIC}', '-p', 'rate_hz:=8', '-p', f'source:={portrait_file}')
    camera = Program('sample_camera', *arguments, log=tmp_path / 'camera', domain=robot.domain)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    started = []

    def start_view():
        command = [sys.executable, '-m', 'dan_ros.cli.main', 'view', '--port', str(port)]
        process = Process(command, tmp_path / 'view', robot.domain)
        started.append(process)
        process.wait_for_output(f'http://127.0.0.1:{port}/')
        return process

    start_view.robot, start_view.url = robot, f'http://127.0.0.1:{port}/'
    yield start_view
    for process in (*started, camera):
        if process.exit_code is None:
            process.stop(signal.SIGTERM)


@pytest.fixture
def page():
    """A page of Chromium that must load nothing from elsewhere and report no error."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport=dict(zip(('width', 'height'), WIDE, strict=True)))
        page.set_default_timeout(PATIENCE_MS)
        page.requested, page.problems = [], []
        page.on('request', lambda request: page.requested.append(request.url))
        page.on('websocket', lambda opened: page.requested.append(opened.url))
        page.on('pageerror', lambda error: page.problems.append(str(error)))
        page.on('console', lambda line: page.problems.append(line.text))
        yield page
        browser.close()


def test_the_page_of_a_running_node(view, page, tmp_path):
    expect.set_options(timeout=PATIENCE_MS)
    process = view()
    page.goto(view.url)
    see_a_face(page)
    change_parameters(view.robot, page)
    look_at_every_size(page, tmp_path)
    reach_everything_by_keyboard(page)
    pause_and_resume(page)
    assert page.problems == []
    lose_the_connection(view, process, page)
    own = (view.url, view.url.replace('http', 'ws'), 'data:', 'blob:')
    assert [url for url in page.requested if not url.startswith(own)] == []


def see_a_face(page):
    expect(page.locator('.face .label')).to_have_text('happy')
    expect(page.locator('.camera canvas')).to_have_attribute('aria-label', re.compile('happy'))
    expect(page.locator('#link')).to_have_text(re.compile('live'))
    expect(page.locator('#tiles')).to_contain_text('latency')
    drawn = page.evaluate(
        """() => { const c = document.querySelector('.camera canvas'), d = c.getContext('2d')
           .getImageData(0, 0, c.width, c.height).data; return new Set(d).size; }"""
    )
    assert drawn > 100  # values of pixels: a picture, not one color


def change_parameters(robot, page):
    number = page.locator('[id="p-expression.min_confidence"]')
    slider = page.get_by_label('expression.min_confidence, slider')
    slider.focus()
    slider.press('End')
    expect(page.locator('.face .label')).to_have_text('unknown')
    expect(number).to_have_value('1')
    number.fill('7')
    number.press('Enter')
    refusal = page.locator('.refusal:visible')
    expect(refusal).to_contain_text('must be a number from 0 to 1')
    robot.set_parameters(expression__min_confidence=0.25)
    expect(number).to_have_value('0.25')
    expect(refusal).to_have_count(0)
    expect(page.locator('.face .label')).to_have_text('happy')
    prior = page.locator('[id="p-expression.prior"]')
    prior.fill('often')
    prior.press('Enter')
    expect(refusal).to_contain_text('expression.prior')


def look_at_every_size(page, folder):
    for summary in page.locator('summary').all():
        if not summary.evaluate('e => e.parentElement.open'):
            summary.click()
    for theme in ('light', 'dark'):
        page.emulate_media(color_scheme=theme)
        assert page.evaluate(LOW_CONTRAST) == []
        for width, height in SIZES:
            page.set_viewport_size({'width': width, 'height': height})
            overflow = page.evaluate('document.documentElement.scrollWidth - innerWidth')
            assert overflow <= 0, (theme, width)
            page.screenshot(path=folder / f'{theme}_{width}.png')
    page.locator('#theme').click()
    assert page.evaluate('document.documentElement.dataset.theme') == 'light'
    assert page.evaluate(LOW_CONTRAST) == []
    assert page.evaluate(UNNAMED) == []
    page.set_viewport_size(dict(zip(('width', 'height'), WIDE, strict=True)))


def reach_everything_by_keyboard(page):
    controls = set(page.evaluate(CONTROLS))
    page.evaluate('document.activeElement.blur()')
    reached = set()
    for _ in range(3 * len(controls)):
        page.keyboard.press('Tab')
        reached.add(page.evaluate(FOCUSED))
        if reached >= controls:
            break
    assert controls <= reached, controls - reached


def pause_and_resume(page):
    page.locator('#pause').focus()
    page.keyboard.press('Enter')
    expect(page.locator('#link')).to_have_text('paused')
    expect(page.locator('#nobody')).to_be_visible()
    expect(page.locator('.camera')).to_have_count(0)  # no picture stays on the page
    page.locator('#pause').click()
    expect(page.locator('.face .label')).to_have_text('happy')
    expect(page.locator('#events')).to_contain_text('appeared')


def lose_the_connection(view, process, page):
    process.stop(signal.SIGTERM)
    expect(page.locator('#link')).to_have_text('connection lost, trying again')
    view()
    expect(page.locator('#link')).to_have_text(re.compile('live'))
    expect(page.locator('.face .label')).to_have_text('happy')


class SlowSource:
    """A source that answers only when the test allows it."""

    title, kind = '/dan_node', 'test'

    def __init__(self):
        self.asked, self.may_answer = [], threading.Event()

    def set_parameter(self, name, value):
        self.asked.append((name, value))
        self.may_answer.wait()
        return ''

    def set_enabled(self, is_enabled):
        return self.set_parameter('enabled', is_enabled)


@pytest.fixture
def slow_source():
    """A source with five parameters, and a server of its page at `url`."""
    source, board, loop = SlowSource(), Board(), asyncio.new_event_loop()
    specs = [Spec(f'p.{n}', 0.5, '', limits=(0, 1), live=True) for n in range(5)]
    board.set_parameters(parameter_json(spec, 0.5) for spec in specs)
    server = ViewServer(board, source, Access.create('127.0.0.1'))
    runner = web.AppRunner(server.app())

    async def serve():
        await runner.setup()
        await web.TCPSite(runner, '127.0.0.1', 0).start()

    loop.run_until_complete(serve())
    source.url = f'http://127.0.0.1:{runner.addresses[0][1]}/'
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield source
    source.may_answer.set()
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_the_page_never_shows_a_value_that_was_not_set(slow_source, page):
    """A slow source gets the first and the newest value of a slider; a fifth request is refused."""
    page.goto(slow_source.url)
    page.locator('#group-p summary').click()
    numbers = [page.locator(f'[id="p-p.{n}"]') for n in range(5)]
    sliders = [page.get_by_label(f'p.{n}, slider') for n in range(5)]
    for key in ('End', 'Home', 'PageUp', 'ArrowUp'):
        sliders[0].press(key)
        page.wait_for_timeout(200)
    newest = float(numbers[0].input_value())
    for n in range(1, 5):
        sliders[n].press('End')
        page.wait_for_timeout(200)
    refusal = '4 requests are being answered; wait for one'
    expect(page.locator('.refusal:visible')).to_have_text(refusal)
    expect(numbers[4]).to_have_value('0.5')
    page.locator('#pause').click()
    expect(page.locator('#notice')).to_have_text(f'{refusal} starting')  # beside the status
    slow_source.may_answer.set()
    numbers[1].fill('')
    numbers[1].press('Enter')
    expect(numbers[1]).to_have_value('1')
    expect(numbers[0]).to_have_value(str(newest))
    asked = [('p.0', 1), *((f'p.{n}', 1) for n in range(1, 4)), ('p.0', newest)]
    assert slow_source.asked == asked
