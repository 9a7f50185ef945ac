#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A behavior: greet each smiling face once, and look concerned while a face looks sad.

    python3 examples/greeter.py --ros-args -r __ns:=/head

It subscribes to facial_expressions, which has one message per image, also without faces.
"""

import rclpy
from rclpy.node import Node
from std_msgs.msg import String

from dan_ros.msg import FacialExpression, FacialExpressionArray

CONCERN_S = 2.0  # time that a face must look sad, seconds


class Greeter(Node):
    """Publishes what the robot should say on `say` and its mood on `mood`."""

    def __init__(self) -> None:
        super().__init__('greeter')
        self._greeted: set[str] = set()
        self._sad_since_s: dict[str, float] = {}
        self._say = self.create_publisher(String, 'say', 10)
        self._mood = self.create_publisher(String, 'mood', 10)
        self.create_subscription(FacialExpressionArray, 'facial_expressions', self._on_faces, 10)

    def _on_faces(self, frame: FacialExpressionArray) -> None:
        time_s = frame.header.stamp.sec + frame.header.stamp.nanosec / 1e9
        smiling = {f.face_id for f in frame.faces if f.expression == FacialExpression.HAPPY}
        for face_id in smiling - self._greeted:
            self._say.publish(String(data=f'Hello {face_id}!'))
        self._greeted |= smiling
        sad = {f.face_id for f in frame.faces if f.expression == FacialExpression.SAD}
        self._sad_since_s = {i: self._sad_since_s.get(i, time_s) for i in sad}
        is_concerned = any(time_s - s >= CONCERN_S for s in self._sad_since_s.values())
        self._mood.publish(String(data='concerned' if is_concerned else 'friendly'))


def main() -> None:
    """Run until Ctrl-C."""
    rclpy.init()
    try:
        rclpy.spin(Greeter())
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    finally:
        rclpy.utilities.try_shutdown()


if __name__ == '__main__':
    main()
