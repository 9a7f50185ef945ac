# SPDX-License-Identifier: Apache-2.0
"""Address and settings of an inference server; nothing here needs the client's package."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from dan_ros.errors import BackendError, shorten

# Default port of each scheme: those of Triton, and of TLS behind a proxy.
PORTS = {'grpc': 8001, 'grpcs': 443, 'http': 8000, 'https': 443}
EXAMPLE = 'grpc://server.local:8001'
URL = re.compile(
    r'(?P<scheme>[a-z]+)://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])'
    r'(?::(?P<port>\d{1,5}))?(?P<path>/[A-Za-z0-9._~/-]*)?'
)
MAX_TOKEN_BYTES = 16_384  # the largest header that common servers accept
MAX_BATCH = 32  # faces in one call


@dataclass(frozen=True)
class ServerConfig:
    """How to reach a model on an inference server."""

    url: str = ''  # address, such as grpc://server.local:8001; the scheme is one of `PORTS`
    model_name: str = ''  # name of the model on the server; '' for the name of the local model file
    model_version: str = ''  # its version; '' lets the server choose
    timeout_ms: float = 100.0  # deadline of one call, milliseconds
    token_file: str = ''  # file with a bearer token, read again when it changes; '' for none
    ca_file: str = ''  # PEM file with the certificates to trust; '' for the system's certificates


@dataclass(frozen=True)
class Address:
    """A parsed URL."""

    scheme: str  # one of `PORTS`
    host: str  # name or IP address; an IPv6 address is in brackets
    port: int  # from 1 to 65535
    path: str = ''  # '' or a path, for servers behind a proxy

    @classmethod
    def parse(cls, url: str) -> 'Address':
        """Parse a URL.

        Raises:
            BackendError: it is not the address of an inference server.

        Example:
            >>> Address.parse('grpc://10.0.0.5')
            Address(scheme='grpc', host='10.0.0.5', port=8001, path='')
        """
        match = URL.fullmatch(url)
        if match is None or match['scheme'] not in PORTS:
            raise BackendError(
                f'{shorten(url)!r} is not the address of an inference server: write '
                f'{", ".join(f"{scheme}://" for scheme in PORTS)}, a host and a port, such as '
                f'{EXAMPLE}'
            )
        scheme = match['scheme']
        port = int(match['port'] or PORTS[scheme])
        path = (match['path'] or '').rstrip('/')
        if not 1 <= port <= 65535:
            raise BackendError(f'{url}: the port is outside 1 .. 65535')
        if path and scheme.startswith('grpc'):
            raise BackendError(f'{url}: gRPC has no paths; leave out {path}')
        return cls(scheme, match['host'], port, path)

    @property
    def authority(self) -> str:
        """Host and port."""
        return f'{self.host}:{self.port}'

    @property
    def is_encrypted(self) -> bool:
        """Whether connections use TLS."""
        return self.scheme in ('grpcs', 'https')

    @property
    def is_this_machine(self) -> bool:
        """Whether it is a loopback address."""
        try:
            return ip_address(self.host.strip('[]')).is_loopback
        except ValueError:
            return self.host == 'localhost'


class Credentials:
    """The headers that authenticate the caller.

    The token is read again when its file changes, because issuers such as Kubernetes replace it
    every hour.
    """

    def __init__(self, token_file: str) -> None:
        self._path = Path(token_file).expanduser() if token_file else None
        self._version: tuple[int, ...] = ()
        self._headers: dict[str, str] = {}

    def headers(self) -> dict[str, str]:
        """Return the headers of a call.

        Raises:
            BackendError: the file is missing, unreadable, or contains no token.
        """
        if self._path is None:
            return {}
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version != self._version:
                self._headers = {'authorization': f'Bearer {_read_token(self._path)}'}
                self._version = version
        except OSError as error:
            raise BackendError(
                f'backend.token_file: {self._path}: {error.strerror}; give a file that this user '
                'can read'
            ) from None
        return self._headers


def _read_token(path: Path) -> str:
    """Read a token; the message of an error does not contain it."""
    with path.open('rb') as file:
        content = file.read(MAX_TOKEN_BYTES + 1).strip()
    if len(content) > MAX_TOKEN_BYTES or not re.fullmatch(rb'[\x21-\x7e]+', content):
        raise BackendError(
            f'backend.token_file: {path} must contain one token of printable characters without '
            'spaces, and nothing else'
        )
    return content.decode('ascii')
