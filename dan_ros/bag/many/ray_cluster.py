# SPDX-License-Identifier: Apache-2.0
"""Runs jobs on a Ray cluster, one bag per task."""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dan_ros.backends import GPU_BACKENDS
from dan_ros.bag.many.executor import WORKER_BYTES, Ended
from dan_ros.bag.many.job import resolve_settings, run_job
from dan_ros.errors import DanError

LOCAL, AUTO, CLIENT = 'local', 'auto', 'ray://'
CONNECT_TIMEOUT_S = 5.0
# Connection preface of an HTTP/2 client, and type of the first frame that a server sends; RFC 9113.
HTTP2_PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + b'\0\0\0\x04\0\0\0\0\0'
HTTP2_SETTINGS = b'\x04'
GPU_SHARE = 0.25  # share of a GPU per task, if the backend needs one
OBJECT_STORE_BYTES = 100_000_000  # enough for a cluster started here: jobs and outcomes are small
QUEUED_PER_CPU = 2  # tasks in flight, so that no node waits and an autoscaler sees the demand
# Ray reports usage, writes its own log lines and starts a dashboard by default.
QUIET = {
    'RAY_USAGE_STATS_ENABLED': '0',
    'RAY_LOG_TO_STDERR': '0',
    'RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO': '0',
    'RAY_DISABLE_IMPORT_WARNING': '1',
}


class RayExecutor:
    """Runs jobs as tasks of a Ray cluster.

    Ray itself retries no task, because a run limits the attempts per bag.

    Args:
        address: `LOCAL` starts a cluster on this machine; `AUTO` is one that runs here; otherwise
            host:port or ray://host:port.
        jobs: number of tasks in flight, of one core each; None for as many as the cluster has
            cores.

    Raises:
        DanError: no cluster answers, or it has another version of Ray or Python.
    """

    def __init__(self, address: str, jobs: int | None) -> None:
        os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
        import ray

        self._ray: Any = ray
        self._jobs = jobs
        self._names: dict[Any, str] = {}  # name of the job by reference of its task
        cores = jobs if address == LOCAL else None
        _connect(ray, address, cores)
        self._task: Any = None

    def resolve(
        self, settings: dict[str, Any], patience_s: float, on_delay: Callable[[], object]
    ) -> dict[str, Any]:
        """Open the models on a node, as this machine may have no GPU; call it before `submit`.

        Args:
            settings: see `BagSettings.to_json`. With the backend 'auto' and a GPU anywhere in the
                cluster, the task runs on a node with a GPU.
            patience_s: time without an answer after which `on_delay` is called.
            on_delay: called at most once.

        Returns:
            See `resolve_settings`.

        Raises:
            DanError: no node could run the task.
        """
        has_gpu = self._ray.cluster_resources().get('GPU', 0) > 0
        backend = settings['backend']
        needs_gpu = backend in GPU_BACKENDS or (backend == 'auto' and has_gpu)
        reference = self._to_task(resolve_settings, needs_gpu).remote(settings)
        if not self._ray.wait([reference], timeout=patience_s)[0]:
            on_delay()
        try:
            found: dict[str, Any] = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise DanError(f'a node cannot run the task: {_last_line(error)}') from None
        self._task = self._to_task(run_job, found['settings']['backend'] in GPU_BACKENDS)
        return found

    def _to_task(self, function: Callable[..., Any], needs_gpu: bool) -> Any:
        return self._ray.remote(function).options(
            num_cpus=1, num_gpus=GPU_SHARE if needs_gpu else 0, memory=WORKER_BYTES, max_retries=0
        )

    def has_room(self) -> bool:
        """Whether another task should be submitted now."""
        limit = self._jobs or self.slots() * QUEUED_PER_CPU
        return len(self._names) < limit

    def slots(self) -> int:
        """Number of tasks that the cluster can run at once; it changes with its nodes."""
        return max(1, int(self._ray.cluster_resources().get('CPU', 0)))

    def submit(self, job: dict[str, Any]) -> None:
        """Start a task."""
        self._names[self._task.remote(job)] = job['name']

    def wait(self, timeout_s: float) -> list[Ended]:
        """Return the tasks that ended; wait for at most `timeout_s`."""
        if not self._names:
            return []
        names = list(self._names)
        ended: list[Any]
        ended, _ = self._ray.wait(names, num_returns=1, timeout=timeout_s)
        if ended:  # also take the others that have ended
            ended, _ = self._ray.wait(names, num_returns=len(names), timeout=0)
        return [self._collect(reference) for reference in ended]

    def close(self) -> None:
        """Stop all tasks, and the cluster if it was started here; may be called again."""
        for reference in self._names:
            with suppress(Exception):  # Ray's exceptions share no base, and the cluster may be gone
                self._ray.cancel(reference, force=True)
        self._names = {}
        self._ray.shutdown()

    def _collect(self, reference: Any) -> Ended:
        name = self._names.pop(reference)
        try:
            return Ended(name, self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:  # raised before `run_job` could begin
            raise DanError(f'a node cannot run the task: {_last_line(error)}') from None
        except self._ray.exceptions.RuntimeEnvSetupError as error:
            raise DanError(f'a node cannot run the task: {_last_line(error)}') from None
        except self._ray.exceptions.RayError as error:
            return Ended(name, None, _describe_death(error))


def _connect(ray: Any, address: str, cores: int | None) -> None:
    options: dict[str, Any] = {
        'address': address,  # without it, Ray would join a cluster that runs already
        'configure_logging': True,
        'logging_level': logging.CRITICAL,
        'log_to_driver': False,
    }
    if address == LOCAL:
        options |= {'num_cpus': cores, 'include_dashboard': False}
        options['object_store_memory'] = OBJECT_STORE_BYTES
    else:
        _check_server(address)
    with _signal_handlers_kept():
        try:
            ray.init(**options)
            # No log lines about nodes that die.
            ray._private.worker._worker_logs_enabled = False
        except Exception as error:  # Ray's exceptions share no base
            raise DanError(
                f'the Ray cluster {address} cannot be used: {_last_line(error)}; check it with '
                '`ray status`'
            ) from None


def _check_server(address: str) -> None:
    """Check that a gRPC server listens, because Ray itself tries for minutes."""
    if address == AUTO:
        return
    host, _, port = address.removeprefix(CLIENT).rpartition(':')
    if not host or not port.isdigit():
        raise DanError(
            f'{address!r} is not the address of a Ray cluster: give {LOCAL}, {AUTO}, HOST:PORT or '
            f'{CLIENT}HOST:PORT'
        )
    try:
        with socket.create_connection(
            (host.strip('[]'), int(port)), CONNECT_TIMEOUT_S
        ) as connection:
            connection.sendall(HTTP2_PREFACE)
            is_server = connection.recv(9)[3:4] == HTTP2_SETTINGS
    except (OSError, OverflowError) as error:
        reason = getattr(error, 'strerror', None) or error
    else:
        if is_server:
            return
        reason = 'something else does'
    raise DanError(f'no Ray cluster answers at {address}: {reason}; check it with `ray status`')


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Restore the handlers that Ray replaces."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _describe_death(error: Exception) -> str:
    name = type(error).__name__
    words = {
        'NodeDiedError': 'its node died',
        'LocalRayletDiedError': 'its node died',
        'WorkerCrashedError': 'killed or crashed, perhaps because the memory was full',
        'OutOfMemoryError': 'the memory of its node was full',
    }
    return words.get(name, f'{name}: {_last_line(error)}')


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
