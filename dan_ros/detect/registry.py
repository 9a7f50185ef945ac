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
        path: 'module:class' of a `Detector`, imported at first use.
    """
    REGISTRY[name] = path


def detector_class(name: str) -> 'type[Detector]':
    """Import a registered detector."""
    found: type[Detector] = resolve_name(REGISTRY[name])
    return found


register('yunet', 'dan_ros.detect.yunet:YuNetDetector')
register('haar', 'dan_ros.detect.haar:HaarDetector')

DETECTORS = ('auto', *REGISTRY)
