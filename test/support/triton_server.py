# SPDX-License-Identifier: Apache-2.0
"""Starts the real Triton Inference Server of the package nvidia-pytriton, which needs no GPU."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import pytest

START_S = 60  # longest time until the models are loaded


def server_folder() -> Path:
    """The server's folder; skips the test if the package is not installed."""
    spec = importlib.util.find_spec('pytriton')
    folder = Path(spec.origin).parent / 'tritonserver' if spec else None
    if folder is None or not (folder / 'bin' / 'tritonserver').is_file():
        pytest.skip('the tritonserver of the package nvidia-pytriton is not installed')
    return folder


class Triton:
    """A running server.

    Args:
        models: the model repository.
        scratch: an empty folder.
        options: further options of the server.

    Attributes:
        grpc, http: its addresses.
    """

    def __init__(self, models: Path, scratch: Path, *options: str) -> None:
        self._models, self._log = models, scratch / 'triton.log'
        self._folder = server_folder()
        self._backends = scratch / 'backends'
        self._options = options
        self._ports = [free_port(), free_port()]
        self.grpc, self.http = (
            f'{scheme}://127.0.0.1:{port}'
            for scheme, port in zip(('grpc', 'http'), self._ports, strict=True)
        )
        self._link_backends()
        self.start()

    def _link_backends(self) -> None:
        """Put the stub of this Python beside the Python backend, with links to its libraries."""
        python = f'{sys.version_info.major}.{sys.version_info.minor}'
        files = [
            *(self._folder / 'backends' / 'python').iterdir(),
            self._folder / 'python_backend_stubs' / python / 'triton_python_backend_stub',
        ]
        self._backends.joinpath('python').mkdir(parents=True)
        for file in files:
            self._backends.joinpath('python', file.name).symlink_to(file)

    def start(self, wait: bool = True) -> None:
        """Start, or start again on the same ports."""
        libraries = (sysconfig.get_config_var('LIBDIR'), os.environ.get('LD_LIBRARY_PATH'))
        with self._log.open('ab') as log:
            self._process = subprocess.Popen(
                [
                    self._folder / 'bin' / 'tritonserver',
                    f'--model-repository={self._models}',
                    f'--backend-directory={self._backends}',
                    f'--grpc-port={self._ports[0]}',
                    f'--http-port={self._ports[1]}',
                    '--grpc-address=127.0.0.1',
                    '--http-address=127.0.0.1',
                    '--allow-metrics=false',
                    *self._options,
                ],
                env={
                    **os.environ,
                    'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
                    'LD_LIBRARY_PATH': os.pathsep.join(filter(None, libraries)),
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until all models are loaded."""
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                urllib.request.urlopen(f'{self.http}/v2/health/ready', timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        self.kill()
        raise AssertionError(self._log.read_text()[-5000:])

    @property
    def pid(self) -> int:
        """Process id of the server; its models run in children."""
        return self._process.pid

    def kill(self) -> None:
        """End at once, as in a power cut, with the processes of the models."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
