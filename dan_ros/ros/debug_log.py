# SPDX-License-Identifier: Apache-2.0
"""Forwards the debug lines of dan_ros, which parts without ROS write too, to the node's logger."""

import logging
from typing import Any

from rclpy.impl.logging_severity import LoggingSeverity


class DebugLog(logging.Handler):
    """Prints the debug lines of dan_ros with a ROS logger, if its level is debug.

    Args:
        logger: of the node.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger
        self._source = logging.getLogger('dan_ros')
        if logger.is_enabled_for(LoggingSeverity.DEBUG):
            self._source.addHandler(self)
            self._source.setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        self._logger.debug(record.getMessage())

    def close(self) -> None:
        """Stop forwarding."""
        self._source.removeHandler(self)
        super().close()
