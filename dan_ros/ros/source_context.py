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
    """The objects that a source needs from the node."""

    node: LifecycleNode  # node that subscribes and publishes
    settings: Settings  # settings at the time of activation
    video: VideoPipeline  # pipeline that tracks which faces are in view
    publishers: ExpressionPublishers  # publish the results
    statistics: Statistics  # counts processed images
    drops: DropReporter  # counts dropped images
    qos_monitor: QosMonitor  # notified of incompatible peers
