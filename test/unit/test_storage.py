"""Killed with SIGKILL in the middle of any write: nothing half-written is taken for whole.

Bags are killed in test_bag.py, engines in test_engine_cache.py, trainings in test_train_trainer.py.
"""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from dan_ros.model import store
from dan_ros.storage.atomic import atomic_write, atomic_write_bytes

# The process is killed when half of the file numbered argv[1] lies on the disk.
KILLER = """
import builtins, os, pathlib, signal, sys

class Half:
    def __init__(self, file):
        self.file = file
    def write(self, content):
        global left
        left -= 1
        if left == 0:
            self.file.write(memoryview(content)[:len(content) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.file.write(content)
    def __getattr__(self, name):
        return getattr(self.file, name)

left = int(sys.argv.pop(1))
from dan_ros.storage import atomic
real = atomic.atomic_write
def atomic_write(path, write):
    real(path, lambda file: write(Half(file)))
atomic.atomic_write = atomic_write
"""


def killed(code: str, *arguments: object, at: int = 1, **environment: str) -> None:
    """Run Python code in a process that is killed in its write number `at`."""
    process = subprocess.run(
        [sys.executable, '-c', KILLER + code, str(at), *map(str, arguments)],
        env={**os.environ, **environment},
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr


def partials(folder: Path) -> list[Path]:
    return [path for path in folder.rglob('*') if path.name.endswith('.partial')]


def test_the_old_content_stays(tmp_path):
    path = tmp_path / 'file'
    atomic_write_bytes(path, b'old')
    killed('atomic.atomic_write_bytes(pathlib.Path(sys.argv[1]), bytes(1000))', path)
    assert path.read_bytes() == b'old'
    assert [half.stat().st_size for half in partials(tmp_path)] == [500]
    atomic_write_bytes(path, b'new')
    assert path.read_bytes() == b'new'


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


def test_a_folder_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(IsADirectoryError):
        atomic_write(tmp_path, lambda file: pytest.fail('it was written'))


def test_a_file_there_is_no_room_for_is_named(tmp_path):
    """With a limit of 4 KiB a file: the system refuses the rest, as a full disk does."""
    code = (
        'import pathlib, resource, sys\n'
        'path = pathlib.Path(sys.argv[1])\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n'
        'try:\n'
        '    from dan_ros.storage.atomic import atomic_write_bytes; atomic_write_bytes(path, bytes(100_000))\n'
        'except OSError as error:\n'
        '    print(error.filename, error.strerror)\n'
    )
    path = tmp_path / 'file'
    command = [sys.executable, '-B', '-c', code, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.strip() == f'{path} File too large'
    assert list(tmp_path.iterdir()) == []


def test_a_fetched_model(tmp_path):
    """The real model, over HTTP, into an empty cache; then again, to the end."""
    code = (
        'import functools, http.server, threading\n'
        'from dan_ros.model import store\n'
        'handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])\n'
        "server = http.server.HTTPServer(('127.0.0.1', 0), handler)\n"
        'threading.Thread(target=server.serve_forever, daemon=True).start()\n'
        "url = f'http://127.0.0.1:{server.server_port}/yunet'\n"
        'import dataclasses\n'
        "model = dataclasses.replace(store.KNOWN_MODELS['yunet'], url=url)\n"
        "store.KNOWN_MODELS['yunet'] = model\n"
        "store.fetch_model('yunet')\n"
    )
    content = store.read_model('yunet').content
    (tmp_path / 'yunet').write_bytes(content)
    cache = tmp_path / 'cache'
    killed(code, tmp_path, XDG_CACHE_HOME=str(cache))
    (half,) = partials(cache)
    assert half.stat().st_size == len(content) // 2
    assert list(cache.rglob('*.onnx')) == []
    subprocess.run(
        [sys.executable, '-c', KILLER + code, '99', str(tmp_path)],
        env={**os.environ, 'XDG_CACHE_HOME': str(cache)},
        timeout=120,
        check=True,
        capture_output=True,
    )
    (whole,) = cache.rglob('*.onnx')
    sha256 = hashlib.sha256(whole.read_bytes()).hexdigest()
    assert sha256 == store.KNOWN_MODELS['yunet'].sha256


COMMAND = 'from dan_ros.cli.main import main; sys.argv[0] = "dan-ros"; main()'


EVALUATION = {'scores.json', 'report.html', 'confusion.png', 'reliability.png', 'mistakes.png'}


@pytest.fixture
def old_evaluation(tmp_path):
    """A folder with the result of an earlier run."""
    out = tmp_path / 'out'
    out.mkdir()
    for name in EVALUATION:
        (out / name).write_bytes(b'old')
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize('at', [1, 2, 3, 4, 5])
def test_an_evaluation(ferplus_folder, old_evaluation, at):
    """Until all that is new is on the disk, all that is old stays."""
    before = contents(old_evaluation)
    killed(COMMAND, 'evaluate', ferplus_folder, 'dan_ferplus', '--out', old_evaluation, at=at)
    assert contents(old_evaluation) == before
    assert len(partials(old_evaluation)) == 1


@pytest.mark.parametrize('at', [1, 2, 5])
def test_an_evaluation_while_it_takes_its_place(ferplus_folder, old_evaluation, at):
    """`scores.json` comes last: where it is, all is of one run."""
    code = (
        'real_replace = pathlib.Path.replace\n'
        'moves = 0\n'
        'def replace(self, target):\n'
        '    global moves\n'
        '    moves += self.parent != pathlib.Path(target).parent\n'
        f'    if moves == {at}:\n'
        '        os.kill(os.getpid(), signal.SIGKILL)\n'
        '    return real_replace(self, target)\n'
        'pathlib.Path.replace = replace\n'
    )
    arguments = ('evaluate', ferplus_folder, 'dan_ferplus', '--out', old_evaluation)
    killed(code + COMMAND, *arguments, at=99)
    left = contents(old_evaluation)
    assert 'scores.json' not in left
    subprocess.run([sys.executable, '-m', 'dan_ros.cli.main', *map(str, arguments)], check=True)
    assert {path.name for path in old_evaluation.iterdir()} == EVALUATION
    assert b'old' not in contents(old_evaluation).values()


UNMEASURED = {k: v for k, v in os.environ.items() if not k.startswith('COVERAGE')}


def without_room(*arguments: object) -> subprocess.CompletedProcess:
    """The command, in a process that can write no more than 50 kB into a file."""
    return subprocess.run(
        [sys.executable, '-m', 'dan_ros.cli.main', *map(str, arguments)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        env=UNMEASURED,  # there is no room for that either
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_evaluation_that_finds_no_room(ferplus_folder, old_evaluation):
    before = contents(old_evaluation)
    arguments = ('evaluate', ferplus_folder, 'dan_ferplus', '--json', '--out', old_evaluation)
    result = without_room(*arguments)
    assert result.returncode == 1
    message = f'Error: the report can not be written to {old_evaluation}: File too large\n'
    assert result.stderr.endswith(message)
    assert contents(old_evaluation) == before
    assert {path.name for path in old_evaluation.iterdir()} == EVALUATION
    assert json.loads(result.stdout)['faces'] == 8  # the work is not lost


def test_an_evaluation_onto_a_folder(ferplus_folder, old_evaluation):
    (old_evaluation / 'report.html').unlink()
    (old_evaluation / 'report.html').mkdir()
    before = contents(old_evaluation)
    arguments = ('evaluate', ferplus_folder, 'dan_ferplus', '--out', old_evaluation)
    result = without_room(*arguments)
    assert 'report.html in it is a folder' in result.stderr
    assert contents(old_evaluation) == before


def test_an_evaluation_to_its_end(ferplus_folder, tmp_path):
    command = [sys.executable, '-m', 'dan_ros.cli.main', 'evaluate', str(ferplus_folder)]
    subprocess.run([*command, 'dan_ferplus', '--out', str(tmp_path / 'out')], check=True)
    assert json.loads((tmp_path / 'out' / 'scores.json').read_text())['faces'] == 8
    assert {path.name for path in (tmp_path / 'out').iterdir()} == EVALUATION


def test_an_annotated_picture(portrait_file, tmp_path):
    killed(COMMAND, 'predict', portrait_file, '--out', tmp_path / 'out')
    assert list((tmp_path / 'out').glob('*.png')) == []


@pytest.mark.parametrize('kind', ['png', 'jpg', 'pdf', 'svg'])
def test_an_explained_picture(portrait_file, tmp_path, kind):
    path = tmp_path / f'explained.{kind}'
    path.write_bytes(b'old')
    killed(COMMAND, 'explain', portrait_file, '--out', path)
    assert path.read_bytes() == b'old'


def test_an_explained_picture_that_finds_no_room(portrait_file, tmp_path):
    path = tmp_path / 'explained.png'
    path.write_bytes(b'old')
    result = without_room('explain', portrait_file, '--out', path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f'Error: {path} can not be written: ')
    assert path.read_bytes() == b'old'
    assert partials(tmp_path) == []


@pytest.mark.parametrize('writer', ['save_checkpoint', 'save_weights', 'save_text'])
def test_files_of_a_training(tmp_path, writer):
    import torch

    from dan_ros.train import checkpoints

    contents = {
        'save_checkpoint': ({'recipe': {}, 'weights': torch.ones(50_000)},),
        'save_weights': ({'weights': torch.ones(50_000)}, {'epoch': 1}),
        'save_text': ('epoch 1\n' * 1000,),
    }
    path = tmp_path / 'file'
    getattr(checkpoints, writer)(path, *contents[writer])
    before = path.read_bytes()
    code = (
        'import torch\n'
        'from dan_ros.train import saving\n'
        "contents = {'save_checkpoint': ({'recipe': {}, 'weights': torch.zeros(90_000)},),\n"
        "  'save_weights': ({'weights': torch.zeros(90_000)}, {}), 'save_text': ('x' * 9_000,)}\n"
        'getattr(checkpoints, sys.argv[2])(pathlib.Path(sys.argv[1]), *contents[sys.argv[2]])\n'
    )
    killed(code, path, writer)
    assert path.read_bytes() == before
    assert len(partials(tmp_path)) == 1


def test_a_converted_model(tmp_path):

    import torch

    from dan_ros.network.dan import DAN

    torch.save(DAN(8).state_dict(), tmp_path / 'dan.pth')
    arguments = ('convert', tmp_path / 'dan.pth', '--labels', 'affectnet8')
    killed(COMMAND, *arguments, '-o', tmp_path / 'dan.onnx')
    assert not (tmp_path / 'dan.onnx').exists()
    assert len(partials(tmp_path)) == 1
    assert np.log10(partials(tmp_path)[0].stat().st_size) > 6  # half of it was there


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    path, other = tmp_path / 'file', tmp_path / 'file2'
    for each in (path, other):
        killed('atomic.atomic_write_bytes(pathlib.Path(sys.argv[1]), bytes(1000))', each)
    (tmp_path / 'file.mine.partial').write_bytes(b'of the user')
    left = partials(tmp_path)
    assert len(left) == 3
    atomic_write_bytes(path, b'whole')
    kept = {half.name for half in left if not half.name.startswith('file.') or 'mine' in half.name}
    assert {entry.name for entry in tmp_path.iterdir()} == {'file', *kept}
    assert len(kept) == 2


# A process in this finds no other in /proc, as in a container that shares the folder.
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
    assert partials(tmp_path) == []


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / 'file'
    contents = [bytes([number]) * 100_000 for number in range(8)]

    def write_often(content: bytes) -> None:
        for _ in range(30):
            atomic_write_bytes(path, content)

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write_often, contents))
    assert path.read_bytes() in contents
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']
