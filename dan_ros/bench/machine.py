# SPDX-License-Identifier: Apache-2.0
"""Describes the machine without importing the libraries that it names."""

import importlib.metadata
import os
import platform
from pathlib import Path

from dan_ros.backends import REGISTRY
from dan_ros.backends.base import available_cpus

BOARD = Path('/proc/device-tree/model')  # name of a Jetson, Raspberry Pi or similar board
CPU_INFO = Path('/proc/cpuinfo')


def describe_machine() -> dict[str, str]:
    """Return processor, cores, load average, and versions of Python and of the backends."""
    packages = dict.fromkeys(' '.join(entry.packages for entry in REGISTRY.values()).split())
    return {
        'cpu': _cpu_name(),
        'cores': str(available_cpus()),
        'load': f'{os.getloadavg()[0]:.1f}',
        'python': platform.python_version(),
        **{package: version for package in packages if (version := _version(package))},
    }


def _version(package: str) -> str:
    """Return the installed version of a package, '' if it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
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
