"""Recorded data in a loop, and a behaviour that listens."""

import subprocess
import sys
from pathlib import Path

import pytest
from recording import PERIOD_NS, START_NS, record_images
from robot import environment_of
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String

from dan_ros.msg import FacialExpression, FacialExpressionArray

GREETER = Path(__file__).parents[2] / 'examples' / 'greeter.py'


class Player:
    """Plays a bag of images into a robot's ROS domain, with /clock, as `ros2 bag play` does."""

    def __init__(self, robot, bag: Path) -> None:
        self._robot, self._bag = robot, bag
        self._clock = robot.client.create_publisher(Clock, '/clock', 1)

    def play(self) -> list[FacialExpressionArray]:
        """Once from beginning to end; gives what the node says of each image."""
        from rclpy.serialization import deserialize_message

        answers = []
        with Reader(self._bag) as reader:
            for _, time_ns, data in reader.messages():
                clock = Clock()
                clock.clock.sec, clock.clock.nanosec = divmod(time_ns, 1_000_000_000)
                self._clock.publish(clock)
                answers.append(self._robot.send_until_answered(deserialize_message(data, Image)))
        return answers


def test_a_looping_bag_resets_tracks_and_goes_on(start, smile, tmp_path):
    bag = record_images(tmp_path / 'bag', [smile] * 8, topic='/image')
    robot = start('-p', 'use_sim_time:=true')
    player = Player(robot, bag)
    rounds = []
    for _ in range(3):
        answers = player.play()
        assert all(len(answer.faces) == 1 for answer in answers)
        rounds.append({answer.faces[0].face_id for answer in answers})
        robot.frames.clear()  # the next round has the same stamps
    assert [len(ids) for ids in rounds] == [1, 1, 1]
    assert len(set.union(*rounds)) == 3  # time jumped back: nobody knows who it is
    last = answers[-1].header.stamp
    expected_ns = START_NS + 7 * PERIOD_NS - 5_000_000
    assert last.sec * 10**9 + last.nanosec == expected_ns
    assert robot.wait_status(lambda s, v: v['state'] == 'active', 'diagnostics under sim time')


@pytest.fixture
def greeter(start):
    """A robot with the behaviour of examples/ beside it, and what that says and feels."""
    robot = start()
    process = subprocess.Popen([sys.executable, str(GREETER)], env=environment_of(robot.domain))
    said, moods = [], []
    robot.client.create_subscription(String, 'say', lambda m: said.append(m.data), 10)
    robot.client.create_subscription(String, 'mood', lambda m: moods.append(m.data), 10)
    frames = robot.client.create_publisher(FacialExpressionArray, 'facial_expressions', 10)
    # It says a greeting once alone, so it has to know us before it sees somebody.
    nobody = FacialExpressionArray()
    robot.spin_until(lambda: moods, 'the behaviour', every=lambda: frames.publish(nobody))
    robot.spin(0.5)
    moods.clear()
    yield robot, frames, said, moods
    process.kill()  # rclpy.spin, which every example has, now and then sleeps through a SIGTERM
    process.wait()


def test_the_greeter_greets_a_smile_once(greeter, smile):
    robot, _, said, moods = greeter
    (face,) = robot.show(smile).faces
    robot.spin_until(lambda: said, 'a greeting', every=lambda: robot.show(smile))
    for _ in range(5):
        robot.show(smile)
    robot.spin(0.3)
    assert said == [f'Hello {face.face_id}!']
    assert set(moods) == {'friendly'}


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
    assert moods == ['friendly', 'friendly', 'concerned', 'friendly']
    assert said == []
