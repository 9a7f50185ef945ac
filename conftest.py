# SPDX-License-Identifier: Apache-2.0
"""Isolates the test run; where ROS is not installed, leaves out everything that needs it."""

import importlib.util
import os

import isolation
import pytest

HAS_ROS = all(importlib.util.find_spec(name) for name in ('rclpy', 'dan_ros.msg'))
NEED_ROS = ['dan_ros/demo', 'dan_ros/ros', 'test/ros', 'test/slow']

collect_ignore = [] if HAS_ROS else NEED_ROS


def pytest_configure(config: pytest.Config) -> None:
    """Restore signals and replace the home folder before anything is imported."""
    isolation.isolate(config.add_cleanup, worker=os.environ.get('PYTEST_XDIST_WORKER', ''))


def pytest_report_header() -> str:
    """Report skipped tests in the header of the run."""
    return 'ROS: ' + ('installed' if HAS_ROS else f'missing; left out: {", ".join(NEED_ROS)}')
