# SPDX-License-Identifier: Apache-2.0
"""Make docs/view.jpg: the page of `dan-ros view` on a wide and on a narrow screen.

It shows the astronaut portrait of scikit-image (NASA, public domain) and its mirror image, whose
smiles are warped away and back. Labels and probabilities come from the pipeline. Run it in
the shell that `. ./env.sh` prepares; it needs Chromium.
"""

import asyncio
import io
import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
from aiohttp import web
from PIL import Image
from playwright.async_api import async_playwright
from skimage.data import astronaut
from smile import without_smile

from dan_ros.pipeline import ExpressionPipeline
from dan_ros.types import Frame
from dan_ros.video_pipeline import VideoPipeline
from dan_ros.view.access import Access
from dan_ros.view.board import Board
from dan_ros.view.local import LocalSource
from dan_ros.view.server import ViewServer

OUT = Path(__file__).resolve().parents[1] / 'docs' / 'view.jpg'
RATE_HZ = 12.0
STEPS = 40  # steps of a fading smile
SECONDS = 34.0  # long enough to fill the charts
SIDE = (480, 540)  # width, height of each half of the scene
WIDE, PHONE = ((1440, 1000), (390, 1000))


def scenes() -> Iterator[tuple[str, Frame]]:
    """Yield images of two people at `RATE_HZ`."""
    portrait = np.ascontiguousarray(astronaut()[..., ::-1])
    steps = np.linspace(0, 1, STEPS)
    halves = [
        cv2.resize(without_smile(portrait, step), (SIDE[1], SIDE[1]))[:, : SIDE[0]]
        for step in steps
    ]
    for index in itertools.count():
        time.sleep(1 / RATE_HZ)
        # Both smile at the end, when the pictures are taken.
        angles = 2 * np.pi * (index / RATE_HZ - SECONDS) / np.array([13.0, 19.0])
        left, right = (halves[round((STEPS - 1) * (1 - np.cos(a)) / 2)] for a in angles)
        yield '/camera/image_raw', Frame(np.hstack([left, right[:, ::-1]]))


async def take_pictures() -> list[Image.Image]:
    """Serve the page and return it as a wide light and a narrow dark picture."""
    board = Board()
    source = LocalSource('two people', scenes(), VideoPipeline(ExpressionPipeline.open()), board)
    runner = web.AppRunner(ViewServer(board, source, Access.create('127.0.0.1')).app())
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    source.start()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which('chromium'), args=['--no-sandbox', '--disable-gpu']
        )
        page = await browser.new_page()
        await page.goto(f'http://127.0.0.1:{runner.addresses[0][1]}/')
        await asyncio.sleep(SECONDS)
        pictures = []
        for scheme, (width, height) in (('light', WIDE), ('dark', PHONE)):
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size({'width': width, 'height': height})
            await asyncio.sleep(2)
            pictures.append(Image.open(io.BytesIO(await page.screenshot())).convert('RGB'))
        await browser.close()
    source.close()
    await runner.cleanup()
    return pictures


@click.command()
@click.option('--out', type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(out: Path) -> None:
    """Take the pictures and write them side by side."""
    wide, phone = asyncio.run(take_pictures())
    both = Image.new('RGB', (wide.width + phone.width + 24, wide.height), 'white')
    both.paste(wide)
    both.paste(phone, (wide.width + 24, 0))
    both.save(out, quality=84, optimize=True)
    print(f'{out}: {out.stat().st_size / 1e3:.0f} kB')


if __name__ == '__main__':
    main()
