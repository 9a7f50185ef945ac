# SPDX-License-Identifier: Apache-2.0
"""A node whose errors name the topics and services that SROS2 does not allow."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from rclpy.lifecycle import LifecycleNode

from dan_ros.errors import DanError, one_line
from dan_ros.ros.qos import UnsupportedEventTypeError


def _explained(create: Callable[..., Any], action: str) -> Callable[..., Any]:
    """Name the topic or service in the error of `create` under SROS2.

    The middleware does not say that a permission is missing, but for example `invalid allocator`.
    """

    @wraps(create)
    def run(node: LifecycleNode, kind: type, name: str, *args: Any, **options: Any) -> Any:
        try:
            return create(node, kind, name, *args, **options)
        except UnsupportedEventTypeError:
            raise
        except RuntimeError as error:
            if os.environ.get('ROS_SECURITY_ENABLE') != 'true':  # rcl accepts only `true`
                raise
            full_name = node.resolve_topic_name(name)  # after remapping, as in a policy
            raise DanError(
                f'cannot {action} {full_name}: {one_line(error)}. SROS2 is enabled, and the '
                'policy of this enclave probably does not allow it: add this name to the policy '
                'and run `ros2 security create_permission` again, see docs/sros2.md'
            ) from error

    return run


class SecureNode(LifecycleNode):
    """A lifecycle node whose errors name the topic or service that SROS2 does not allow.

    Raises:
        DanError: a topic or service cannot be created under SROS2.
    """

    create_publisher = _explained(LifecycleNode.create_publisher, 'publish on')
    create_lifecycle_publisher = _explained(LifecycleNode.create_lifecycle_publisher, 'publish on')
    create_subscription = _explained(LifecycleNode.create_subscription, 'subscribe to')
    create_service = _explained(LifecycleNode.create_service, 'offer the service')
