# SPDX-License-Identifier: Apache-2.0
"""The promises of SECURITY.md about the running node: its models, its rights under SROS2."""

import importlib.util
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from rclpy.context import Context
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import NodeNameNonExistentError
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool

from dan_ros.errors import DanError
from dan_ros.model.store import read_model
from dan_ros.ros.security import SecureNode

RCLError = rclpy_implementation.RCLError

ERROR = b'\x02'
POLICY = Path(__file__).parents[2] / 'config' / 'sros2' / 'dan_node.policy.xml'
PAGE = Path(__file__).parents[2] / 'docs' / 'sros2.md'
GRAPH = {  # kind of rule in the policy, and graph query for its names
    ('topics', 'publish'): 'get_publisher_names_and_types_by_node',
    ('topics', 'subscribe'): 'get_subscriber_names_and_types_by_node',
    ('services', 'reply'): 'get_service_names_and_types_by_node',
    ('services', 'request'): 'get_client_names_and_types_by_node',
}
# Names that exist only with an optional package or in a newer distribution.
OPTIONAL = {
    '/tf': importlib.util.find_spec('tf2_msgs'),
    '/data_management': importlib.util.find_spec('hri_privacy_msgs'),
    '/humans/*': importlib.util.find_spec('hri_msgs'),
    '*/detections': importlib.util.find_spec('vision_msgs'),
    '*/annotations': importlib.util.find_spec('foxglove_msgs'),
    '*/get_type_description': importlib.util.find_spec('type_description_interfaces'),
}
OFF_BY_DEFAULT = ('/humans/*', '*/detections', '*/annotations')


def read_policy(ns: str, file: Path = POLICY) -> dict[tuple[str, str], set[str]]:
    """Full names by what a policy allows with them, expanded for a namespace as by sros2."""
    (profile,) = ElementTree.parse(file).getroot().iter('profile')
    own_ns = '/' if file == POLICY else ns
    assert (profile.get('ns'), profile.get('node')) == (own_ns, 'dan_node')
    prefix = ns.rstrip('/') + '/'
    rules = defaultdict(set)
    for group in profile:
        for verb, qualifier in group.attrib.items():
            assert qualifier == 'ALLOW'
            for entry in group:
                name = entry.text.replace('~', f'{prefix}dan_node')
                rules[group.tag, verb].add(name if name.startswith('/') else prefix + name)
    return rules


def graph_of(robot, ns: str) -> dict[tuple[str, str], set[str]]:
    """Full names of the node's topics and services, by use; {} before it is discovered."""
    asked = {rule: getattr(robot.client, method) for rule, method in GRAPH.items()}
    try:
        return {rule: {n for n, _ in ask('dan_node', ns)} for rule, ask in asked.items()}
    except NodeNameNonExistentError:
        return {}


def settled_graph(robot, ns: str) -> dict[tuple[str, str], set[str]]:
    """The graph of a node once twenty answers in a row are equal."""
    heard = [graph_of(robot, ns)]

    def is_settled():
        heard.append(graph_of(robot, ns))
        return heard[-1].get(('topics', 'subscribe')) and heard[-20:] == [heard[-1]] * 20

    robot.spin_until(is_settled, 'a settled graph')
    return heard[-1]


def test_the_policy_allows_what_the_node_uses_and_no_more(start):
    """Compare for raw and compressed images, with the system clock and with a simulated one."""
    robot = start()
    used = defaultdict(set)
    for parameters in ({}, {'use_sim_time': True, 'image_transport': 'compressed'}):
        if parameters:
            robot.reconfigure('image/compressed', CompressedImage, **parameters)
        for rule, names in settled_graph(robot, '/').items():
            used[rule] |= names
    allowed = read_policy('/')
    for rule in GRAPH:
        assert used[rule] <= allowed[rule], rule
        for left in allowed[rule] - used[rule]:
            options = [spec for pattern, spec in OPTIONAL.items() if fnmatchcase(left, pattern)]
            assert options, f'{left} is in the policy and not in the graph'
            is_off = any(fnmatchcase(left, pattern) for pattern in OFF_BY_DEFAULT)
            assert options == [None] or is_off, left


@pytest.mark.skipif(not OPTIONAL['/humans/*'], reason='hri_msgs is not installed')
@pytest.mark.parametrize('option', ['ros4hri:=true', 'input:=cropped_faces'])
def test_topics_of_ros4hri_are_in_the_policy(start, smile, option):
    import hri_msgs.msg as hri

    robot = start('-p', option, wait=option.startswith('ros4hri'))
    if option.startswith('ros4hri'):
        robot.show(smile)
    else:
        robot.node.wait_for_output('active: waiting')
        tracked = robot.new_publisher('/humans/faces/tracked', hri.IdsList)
        robot.spin_until(
            lambda: any(
                '/cropped' in n for n in graph_of(robot, '/').get(('topics', 'subscribe'), ())
            ),
            'the topic of a face',
            every=lambda: tracked.publish(hri.IdsList(ids=['abc'])),
        )
    used, allowed = settled_graph(robot, '/'), read_policy('/')
    for rule, names in used.items():
        for name in names:
            assert any(fnmatchcase(name, pattern) for pattern in allowed[rule]), (rule, name)
    assert any(name.startswith('/humans/') for name in used['topics', 'publish'])


REFUSABLE = {
    'Publisher': lambda node: node.create_publisher(CompressedImage, 'image', 1),
    'Subscription': lambda node: node.create_subscription(CompressedImage, 'image', print, 1),
    'Service': lambda node: node.create_service(SetBool, 'image', print),
}


@pytest.mark.parametrize('kind', REFUSABLE)
@pytest.mark.parametrize('is_secure', ['true', 'false'])
def test_a_refused_topic_or_service_is_named(monkeypatch, kind, is_secure):
    context = Context()
    rclpy.init(args=['--ros-args', '-r', 'image:=/eye/image'], context=context)
    try:
        node = SecureNode('secure', context=context)
        monkeypatch.setenv('ROS_SECURITY_ENABLE', is_secure)
        monkeypatch.setattr(f'rclpy.node._rclpy.{kind}', refuse)
        with pytest.raises((DanError, RCLError), match='invalid allocator') as raised:
            REFUSABLE[kind](node)
    finally:
        rclpy.shutdown(context=context)
    assert ('/eye/image' in str(raised.value)) == (is_secure == 'true')
    assert ('policy' in str(raised.value)) == (is_secure == 'true')


def refuse(*_):
    raise RCLError('Failed to create it: invalid allocator, at ./src/rcl/topic.c:1')


def test_a_model_that_refers_to_another_file_is_not_configured(robot, tmp_path):
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    tensor = model.graph.initializer[0]
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key='location', value='../../../../etc/passwd')
    (tmp_path / 'odd.onnx').write_bytes(model.SerializeToString())
    robot.clean_up()
    assert robot.set_parameters(model__file=f'{tmp_path}/odd.onnx').successful
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    status, values = robot.wait_status(lambda s, _: s.level == ERROR, 'the failure')
    assert 'in another file' in status.message
    assert values['state'] == 'unconfigured'
    assert robot.set_parameters(model__file='auto').successful
    robot.configure()
