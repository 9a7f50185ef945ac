# SPDX-License-Identifier: Apache-2.0
"""Faults whose tests take long; test_faults.py has the table of all."""

import re
import resource
import signal
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import psutil
import pytest
from lifecycle_msgs.msg import Transition
from onnx import TensorProto, helper
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rclpy.utilities import get_rmw_implementation_identifier
from robot import Robot
from sensor_msgs.msg import CompressedImage, Image
from test_faults import WARN, assert_dropped, compressed, gray_image, hundred, jpeg, png_bomb

from dan_ros import labels
from dan_ros.model import store


def test_too_little_memory(start, jpeg):
    """The system refuses memory: the image is dropped under this cause, and the next one works."""
    robot = start('-p', 'image_transport:=compressed', wait=False)
    robot.publisher = robot.new_publisher('image/compressed', CompressedImage)
    robot.wait_active()
    for _ in range(5):
        robot.send_until_answered(compressed(robot, jpeg))
    bomb = png_bomb(5_000, bytes(1 + 3 * 5_000) * 5_000)  # 75 MB, below limits.max_pixels
    process = psutil.Process(robot.node.pid)
    limit = process.memory_info().vms + 60 * 2**20
    process.rlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    assert_dropped(
        robot,
        lambda _: compressed(robot, bomb),
        {'bomb': 'out_of_memory'},
        good=lambda: compressed(robot, jpeg),
    )
    process.rlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert robot.send_until_answered(compressed(robot, bomb)).faces == []
    assert robot.send_until_answered(compressed(robot, jpeg)).faces[0].label == 'happy'


def test_a_signal_during_inference(start, hundred):
    """Inference on a hundred faces takes several 100 ms; the node exits after it."""
    robot = start('-p', 'max_faces:=1000', '-p', 'quality.min_side_px:=1.0')
    assert len(robot.send_until_answered(gray_image(robot, hundred)).faces) == 100
    for _ in range(10):
        robot.publisher.publish(gray_image(robot, hundred))
        robot.spin(0.02)
    assert robot.node.stop(signal.SIGTERM) == 0
    assert 'Traceback' not in robot.output


def test_an_incompatible_publisher(start, smile):
    """The second status after the discovery reports it; other publishers still work."""
    robot = start('-p', 'qos.reliability:=reliable')
    robot.show(smile)
    met: list[int] = []
    publisher = robot.client.create_publisher(
        Image,
        'image',
        QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        event_callbacks=PublisherEventCallbacks(
            incompatible_qos=lambda _: met.append(len(robot.diagnostics))
        ),
    )
    robot.spin_until(lambda: met, 'the event of the publisher')
    robot.spin_until(lambda: len(robot.diagnostics) >= met[0] + 2, 'two statuses')
    found = [s for s in robot.diagnostics[: met[0] + 2] if 'incompatible QoS' in s.message]
    assert found
    assert found[0].level == WARN
    assert '/image' in found[0].message
    assert robot.show(smile).faces[0].label == 'happy'
    robot.wait_status(lambda s, _: 'incompatible QoS' in s.message, 'it is still there')
    robot.client.destroy_publisher(publisher)
    robot.wait_status(lambda s, _: 'incompatible QoS' not in s.message, 'it is gone')
