# SPDX-License-Identifier: Apache-2.0
"""A certificate for localhost, and a proxy that adds TLS to a server, as an ingress does."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import SHUT_RDWR, create_connection, create_server, socket

SETTINGS = """
[req]
distinguished_name = name
[name]
[ca]
default_ca = own
[own]
database = {folder}/index
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = extensions
[any]
commonName = supplied
[extensions]
subjectAltName = DNS:localhost, IP:127.0.0.1
basicConstraints = critical, CA:true
"""


def make_certificate(folder: Path, until: str) -> Path:
    """Make a self-signed certificate; certificate and key are in one PEM file.

    Args:
        folder: an empty folder.
        until: end of its validity, such as '20200101000000Z'.
    """
    (folder / 'index').touch()
    (folder / 'settings').write_text(SETTINGS.format(folder=folder))
    key, request, signed = folder / 'key.pem', folder / 'request', folder / 'signed.pem'
    common = ['-config', folder / 'settings', '-batch']
    new = ['-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-subj', '/CN=localhost']
    dates = ['-startdate', '20190101000000Z', '-enddate', until]
    sign = ['-selfsign', '-keyfile', key, '-in', request, '-out', signed, '-notext']
    for command in (['req', *new, *common, '-out', request], ['ca', *sign, *dates, *common]):
        subprocess.run(['openssl', *command], check=True, capture_output=True)
    file = folder / 'server.pem'
    file.write_bytes(key.read_bytes() + signed.read_bytes())
    return file


@contextmanager
def tls_proxy(certificate: Path, target: str) -> Iterator[int]:
    """Forward TLS connections to a server without TLS; yield the port.

    Args:
        certificate: PEM file with certificate and key.
        target: address of the server, such as http://127.0.0.1:8000.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(['h2', 'http/1.1'])
    host, port = target.partition('://')[2].split(':')

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(plain,), daemon=True).start()

    def serve(plain: socket) -> None:
        try:
            with (
                context.wrap_socket(plain, server_side=True) as near,
                create_connection((host, int(port))) as far,
            ):
                back = threading.Thread(target=copy, args=(far, near), daemon=True)
                back.start()
                copy(near, far)
                back.join()
        except OSError:  # for example, the client does not trust the certificate
            plain.close()

    with create_server(('127.0.0.1', 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(SHUT_RDWR)


def copy(source: socket, target: socket) -> None:
    """Copy bytes until one side closes."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(SHUT_RDWR)
    except OSError:
        pass
