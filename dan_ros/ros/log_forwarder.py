# SPDX-License-Identifier: Apache-2.0
"""Forwards the log lines of dan_ros, which parts without ROS write too, to the node's logger."""

import logging
from typing import Any

from rclpy.impl.logging_severity import LoggingSeverity


class LogForwarder(logging.Handler):
    """Prints the log lines of dan_ros with a ROS logger; debug lines only if its level is debug."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger
        self._source = logging.getLogger('dan_ros')
        self._source.addHandler(self)
        is_debug = logger.is_enabled_for(LoggingSeverity.DEBUG)
        self._source.setLevel(logging.DEBUG if is_debug else logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line; rclpy requires the same severity in every call of a statement."""
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)

    def close(self) -> None:
        """Stop forwarding."""
        self._source.removeHandler(self)
        super().close()
