# SPDX-License-Identifier: Apache-2.0
"""The settings of a running node, which follow its parameters."""

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from dan_ros.ros.parameters import (
    Settings,
    check_change,
    declare_parameters,
    read_parameters,
    with_changes,
)


class LiveSettings:
    """Declares the parameters of a node, and accepts or refuses each change.

    Args:
        node: the node.
        is_configured: returns whether the node is configured, so that only live parameters may
            change.
        problem_with: returns why the node cannot work with new settings, in one line, or ''.

    Raises:
        ParameterError: a parameter has an invalid value.
    """

    def __init__(
        self,
        node: Node,
        is_configured: Callable[[], bool],
        problem_with: Callable[[Settings], str],
    ) -> None:
        self._is_configured, self._problem_with = is_configured, problem_with
        for name in declare_parameters(node):
            node.get_logger().warning(f'unknown parameter {name!r}: ignored')
        self._values = read_parameters(node)
        self._settings = Settings.from_values(self._values)
        self._settings.check()
        node.add_on_set_parameters_callback(self._on_change)

    def get(self) -> Settings:
        """Return the current settings. Called by all threads."""
        return self._settings

    def _on_change(self, changes: 'list[Parameter[Any]]') -> SetParametersResult:
        result = check_change(changes, self._is_configured())
        if not result.successful:
            return result
        values = with_changes(self._values, changes)
        settings = Settings.from_values(values)
        if problem := self._problem_with(settings):
            return SetParametersResult(successful=False, reason=problem)
        self._values, self._settings = values, settings
        return result
