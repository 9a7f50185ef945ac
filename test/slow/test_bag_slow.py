# SPDX-License-Identifier: Apache-2.0
"""Slow tests of `dan-ros bag`: signals, kills, full disks, and more cases of damage."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command import run_with_file_limit
from recording import (
    check_truncated_bag,
    moving_smile,
    read_arrays,
    read_bag,
    record_images,
    run_bag,
)


@pytest.fixture(scope='module')
def images(smile, nobody):
    return moving_smile(smile, nobody)


def start_bag(*arguments: object, **environment: str) -> subprocess.Popen:
    """Start `dan-ros bag` as a process."""
    return subprocess.Popen(
        [sys.executable, '-m', 'dan_ros.cli.main', 'bag', *map(str, arguments)],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_a_video_backend_the_rest_is_written(tmp_path, images):
    bag = record_images(tmp_path / 'in', images)
    process = start_bag(bag, tmp_path / 'out', '--video', OPENCV_VIDEOIO_PRIORITY_FFMPEG='0')
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert (
        'Warning: no video of /camera/image_raw: OpenCV cannot write MP4 files of 320 x 240'
        in errors
    )
    assert ' at 10 Hz' in errors
    assert len(read_arrays(tmp_path / 'out')) == 12
    assert list((tmp_path / 'out').glob('*.mp4')) == []


def test_a_disk_too_full_for_the_video_is_an_error(tmp_path, smile):
    """OpenCV ignores errors while it writes."""
    rng = np.random.default_rng(0)
    noise = list(rng.integers(0, 256, (20, 240, 320, 3), np.uint8))
    bag = record_images(tmp_path / 'in', [smile, *noise])
    result = run_with_file_limit(200_000, 'bag', bag, tmp_path / 'out', '--video')
    assert result.returncode == 1, result.stderr
    assert 'Error: cannot write out/camera_image_raw.mp4: it contains 0 of 21' in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['in']


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
@pytest.mark.parametrize('size', [100, 5000])
def test_a_disk_too_full_for_the_bag_gives_one_line(tmp_path, images, storage, size):
    bag = record_images(tmp_path / 'in', images, storage=storage)
    result = run_with_file_limit(size, 'bag', bag, tmp_path / 'out')
    assert result.returncode == 1, result.stderr
    assert 'Traceback' not in result.stderr
    assert f'Error: cannot write {tmp_path / "out"}: ' in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_a_killed_run_leaves_a_hidden_folder_that_the_next_run_removes(tmp_path, images):
    bag = record_images(tmp_path / 'in', images * 20)
    out = tmp_path / 'out'
    killed, running = (start_and_pause(bag, out, tmp_path) for _ in range(2))
    killed.kill()
    killed.communicate()
    assert not out.exists()
    (hidden,) = (h for h in tmp_path.glob('.out.*') if not is_locked(h))
    short = record_images(tmp_path / 'short', images)
    assert run_bag(short, out).exit_code == 0
    assert not hidden.exists()
    assert len(list(tmp_path.glob('.out.*'))) == 1  # folder of the paused run
    running.send_signal(signal.SIGCONT)
    running.terminate()
    running.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out', 'short']


def start_and_pause(bag: Path, out: Path, parent: Path) -> subprocess.Popen:
    """Start a run and pause it while it writes."""
    pattern = '.out.*/new/out/faces.csv'
    before = len(list(parent.glob(pattern)))
    process = start_bag(bag, out)
    while len(list(parent.glob(pattern))) == before:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    return process


def is_locked(folder: Path) -> bool:
    descriptor = os.open(folder / 'lock', os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path, images, number):
    bag = record_images(tmp_path / 'in', images * 20)
    process = start_bag(bag, tmp_path / 'out', '--video')
    while not list(tmp_path.glob('.out.*/new/out/*.mp4')):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == 'Stopped'
    assert 'Traceback' not in errors
    assert [path.name for path in tmp_path.iterdir()] == ['in']


# Runs `dan-ros bag` and sends it the signal argv[1] while it replaces a folder: before its first or
# second move (argv[2] is 1 or 2), or before it removes the old folder (3).
STOPPER = """
import os, pathlib, shutil, sys
number, at = int(sys.argv.pop(1)), int(sys.argv.pop(1))
moves = 0

def stopping(move):
    def moved(*arguments, **options):
        global moves
        moves += 1
        if moves == at:
            os.kill(os.getpid(), number)
        return move(*arguments, **options)
    return moved

pathlib.Path.rename = stopping(pathlib.Path.rename)
shutil.rmtree = stopping(shutil.rmtree)
from dan_ros.cli.main import main
main()
"""


@pytest.mark.parametrize('at', [1, 2, 3])
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_during_replacement_loses_neither_bag(tmp_path, images, number, at):
    bag = record_images(tmp_path / 'in', images)
    out = tmp_path / 'out'
    assert run_bag(bag, out).exit_code == 0
    old = read_bag(out)
    arguments = map(str, (number.value, at, 'bag', bag, out, '--force', '--half-life', 0))
    process = subprocess.run(
        [sys.executable, '-c', STOPPER, *arguments], capture_output=True, check=False
    )
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    is_missing = number == signal.SIGKILL and at == 2
    assert out.exists() != is_missing
    result = run_bag(bag, out)
    assert 'exists already' in str(result.exception)
    assert ('the old folder was restored' in result.output) == is_missing
    assert (read_bag(out) == old) == (at < 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out']


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
@pytest.mark.parametrize('compression', ['', 'file', 'message'])
@pytest.mark.parametrize(('part', 'has_metadata'), [(0.5, False), (0.93, True), (0.93, False)])
def test_a_truncated_bag_is_converted_up_to_the_damage(
    tmp_path, storage, compression, part, has_metadata
):
    check_truncated_bag(tmp_path, storage, compression, part, has_metadata)
