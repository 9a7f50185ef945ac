# SPDX-License-Identifier: Apache-2.0
"""A thread that takes messages from frequent topics, instead of the executor.

For every message, rclpy's executors build a wait set of all publishers, services and subscriptions
of the node in Python, twice. This takes longer than the rest of the processing of an arriving
image. This thread waits for a few subscriptions only.

It uses parts of rclpy that are made for executors and have been the same from Humble to Kilted: the
wait set and the handles of subscriptions.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.subscription import Subscription

CHECK_NS = 5_000_000_000  # interval at which a waiting thread notices a shutdown of the context
ERROR_PERIOD_S = 10  # interval between two errors, seconds
RETRY_S = 0.1  # pause after an error of the middleware


class SubscriptionGroup(CallbackGroup):
    """Callback group of subscriptions and their QoS events that executors ignore."""

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions: list[Any] = []
        self.events: list[Any] = []  # an executor that waits for events also wakes up for messages

    def add_entity(self, entity: Any) -> None:
        """Remember a new subscription or event; called by rclpy."""
        super().add_entity(entity)
        is_subscription = isinstance(entity, Subscription)
        (self.subscriptions if is_subscription else self.events).append(entity)

    def can_execute(self, entity: Any) -> bool:
        """Return whether an executor may execute `entity`."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Return whether an executor may execute `entity` now."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Do nothing; no executor gets here."""


class SubscriptionThread:
    """Calls the callbacks of the subscriptions in its group, in one thread.

    Attributes:
        group: callback group for the subscriptions, which are created before `start` and
            destroyed after `stop`.
    """

    def __init__(self, node: Node) -> None:
        self.group = SubscriptionGroup()
        self._node = node
        self._stopping = threading.Event()
        self._guard = GuardCondition(None, None, context=node.context)
        self._thread = threading.Thread(target=self._run, name='images', daemon=True)

    def start(self) -> None:
        """Start taking messages."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current callback."""
        self._stopping.set()
        if self._thread.is_alive():
            self._guard.trigger()
            self._thread.join()
        self._guard.destroy()

    def _run(self) -> None:
        subscriptions, events = self.group.subscriptions, self.group.events
        context: Any = self._node.context
        with ExitStack() as stack:
            for handle in (context.handle, self._guard.handle, *(s.handle for s in subscriptions)):
                stack.enter_context(handle)  # prevents destruction while in use
            for event in events:
                stack.enter_context(event)
            # subscriptions, guard conditions, timers, clients, services, events
            size = len(subscriptions), 1, 0, 0, 0, len(events)
            wait_set = rclpy_implementation.WaitSet(*size, context.handle)
            while not self._stopping.is_set() and context.ok():
                try:
                    self._wait(wait_set)
                    self._handle_ready(wait_set)
                except Exception as error:  # the thread must survive any error of the middleware
                    self._report('could not wait for messages', error)
                    self._stopping.wait(RETRY_S)

    def _wait(self, wait_set: Any) -> None:
        wait_set.clear_entities()
        for subscription in self.group.subscriptions:
            wait_set.add_subscription(subscription.handle)
        wait_set.add_guard_condition(self._guard.handle)
        for event in self.group.events:
            event.add_to_wait_set(wait_set)
        wait_set.wait(CHECK_NS)

    def _handle_ready(self, wait_set: Any) -> None:
        ready = wait_set.get_ready_entities('subscription')
        for subscription in self.group.subscriptions:
            if subscription.handle.pointer in ready:
                self._call(_take_message, subscription)
        for event in self.group.events:
            if event.is_ready(wait_set):
                self._call(_take_event, event)

    def _call(self, take: Callable[[Any], None], entity: Any) -> None:
        if self._stopping.is_set():
            return
        try:
            take(entity)
        except Exception as error:  # the thread must survive any error of a callback
            is_message = isinstance(entity, Subscription)
            what = f'a message on {entity.topic_name}' if is_message else 'an event'
            self._report(f'ignored {what}', error)

    def _report(self, what: str, error: Exception) -> None:
        self._node.get_logger().error(
            f'{what}: {type(error).__name__}: {error}', throttle_duration_sec=ERROR_PERIOD_S
        )


def _take_message(subscription: Any) -> None:
    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    if taken is not None:
        subscription.callback(taken[0])


def _take_event(event: Any) -> None:
    with suppress(StopIteration):  # a coroutine without await ends at once
        event.execute(event.take_data()).send(None)
