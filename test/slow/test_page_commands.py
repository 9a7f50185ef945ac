# SPDX-License-Identifier: Apache-2.0
"""The commands of README and tutorials run as they are written; see support/pages.py."""

import re
import signal
import subprocess
import time

import cv2
import pytest
from pages import ROOT, WITH_COMMANDS, blocks_of
from processes import Process, RosDomain
from recording import moving_smile, record_images

BACKGROUND_S = 5.0  # minimum run time of commands that run until they are stopped, seconds
COMMAND_S = 240.0
ECHOED = re.compile(r'^ros2 topic echo .*?(/\S+)', re.MULTILINE)
# `ros2 topic echo` fails as long as nobody publishes.
WAIT = "timeout 60 bash -c 'until ros2 topic list | grep -qx {}; do sleep 0.5; done'"
NEW = ('annotated', 'demo', 'evaluation', 'expressions', 'recording', 'my_faces')

PAGES = [page for page in WITH_COMMANDS if any(b.language == 'bash' for b in blocks_of(page))]


@pytest.fixture
def clone(tmp_path, portrait, smile, nobody):
    """A folder like a clone after `make build`, with a photo, a bag and labeled photos."""
    for path in ROOT.iterdir():
        if path.name not in NEW:
            (tmp_path / path.name).symlink_to(path)
    cv2.imwrite(str(tmp_path / 'photo.jpg'), portrait)
    record_images(tmp_path / 'recording', moving_smile(smile, nobody))
    for label, contrast in (('happy', 1.0), ('neutral', 0.3)):
        for person in ('anna', 'ben'):
            for number in range(3):
                path = tmp_path / 'my_faces' / label / f'{person}_{number}.jpg'
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), cv2.convertScaleAbs(portrait, alpha=contrast, beta=number))
    return tmp_path


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_commands_run(page, clone):
    domain, background = RosDomain(), []
    for block in blocks_of(page):
        if block.language != 'bash' or not block.can_run:
            continue
        lines = ['. ./env.sh', *map(WAIT.format, ECHOED.findall(block.text))]
        lines.append('exec ' * block.is_background + block.text)
        shell = ['bash', '-ec', '\n'.join(lines)]
        if block.is_background:
            log = clone / f'background{len(background)}.log'
            background.append(Process(shell, log, domain, cwd=clone))
            continue
        done = subprocess.run(
            shell,
            cwd=clone,
            env=domain.environment,
            timeout=COMMAND_S,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (block.text, done.stdout, done.stderr)
    time.sleep(BACKGROUND_S * bool(background))
    for process in background:
        assert process.exit_code is None, process.output
        process.stop(signal.SIGINT)
        assert 'Traceback' not in process.output, process.output
