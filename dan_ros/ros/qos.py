# SPDX-License-Identifier: Apache-2.0
"""QoS: event callbacks if the middleware supports them, and incompatible peers."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import (
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from dan_ros.errors import ParameterError, one_line

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

# Raised by rclpy for an invalid parameter under qos_overrides; most are built-in classes.
OVERRIDE_ERRORS = (
    AssertionError, AttributeError, ParameterException, RuntimeError, TypeError, ValueError,
)  # fmt: skip

OUTPUT_QOS = QoSProfile(depth=10)
NEWEST_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
INCOMPATIBLE = (
    'a peer on {} has an incompatible QoS, so no messages arrive: compare '
    'with `ros2 topic info --verbose`, and see the parameters qos.reliability and qos_overrides'
)

__all__ = [
    'PublisherEventCallbacks',
    'QosMonitor',
    'SubscriptionEventCallbacks',
    'UnsupportedEventTypeError',
    'create_image_subscription',
    'create_output',
]


def create_with_events(node: Node, create: Callable[[Any], Any], events: Any) -> Any:
    """Create a publisher or subscription, with event callbacks if the middleware supports them.

    Zenoh does not. `create` is called with `events`, or with None.

    Raises:
        ParameterError: a parameter under qos_overrides has an invalid value.
    """
    try:
        try:
            return create(events)
        except UnsupportedEventTypeError:
            return create(None)
    except OVERRIDE_ERRORS as error:
        overrides = _given_overrides(node)
        if not overrides and not isinstance(error, RuntimeError):
            raise
        advice = '. Check the parameters qos_overrides, and restart the node with valid ones'
        raise ParameterError(
            f'cannot open a topic: {one_line(error)}{advice if overrides else ""}'
        ) from error


def _given_overrides(node: Node) -> list[str]:
    """Return the names of the parameters under qos_overrides that the user gave.

    rclpy has no public API for them, and declares others for every topic itself.
    """
    return [name for name in node._parameter_overrides if name.startswith('qos_overrides.')]


def create_image_subscription(
    node: Node,
    message_type: type,
    topic: str,
    on_content: Callable[[bytes], None],
    reliability: str,
    qos_monitor: 'QosMonitor',
    group: CallbackGroup,
    on_lost: Callable[[int], None] | None = None,
) -> Any:
    """Subscribe to serialized images, of which only the newest is kept.

    `topic` is the name before remapping. `on_lost` gets the number of messages that the middleware
    lost.

    Raises:
        ParameterError: a parameter under qos_overrides has an invalid value.
    """
    events = SubscriptionEventCallbacks(
        incompatible_qos=qos_monitor.callback(topic),
        message_lost=on_lost and (lambda event: on_lost(event.total_count_change)),
    )
    return create_with_events(
        node,
        lambda callbacks: node.create_subscription(
            message_type,
            topic,
            on_content,
            QoSProfile(
                history=HistoryPolicy.KEEP_LAST,
                depth=1,
                reliability=ReliabilityPolicy[reliability.upper()],
            ),
            callback_group=group,
            raw=True,
            event_callbacks=callbacks,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        ),
        events,
    )


def create_output(
    node: Node,
    create: Callable[..., Any],
    message_type: type,
    topic: str,
    qos_monitor: 'QosMonitor',
    qos: QoSProfile = OUTPUT_QOS,
) -> Any:
    """Create a publisher; `create` is the method of the node for it.

    Raises:
        ParameterError: a parameter under qos_overrides has an invalid value.
    """
    return create_with_events(
        node,
        lambda events: create(
            message_type,
            topic,
            qos,
            event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        ),
        PublisherEventCallbacks(incompatible_qos=qos_monitor.callback(topic)),
    )


class QosMonitor:
    """Stores the topics with an incompatible peer. Its methods may be called from any thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._topics: set[str] = set()

    def callback(self, topic: str) -> Callable[[Any], None]:
        """Return an event callback that logs and remembers an incompatible peer.

        `topic` is the name before remapping, because rclpy remaps it in every call.
        """

        def on_incompatible(event: Any) -> None:
            self._topics.add(topic)
            self._node.get_logger().warning(self._sentence(topic))

        return on_incompatible

    def warn_of_unused_overrides(self) -> None:
        """Warn once if a parameter under qos_overrides belongs to no topic that is open now."""
        names = [n for n in _given_overrides(self._node) if not self._node.has_parameter(n)]
        if names:
            self._node.get_logger().warning(
                f'ignored: {", ".join(names)}; give the full name of a topic of this node, and '
                'history, depth or reliability',
                once=True,
            )

    def clear(self) -> None:
        """Forget all topics."""
        self._topics.clear()

    def warnings(self) -> Iterator[str]:
        """Yield a sentence per topic that still has an incompatible peer."""
        for topic in self._topics.copy():
            if _has_incompatible_peer(self._node, topic):
                yield self._sentence(topic)

    def _sentence(self, topic: str) -> str:
        return INCOMPATIBLE.format(self._node.resolve_topic_name(topic))


def _has_incompatible_peer(node: Node, topic: str) -> bool:
    """Whether a publisher and a subscription of `topic`, one of them ours, are incompatible.

    There is no event for an incompatible peer that leaves.
    """
    us = node.get_name(), node.get_namespace()
    return any(
        us in ((p.node_name, p.node_namespace), (s.node_name, s.node_namespace))
        and qos_check_compatible(p.qos_profile, s.qos_profile)[0] == QoSCompatibility.ERROR
        for p, s in product(
            node.get_publishers_info_by_topic(topic), node.get_subscriptions_info_by_topic(topic)
        )
    )
