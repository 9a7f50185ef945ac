# SPDX-License-Identifier: Apache-2.0
"""The table of face detectors. A new detector is one `register` call here."""

from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dan_ros.detect.base import Detector

REGISTRY: dict[str, str] = {}  # name -> 'module:class'


def register(name: str, path: str) -> None:
    """Add a detector to the table.

    Args:
        name: value of `detector.name` and of `--detector`.
        path: 'module:class' of a `Detector`, imported at first use; a leading dot means
            `dan_ros.detect`.
    """
    REGISTRY[name] = path


def detector_class(name: str) -> 'type[Detector]':
    """Import a registered detector."""
    path = REGISTRY[name]
    package = __package__ if path.startswith('.') else ''
    found: type[Detector] = resolve_name(f'{package}{path}')
    return found


register('yunet', '.yunet:YuNetDetector')
register('haar', '.haar:HaarDetector')

DETECTORS = ('auto', *REGISTRY)
