# SPDX-License-Identifier: Apache-2.0
"""Faults whose tests take long; test_faults.py has the table of all."""

import resource
import signal

import psutil
from sensor_msgs.msg import CompressedImage
from test_faults import assert_dropped, compressed, gray_image, hundred, jpeg, png_bomb


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
    """A run over a hundred faces takes several 100 ms; the node ends after it."""
    robot = start('-p', 'max_faces:=1000', '-p', 'quality.min_side_px:=1.0')
    assert len(robot.send_until_answered(gray_image(robot, hundred)).faces) == 100
    for _ in range(10):
        robot.publisher.publish(gray_image(robot, hundred))
        robot.spin(0.02)
    assert robot.node.stop(signal.SIGTERM) == 0
    assert 'Traceback' not in robot.output
