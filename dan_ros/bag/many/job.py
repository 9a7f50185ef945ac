# SPDX-License-Identifier: Apache-2.0
"""The work of a worker: convert one bag into its own folder.

Jobs and outcomes are plain dicts of JSON values, because they go to other processes and machines.
"""

import hashlib
import os
import socket
import sqlite3
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dan_ros.backends import Backend, model_for, open_backend
from dan_ros.bag.cameras import choose_image_topics
from dan_ros.bag.converter import BagConverter, ConversionSummary
from dan_ros.bag.many.sources import files_of
from dan_ros.bag.many.strip import count_labels
from dan_ros.bag.parquet_tables import FACES, FRAMES, ParquetTables
from dan_ros.bag.reader import Bag
from dan_ros.bag.recovery import NO_SPACE
from dan_ros.bag.settings import BagSettings
from dan_ros.bag.timeline import PREFIX as TIMELINE
from dan_ros.detect import Detector, open_detector
from dan_ros.errors import DanError, GpuLostError
from dan_ros.images.opencv import cv2
from dan_ros.model import store
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.video_pipeline import VideoPipeline

DONE, UNCHANGED, FAILED, FATAL = 'done', 'unchanged', 'failed', 'fatal'
UNSEEN = 'unseen'  # the worker does not see the bag
SHARE = 'use storage that all nodes see under the same path'
PROGRESS = 'progress'  # file with the share of the bag that was processed, [0, 1]
PROGRESS_INTERVAL_S = 0.5
READ_BYTES = 1 << 20
SQLITE_NO_SPACE = 'database or disk is full'  # https://sqlite.org/rescode.html#full


def open_pipeline(settings: BagSettings, threads: int) -> VideoPipeline:
    """Open a pipeline without history; the models stay loaded for the next one.

    Raises:
        DanError: a model cannot be loaded, or does not fit the prior or the calibration.
    """
    detector, backend, _ = _load(settings.detector, settings.backend, settings.model, threads)
    config = settings.to_config()
    return VideoPipeline(
        ExpressionPipeline(detector, backend, config.pipeline, settings.calibration), config
    )


def resolve_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Open the models on this machine and return their names, so that all workers use the same.

    `settings` are those of `BagSettings.to_json`.

    Returns:
        'settings': the same with the names of model, backend and detector instead of 'auto';
        'warning': warning of the detector, or ''; 'error': why a model cannot be opened, or ''.
    """
    try:
        pipeline = open_pipeline(BagSettings.from_json(settings), 0).pipeline
    except DanError as error:
        return {'settings': settings, 'warning': '', 'error': str(error)}
    backend, detector = pipeline.backend.name, pipeline.detector.name
    model = model_for(backend, settings['model'])
    found = {**settings, 'model': model, 'backend': backend, 'detector': detector}
    return {'settings': found, 'warning': pipeline.detector.warning or '', 'error': ''}


@lru_cache(maxsize=1)
def _load(detector: str, backend: str, model: str, threads: int) -> tuple[Detector, Backend, str]:
    """Return a detector, a backend, and the SHA-256 of the model."""
    loaded = open_detector(detector, threads=threads), open_backend(backend, model, threads)
    return *loaded, store.read_model(model_for(loaded[1].name, model)).sha256


@dataclass(frozen=True)
class Job:
    """One bag to convert."""

    name: str  # name of the bag and of its results
    source: str  # absolute path of the bag
    folder: str  # existing empty folder for the results, absolute
    out: str  # the result folder, for messages
    settings: dict[str, Any]  # see `BagSettings.to_json`
    fingerprint: str  # see `BagSettings.fingerprint`
    threads: int  # CPU threads to use
    known_sha256: str  # SHA-256 of a content that need not be converted again, or ''
    # Content of the file `token` beside `folder`, which shows that the storage is shared.
    token: str


def stat_files(bag: Path) -> list[list[Any]]:
    """Return name, size in bytes and modification time in nanoseconds of each file of a bag.

    Raises:
        OSError: a file cannot be read.
    """
    found = []
    for file in files_of(bag):
        status = file.stat()
        found.append([file.name, status.st_size, status.st_mtime_ns])
    return found


def hash_files(bag: Path) -> str:
    """Return a SHA-256 of the content of a bag, independent of the names of the bag and its files.

    It also loads the files into the page cache.

    Raises:
        OSError: a file cannot be read.
    """
    total = hashlib.sha256()
    for path in files_of(bag):
        content = hashlib.sha256()
        with path.open('rb') as file:
            while block := file.read(READ_BYTES):
                content.update(block)
        total.update(content.digest())
    return total.hexdigest()


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Convert the bag of a `Job`, given by its fields, and return the outcome.

    Returns:
        'state': `DONE`, `UNCHANGED`, `FAILED` (this bag), `UNSEEN`, or `FATAL` (the whole run);
        'reason': why it failed; 'files' and 'sha256': the content of the bag; 'summary': see
        `_summarize`.
    """
    work = Job(**job)
    try:
        return _run(work)
    except GpuLostError as error:
        sys.stderr.write(f'{work.name}: {error}\n')
        os._exit(1)  # only a new process can use the GPU again
    except Exception as error:  # a damaged bag may raise anything, and must not stop the others
        return _explain(work, error)


def _explain(job: Job, error: Exception) -> dict[str, Any]:
    if _is_disk_full(error):
        reason = f'the disk of {job.out} is full; free some space and run the same command again'
        return {'state': FATAL, 'reason': reason}
    if isinstance(error, _RunError):
        return {'state': FATAL, 'reason': str(error)}
    if isinstance(error, DanError):
        reason = str(error).replace(f'{job.folder}/{job.name}', job.out)
    elif isinstance(error, OSError):
        reason = f'{error.filename or job.source}: {error.strerror or error}'
    elif isinstance(error, MemoryError):
        reason = f'{job.source} needs more memory than there is; use fewer jobs'
    else:
        reason = f'{job.source}: unexpected {type(error).__name__}: {error}'
    return {'state': FAILED, 'reason': ' '.join(reason.split())}


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or its cause means that the disk is full."""
    while error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        if isinstance(error, sqlite3.Error) and str(error) == SQLITE_NO_SPACE:
            return True
        error = error.__cause__
    return False


class _RunError(DanError):
    """A problem that would also stop every other bag."""


def _run(job: Job) -> dict[str, Any]:
    _check_storage(job)
    source, folder = Path(job.source), Path(job.folder)
    if not os.path.lexists(source):
        reason = f'the node {socket.gethostname()} does not see {source}; {SHARE}'
        return {'state': UNSEEN, 'reason': reason}
    (folder / PROGRESS).write_text('0')
    files = stat_files(source)
    sha256 = hash_files(source)
    outcome = {'state': UNCHANGED, 'reason': '', 'files': files, 'sha256': sha256}
    if sha256 == job.known_sha256:
        return outcome
    cv2.setNumThreads(job.threads)
    settings = BagSettings.from_json(job.settings)
    pipeline = _open_as_driver(job, settings)
    started_s = time.monotonic()
    bag = Bag(source)
    choice = choose_image_topics(bag, settings.topics)
    total = sum(topic.count for topic in choice.topics)
    with ParquetTables(folder) as tables:
        converter = BagConverter(bag, choice.topics, pipeline, settings.annotations, tables)
        summary = converter.run(folder / job.name, settings.video, _Progress(folder, total))
    seconds = time.monotonic() - started_s
    _flush(folder)
    summarized = _summarize(summary, folder, folder / job.name, choice.left_out)
    return {**outcome, 'state': DONE, 'summary': summarized, 'seconds': seconds}


def _open_as_driver(job: Job, settings: BagSettings) -> VideoPipeline:
    """Open the pipeline that the driver has opened as well."""
    host = socket.gethostname()
    try:
        pipeline = open_pipeline(settings, job.threads)
    except GpuLostError:
        raise
    except DanError as error:
        raise _RunError(f'on {host}: {error}') from error
    *_, sha256 = _load(settings.detector, settings.backend, settings.model, job.threads)
    if settings.fingerprint(sha256) != job.fingerprint:
        raise _RunError(f'{host} has another version of dan_ros or of {settings.model}; update it')
    return pipeline


def _check_storage(job: Job) -> None:
    """Check that this machine sees the storage of the machine that submitted the job."""
    token = Path(job.folder).parent / 'token'
    try:
        is_shared = token.read_text() == job.token
    except OSError:
        is_shared = False
    if not is_shared:
        raise _RunError(f'the node {socket.gethostname()} does not see {job.out}; {SHARE}')


class _Progress:
    """Writes the share of the bag that was processed into a file that the driver reads."""

    def __init__(self, folder: Path, total: int) -> None:
        self._file, self._total = folder / PROGRESS, max(total, 1)
        self._next_s = time.monotonic()

    def __call__(self, images: int) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + PROGRESS_INTERVAL_S
            self._file.write_text(f'{min(images / self._total, 1):.4f}')


def _flush(folder: Path) -> None:
    """Flush the tables to the disk; the converter has flushed the other files."""
    for table in (FRAMES, FACES):
        with (folder / f'{table}.parquet').open('rb') as file:
            os.fsync(file.fileno())


def _summarize(
    summary: ConversionSummary, folder: Path, bag: Path, left_out: dict[str, str]
) -> dict[str, Any]:
    """Return the values that the page and the list of bags show for a bag."""
    return {
        'text': summary.describe(),
        'frames': summary.frames,
        'faces': summary.faces,
        'ids': len(summary.ids),
        'labels': dict(summary.labels.most_common()),
        'dropped': dict(summary.dropped),
        'drops': summary.describe_drops(),
        'warnings': sorted(summary.warnings),
        'damage': summary.damage,
        'left_out': left_out,
        'pictures': sorted(path.name for path in bag.glob(f'{TIMELINE}*.png')),
        **count_labels(folder),
    }
