"""Events of publishers and subscriptions, where the middleware and the distribution have them."""

from collections.abc import Callable
from itertools import product
from typing import Any

from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible

from dan_ros.errors import ParameterError

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ModuleNotFoundError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

# What rclpy raises on a value below qos_overrides; it has no class of its own for most.
OVERRIDE_ERRORS = (
    AssertionError, AttributeError, ParameterException, RuntimeError, TypeError, ValueError,
)  # fmt: skip

__all__ = [
    'PublisherEventCallbacks',
    'SubscriptionEventCallbacks',
    'create_with_events',
    'has_incompatible_peer',
]


def create_with_events(node: Node, create: Callable[[Any], Any], events: Any) -> Any:
    """Create with event callbacks where the middleware has them (Zenoh's has not).

    Args:
        node: whose parameters may override the QoS.
        create: makes the publisher or subscription; called with `events`, or with None.
        events: the callbacks.

    Raises:
        ParameterError: a parameter below qos_overrides has a value that is not allowed.
    """
    try:
        try:
            return create(events)
        except UnsupportedEventTypeError:
            return create(None)
    except OVERRIDE_ERRORS as error:
        if not node.get_parameters_by_prefix('qos_overrides'):
            raise
        reason = ' '.join(str(error).split())
        raise ParameterError(
            f'a topic can not be opened with its QoS: {reason}. Look at the parameters '
            'qos_overrides, and start the node with other ones'
        ) from error


def has_incompatible_peer(node: Node, topic: str) -> bool:
    """Whether a topic has a publisher and a subscription, one of them ours, that can't meet.

    No event tells that an incompatible peer has gone again.

    Args:
        node: whose topics are ours.
        topic: its resolved name.
    """
    us = node.get_name(), node.get_namespace()
    return any(
        us in ((p.node_name, p.node_namespace), (s.node_name, s.node_namespace))
        and qos_check_compatible(p.qos_profile, s.qos_profile)[0] == QoSCompatibility.ERROR
        for p, s in product(
            node.get_publishers_info_by_topic(topic), node.get_subscriptions_info_by_topic(topic)
        )
    )
