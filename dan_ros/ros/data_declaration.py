# SPDX-License-Identifier: Apache-2.0
"""Declares which personal data this node processes, where hri_privacy_msgs is installed.

Source: https://github.com/ros4hri/hri_privacy_msgs.
"""

from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile

try:
    from hri_privacy_msgs.msg import PersonalDataProcessor
except ModuleNotFoundError:
    PersonalDataProcessor = None

TOPIC = '/data_management'  # the value that hri_face_identification of ROS4HRI uses
NAME = 'Facial expressions'
PURPOSE = (
    'Reads the facial expressions of people in view, so that the robot can react to '
    'them. Nothing is stored. Without it, the robot works but does not react to expressions.'
)
RECEIVER = 'Pictures of faces are sent to the server {}, which reads the expressions.'


class DataDeclaration:
    """Publishes one latched message; does nothing if hri_privacy_msgs is not installed."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publisher: Any = None
        if PersonalDataProcessor is not None:
            qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._publisher = node.create_lifecycle_publisher(PersonalDataProcessor, TOPIC, qos)

    def publish(self, receiver: str) -> None:
        """Publish the declaration; call it when the node is active.

        `receiver` is the address to which pictures of faces are sent; '' if they stay on the robot.
        """
        if self._publisher is not None:
            self._publisher.publish(
                PersonalDataProcessor(
                    data_source_node=self._node.get_fully_qualified_name(),
                    user_friendly_source_name=NAME,
                    data_purpose=f'{PURPOSE} {RECEIVER.format(receiver)}' if receiver else PURPOSE,
                    path='',  # no data is stored
                )
            )

    def destroy(self) -> None:
        """Remove the publisher."""
        if self._publisher is not None:
            self._node.destroy_lifecycle_publisher(self._publisher)
