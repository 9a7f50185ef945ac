# SPDX-License-Identifier: Apache-2.0
"""What the sources of images share with the node."""

from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode

from dan_ros.ros.drops import DropReporter
from dan_ros.ros.parameters import Settings
from dan_ros.ros.publishers import ExpressionPublishers
from dan_ros.ros.qos import QosMonitor
from dan_ros.ros.statistics import Statistics
from dan_ros.video_pipeline import VideoPipeline


@dataclass(frozen=True)
class SourceContext:
    """The objects that a source needs from the node.

    Attributes:
        node: node that subscribes and publishes.
        settings: settings at the time of activation.
        video: pipeline that tracks which faces are in view.
        publishers: publish the results.
        statistics: counts processed images.
        drops: counts dropped images.
        qos_monitor: notified of incompatible peers.
    """

    node: LifecycleNode
    settings: Settings
    video: VideoPipeline
    publishers: ExpressionPublishers
    statistics: Statistics
    drops: DropReporter
    qos_monitor: QosMonitor
