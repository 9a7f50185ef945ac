# SPDX-License-Identifier: Apache-2.0
"""Recorded data in a loop, and a behavior that listens."""

import sys
from pathlib import Path

import pytest
from processes import Process
from rclpy.serialization import deserialize_message
from recording import PERIOD_NS, START_NS, record_images
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String

from dan_ros.msg import FacialExpression, FacialExpressionArray

GREETER = Path(__file__).parents[2] / 'examples' / 'greeter.py'


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
    """Time jumps back with each round, so nobody is recognized; the node works on."""
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


@pytest.fixture
def greeter(robot, tmp_path):
    """The node beside examples/greeter.py, and what the greeter publishes."""
    process = Process([sys.executable, GREETER], tmp_path / 'log', robot.domain)
    said, moods = robot.received('say', String), robot.received('mood', String)
    frames = robot.new_publisher('facial_expressions', FacialExpressionArray)
    # It says each greeting once, so it must know the client before it sees somebody.
    robot.wait_for_subscriber(frames)
    robot.spin_until(lambda: robot.client.count_publishers('say'), 'the greeter')
    nobody = FacialExpressionArray()
    robot.spin_until(lambda: moods, 'a mood', every=lambda: frames.publish(nobody))
    robot.spin(0.5)
    moods.clear()
    yield robot, frames, said, moods
    process.kill()  # rclpy.spin, which every example has, sometimes misses a SIGTERM


def test_the_greeter_greets_a_smile_once(greeter, smile):
    robot, _, said, moods = greeter
    (face,) = robot.show(smile).faces
    robot.spin_until(lambda: said, 'a greeting', every=lambda: robot.show(smile))
    moods.clear()
    for _ in range(5):
        robot.show(smile)
    robot.spin_until(lambda: len(moods) >= 5, 'a mood for each frame')
    assert [message.data for message in said] == [f'Hello {face.face_id}!']
    assert {message.data for message in moods} == {'friendly'}


def test_the_greeter_is_concerned_while_somebody_is_sad(greeter):
    robot, frames, said, moods = greeter

    def show(second: int, expression: int) -> None:
        frame = FacialExpressionArray()
        frame.header.stamp.sec = second
        frame.faces = [FacialExpression(face_id='f7', expression=expression)]
        before = len(moods)
        frames.publish(frame)
        robot.spin_until(lambda: len(moods) > before, 'a mood')

    for second in (10, 11, 12):
        show(second, FacialExpression.SAD)
    show(13, FacialExpression.NEUTRAL)
    assert [mood.data for mood in moods] == ['friendly', 'friendly', 'concerned', 'friendly']
    assert said == []
