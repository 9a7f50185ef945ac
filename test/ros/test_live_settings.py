# SPDX-License-Identifier: Apache-2.0
"""The settings of a node follow the changes of its parameters that are accepted."""

from types import SimpleNamespace

import pytest
import rclpy
from rclpy.parameter import Parameter

from dan_ros.ros.live_settings import LiveSettings
from dan_ros.ros.managed_node import ManagedNode

MODELS = SimpleNamespace(problem_with=lambda settings: 'too many' if settings.max_hz > 100 else '')


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = ManagedNode('settings', context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def change(node, **values) -> str:
    """Set parameters together, with __ for a dot; return why they are refused, or ''."""
    parameters = [Parameter(k.replace('__', '.'), value=v) for k, v in values.items()]
    result = node.set_parameters_atomically(parameters)
    assert result.successful == (not result.reason)
    return result.reason


def test_changes_are_taken_together_or_leave_no_trace(node):
    models = None
    live = LiveSettings(node, lambda: models)
    assert change(node, backend__name='torch', rate__max_hz=7) == ''
    assert (live.get().backend.name, live.get().max_hz) == ('torch', 7.0)
    models, before = MODELS, live.get()
    assert 'cannot be 45' in change(node, rate__max_hz=8.0, image_rotation=45)
    assert 'while the node is configured' in change(node, rate__max_hz=8.0, backend__name='auto')
    assert change(node, rate__max_hz=200.0, max_faces=3) == 'too many'
    assert live.get() is before
    assert change(node, max_faces=4) == ''
    assert (live.get().video.pipeline.max_faces, live.get().max_hz) == (4, 7.0)
    assert node.get_parameter('rate.max_hz').value == 7
