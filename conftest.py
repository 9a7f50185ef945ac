"""Where there is no ROS, files that import it are left out, and named in the header of the run."""

import ast
import importlib.util
import re
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parent
ROS_MODULE = re.compile(
    r'(rclpy|ament_index_python|\w+_(interfaces|msgs|srvs)|dan_ros\.(ros|demo|msg))\b'
)
HAS_ROS = all(importlib.util.find_spec(name) for name in ('rclpy', 'dan_ros.msg'))


@lru_cache
def needs_ros(file: Path) -> bool:
    """Whether a file is part of `ros/` or the demo, or imports ROS, directly or through a neighbour."""
    if file.is_relative_to(ROOT / 'dan_ros'):
        return file.relative_to(ROOT / 'dan_ros').parts[0] in ('ros', 'demo')
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    neighbours = {ROOT / 'test' / 'support' / f'{name.split(".")[0]}.py' for name in names} - {file}
    return any(map(ROS_MODULE.match, names)) or any(
        neighbour.is_file() and needs_ros(neighbour) for neighbour in neighbours
    )


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave a file out; None leaves the question to others."""
    if HAS_ROS or collection_path.suffix != '.py':
        return None
    return needs_ros(collection_path) or None


def pytest_report_header() -> str:
    """Say what is left out."""
    files = [
        file for folder in ('test', 'dan_ros') for file in sorted((ROOT / folder).rglob('*.py'))
    ]
    left_out = [file.relative_to(ROOT).as_posix() for file in files if needs_ros(file)]
    if HAS_ROS:
        return f'ROS: is here, {len(left_out)} files need it'
    return f'ROS: not here, {len(left_out)} files are left out: {", ".join(left_out)}'
