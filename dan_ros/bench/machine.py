"""What a machine is, as far as it matters for its speed; imports none of the libraries it names."""

import importlib.metadata
import os
import platform
from contextlib import suppress
from pathlib import Path

from dan_ros.backends import REGISTRY
from dan_ros.backends.base import available_cpus

BOARD = Path('/proc/device-tree/model')  # of Jetsons, Raspberry Pis and the like
CPU_INFO = Path('/proc/cpuinfo')


def describe_machine() -> dict[str, str]:
    """Processor, cores, how busy they are, Python and the libraries that are installed."""
    found = {
        'cpu': _cpu(),
        'cores': str(available_cpus()),
        'load': f'{os.getloadavg()[0]:.1f}',
        'python': platform.python_version(),
    }
    packages = ' '.join(entry.packages for entry in REGISTRY.values()).split()
    for package in dict.fromkeys(packages):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _cpu() -> str:
    """Name of the board or of the processor; its architecture where nothing says it."""
    try:
        return BOARD.read_text(encoding='utf-8').rstrip('\0')
    except OSError:
        pass
    try:
        lines = CPU_INFO.read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
