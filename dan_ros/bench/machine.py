"""Describes the machine without importing the libraries that it names."""

import importlib.metadata
import os
import platform
from pathlib import Path

from dan_ros.backends.base import available_cpus

# Libraries to report, and the packages that may contain them.
LIBRARIES = {
    'onnxruntime': ('onnxruntime', 'onnxruntime-gpu'),
    'openvino': ('openvino',),
    'torch': ('torch',),
}
BOARD = Path('/proc/device-tree/model')  # name of a Jetson, Raspberry Pi or similar board
CPU_INFO = Path('/proc/cpuinfo')


def describe_machine() -> dict[str, str]:
    """Return processor, cores, load average, and versions of Python and installed libraries."""
    return {
        'cpu': _cpu_name(),
        'cores': str(available_cpus()),
        'load': f'{os.getloadavg()[0]:.1f}',
        'python': platform.python_version(),
        **{name: version for name in LIBRARIES if (version := _version(name))},
    }


def _version(library: str) -> str:
    """Return the installed version of a library, '' if it is missing."""
    for package in LIBRARIES[library]:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ''


def _cpu_name() -> str:
    """Return the name of the board or processor, or its architecture if the name is unknown."""
    if board := _read(BOARD):
        return board.rstrip('\0')
    lines = _read(CPU_INFO).splitlines()
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except OSError:
        return ''
