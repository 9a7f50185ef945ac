# SPDX-License-Identifier: Apache-2.0
"""The node's diagnostic status: a pure function of a snapshot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus

from dan_ros.errors import count_of
from dan_ros.ros.drops import LOST_HINT
from dan_ros.ros.models import Models
from dan_ros.ros.statistics import Report

OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Snapshot:
    """State of the node at one moment."""

    phase: str  # state of the lifecycle, or 'configuring'
    is_enabled: bool  # False while paused by ~/set_enabled
    failure: str  # why the last transition failed, or ''
    model: str  # parameter model.file, reported while no model is loaded
    report: Report  # counters
    models: Models | None  # the loaded models; None while not configured
    face_count: int  # faces in the last image of every camera
    stream_warnings: Sequence[str]  # problems of the images


@dataclass(frozen=True)
class Status:
    """Level, message and values of a DiagnosticStatus."""

    level: bytes
    message: str
    values: dict[str, str]


def status_of(snapshot: Snapshot) -> Status:
    """Summarize a snapshot; docs/topics.md describes the keys."""
    level, message = _level_and_message(snapshot)
    return Status(level, message, {**_counter_values(snapshot), **_state_values(snapshot)})


def _level_and_message(snapshot: Snapshot) -> tuple[bytes, str]:
    if snapshot.failure:
        return ERROR, snapshot.failure
    if snapshot.phase != 'active' or snapshot.models is None:
        return OK, snapshot.phase
    if not snapshot.is_enabled:
        return OK, 'paused, see ~/set_enabled'
    if warnings := [warning for warning in _warnings(snapshot) if warning]:
        return WARN, '; '.join(warnings)
    faces = count_of(snapshot.face_count, 'face')
    return OK, f'active: {snapshot.report.fps:.1f} images/s, {faces}'


def _warnings(snapshot: Snapshot) -> Iterator[str]:
    yield from snapshot.stream_warnings
    recent = snapshot.report.recently_dropped
    lost = sum(count for (cause, _), count in recent.items() if cause == 'lost')
    if lost:
        yield f'{LOST_HINT} ({lost} in the last second)'
    bad = sorted(
        f'{count} {cause} of {camera}' if camera else f'{count} {cause}'
        for (cause, camera), count in recent.items()
        if cause not in ('superseded', 'lost', 'deactivated')
    )
    if bad:
        yield 'images dropped: ' + ', '.join(bad)
    if snapshot.models is not None:
        yield snapshot.models.selection.warning
        yield snapshot.models.video.pipeline.backend.warning
        yield snapshot.models.video.pipeline.detector.warning


def _counter_values(snapshot: Snapshot) -> dict[str, str]:
    report = snapshot.report
    return {
        'frames_received': str(report.received),
        'frames_processed': str(report.processed),
        **{f'frames_dropped.{cause}': str(count) for cause, count in report.dropped.items()},
        'fps': f'{report.fps:.1f}',
        'latency_ms': f'{report.latency_ms:.1f}',
        **{f'step_ms.{stage}': f'{ms:.2f}' for stage, ms in report.stages_ms.items()},
        'faces': str(snapshot.face_count),
        **{f'faces_unjudged.{reason}': str(n) for reason, n in report.unjudged.items()},
        **{f'faces_depth.{outcome}': str(n) for outcome, n in report.depth.items()},
        **{f'depth_dropped.{cause}': str(n) for cause, n in report.depth_dropped.items()},
    }


def _state_values(snapshot: Snapshot) -> dict[str, str]:
    models = snapshot.models
    pipeline = models.video.pipeline if models else None
    backend = pipeline.backend if pipeline else None
    return {
        'state': snapshot.phase,
        'enabled': str(snapshot.is_enabled).lower(),
        'model': backend.model_name if backend else snapshot.model,
        'backend': backend.name if backend else 'none',
        'device': backend.device if backend else 'none',
        'backend_why': models.selection.reason if models else '',
        'detector': pipeline.detector.name if pipeline else 'none',
        # Current and maximum faces per batch: a GPU short of memory takes fewer for a while.
        'batch': f'{backend.batcher.limit} of {backend.batcher.max_batch}' if backend else '',
        **(backend.details() if backend else {}),
    }
