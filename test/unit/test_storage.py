# SPDX-License-Identifier: Apache-2.0
"""Files are written completely or not at all: under kill -9, on a full disk, with several writers.

Bags are killed in test_bag_slow.py, engines in test_engine_cache.py, trainings in
test_train_trainer.py.
"""

import errno
import functools
import http.server
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from click.testing import CliRunner

from dan_ros.cli.main import cli
from dan_ros.model import store
from dan_ros.storage.atomic import atomic_directory, atomic_write, atomic_write_bytes


def fail_flush(number: int, fail: Callable[[], object]) -> Callable[[int], None]:
    """Return a replacement for `os.fsync` that calls `fail` in its Nth call."""
    left = number

    def flush(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            fail()

    return flush


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(action: Callable[[], object]) -> int:
    """Run a function in a fork of this process; return its status from `os.waitpid`."""
    child = os.fork()
    if not child:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def killed(action: Callable[[], object]) -> None:
    """Run a function in a process that is killed before its first file is moved into place."""

    def act() -> None:
        os.fsync = fail_flush(1, kill_me)
        action()

    assert os.WTERMSIG(in_child(act)) == signal.SIGKILL


@pytest.fixture
def full_disk(monkeypatch):
    """Return a function that makes the write of a number fail as on a full disk."""

    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda number: monkeypatch.setattr(os, 'fsync', fail_flush(number, fail))


def partials(folder: Path) -> list[Path]:
    """Return the temporary files of writers that were killed."""
    files = folder.rglob('.*.partial/*')
    return [path for path in files if path.is_file() and path.name != 'lock']


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def run(*arguments: object):
    return CliRunner().invoke(cli, [*map(str, arguments)])


# --- one file -----------------------------------------------------------------------------------


def test_the_old_content_stays(tmp_path):
    def write_half(file: BinaryIO) -> None:
        file.write(bytes(500))
        file.flush()
        kill_me()

    path = tmp_path / 'file'
    atomic_write_bytes(path, b'old')
    assert os.WTERMSIG(in_child(lambda: atomic_write(path, write_half))) == signal.SIGKILL
    assert path.read_bytes() == b'old'
    assert [half.stat().st_size for half in partials(tmp_path)] == [500]
    atomic_write_bytes(path, b'new')
    assert path.read_bytes() == b'new'
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']


def test_a_write_that_fails_names_what_was_asked_for_and_leaves_nothing(tmp_path):
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken' / 'precious').touch()
    for path, kind in (
        (tmp_path / 'taken', IsADirectoryError),
        (tmp_path / 'missing' / 'file', FileNotFoundError),
        (tmp_path / ('x' * 300), OSError),
    ):
        with pytest.raises(kind) as raised:
            atomic_write_bytes(path, b'content')
        assert (raised.value.filename, raised.value.filename2) == (str(path), None)
        assert raised.value.strerror
    assert [path.name for path in tmp_path.iterdir()] == ['taken']


def test_folders_and_devices_are_refused_before_anything_is_written(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    for path in (tmp_path, tmp_path / 'pipe', Path('/dev/null')):
        with pytest.raises(OSError, match='Is a directory|not a regular file'):
            atomic_write(path, lambda file: pytest.fail('it was written'))


def test_a_file_that_does_not_fit_on_the_disk_is_named(tmp_path):
    """A limit of 4 KiB per file makes writes fail as on a full disk."""
    path = tmp_path / 'file'

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(OSError, match='File too large') as raised:
            atomic_write_bytes(path, bytes(100_000))
        assert raised.value.filename == str(path)

    assert in_child(write) == 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    path, other = tmp_path / 'file', tmp_path / 'file2'
    for each in (path, other):
        killed(lambda each=each: atomic_write_bytes(each, bytes(1000)))
    (tmp_path / 'file.mine.partial').write_bytes(b'of the user')
    (of_other,) = tmp_path.glob('.file2.*')
    assert len(partials(tmp_path)) == 2
    atomic_write_bytes(path, b'whole')
    kept = {'file.mine.partial', of_other.name}
    assert {entry.name for entry in tmp_path.iterdir()} == {'file', *kept}


# Runs a command that sees no other processes in /proc, as in a container.
CONTAINER = ['unshare', '--pid', '--fork', '--mount-proc']


def test_the_file_of_a_writer_in_another_container_is_left_alone(tmp_path):
    if subprocess.run([*CONTAINER, 'true'], capture_output=True, check=False).returncode:
        pytest.skip('this user may not make a namespace of process ids')
    path = tmp_path / 'file'
    code = (
        'import pathlib, sys; from dan_ros.storage.atomic import atomic_write_bytes\n'
        "atomic_write_bytes(pathlib.Path(sys.argv[1]), b'theirs')\n"
    )

    def write(file: BinaryIO) -> None:
        file.write(b'ours')
        subprocess.run([*CONTAINER, sys.executable, '-c', code, str(path)], check=True)
        assert path.read_bytes() == b'theirs'
        assert len(partials(tmp_path)) == 1

    atomic_write(path, write)
    assert path.read_bytes() == b'ours'
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / 'file'
    written = [bytes([number]) * 100_000 for number in range(8)]

    def write_often(content: bytes) -> None:
        for _ in range(30):
            atomic_write_bytes(path, content)

    with ThreadPoolExecutor(len(written)) as pool:
        list(pool.map(write_often, written))
    assert path.read_bytes() in written
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']


def test_a_folder_takes_its_place_when_it_is_complete(tmp_path):
    out = tmp_path / 'out'
    for content in ('old', 'new'):
        with atomic_directory(out) as folder:
            folder.mkdir()
            (folder / 'file').write_text(content)
            assert out.exists() == (content == 'new')
        assert (out / 'file').read_text() == content

    def fail() -> None:
        with atomic_directory(out) as folder:
            folder.mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (out / 'file').read_text() == 'new'
    assert [entry.name for entry in tmp_path.iterdir()] == ['out']


# --- what commands write ------------------------------------------------------------------------


def test_a_fetched_model(tmp_path, monkeypatch):
    """Fetch the real model over HTTP into an empty cache: killed once, then completed."""
    content = store.read_model('yunet').content
    (tmp_path / 'yunet').write_bytes(content)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        known = store.KNOWN_MODELS['yunet']
        url = f'http://127.0.0.1:{server.server_port}/yunet'
        monkeypatch.setitem(store.KNOWN_MODELS, 'yunet', replace(known, url=url))
        killed(lambda: store.fetch_model('yunet'))
        assert len(partials(tmp_path)) == 1
        assert not (tmp_path / 'cache' / 'dan_ros' / 'models' / known.filename).exists()
        assert store.fetch_model('yunet').read_bytes() == content
        server.shutdown()
    assert partials(tmp_path) == []


EVALUATION = {'scores.json', 'report.html', 'confusion.png', 'reliability.png', 'mistakes.png'}


@pytest.fixture
def old_evaluation(tmp_path):
    """A folder with the result of an earlier run."""
    out = tmp_path / 'out'
    out.mkdir()
    for name in EVALUATION:
        (out / name).write_bytes(b'old')
    return out


def test_an_evaluation_onto_a_folder(ferplus_folder, old_evaluation):
    (old_evaluation / 'report.html').unlink()
    (old_evaluation / 'report.html').mkdir()
    before = contents(old_evaluation)
    result = run('evaluate', ferplus_folder, 'dan_ferplus', '--out', old_evaluation)
    assert 'report.html in it is a folder' in str(result.exception)
    assert contents(old_evaluation) == before


def test_an_annotated_picture(portrait_file, tmp_path, full_disk):
    full_disk(1)
    result = run('predict', portrait_file, '--out', tmp_path / 'out')
    assert str(result.exception).endswith('cannot be written: No space left on device')
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.parametrize('kind', ['png', 'jpg', 'pdf', 'svg'])
def test_an_explained_picture(portrait_file, tmp_path, full_disk, kind):
    path = tmp_path / 'out' / f'explained.{kind}'
    path.parent.mkdir()
    path.write_bytes(b'old')
    full_disk(1)
    result = run('explain', portrait_file, '--out', path)
    assert str(result.exception) == f'{path} cannot be written: No space left on device'
    assert contents(path.parent) == {path.name: b'old'}
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize('writer', ['save_checkpoint', 'save_weights', 'save_text'])
def test_files_of_a_training(tmp_path, writer):
    import torch

    from dan_ros.train import checkpoints

    contents_of = {
        'save_checkpoint': lambda n: ({'recipe': {}, 'weights': torch.ones(n)},),
        'save_weights': lambda n: ({'weights': torch.ones(n)}, {'epoch': 1}),
        'save_text': lambda n: ('epoch 1\n' * n,),
    }[writer]
    path, write = tmp_path / 'file', getattr(checkpoints, writer)
    write(path, *contents_of(5_000))
    before = path.read_bytes()
    killed(lambda: write(path, *contents_of(9_000)))
    assert path.read_bytes() == before
    assert len(partials(tmp_path)) == 1
