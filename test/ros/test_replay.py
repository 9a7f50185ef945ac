# SPDX-License-Identifier: Apache-2.0
"""Recorded data in a loop."""

from pathlib import Path

from rclpy.serialization import deserialize_message
from recording import PERIOD_NS, START_NS, record_images
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from dan_ros.msg import FacialExpressionArray


def play(robot, bag: Path) -> list[FacialExpressionArray]:
    """Play a bag of images once, with /clock, as `ros2 bag play` does; return the answers."""
    clock_publisher = robot.new_publisher('/clock', Clock)
    answers = []
    with Reader(bag) as reader:
        for _, time_ns, data in reader.messages():
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(time_ns, 1_000_000_000)
            clock_publisher.publish(clock)
            answers.append(robot.send_until_answered(deserialize_message(data, Image)))
    return answers


def test_a_looping_bag_resets_the_tracks(start, smile, tmp_path):
    """Time jumps back with each round, so all ids are new; the node continues to work."""
    bag = record_images(tmp_path / 'bag', [smile] * 8, topic='/image')
    robot = start('-p', 'use_sim_time:=true')
    rounds = []
    for _ in range(3):
        answers = play(robot, bag)
        assert all(len(answer.faces) == 1 for answer in answers)
        rounds.append({answer.faces[0].face_id for answer in answers})
        robot.frames.clear()  # the next round has the same stamps
    assert [len(ids) for ids in rounds] == [1, 1, 1]
    assert len(set.union(*rounds)) == 3
    last = answers[-1].header.stamp
    expected_ns = START_NS + 7 * PERIOD_NS - 5_000_000
    assert last.sec * 10**9 + last.nanosec == expected_ns
    assert robot.values()['state'] == 'active'
