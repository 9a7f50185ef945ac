# SPDX-License-Identifier: Apache-2.0
"""A server of the Open Inference Protocol runs the network; the local model is the fallback."""

import logging
import weakref

import numpy as np

from dan_ros.backends.base import DEFAULT_CONFIG, Backend, BackendConfig, smoke_test
from dan_ros.backends.kserve.client import Client, open_client
from dan_ros.backends.kserve.compatibility import check_answers, check_model, probe_pictures
from dan_ros.backends.kserve.config import EXAMPLE, MAX_BATCH, Address, ServerConfig
from dan_ros.backends.kserve.server import Server, checked_answer
from dan_ros.backends.registry import CPU, load_first
from dan_ros.errors import BackendError, DanError
from dan_ros.model.store import ModelFile

LOG = logging.getLogger(__name__)
UNNAMED = (
    'does not report its labels and weights, so only its tensors and its answer to a test picture '
    'were checked: write its files with `dan-ros serve-config`'
)


class KServeBackend(Backend):
    """Sends faces to a server; after an error or a deadline, the local model answers at once.

    Each set of faces gets exactly one result. While the server is unavailable, a thread probes it
    with blank faces, and switches back when it answers. No thread refers to the backend, so it is
    freed with its last reference.

    Args:
        file: the model that the server must have; it also runs here while the server is
            unavailable.
        config: `server` and `fallback` are used, and `threads` for the local model.

    Raises:
        ModelError: the file is invalid, or the server has another model.
        BackendError: the address is invalid, or the server cannot be used and `fallback` is False.
    """

    name = 'kserve'
    max_batch = MAX_BATCH

    def __init__(self, file: ModelFile, config: BackendConfig = DEFAULT_CONFIG) -> None:
        server = config.server
        if not server.url:
            raise BackendError(
                "the backend 'kserve' needs the address of a server: set backend.url of the node, "
                f'or --url of predict, evaluate, bench and doctor, such as {EXAMPLE}'
            )
        self._url = server.url
        self._local, _ = load_first(CPU, lambda entry: entry.load(file, config))
        smoke_test(self._local)
        self._server = _open_server(file, self._local, server)
        weakref.finalize(self, self._server.close)
        try:
            self._server.start(is_required=not config.fallback)
        except BackendError as error:
            raise type(error)(f'{error}; or set backend.fallback to start without it') from None
        super().__init__(self._local.model, file.name, self._url)
        _announce(server.url)

    @property
    def receiver(self) -> str:
        """Address of the server."""
        return self._url

    @property
    def warning(self) -> str:
        """Why the server is not used at present, or ''."""
        problem = self._server.problem
        return f'the local model classifies the faces: {problem}' if problem else ''

    def details(self) -> dict[str, str]:
        """Return the entries about the server for the diagnostics."""
        is_away = bool(self._server.problem)
        return {
            'device': self._local.device if is_away else self._url,
            'server': self._server.name,
            'server_state': 'unavailable, the local model answers' if is_away else 'in use',
            'server_calls': str(self._server.calls),
            'server_failures': str(self._server.failures),
        }

    def _run(self, faces_rgb: np.ndarray) -> np.ndarray:
        answer = self._server.infer(faces_rgb, len(self.model.labels))
        return self._local.infer(faces_rgb) if answer is None else answer


def _open_server(file: ModelFile, local: Backend, config: ServerConfig) -> Server:
    """Create a `Server` that must have the model of a local backend; it connects later."""
    model_name = config.model_name or file.path.stem
    name = f'{config.url} {model_name}'
    info, pictures = local.model, probe_pictures(local.model.input_size)
    expected = local.infer(pictures)
    open_client(config, model_name).close()  # an invalid file or address is an error of the user

    def connect() -> Client:
        client = open_client(config, model_name)
        try:
            if not check_model(client.describe(), file, info, name):
                LOG.warning('%s %s', name, UNNAMED)
            answer = checked_answer(client.infer(pictures), expected.shape, name)
            check_answers(answer, expected, info.labels, name)
        except DanError:
            client.close()
            raise
        return client

    return Server(name, connect)


def _announce(url: str) -> None:
    address = Address.parse(url)
    text = 'pictures of faces leave this robot: they are sent to %s'
    if address.is_encrypted or address.is_this_machine:
        LOG.info(text, url)
    else:
        LOG.warning(f'{text} without encryption; see docs/scale.md', url)
