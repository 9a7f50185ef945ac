#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The behavior of greeter.py as a behavior tree; needs `pip install py_trees`.

The conditions of a tree check the present state, so the tree reads the scene, not the events.
"""

from contextlib import suppress

import py_trees
import rclpy
from py_trees.behaviour import Behaviour
from py_trees.common import Access, Status
from py_trees.composites import Selector, Sequence
from py_trees.decorators import FailureIsSuccess
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from dan_ros.msg import FaceScene

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TICK_S = 0.1


class SomebodyShows(Behaviour):
    """Succeeds while a face shows an expression; writes the ids of all these faces."""

    def __init__(self, label: str) -> None:
        super().__init__(f'somebody {label}?')
        self._label = label
        self._board = self.attach_blackboard_client()
        self._board.register_key('scene', Access.READ)
        self._board.register_key(label, Access.WRITE)

    def update(self) -> Status:
        """Read the scene."""
        faces = [f.face_id for f in self._board.scene.faces if f.label == self._label]
        self._board.set(self._label, faces)
        return Status.SUCCESS if faces else Status.FAILURE


class Greet(Behaviour):
    """Says hello to each smiling face, once."""

    def __init__(self, publisher: rclpy.publisher.Publisher) -> None:
        super().__init__('greet')
        self._publisher = publisher
        self._greeted: set[str] = set()
        self._board = self.attach_blackboard_client()
        self._board.register_key('happy', Access.READ)

    def update(self) -> Status:
        """Greet the smiling faces that were not greeted yet."""
        for face_id in set(self._board.happy) - self._greeted:
            self._publisher.publish(String(data=f'Hello {face_id}!'))
            self._greeted.add(face_id)
        return Status.SUCCESS


class SetMood(Behaviour):
    """Publishes a mood when it begins."""

    def __init__(self, publisher: rclpy.publisher.Publisher, mood: str) -> None:
        super().__init__(mood)
        self._publisher = publisher
        self._board = self.attach_blackboard_client()
        self._board.register_key('mood', Access.WRITE)

    def update(self) -> Status:
        """Publish the mood unless it was the last one published."""
        if not self._board.exists('mood') or self._board.mood != self.name:
            self._board.mood = self.name
            self._publisher.publish(String(data=self.name))
        return Status.SUCCESS


def create_tree(node: Node) -> py_trees.trees.BehaviourTree:
    """Return the tree; it publishes on `say` and `mood`."""
    say = node.create_publisher(String, 'say', 10)
    mood = node.create_publisher(String, 'mood', 10)
    greet = Sequence('greeting', memory=False, children=[SomebodyShows('happy'), Greet(say)])
    concern = Sequence(
        'concern', memory=False, children=[SomebodyShows('sad'), SetMood(mood, 'concerned')]
    )
    moods = Selector('mood', memory=False, children=[concern, SetMood(mood, 'friendly')])
    root = Sequence('greeter', memory=False, children=[FailureIsSuccess('', greet), moods])
    return py_trees.trees.BehaviourTree(root)


def main() -> None:
    """Tick the tree until Ctrl-C."""
    rclpy.init()
    node = Node('greeter')
    board = py_trees.blackboard.Client(name='ros')
    board.register_key('scene', Access.WRITE)
    board.scene = FaceScene()
    node.create_subscription(
        FaceScene, 'facial_expression_scene', lambda scene: board.set('scene', scene), LATCHED
    )
    node.create_timer(TICK_S, create_tree(node).tick)
    with suppress(KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        rclpy.spin(node)


if __name__ == '__main__':
    main()
