# SPDX-License-Identifier: Apache-2.0
"""Check pages of site/ in Chromium: accessibility, keyboard, width, search, foreign requests.

`make check-site` runs it. axe-core checks the accessibility: contrast, alternative texts, order of
headings, language, names of links and buttons.
"""

import functools
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

SITE = Path(__file__).resolve().parents[1] / 'site'
PAGES = (
    'index',
    'tutorials/smile',
    'how-it-works',
    'parameters',
    'topics',
    'accuracy',
    'reference/messages',
    'reference/commands',
    'reference/python',
    'adr/index',
)
SCREENS = {'wide': (1440, 900, 'light'), 'narrow': (390, 844, 'dark')}  # pixels, color scheme
SEARCHED, FOUND = 'half_life', 'smoothing.half_life_s'
ARGUMENTS = ('--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking')
IGNORED = {
    'landmark-unique',  # the theme's script adds a nav without a name to each code block
    'scrollable-region-focusable',  # browsers let Tab focus scrollable elements
}


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; yields its address."""
    handler = functools.partial(_QuietHandler, directory=folder)
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def faults_of(page: Page, address: str) -> list[str]:
    """Open a page and return what is wrong with it."""
    requested: list[str] = []
    page.on('request', lambda request: requested.append(request.url))
    page.goto(address, wait_until='networkidle')
    outside = {url for url in requested if url.startswith('http') and '127.0.0.1' not in url}
    faults = [f'requests another host: {url}' for url in outside]
    if page.evaluate('document.documentElement.scrollWidth > innerWidth'):
        faults.append('is wider than the screen')
    for found in Axe().run(page).response['violations']:
        if found['id'] not in IGNORED:
            first = found['nodes'][0]
            faults.append(f'{found["id"]}: {found["help"]}: {first["html"][:200]}')
    return faults + keyboard_faults(page)


def keyboard_faults(page: Page) -> list[str]:
    """Press Tab; return what takes the focus without showing it."""
    faults = []
    for _ in range(5):
        page.keyboard.press('Tab')
        focused = page.evaluate(
            """() => {
                const element = document.activeElement;
                const parts = [element, element.nextElementSibling ?? element];  // input and label
                const shown = element.type === 'text' || parts.some(
                    part => getComputedStyle(part).outlineStyle !== 'none');
                return [element.outerHTML.slice(0, 80), element === document.body, shown];
            }"""
        )
        if focused[1] or not focused[2]:
            faults.append(f'the focus is not shown: {focused[0]}')
    return faults


def search_faults(browser: Browser, address: str) -> list[str]:
    """Search for a parameter; return what is wrong."""
    page = browser.new_page()
    page.goto(f'{address}/index.html', wait_until='networkidle')
    page.keyboard.press('/')
    page.keyboard.type(SEARCHED, delay=20)
    page.wait_for_selector('.md-search-result__item', timeout=30_000)
    text = page.inner_text('.md-search-result__list')
    return [] if FOUND in text else [f'the search for {SEARCHED} does not find {FOUND}']


def main() -> None:
    """Check every page on every screen; exit with code 1 if something is wrong."""
    chromium = shutil.which('chromium') or shutil.which('google-chrome')
    count = 0
    with serve(SITE) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        for screen, (width, height, scheme) in SCREENS.items():
            size = {'width': width, 'height': height}
            context = browser.new_context(viewport=size, color_scheme=scheme)
            for name in PAGES:
                page = context.new_page()
                for fault in faults_of(page, f'{address}/{name}.html'):
                    print(f'{name}, {screen}: {fault}')
                    count += 1
                page.close()
        for fault in search_faults(browser, address):
            print(fault)
            count += 1
        browser.close()
    print(f'{len(PAGES)} pages on {len(SCREENS)} screens, faults: {count}')
    sys.exit(count > 0)


if __name__ == '__main__':
    main()
