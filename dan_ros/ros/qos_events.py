"""Events of publishers and subscriptions, where the middleware and the distribution have them."""

from collections.abc import Callable
from typing import Any

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

__all__ = ['PublisherEventCallbacks', 'SubscriptionEventCallbacks', 'create_with_events']


def create_with_events(create: Callable[[Any], Any], events: Any) -> Any:
    """Create with event callbacks where the middleware has them (Zenoh's has not).

    Args:
        create: makes the publisher or subscription; called with `events`, or with None.
        events: the callbacks.
    """
    try:
        return create(events)
    except UnsupportedEventTypeError:
        return create(None)
