# SPDX-License-Identifier: Apache-2.0
"""The backend kserve and the files of serve-config against a real Triton Inference Server."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from click.testing import CliRunner
from processes import PATIENCE_S, wait_until
from tls import make_certificate, tls_proxy
from triton_server import Triton

from dan_ros.backends import BackendConfig, ServerConfig, choose_backend, open_backend
from dan_ros.cli.main import cli
from dan_ros.errors import BackendError, ModelError

MODEL, FLOAT_MODEL = 'dan_ferplus_int8', 'dan_ferplus'
PATIENT_MS = 5000.0  # a loaded machine is slow at times
# Simultaneous calls arrive within half a second; a full batch does not wait.
NO_DELAY, ROBOTS = 'max_queue_delay_microseconds: 0', 4
LONG_DELAY = f'preferred_batch_size: [{ROBOTS}] max_queue_delay_microseconds: 500000'
RESTRICTED = 'inference,model-config,metadata'
# Added to the model of serve-config: it does what the file `mode` says.
ODD = """

class TritonPythonModel(TritonPythonModel):
    def initialize(self, args):
        super().initialize(args)
        self.mode = Path(args['model_repository'], 'mode')
        run = self.session.run
        self.session = self
        self.run = lambda names, inputs: self.answer(run, names, inputs)

    def answer(self, run, names, inputs):
        mode = self.mode.read_text()
        if mode == 'bgr':
            inputs = {'faces': np.ascontiguousarray(inputs['faces'][..., ::-1])}
        (logits,) = run(names, inputs)
        if mode == 'slow':
            import time
            time.sleep(1)
        if mode == 'error':
            raise RuntimeError('out of order')
        return [{'nan': logits * np.nan, 'wide': np.repeat(logits, 2, 1)}.get(mode, logits)]
"""


class Servers:
    """A server, with functions to call it and to make it fail."""

    def __init__(self, folder, *models):
        self.token, self.wrong_token = folder / 'token', folder / 'wrong_token'
        self.token.write_text('secret\n')
        self.wrong_token.write_text('guessed')
        self.models = folder / 'fleet' / 'models'
        arguments = ['serve-config', str(folder / 'fleet'), '--backend', 'python']
        arguments += [part for model in models for part in ('--model', model)]
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output

    def start(self, scratch):
        restricted = f'--http-restricted-api={RESTRICTED}:authorization=Bearer secret'
        self.triton = Triton(self.models, scratch, restricted)
        return self

    def add(self, name, change=str):
        """Copy the model under another name."""
        source, target = self.models / MODEL, self.models / name
        shutil.copytree(source, target)
        text = (source / 'config.pbtxt').read_text().replace(f'name: "{MODEL}"', f'name: "{name}"')
        (target / 'config.pbtxt').write_text(change(text))
        (target / 'mode').write_text('good')
        with (target / '1' / 'model.py').open('a') as file:
            file.write(ODD)

    def set_mode(self, name, mode):
        (self.models / name / 'mode').write_text(mode)

    def config(self, url='', **options):
        url = url or self.triton.grpc
        token = '' if url.startswith('grpc') else str(self.token)
        return ServerConfig(url, **{'token_file': token, 'timeout_ms': PATIENT_MS, **options})

    def open(self, url='', **options):
        return open_backend('kserve', server=self.config(url, **options))


@pytest.fixture(scope='module')
def servers(tmp_path_factory):
    servers = Servers(tmp_path_factory.mktemp('servers'), MODEL, FLOAT_MODEL)
    servers.add('odd')
    servers.add('other', lambda text: text.replace('neutral,happy', 'happy,neutral'))
    servers.add('unnamed', lambda text: text[: text.index('parameters')])
    servers.add('patient', lambda text: text.replace(NO_DELAY, LONG_DELAY))
    yield servers.start(tmp_path_factory.mktemp('triton'))
    servers.triton.kill()


@pytest.fixture(scope='module')
def mortal(tmp_path_factory):
    """A server that tests kill; it has one model, so that it starts fast."""
    servers = Servers(tmp_path_factory.mktemp('servers'), MODEL)
    yield servers.start(tmp_path_factory.mktemp('triton'))
    servers.triton.kill()


@pytest.fixture(scope='module')
def certificates(tmp_path_factory):
    """A valid and an expired certificate, as PEM files."""
    ends = ('20990101000000Z', '20200101000000Z')
    return [make_certificate(tmp_path_factory.mktemp('certificate'), end) for end in ends]


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level('INFO', 'dan_ros')
    return caplog


@pytest.fixture(scope='module')
def local():
    return open_backend('onnxruntime', MODEL)


def faces(count, seed=1):
    return np.random.RandomState(seed).randint(0, 256, (count, 96, 96, 3), np.uint8)


def warnings_in(log):
    return [record.getMessage() for record in log.records if record.levelname == 'WARNING']


def wait_back(backend):
    wait_until(lambda: not backend.warning, 'the server is used again', lambda: backend.warning)


@pytest.mark.parametrize('scheme', ['grpc', 'http', 'grpcs', 'https'])
def test_answers_are_those_of_the_local_model(servers, certificates, local, scheme, log):
    url = servers.triton.grpc if scheme.startswith('grpc') else servers.triton.http
    good, _ = certificates
    with tls_proxy(good, url) as port:
        options = {}
        if scheme.endswith('s'):
            url, options = f'{scheme}://localhost:{port}', {'ca_file': str(good)}
        backend = servers.open(url, **options)
        for count in (0, 1, 5, 33):
            np.testing.assert_array_equal(backend.infer(faces(count)), local.infer(faces(count)))
    assert (backend.device, backend.warning, backend.receiver) == (url, '', url)
    assert backend.details()['server_failures'] == '0'
    assert f'pictures of faces leave this robot: they are sent to {url}' in log.text


def test_a_command_uses_the_server(servers, portrait_file, log):
    arguments = ['predict', '--json', str(portrait_file)]
    server = ['--backend', 'kserve', '--url', servers.triton.grpc, '--timeout-ms', str(PATIENT_MS)]
    results = [CliRunner().invoke(cli, arguments + more) for more in ([], server)]
    local, remote = (json.loads(result.stdout)['faces'] for result in results)
    assert local == remote != []


def test_faces_of_several_robots_share_a_batch(servers, local):
    import tritonclient.grpc

    client = tritonclient.grpc.InferenceServerClient(servers.triton.grpc.partition('://')[2])

    def counts():
        answer = client.get_inference_statistics('patient', as_json=True)['model_stats'][0]
        return int(answer['inference_count']), int(answer['execution_count'])

    assert NO_DELAY in (servers.models / MODEL / 'config.pbtxt').read_text()
    robots = [servers.open(model_name='patient') for _ in range(ROBOTS)]
    before, together = counts(), Barrier(ROBOTS)

    def drive(number):
        own = faces(1, number)
        together.wait(PATIENCE_S)
        np.testing.assert_array_equal(robots[number].infer(own), local.infer(own))

    with ThreadPoolExecutor(ROBOTS) as pool:
        list(pool.map(drive, range(ROBOTS)))
    answered, runs = (after - first for after, first in zip(counts(), before, strict=True))
    assert (answered, runs) == (ROBOTS, 1)


@pytest.mark.parametrize('protocol', ['grpc', 'http'])
def test_every_face_is_answered_once_while_the_server_dies_and_returns(
    mortal, local, log, protocol
):
    backend = mortal.open(getattr(mortal.triton, protocol))
    calls = int(backend.details()['server_calls'])
    for frame in range(60):
        if frame == 20:
            mortal.triton.kill()
        if frame == 40:
            mortal.triton.start(wait=False)
        own = faces(2, frame)
        np.testing.assert_array_equal(backend.infer(own), local.infer(own))
        time.sleep(1 / 60)
    mortal.triton.wait_ready()
    wait_back(backend)
    np.testing.assert_array_equal(backend.infer(faces(1)), local.infer(faces(1)))
    details = backend.details()
    assert details['server_failures'] == '1'
    assert int(details['server_calls']) >= calls + 22
    (line,) = warnings_in(log)
    assert line.startswith(f'the local model classifies the faces: {details["device"]}: ')
    assert log.text.count('the server is used again and classifies the faces') == 1


@pytest.mark.parametrize('protocol', ['grpc', 'http'])
def test_a_late_answer_is_replaced_and_dropped(servers, local, log, protocol):
    backend = servers.open(getattr(servers.triton, protocol), model_name='odd', timeout_ms=400.0)
    servers.set_mode('odd', 'slow')
    started_s = time.monotonic()
    np.testing.assert_array_equal(backend.infer(faces(1)), local.infer(faces(1)))
    assert 0.4 <= time.monotonic() - started_s < 0.95  # the late answer takes 1 s
    assert 'did not answer within 400 ms' in backend.warning
    assert backend.details()['device'] == 'cpu'
    for seed in range(30):  # the answer of another set of faces never arrives
        own = faces(1, seed)
        np.testing.assert_array_equal(backend.infer(own), local.infer(own))
        time.sleep(0.05)
    servers.set_mode('odd', 'good')
    wait_back(backend)
    np.testing.assert_array_equal(backend.infer(faces(3)), local.infer(faces(3)))
    assert len(warnings_in(log)) == 1


@pytest.mark.parametrize(
    ('mode', 'said'),
    [
        ('nan', 'returns float32 [3, 8] with numbers that are not finite'),
        ('wide', '[3, 16] instead of float32 [3, 8]'),
        ('error', 'out of order'),
    ],
)
def test_nonsense_is_replaced(servers, local, log, mode, said):
    backend = servers.open(model_name='odd')
    servers.set_mode('odd', mode)
    np.testing.assert_array_equal(backend.infer(faces(3)), local.infer(faces(3)))
    servers.set_mode('odd', 'good')
    (line,) = warnings_in(log)
    assert said in line
    assert '\n' not in line
    wait_back(backend)


@pytest.mark.parametrize(
    ('name', 'mode', 'said'),
    [
        ('other', 'good', 'labels happy,neutral,'),
        ('unnamed', 'bgr', 'or misreads pictures: on a test picture its probabilities differ by'),
    ],
)
def test_another_model_is_refused(servers, name, mode, said):
    servers.set_mode(name, mode)
    for fallback in (False, True):
        config = BackendConfig(server=servers.config(model_name=name), fallback=fallback)
        with pytest.raises(ModelError) as error:
            choose_backend('kserve', config=config)
        assert said in str(error.value)
        assert '\n' not in str(error.value)
    servers.set_mode(name, 'good')


def test_a_model_replaced_while_the_server_was_away_is_refused(servers, local, log):
    servers.set_mode('unnamed', 'good')
    backend = servers.open(model_name='unnamed')
    assert 'does not report its labels and weights' in warnings_in(log)[0]
    servers.set_mode('unnamed', 'error')
    backend.infer(faces(1))
    servers.set_mode('unnamed', 'bgr')
    wait_until(lambda: 'misreads' in backend.warning, 'the other model is noticed')
    np.testing.assert_array_equal(backend.infer(faces(1)), local.infer(faces(1)))
    wait_until(lambda: 'misreads' in warnings_in(log)[-1], 'a line about it')
    servers.set_mode('unnamed', 'good')


def test_the_same_weights_in_another_precision_are_accepted(servers, local):
    backend = servers.open(model_name=FLOAT_MODEL)
    difference = np.abs(backend.infer(faces(4)) - local.infer(faces(4))).max()
    assert 0 < difference < 0.5


def test_what_prevents_a_call_is_one_line(servers, certificates):
    good, old = certificates
    http = servers.triton.http
    with (
        tls_proxy(old, servers.triton.grpc) as old_grpc,
        tls_proxy(old, http) as old_http,
        tls_proxy(good, servers.triton.grpc) as unknown,
    ):
        expired = {'ca_file': str(old)}
        cases = [
            (f'grpcs://localhost:{old_grpc}', expired, 'certificate has expired'),
            (f'https://localhost:{old_http}', expired, 'certificate has expired'),
            (f'grpcs://localhost:{unknown}', {}, 'CERTIFICATE_VERIFY_FAILED'),
            (http, {'token_file': str(servers.wrong_token)}, 'check backend.token_file'),
            (http, {'token_file': ''}, 'check backend.token_file'),
            ('grpc://127.0.0.1:9', {}, 'Connection refused: check backend.url'),
            ('http://127.0.0.1:9', {}, 'Connection refused: check backend.url'),
            (servers.triton.grpc.replace('grpc', 'http'), {}, 'check backend.url'),
            (http, {'model_name': 'nobody'}, 'check backend.model_name'),
            ('', {'model_name': 'nobody'}, 'check backend.model_name'),
            ('', {'model_version': '7'}, 'check backend.model_name and backend.model_version'),
        ]
        for url, options, said in cases:
            with pytest.raises(BackendError) as error:
                servers.open(url, **options)
            text = str(error.value)
            assert said in text, text
            assert '\n' not in text
            assert len(text) < 500
            assert 'guessed' not in text


def test_a_server_that_starts_later_is_used(mortal, local, log):
    mortal.triton.kill()
    backend = choose_backend(
        'kserve', config=BackendConfig(server=mortal.config(), fallback=True)
    ).backend
    np.testing.assert_array_equal(backend.infer(faces(2)), local.infer(faces(2)))
    assert backend.details()['server_calls'] == '0'
    assert 'Connection refused' in backend.warning
    mortal.triton.start()
    wait_back(backend)
    backend.infer(faces(2))
    assert backend.details()['server_calls'] == '1'


def test_the_node_answers_every_image_while_the_server_dies_and_returns(
    mortal, start, smile, pipeline
):
    url = mortal.triton.grpc
    arguments = ['backend.name:=kserve', f'backend.url:={url}', f'backend.timeout_ms:={PATIENT_MS}']
    robot = start(*[part for argument in arguments for part in ('-p', argument)])
    robot.show(smile)
    for state in ('in use', 'unavailable, the local model answers', 'in use'):
        if state != 'in use':
            mortal.triton.kill()
        elif robot.node.output.count('the local model classifies'):
            mortal.triton.start()
            robot.node.wait_for_output('the server is used again and classifies the faces')
        for _ in range(5):
            (face,) = robot.show_once(smile).faces
            assert face.label == 'happy'
        status, values = robot.wait_status(
            lambda _, values, state=state: values.get('server_state') == state, state
        )
        assert values['backend'] == 'kserve'
        assert values['device'] == (url if state == 'in use' else 'cpu')
        assert values['server'] == f'{url} {MODEL}'
        assert ('the local model classifies the faces' in status.message) == (state != 'in use')
        assert values['frames_dropped.failed'] == '0'
    assert values['server_failures'] == '1'
    assert robot.node.output.count('the local model classifies the faces') == 1
    assert f'pictures of faces leave this robot: they are sent to {url}' in robot.node.output
