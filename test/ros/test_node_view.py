# SPDX-License-Identifier: Apache-2.0
"""`dan-ros view` with the running node: it shows what the node publishes, and no hidden face."""

import os

import cv2
import numpy as np
import pytest

from dan_ros.detect import open_detector
from dan_ros.errors import DanError, ParameterError
from dan_ros.ros.parameters import SPECS
from dan_ros.ros.view_source import ASK, NodeSource
from dan_ros.srv import Consent
from dan_ros.view.board import Board


class View:
    """A page without a browser: the board of a node, and all that it showed."""

    def __init__(self, robot, name='/dan_node'):
        self.board = Board()
        self.board.is_watched = True
        self.source = NodeSource(name, self.board)
        self.source.start()
        self._robot, self._seen = robot, 0
        self.state, self.events, self.parameters, self.pictures = {}, [], {}, []

    def update(self):
        self._seen, changes = self.board.changes(self._seen)
        self.state = {**self.state, **changes}
        self.events += self.state.pop('events')
        self.parameters |= {p['name']: p for p in self.state.pop('parameters', [])}
        new = [
            p for p in self.board.pictures() if p.number not in {q.number for q in self.pictures}
        ]
        self.pictures += new

    def wait(self, condition, what, image=None):
        """Show an image until a condition is true."""

        def is_true():
            self.update()
            return condition()

        def every():
            if image is not None:
                self._robot.publisher.publish(self._robot.image(image))

        return self._robot.spin_until(is_true, what, every)

    @property
    def faces(self):
        return [face for faces in self.state['faces'].values() for face in faces]


@pytest.fixture
def open_view(robot, monkeypatch):
    """Open views of the robot that close at the end of the test."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(robot.domain.number))
    views = []

    def open_one(**options):
        views.append(View(robot, **options))
        return views[-1]

    yield open_one
    for view in views:
        view.source.close()


def faces_in(picture):
    image = cv2.imdecode(np.frombuffer(picture.encode(), np.uint8), cv2.IMREAD_COLOR)
    return open_detector('yunet', min_score=0.3).detect(image)


def test_the_view_follows_the_node(robot, open_view, smile):
    robot.set_parameters(expression__min_confidence=0.3, max_faces=8)  # `reset` undoes this
    robot.show(smile)
    view = open_view()
    view.wait(lambda: view.pictures and view.pictures[-1].faces, 'a picture', smile)
    picture = view.pictures[-1]
    (found,) = faces_in(picture)
    assert picture.size == (320, 240)
    left, top, width, height = picture.faces[0].box_xywh
    np.testing.assert_allclose(found.box_xyxy, [left, top, left + width, top + height], atol=6)
    assert view.faces[0]['expression'] == 1
    view.wait(lambda: view.parameters, 'parameters')
    assert set(view.parameters) == set(SPECS)
    assert view.parameters['smoothing.half_life_s']['unit'] == 'seconds'
    view.wait(lambda: 'fps' in view.state['status']['values'], 'diagnostics')

    # Parameters: set here, refused, and set elsewhere.
    assert view.source.set_parameter('expression.min_confidence', 1) == ''
    view.wait(lambda: view.faces and view.faces[0]['expression'] == 255, 'unknown', smile)
    view.wait(lambda: view.parameters['expression.min_confidence']['value'] == 1.0, 'the value')
    reason = view.source.set_parameter('expression.min_confidence', 2)
    assert reason == SPECS['expression.min_confidence'].problem_with(2.0)
    assert 'while the node is configured' in view.source.set_parameter('backend.threads', 1)
    assert "unknown parameter 'no.such'" in view.source.set_parameter('no.such', 1)
    assert view.source.set_parameter('max_faces', 3.0) == ''
    robot.set_parameters(expression__min_confidence=0.25)
    view.wait(lambda: view.parameters['expression.min_confidence']['value'] == 0.25, 'a change')

    # A pause forgets what was seen.
    assert view.source.set_enabled(False) == ''
    view.wait(lambda: not view.state['status']['is_enabled'], 'the pause')
    view.wait(lambda: not view.faces and not view.board.pictures(), 'an empty page')
    assert view.source.set_enabled(True) == ''
    view.wait(lambda: view.faces, 'a face', smile)
    view.wait(lambda: {0, 1} <= {event['kind'] for event in view.events}, 'events', smile)


def test_no_hidden_face_is_on_the_page(robot, open_view, smile):
    robot.reconfigure(consent__required=True, privacy__blur=False)
    view = open_view()
    view.wait(lambda: len(view.pictures) > 2, 'pictures', smile)
    view.wait(lambda: view.state['notice'] == ASK, 'the question', smile)
    assert not any(faces_in(picture) for picture in view.pictures)
    assert view.faces == view.events == view.state['samples'] == []
    request = Consent.Request(granted=True)
    face_id = robot.call(Consent, 'grant_consent', request).face_id
    view.wait(lambda: view.faces and faces_in(view.pictures[-1]), 'the released face', smile)
    assert view.source.set_parameter('privacy.blur', True) == ''
    robot.show(smile)
    first = len(view.pictures)
    view.wait(lambda: len(view.pictures) > first + 2, 'pictures', smile)
    assert not any(faces_in(picture) for picture in view.pictures[first + 1 :])
    request = Consent.Request(face_id=face_id, granted=False)
    assert robot.call(Consent, 'grant_consent', request).success
    view.wait(lambda: view.events[-1]['kind'] == 1, 'the end', smile)
    view.wait(lambda: not view.faces, 'nobody', smile)
    assert view.board.changes()[1]['samples'] == []


def test_pictures_are_drawn_only_while_somebody_looks(robot, open_view, smile):
    topic = '/dan_node/preview/image/compressed'
    view = open_view()
    view.wait(lambda: robot.client.count_subscribers(topic), 'a subscription', smile)
    view.board.is_watched = False
    view.wait(lambda: not robot.client.count_subscribers(topic), 'its end', smile)


def test_a_missing_node_is_named_and_so_are_others(robot, open_view):
    view = open_view(name='head/dan_node')
    view.wait(lambda: '--node /dan_node' in view.state['status']['message'], 'the other node')
    assert 'waiting for the node /head/dan_node' in view.state['status']['message']
    assert 'does not answer' in view.source.set_parameter('max_faces', 2)
    assert 'does not answer' in view.source.set_enabled(False)
    with pytest.raises(ParameterError, match='--node cannot be'):
        NodeSource('no node', Board())


@pytest.mark.skipif(
    os.environ.get('ROS_DISTRO') == 'humble', reason='Humble does not read ROS_STATIC_PEERS'
)
def test_a_middleware_that_does_not_start_is_one_line(monkeypatch):
    """A real error of DDS, caused by an invalid host name."""
    monkeypatch.setenv('ROS_STATIC_PEERS', '::::')
    with pytest.raises(DanError, match='^the middleware does not start: .*::::.*$'):
        NodeSource('/dan_node', Board())
