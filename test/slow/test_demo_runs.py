# SPDX-License-Identifier: Apache-2.0
"""Whole runs of `make demo`: they take at least ten seconds each."""

import re
import signal
import sys
import time

import cv2
from processes import Process

RUN_S = 12.0  # more than the minimum time of a demo without a source


def start_demo(folder, *arguments) -> Process:
    command = [sys.executable, '-m', 'dan_ros.demo.demo', '--out', folder / 'demo', *arguments]
    return Process(command, folder / 'log')


def test_the_demo_shows_a_smile_and_ends_by_itself(tmp_path):
    demo = start_demo(tmp_path)
    assert demo.wait() == 0, demo.output
    found = re.fullmatch(r'demo: messages=(\d+) ids=1 label=happy', demo.output.splitlines()[-1])
    assert found, demo.output
    assert int(found[1]) >= 150
    assert cv2.imread(str(tmp_path / 'demo' / 'annotated.png')).shape == (480, 640, 3)


def test_a_demo_with_a_source_runs_until_it_is_stopped(tmp_path, portrait):
    cv2.imwrite(str(tmp_path / 'one.png'), portrait)
    demo = start_demo(tmp_path, '--source', tmp_path / 'one.png')
    time.sleep(RUN_S)
    assert demo.exit_code is None, demo.output
    assert demo.stop(signal.SIGTERM) == 0, demo.output
    assert 'label=happy' in demo.output.splitlines()[-1]


def test_a_demo_that_cannot_save_its_picture_says_so(tmp_path):
    picture = tmp_path / 'demo' / 'annotated.png'
    picture.mkdir(parents=True)
    demo = start_demo(tmp_path)
    assert demo.wait() == 1, demo.output
    assert f'{picture} cannot be written: ' in demo.output
    assert 'annotated picture: ' not in demo.output
    assert demo.output.splitlines()[-1].endswith('label=happy')
    assert [path.name for path in picture.parent.iterdir()] == ['annotated.png']
