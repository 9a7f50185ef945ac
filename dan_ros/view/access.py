# SPDX-License-Identifier: Apache-2.0
"""Who may open the page: checks of Host, Origin and token.

Any web page can make a browser send requests to this machine. The Host check defeats DNS
rebinding, where a name of the attacker points to this machine; the Origin check keeps pages of
other sites from opening the WebSocket, which browsers do not forbid.
"""

import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

TOKEN_BYTES = 24


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address.

    >>> is_loopback('127.0.0.1'), is_loopback('::1'), is_loopback('localhost'), is_loopback('')
    (True, True, True, False)
    """
    address = _address(host)
    return host == 'localhost' or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def split_host(header: str) -> tuple[str, int | None] | None:
    """Return the name and the port of a Host header or an origin's place; None if it is invalid.

    >>> split_host('[::1]:8765'), split_host('LOCALHOST'), split_host('a/b'), split_host('a:b')
    (('::1', 8765), ('localhost', None), None, None)
    """
    try:
        parts = urlsplit(f'//{header}')
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (name, port) if name and parts.netloc == header and '@' not in header else None


@dataclass(frozen=True)
class Access:
    """The rules of one server."""

    names: frozenset[str]  # host names under which the page may be opened
    token: str = ''  # secret that a browser must send; '' if only this machine can reach the server

    @classmethod
    def create(cls, host: str) -> 'Access':
        """Return the rules for a server that listens on a host."""
        if is_loopback(host):
            return cls(frozenset({'localhost'}))
        own = socket.gethostname().lower()
        names = {'localhost', host.lower(), own, own.split('.')[0], f'{own.split(".")[0]}.local'}
        return cls(frozenset(names), secrets.token_urlsafe(TOKEN_BYTES))

    def problem_with_host(self, header: str) -> str:
        """Return why a Host header is refused, or ''."""
        split = split_host(header)
        name = split[0] if split else ''
        # A name that is an IP address cannot be redirected by DNS.
        address = _address(name)
        if name in self.names or (address and (self.token or address.is_loopback)):
            return ''
        return 'this page is not served under that name; open the address that dan-ros view printed'

    def problem_with_origin(self, origin: str | None, host_header: str) -> str:
        """Return why a WebSocket is refused, or ''; a browser always sends its origin."""
        scheme, _, place = (origin or '').partition('://')
        if scheme in ('http', 'https') and place.lower() == host_header.lower():
            return ''
        return 'only the page of this server may connect'

    def is_token(self, given: str) -> bool:
        """Return whether a token is correct, by a constant-time comparison."""
        return hmac.compare_digest(given.encode(errors='replace'), self.token.encode())
