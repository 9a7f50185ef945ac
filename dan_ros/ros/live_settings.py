# SPDX-License-Identifier: Apache-2.0
"""The settings of a running node, which follow its parameters."""

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from dan_ros.ros.models import Models
from dan_ros.ros.parameters import (
    SPECS,
    Settings,
    declare_parameters,
    read_parameters,
)


class LiveSettings:
    """Declares the parameters of a node, and accepts or refuses each set of changes as a whole.

    The node refuses invalid values itself. `get_models` returns the loaded models, which live
    changes must fit; None while the node is not configured, so that every parameter may change.

    Raises:
        ParameterError: a parameter has an invalid value.
    """

    def __init__(self, node: Node, get_models: Callable[[], Models | None]) -> None:
        self._get_models = get_models
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
        models = self._get_models()
        known = {c.name: SPECS[c.name].to_value(c.value) for c in changes if c.name in SPECS}
        fixed = [name for name in known if not SPECS[name].live]
        if models is not None and fixed:
            reason = (
                f'{fixed[0]} cannot be changed while the node is configured: deactivate and clean '
                'it up first'
            )
            return SetParametersResult(successful=False, reason=reason)
        values = {**self._values, **known}
        settings = Settings.from_values(values)
        if models is not None and (problem := models.problem_with(settings)):
            return SetParametersResult(successful=False, reason=problem)
        self._values, self._settings = values, settings
        return SetParametersResult(successful=True)
