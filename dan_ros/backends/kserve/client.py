# SPDX-License-Identifier: Apache-2.0
"""Clients of the Open Inference Protocol, version 2, over gRPC and HTTP.

The protocol: https://github.com/kserve/open-inference-protocol. The model's configuration is an
extension of Triton: https://github.com/triton-inference-server/server/tree/main/docs/protocol.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tritonclient.utils import InferenceServerException

from dan_ros.backends.kserve.config import Address, Credentials, ServerConfig
from dan_ros.errors import BackendError, shorten
from dan_ros.model import metadata
from dan_ros.model.metadata import Tensor

CHECK_TIMEOUT_S = 3.0  # deadline of the first calls, which connect and read the metadata
NUMPY_NAMES = {'UINT8': 'uint8', 'FP32': 'float32'}
NO_CONFIGURATION = ('UNIMPLEMENTED', '404', '405')  # status of a server without this extension
# What to do about an error, by a part of its status or text in lower case; the first one counts.
REMEDIES = {
    'certificate': 'check date and host name of the certificate, and backend.ca_file',
    'ssl': 'check that the server uses TLS on this port',
    **dict.fromkeys(
        ('unauthenticated', 'permission', 'restricted', '401', '403'), 'check backend.token_file'
    ),
    **dict.fromkeys(
        ('unknown model', 'not_found', 'does not exist'),
        'check backend.model_name and backend.model_version',
    ),
    'not ready': 'wait until it has loaded the model',
    '': 'check backend.url and the server',
}

Result = TypeVar('Result')


class ServerError(BackendError):
    """A server cannot be reached, refuses a call, or its answer is late or invalid.

    Attributes:
        status: status of the protocol, such as 'UNAVAILABLE' or '404'; '' if there is none.
    """

    def __init__(self, message: str, status: str = '') -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class ServedModel:
    """Description of a model by its server."""

    inputs: list[Tensor]  # without the batch dimension
    outputs: list[Tensor]  # without the batch dimension
    # Parameters of its configuration; {} if the server offers only metadata.
    parameters: dict[str, str] = field(default_factory=dict)
    max_batch: int = 0  # largest batch; 0 if unknown


class Client(ABC):
    """One connection to one model, opened by the first call. Threads must take turns."""

    _library: Any  # tritonclient.grpc or tritonclient.http, which have the same functions
    _client: Any

    def __init__(self, config: ServerConfig, model_name: str) -> None:
        self._address = Address.parse(config.url)
        self._url = config.url
        self._model = {'model_name': model_name, 'model_version': config.model_version}
        self._credentials = Credentials(config.token_file)
        self._timeout_s = config.timeout_ms / 1e3

    def infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        """Return the server's answer for uint8 [n, H, W, 3], before the deadline.

        Raises:
            ServerError: the server failed, or did not answer in time.
        """
        return self._guard(self._timeout_s, lambda: self._infer(faces_rgb))

    def describe(self) -> ServedModel:
        """Request the description of the model.

        Raises:
            ServerError: the server cannot be reached, or does not have the model.
        """
        described = self._guard(CHECK_TIMEOUT_S, self._get_metadata)
        config: dict[str, Any] = {}
        try:
            config = self._guard(CHECK_TIMEOUT_S, self._get_config)
        except ServerError as error:
            if error.status not in NO_CONFIGURATION:
                raise
        try:
            return _to_model(described, config)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ServerError(
                f'{self._url} describes its model in an unknown form ({shorten(repr(error))}): '
                f'{REMEDIES[""]}'
            ) from None

    @abstractmethod
    def close(self) -> None:
        """Close the connection; a call in progress may fail."""

    @abstractmethod
    def _within(self, timeout_s: float, call: Callable[[], Result]) -> Result:
        """Make a call for at most `timeout_s`."""

    @abstractmethod
    def _get_metadata(self) -> dict[str, Any]: ...

    @abstractmethod
    def _get_config(self) -> dict[str, Any]: ...

    def _options(self) -> dict[str, Any]:
        """Return the arguments that all calls have."""
        return {**self._model, 'headers': self._credentials.headers()}

    def _infer(self, faces_rgb: np.ndarray) -> np.ndarray:
        tensor = self._library.InferInput(metadata.INPUT_NAME, list(faces_rgb.shape), 'UINT8')
        tensor.set_data_from_numpy(faces_rgb)
        result = self._client.infer(
            inputs=[tensor],
            outputs=[self._library.InferRequestedOutput(metadata.OUTPUT_NAME)],
            timeout=round(1e6 * self._timeout_s),  # microseconds, for the server
            **self._options(),
        )
        answer = result.as_numpy(metadata.OUTPUT_NAME)
        if answer is None:
            raise ServerError(f'{self._url}: its answer has no {metadata.OUTPUT_NAME}')
        return np.asarray(answer)

    def _guard(self, timeout_s: float, call: Callable[[], Result]) -> Result:
        """Make a call, and turn every error of the client's libraries into a `ServerError`."""
        try:
            return self._within(timeout_s, call)
        except BackendError:
            raise
        except InferenceServerException as error:
            status = (error.status() or '').removeprefix('StatusCode.')
            if status == 'DEADLINE_EXCEEDED':
                raise self._late(timeout_s) from None
            raise self._failed(error.message(), status) from None
        except Exception as error:  # errors of gevent, sockets and TLS have no common base class
            raise self._failed(f'{error}' or type(error).__name__) from None

    def _late(self, timeout_s: float) -> ServerError:
        remedy = ', or raise backend.timeout_ms' if timeout_s == self._timeout_s else ''
        return ServerError(
            f'{self._url} did not answer within {1e3 * timeout_s:.0f} ms: check network and load'
            f'{remedy}'
        )

    def _failed(self, text: str, status: str = '') -> ServerError:
        cause = text.rpartition('last error: ')[2]  # gRPC adds a general text before it
        words = ' '.join(f'{status} {cause}'.split())
        remedy = next(remedy for key, remedy in REMEDIES.items() if key in words.lower())
        return ServerError(f'{self._url}: {shorten(words)}: {remedy}', status)


class GrpcClient(Client):
    """Client over gRPC; the library enforces deadlines and drops late answers."""

    def __init__(self, config: ServerConfig, model_name: str) -> None:
        super().__init__(config, model_name)
        os.environ.setdefault('GRPC_VERBOSITY', 'NONE')  # they are raised as errors too
        import tritonclient.grpc

        self._library = tritonclient.grpc
        self._deadline_s = CHECK_TIMEOUT_S
        self._client = tritonclient.grpc.InferenceServerClient(
            self._address.authority,
            ssl=self._address.is_encrypted,
            root_certificates=_readable(config.ca_file),
            channel_args=[
                # A new client connects at once, even if the last one failed for a long time.
                ('grpc.use_local_subchannel_pool', 1),
                ('grpc.enable_retries', 0),
                ('grpc.max_send_message_length', -1),
            ],
        )

    def close(self) -> None:
        """Close the connection; a call in progress fails."""
        self._client.close()

    def _within(self, timeout_s: float, call: Callable[[], Result]) -> Result:
        self._deadline_s = timeout_s
        return call()

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), 'client_timeout': self._deadline_s}

    def _get_metadata(self) -> dict[str, Any]:
        return dict(self._client.get_model_metadata(as_json=True, **self._options()))

    def _get_config(self) -> dict[str, Any]:
        return dict(self._client.get_model_config(as_json=True, **self._options())['config'])


class HttpClient(Client):
    """Over HTTP.

    The library's client belongs to one thread, and limits only the time between two packets. So a
    separate thread makes the calls, under a timer of gevent.
    """

    def __init__(self, config: ServerConfig, model_name: str) -> None:
        super().__init__(config, model_name)
        import gevent
        import tritonclient.http

        self._library, self._gevent = tritonclient.http, gevent
        self._ca_file = _readable(config.ca_file)
        self._client = None
        self._worker = ThreadPoolExecutor(1, 'server')

    def close(self) -> None:
        """Close the connection after the call in progress."""
        with suppress(RuntimeError):  # the interpreter ends
            if self._client is not None:
                self._worker.submit(self._client.close)
        self._worker.shutdown(wait=False)

    def _within(self, timeout_s: float, call: Callable[[], Result]) -> Result:
        return self._worker.submit(self._timed, timeout_s, call).result()

    def _timed(self, timeout_s: float, call: Callable[[], Result]) -> Result:
        timer = self._gevent.Timeout(timeout_s)
        timer.start()
        try:
            if self._client is None:
                self._client = self._open()
            return call()
        except self._gevent.Timeout:  # gevent's timeout is not a subclass of Exception
            raise self._late(timeout_s) from None
        finally:
            timer.close()

    def _open(self) -> Any:
        import gevent.ssl

        return self._library.InferenceServerClient(
            f'{self._address.authority}{self._address.path}',
            connection_timeout=CHECK_TIMEOUT_S,
            network_timeout=CHECK_TIMEOUT_S,
            ssl=self._address.is_encrypted,
            ssl_context_factory=lambda: gevent.ssl.create_default_context(cafile=self._ca_file),
        )

    def _get_metadata(self) -> dict[str, Any]:
        return dict(self._client.get_model_metadata(**self._options()))

    def _get_config(self) -> dict[str, Any]:
        return dict(self._client.get_model_config(**self._options()))


def open_client(config: ServerConfig, model_name: str) -> Client:
    """Create the client for the scheme of a URL; it connects with its first call.

    Raises:
        BackendError: the URL or the certificate file is invalid.
    """
    is_grpc = Address.parse(config.url).scheme.startswith('grpc')
    return (GrpcClient if is_grpc else HttpClient)(config, model_name)


def _readable(ca_file: str) -> str | None:
    """Return the path of the certificate file, or None for the system's certificates."""
    if not ca_file:
        return None
    path = Path(ca_file).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackendError(
            f'backend.ca_file: {path}: {error.strerror}; give a file that this user can read'
        ) from None
    if b'-----BEGIN CERTIFICATE-----' not in content:
        raise BackendError(f'backend.ca_file: {path} contains no certificate in PEM format')
    return str(path)


def _to_model(described: dict[str, Any], config: dict[str, Any]) -> ServedModel:
    """Convert a server's description; in protobuf's JSON, 64-bit numbers are text."""
    inputs = [_to_tensor(tensor) for tensor in described['inputs']]
    outputs = [_to_tensor(tensor) for tensor in described['outputs']]
    parameters = config.get('parameters', {}).items()
    values = {key: str(value.get('string_value', '')) for key, value in parameters}
    return ServedModel(inputs, outputs, values, int(config.get('max_batch_size', 0)))


def _to_tensor(tensor: dict[str, Any]) -> Tensor:
    kind = str(tensor['datatype'])
    sides = ['N' if int(side) < 0 else int(side) for side in tensor['shape']]
    return tensor['name'], NUMPY_NAMES.get(kind, kind), metadata.without_batch(sides)
