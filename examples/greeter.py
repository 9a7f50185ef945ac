#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A behavior: greet each face that smiles, once, and be concerned while a face looks sad."""

from contextlib import suppress

import rclpy
from rclpy.node import Node
from std_msgs.msg import String

from dan_ros.msg import FacialExpressionEvent


class Greeter(Node):
    """Publishes what the robot should say on `say`, and its mood on `mood`."""

    def __init__(self) -> None:
        super().__init__('greeter')
        self._greeted: set[str] = set()
        self._sad: set[str] = set()
        self._say = self.create_publisher(String, 'say', 10)
        self._mood = self.create_publisher(String, 'mood', 10)
        events = 'facial_expression_events'
        self.create_subscription(FacialExpressionEvent, events, self._on_event, 100)

    def _on_event(self, event: FacialExpressionEvent) -> None:
        is_present = event.kind != event.LEFT
        if is_present and event.label == 'happy' and event.face_id not in self._greeted:
            self._greeted.add(event.face_id)
            self._say.publish(String(data=f'Hello {event.face_id}!'))
        is_sad = is_present and event.label == 'sad'
        (self._sad.add if is_sad else self._sad.discard)(event.face_id)
        self._mood.publish(String(data='concerned' if self._sad else 'friendly'))


if __name__ == '__main__':
    rclpy.init()
    with suppress(KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        rclpy.spin(Greeter())
