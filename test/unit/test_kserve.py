# SPDX-License-Identifier: Apache-2.0
"""The backend kserve without a server: settings, checks of models, back-off, files of serve-config.

test/slow/test_kserve_triton.py has the tests with a real server.
"""

import gc
import json
import logging
import os
import shlex
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import text_format
from processes import wait_until

from dan_ros.backends import REGISTRY, BackendConfig, ServerConfig, choose_backend, open_backend
from dan_ros.backends.kserve.backend import _announce
from dan_ros.backends.kserve.client import ServedModel, ServerError, open_client
from dan_ros.backends.kserve.compatibility import (
    check_answers,
    check_model,
    parameters_of,
    probe_pictures,
)
from dan_ros.backends.kserve.config import Address, Credentials
from dan_ros.backends.kserve.server import MAX_DELAY_S, Server, backoff_s
from dan_ros.cli.main import SUBCOMMANDS, cli
from dan_ros.errors import BackendError, MissingPackageError, ModelError
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.store import read_model

NOBODY = 'grpc://127.0.0.1:9'  # the port `discard`: connections are refused


@pytest.mark.parametrize(
    ('url', 'expected'),
    [
        ('grpc://robot-server', ('grpc', 'robot-server', 8001, '')),
        ('grpcs://10.0.0.5:9000', ('grpcs', '10.0.0.5', 9000, '')),
        ('http://[::1]:80/serving/', ('http', '[::1]', 80, '/serving')),
        ('https://a.b', ('https', 'a.b', 443, '')),
    ],
)
def test_addresses_are_parsed(url, expected):
    address = Address.parse(url)
    assert (address.scheme, address.host, address.port, address.path) == expected
    assert address.is_encrypted == url.partition(':')[0].endswith('s')


@pytest.mark.parametrize(
    ('url', 'is_warned'),
    [
        ('grpc://gpu.local:8001', True),
        ('http://10.0.0.5:8000', True),
        ('grpc://localhost.example.com', True),
        ('grpcs://gpu.local:8001', False),
        ('https://10.0.0.5', False),
        ('grpc://localhost:8001', False),
        ('grpc://127.0.0.7', False),
        ('http://[::1]:8000', False),
    ],
)
def test_faces_that_leave_the_robot_without_encryption_are_a_warning(caplog, url, is_warned):
    caplog.set_level(logging.INFO)
    _announce(url)
    (record,) = caplog.records
    assert f'sent to {url}' in record.getMessage()
    assert ('without encryption' in record.getMessage()) == is_warned
    assert record.levelno == (logging.WARNING if is_warned else logging.INFO)


@pytest.mark.parametrize(
    'url',
    [
        'robot:8001',
        'ftp://a',
        'grpc://',
        'grpc://a:0',
        'grpc://a:70000',
        'grpc://a/path',
        'http://user:password@a',
        'http://a?b',
        'grpc://a\nb',
        'x' * 5000,
    ],
)
def test_other_addresses_are_refused_in_one_line(url):
    with pytest.raises(BackendError) as error:
        Address.parse(url)
    assert '\n' not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_token_is_read_again_when_its_file_changes(tmp_path):
    file = tmp_path / 'token'
    file.write_text('first\n')
    credentials = Credentials(str(file))
    assert credentials.headers() == {'authorization': 'Bearer first'}
    (tmp_path / 'new').write_text('second')
    os.replace(tmp_path / 'new', file)
    assert credentials.headers() == {'authorization': 'Bearer second'}
    assert Credentials('').headers() == {}


@pytest.mark.parametrize('content', [b'', b'two words', b'a\nb: c', b'\xff', b'x' * 20_000])
def test_a_file_without_a_token_is_refused_without_quoting_it(tmp_path, content):
    file = tmp_path / 'token'
    file.write_bytes(content)
    with pytest.raises(BackendError, match='must contain one token') as error:
        Credentials(str(file)).headers()
    assert 'words' not in str(error.value)


def test_the_back_off_grows_and_is_spread():
    longest = [backoff_s(n, lambda: 1.0) for n in range(100)]
    shortest = [backoff_s(n, lambda: 0.0) for n in range(100)]
    assert longest[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(longest) == longest[-1] == MAX_DELAY_S
    assert [high / low for high, low in zip(longest, shortest, strict=True)] == [2.0] * 100


# --- which models are the same --------------------------------------------------------------------


@pytest.fixture(scope='module')
def file():
    return read_model('dan_ferplus_int8')


@pytest.fixture(scope='module')
def info(file):
    return ModelInfo.from_onnx(file.content, str(file.path))


def served(info, file, **changes):
    tensors = {
        'inputs': [('faces', 'uint8', [*info.input_size, 3])],
        'outputs': [('logits', 'float32', [len(info.labels)])],
        'parameters': parameters_of(file, info),
    }
    return ServedModel(**{**tensors, **changes})


def test_the_same_file_and_other_files_of_the_same_weights_are_accepted(file, info):
    assert check_model(served(info, file), file, info, 'server')
    twin = read_model('dan_ferplus')
    assert check_model(served(info, twin), file, info, 'server')
    assert not check_model(served(info, file, parameters={}), file, info, 'server')
    assert not check_model(served(info, file, parameters={'a': 'b'}), file, info, 'server')


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'inputs': [('faces', 'uint8', [224, 224, 3])]}, 'inputs'),
        ({'inputs': [('faces', 'FP16', [96, 96, 3])]}, 'inputs'),
        ({'outputs': [('logits', 'float32', [7])]}, 'outputs'),
        ({'outputs': []}, 'outputs'),
        ({'labels': ('happy', 'neutral')}, 'labels'),
        ({'crop_scale': 1.2}, 'crop scale'),
        ({'source_sha256': 'f' * 64}, 'SHA-256'),
        ({'source_sha256': ''}, 'SHA-256'),
    ],
)
def test_another_model_is_refused_in_one_line(file, info, changes, said):
    if 'labels' in changes:
        changes = {'labels': (*changes['labels'], *info.labels[2:])}
    told = {name: changes[name] for name in changes if name in ('inputs', 'outputs')}
    other = replace(info, **{name: changes[name] for name in changes if name not in told})
    model = served(info, file, **told)
    if not told:
        parameters = parameters_of(replace(file, sha256='0' * 64), other)
        model = served(info, file, parameters=parameters)
    with pytest.raises(ModelError, match=f'server differs from .* model: {said}') as error:
        check_model(model, file, info, 'server')
    assert '\n' not in str(error.value)


def test_a_server_with_small_batches_is_refused(file, info):
    assert check_model(served(info, file, max_batch=32), file, info, 'server')
    with pytest.raises(ModelError, match='takes at most 8 faces at once'):
        check_model(served(info, file, max_batch=8), file, info, 'server')


def test_parameters_that_cannot_be_read_are_refused(file, info):
    parameters = {**parameters_of(file, info), 'dan_ros.crop': 'round 1'}
    with pytest.raises(ModelError, match='crop rule'):
        check_model(served(info, file, parameters=parameters), file, info, 'server')


def test_the_test_pictures_tell_twins_from_servers_that_misread(info):
    int8, twin = (open_backend('onnxruntime', name) for name in ('dan_ferplus_int8', 'dan_ferplus'))
    pictures = probe_pictures(info.input_size)
    expected = int8.infer(pictures)
    check_answers(twin.infer(pictures), expected, info.labels, 'server')
    misread = (
        pictures[..., ::-1],
        pictures.transpose(0, 2, 1, 3),
        pictures[:, ::-1],
        np.zeros_like(pictures),
        np.roll(pictures, 40, axis=1),
    )
    for wrong in misread:
        with pytest.raises(ModelError, match='misreads pictures'):
            check_answers(int8.infer(wrong.copy()), expected, info.labels, 'server')


# --- other servers than Triton --------------------------------------------------------------------

METADATA = {
    'name': 'model',
    'inputs': [{'name': 'faces', 'datatype': 'UINT8', 'shape': [-1, 96, 96, 3]}],
    'outputs': [{'name': 'logits', 'datatype': 'FP32', 'shape': [-1, 8]}],
}


@contextmanager
def http_server(answer: bytes, pause_s: float = 0.0):
    """A server that has only metadata, and sends it byte by byte with pauses."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != '/v2/models/model':
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header('Content-Length', str(len(answer)))
            self.end_headers()
            for byte in answer:
                self.wfile.write(bytes([byte]))
                time.sleep(pause_s)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def test_a_server_with_metadata_alone_is_described(info):
    with http_server(json.dumps(METADATA).encode()) as url:
        client = open_client(ServerConfig(url), 'model')
        model = client.describe()
        client.close()
    assert model == ServedModel(
        [('faces', 'uint8', [*info.input_size, 3])], [('logits', 'float32', [8])]
    )


def test_a_server_whose_model_takes_one_face_at_a_time_is_refused(file, info):
    faces = {'name': 'faces', 'datatype': 'UINT8', 'shape': [1, 96, 96, 3]}
    with http_server(json.dumps({**METADATA, 'inputs': [faces]}).encode()) as url:
        client = open_client(ServerConfig(url), 'model')
        with pytest.raises(ModelError, match=r'inputs .*\[1, 96, 96, 3\].* instead of'):
            check_model(client.describe(), file, info, 'server')
        client.close()


@pytest.mark.parametrize('answer', [b'', b'[]', b'{"inputs": 3}', b'<html>', b'{"inputs": [{}]}'])
def test_a_server_that_describes_nonsense_is_refused_in_one_line(answer):
    with http_server(answer) as url:
        client = open_client(ServerConfig(url), 'model')
        with pytest.raises(ServerError, match='check backend.url') as error:
            client.describe()
        client.close()
    assert '\n' not in str(error.value)


def test_a_server_that_trickles_is_late(monkeypatch):
    monkeypatch.setattr('dan_ros.backends.kserve.client.CHECK_TIMEOUT_S', 0.5)
    with http_server(json.dumps(METADATA).encode(), pause_s=0.1) as url:
        client = open_client(ServerConfig(url), 'model')
        started_s = time.monotonic()
        with pytest.raises(ServerError, match='did not answer within 500 ms'):
            client.describe()
        assert time.monotonic() - started_s < 5
        client.close()


# --- a server that becomes unavailable ------------------------------------------------------------


class Client:
    """A connection that answers or fails as the test wants."""

    def __init__(self):
        self.is_closed = False
        self.fails = False

    def infer(self, faces):
        if self.fails:
            raise ServerError('gone')
        return np.ones((len(faces), 8), np.float32)

    def close(self):
        self.is_closed = True


def some_faces(count):
    return np.zeros((count, 96, 96, 3), np.uint8)


def test_a_lost_connection_is_closed_and_replaced(monkeypatch):
    monkeypatch.setattr('dan_ros.backends.kserve.server.backoff_s', lambda failures: 0.001)
    clients, attempts = [Client(), Client()], []

    def connect():
        attempts.append(None)
        if 2 <= len(attempts) <= 4:
            raise ServerError('still away')
        return clients[len(attempts) > 1]

    server = Server('server', connect)
    server.start(is_required=True)
    assert server.infer(some_faces(2), 8).shape == (2, 8)
    clients[0].fails = True
    assert server.infer(some_faces(2), 8) is None
    assert clients[0].is_closed
    wait_until(lambda: not server.problem, 'it returns')
    assert server.infer(some_faces(1), 8).shape == (1, 8)
    assert (len(attempts), server.calls, server.failures) == (5, 3, 1)
    server.close()
    assert clients[1].is_closed
    assert server.infer(some_faces(1), 8) is None


def test_a_server_that_flaps_is_probed_ever_less_often(monkeypatch):
    delays = []
    monkeypatch.setattr(
        'dan_ros.backends.kserve.server.backoff_s', lambda n: delays.append(n) or 0.001
    )
    server = Server('server', Client)
    server.start(is_required=True)
    for _ in range(4):
        server._client.fails = True
        server.infer(some_faces(1), 8)
        wait_until(lambda: not server.problem, 'it returns')
    assert delays == [0, 1, 2, 3]
    server._since_s -= 100
    server._client.fails = True
    server.infer(some_faces(1), 8)
    wait_until(lambda: not server.problem, 'it returns')
    assert delays[-1] == 0


def test_no_thread_keeps_a_backend_alive(monkeypatch):
    monkeypatch.setattr('dan_ros.backends.kserve.server.FIRST_DELAY_S', 600.0)
    monkeypatch.setattr('dan_ros.backends.kserve.server.MAX_DELAY_S', 600.0)
    gc.disable()
    try:
        server = ServerConfig(NOBODY)
        config = BackendConfig(server=server, fallback=True)
        backend = choose_backend('kserve', config=config).backend
        (probe,) = (thread for thread in threading.enumerate() if thread.name == 'probe')
        gone = weakref.ref(backend)
        del backend
        assert gone() is None
        probe.join(10)
        assert not probe.is_alive()
    finally:
        gc.enable()


# --- the choice of a server -----------------------------------------------------------------------


def test_a_server_is_never_chosen_unasked():
    assert REGISTRY['kserve'].only_by_name
    assert open_backend(server=ServerConfig(NOBODY)).name == 'onnxruntime'


def test_a_missing_package_is_one_line_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tritonclient', None)
    for name in [name for name in sys.modules if name.startswith('dan_ros.backends.kserve.')]:
        if not name.endswith('config'):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingPackageError, match='pip install .*tritonclient.*extra fleet'):
        open_backend('kserve', server=ServerConfig(NOBODY))


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--backend', 'kserve'], 'needs the address of a server'),
        (['--backend', 'kserve', '--url', 'robot'], 'is not the address of an inference server'),
        (['--url', NOBODY], '--url needs --backend kserve'),
        (['--token-file', 'token'], '--token-file needs --url'),
        (['--backend', 'kserve', '--url', NOBODY], 'Connection refused: check backend.url'),
        (
            ['--backend', 'kserve', '--url', NOBODY, '--token-file', '/no/such'],
            'backend.token_file: /no/such: No such file',
        ),
        (
            ['--backend', 'kserve', '--url', NOBODY, '--ca-file', '/no/such'],
            'backend.ca_file: /no/such: No such file',
        ),
        (
            ['--backend', 'kserve', '--url', NOBODY, '--ca-file', __file__],
            'contains no certificate',
        ),
    ],
)
def test_a_command_without_a_usable_server_says_so(portrait_file, arguments, said):
    result = CliRunner().invoke(cli, ['predict', str(portrait_file), *arguments])
    assert result.exit_code != 0
    text = str(result.exception) if isinstance(result.exception, BackendError) else result.output
    assert said in text


@pytest.mark.parametrize('command', SUBCOMMANDS)
def test_every_command_that_offers_the_backend_kserve_has_its_address(command):
    options = {option.name: option for option in cli.get_command(None, command).params}
    choices = getattr(options.get('backend'), 'type', None)
    assert 'kserve' not in getattr(choices, 'choices', ()) or 'url' in options


# --- serve-config ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'model', 'backend', 'device'),
    [
        ([], 'dan_ferplus_int8', 'onnxruntime', 'CPU'),
        (['--device', 'gpu', '--instances', '2'], 'dan_ferplus', 'onnxruntime', 'GPU'),
        (['--backend', 'python', '--model', 'dan_ferplus'], 'dan_ferplus', 'python', 'CPU'),
    ],
)
def test_serve_config_writes_what_triton_and_kserve_read(tmp_path, options, model, backend, device):
    from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

    result = CliRunner().invoke(cli, ['serve-config', str(tmp_path / 'fleet'), *options])
    assert result.exit_code == 0, result.output
    assert f'backend.model_name:={model}' in result.output
    assert '-p backend.name:=kserve' in result.output
    folder = tmp_path / 'fleet' / 'models' / model
    config = text_format.Parse((folder / 'config.pbtxt').read_text(), ModelConfig())
    file = read_model(model)
    info = ModelInfo.from_onnx(file.content, model)
    assert (folder / '1' / 'model.onnx').read_bytes() == file.content
    assert (folder / '1' / 'model.py').exists() == (backend == 'python')
    assert (config.name, config.backend, config.max_batch_size) == (model, backend, 32)
    (faces,), (logits,), (group,) = config.input, config.output, config.instance_group
    assert (faces.name, faces.data_type, *faces.dims) == (
        'faces',
        DataType.TYPE_UINT8,
        *info.input_size,
        3,
    )
    assert (logits.name, logits.data_type, *logits.dims) == ('logits', DataType.TYPE_FP32, 8)
    assert group.kind == ModelInstanceGroup.Kind.Value(f'KIND_{device}')
    assert group.count == (2 if '--instances' in options else 1)
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, 8, 32]
    assert config.HasField('dynamic_batching')
    assert (config.dynamic_batching.max_queue_delay_microseconds > 0) == (device == 'GPU')
    told = {key: value.string_value for key, value in config.parameters.items()}
    assert told['intra_op_thread_count'] == ('1' if '--instances' in options else '0')
    assert ModelInfo.from_metadata(told, 'server') == info
    assert told['dan_ros.sha256'] == file.sha256
    compose = yaml.safe_load((tmp_path / 'fleet' / 'compose.yaml').read_text())['services']
    assert ('deploy' in compose['triton']) == (device == 'GPU')
    service = yaml.safe_load((tmp_path / 'fleet' / 'inference-service.yaml').read_text())
    assert service['kind'] == 'InferenceService'
    limits = service['spec']['predictor']['model']['resources']['limits']
    assert ('nvidia.com/gpu' in limits) == (device == 'GPU')


def test_printed_commands_can_be_pasted(tmp_path):
    out = tmp_path / 'our robots'
    result = CliRunner().invoke(cli, ['serve-config', str(out)])
    (line,) = [line for line in result.output.splitlines() if 'docker compose' in line]
    assert shlex.split(line)[-2] == str(out / 'compose.yaml')


def test_serve_config_overwrites_nothing_and_leaves_nothing_half_written(tmp_path):
    arguments = ['serve-config', str(tmp_path / 'fleet'), '--model']
    result = CliRunner().invoke(cli, [*arguments, 'no_such.onnx'])
    assert 'no_such.onnx' in str(result.exception)
    result = CliRunner().invoke(cli, [*arguments, 'yunet'])
    assert 'not a model of this package' in str(result.exception)
    result = CliRunner().invoke(cli, [*arguments, 'dan_ferplus', '--model', 'dan_ferplus'])
    assert 'two models have the name dan_ferplus' in str(result.exception)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'fleet').mkdir()
    result = CliRunner().invoke(cli, [*arguments, 'dan_ferplus'])
    assert 'exists already' in str(result.exception)
