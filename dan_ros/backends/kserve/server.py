# SPDX-License-Identifier: Apache-2.0
"""A server that may fail: a circuit breaker, and probes that detect when it works again.

The pattern: M. Nygard, "Release It!", chapter "Stability Patterns". The delays grow exponentially
and are random, so that many robots do not return at the same moment:
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
"""

import logging
import random
import threading
import time
from collections.abc import Callable

import numpy as np

from dan_ros.backends.kserve.client import Client
from dan_ros.errors import BackendError, DanError, ModelError

LOG = logging.getLogger(__name__)

FIRST_DELAY_S = 0.5  # longest delay before the first probe
MAX_DELAY_S = 30.0  # longest delay between two probes
STABLE_S = 60.0  # uptime after which the delay starts from the beginning again


def backoff_s(failures: int, draw: Callable[[], float] = random.random) -> float:
    """Return how long to wait before the next probe, seconds.

    Args:
        failures: number of failures in a row before, from 0.
        draw: returns a random number in [0, 1).

    Example:
        >>> [backoff_s(n, lambda: 1.0) for n in (0, 1, 2, 9)], backoff_s(2, lambda: 0.0)
        ([0.5, 1.0, 2.0, 30.0], 1.0)
    """
    longest_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 30))
    return longest_s * (1 + draw()) / 2


class Server:
    """A server that is used as long as it answers.

    Args:
        name: URL and model, for messages.
        connect: returns a client whose model was checked and which answered in time; raises a
            DanError.

    Attributes:
        calls: batches sent for an answer.
        failures: batches that were not answered in time, or answered incorrectly.
        problem: why the server is not used at present, in one line; '' while it is used.
    """

    def __init__(self, name: str, connect: Callable[[], Client]) -> None:
        self.name = name
        self.calls = self.failures = 0
        self._connect = connect
        self._client: Client | None = None
        self.problem = ''
        self._delays = 0  # number of failures in a row
        self._since_s = float('-inf')  # time at which the client was connected
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def start(self, is_required: bool) -> None:
        """Connect for the first time; if that fails, raise if `is_required`, otherwise probe.

        Raises:
            ModelError: the server has another model.
            BackendError: it cannot be reached, and is required.
        """
        try:
            self._use(self._connect())
        except BackendError as error:
            if is_required:
                raise
            self._leave(error)

    def infer(self, faces_rgb: np.ndarray, classes: int) -> np.ndarray | None:
        """Return logits, float32 [n, C], for uint8 [n, H, W, 3]; None without the server."""
        client = self._client
        if client is None:
            return None
        self.calls += 1
        try:
            return checked_answer(client.infer(faces_rgb), (len(faces_rgb), classes), self.name)
        except BackendError as error:
            self.failures += 1
            self._lose(client, error)
            return None

    def close(self) -> None:
        """Close the connection and end the probes."""
        self._closed.set()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _use(self, client: Client) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._client, self.problem = client, ''
                self._since_s = time.monotonic()
                return
        client.close()

    def _lose(self, client: Client, error: DanError) -> None:
        with self._lock:
            self._client = None
        client.close()
        if time.monotonic() - self._since_s > STABLE_S:
            self._delays = 0
        self._leave(error)

    def _leave(self, error: DanError) -> None:
        if self._closed.is_set():
            return
        self.problem = str(error)
        # Log only its text: a log may keep the error object, whose traceback refers to the backend.
        LOG.warning('the local model classifies the faces: %s', self.problem)
        threading.Thread(target=self._probe, name='probe', daemon=True).start()

    def _probe(self) -> None:
        while not self._closed.wait(backoff_s(self._delays)):
            self._delays += 1
            try:
                client = self._connect()
            except DanError as error:
                self._note(error)
            else:
                self._use(client)
                LOG.info('the server is used again and classifies the faces: %s', self.name)
                return

    def _note(self, error: DanError) -> None:
        """Keep the newest reason; log a wrong model, because only the user can correct that."""
        if isinstance(error, ModelError) and str(error) != self.problem:
            LOG.warning('the local model still classifies the faces: %s', str(error))
        self.problem = str(error)


def checked_answer(answer: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return the answer of a server if it is plausible.

    Raises:
        BackendError: it has another shape or type, or numbers that are not finite.
    """
    if answer.shape != shape or answer.dtype != np.float32 or not np.isfinite(answer).all():
        finite = '' if np.isfinite(answer).all() else ' with numbers that are not finite'
        raise BackendError(
            f'{where} returns {answer.dtype} {list(answer.shape)}{finite} instead of float32 '
            f'{list(shape)}: check the model on the server'
        )
    return answer
