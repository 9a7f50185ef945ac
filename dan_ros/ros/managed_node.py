# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node that behaves the same on every distribution."""

import gc
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from rcl_interfaces.msg import SetParametersResult
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from dan_ros.errors import DanError
from dan_ros.ros.parameters import problem_with_changes, without_unchanged
from dan_ros.ros.security import SecureNode

RCLError = rclpy_implementation.RCLError
N = TypeVar('N', bound='ManagedNode')
Transition = Callable[[N, LifecycleState], TransitionCallbackReturn]


def reported(transition: Transition[N]) -> Transition[N]:
    """Log the exception of a transition and let it fail; rclpy would hide the exception."""

    @wraps(transition)
    def run(node: N, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            result = transition(node, state)
            node.failure = ''
            return result
        except DanError as error:
            node.failure = f'{transition.__name__[3:]} failed: {error}'
            node.get_logger().error(node.failure)
        except Exception as error:
            node.failure = f'{transition.__name__[3:]} failed: {type(error).__name__}: {error}'
            node.get_logger().error(f'{node.failure}\n{traceback.format_exc()}')
        gc.collect()  # the error, whose traceback may refer to models
        return TransitionCallbackReturn.FAILURE

    return run


class ManagedNode(SecureNode):
    """A lifecycle node that answers every request and reports what failed.

    Attributes:
        failure: why the last transition failed, or ''.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.failure = ''

    def _LifecycleNodeMixin__change_state(  # noqa: N802
        self, transition_id: int
    ) -> TransitionCallbackReturn:
        """Refuse an invalid transition as newer versions of rclpy do.

        The method of Humble and Jazzy raises instead, and the client waits forever.
        """
        try:
            change = super()._LifecycleNodeMixin__change_state  # type: ignore[misc]
            return cast(TransitionCallbackReturn, change(transition_id))
        except RCLError as error:
            self.get_logger().error(f'transition {transition_id} refused: {error}')
            return TransitionCallbackReturn.ERROR

    def set_parameters_atomically(
        self, parameter_list: 'list[Parameter[Any]]'
    ) -> SetParametersResult:
        """Set parameters; setting one to its current value is allowed, even if it is read-only."""
        if problem := problem_with_changes(self, parameter_list):
            return SetParametersResult(successful=False, reason=problem)
        changes = without_unchanged(self, parameter_list)
        if parameter_list and not changes:
            return SetParametersResult(successful=True)
        return super().set_parameters_atomically(changes)
