# SPDX-License-Identifier: Apache-2.0
"""Names of camera topics under remapping, and hints about topics of the wrong type."""

import pytest
import rclpy
from processes import RosDomain
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dan_ros.images.compressed import COMPRESSED_SUFFIX
from dan_ros.ros.camera_topics import CameraTopics

SWAPPED = ('/left/image_raw:=/right/image_raw', '/right/image_raw:=/left/image_raw')
LISTED = "image_topics:=['/left/image_raw','/right/image_raw']"


@pytest.fixture
def new_node():
    """Create nodes with remapping rules, in their own ROS domain."""
    domain, contexts, nodes = RosDomain(), [], []

    def create(*rules: str, namespace: str = '') -> rclpy.node.Node:
        contexts.append(rclpy.Context())
        rclpy.init(context=contexts[-1], domain_id=domain.number)
        arguments = ['--ros-args', *(part for rule in rules for part in ('-r', rule))]
        nodes.append(
            rclpy.create_node(
                'dan_node', namespace=namespace, context=contexts[-1], cli_args=arguments
            )
        )
        return nodes[-1]

    yield create
    for node, context in zip(nodes, contexts, strict=True):
        node.destroy_node()
        rclpy.shutdown(context=context)
    domain.close()


@pytest.mark.parametrize(
    ('topic', 'suffix', 'rules', 'camera', 'listened', 'info'),
    [
        ('image', '', [], '/image', '/image', '/camera_info'),
        ('image', '', ['image:=/eye/image_raw'], '/eye/image_raw', '/eye/image_raw',
         '/eye/camera_info'),
        ('/left/image_raw', '', SWAPPED, '/right/image_raw', '/right/image_raw',
         '/right/camera_info'),
        ('image', '', ['image:=/image_raw', '/image_raw:=/front/image_raw'], '/image_raw',
         '/image_raw', '/camera_info'),
        ('image', COMPRESSED_SUFFIX, ['image:=/eye/image_raw'], '/eye/image_raw',
         '/eye/image_raw/compressed', '/eye/camera_info'),
        ('/left/image_raw', COMPRESSED_SUFFIX, SWAPPED, '/right/image_raw',
         '/right/image_raw/compressed', '/right/camera_info'),
        ('image', COMPRESSED_SUFFIX, ['image/compressed:=/eye/image_raw/compressed'],
         '/eye/image_raw', '/eye/image_raw/compressed', '/eye/camera_info'),
        ('image', COMPRESSED_SUFFIX, ['image/compressed:=/jpegs'], '/jpegs', '/jpegs',
         '/camera_info'),
        ('image', '', ['camera_info:=/lens'], '/image', '/image', '/lens'),
        ('/eye/image_raw', '', ['camera_info:=/lens'], '/eye/image_raw', '/eye/image_raw',
         '/lens'),
        ('/left/image_raw', '',
         [*SWAPPED, '/left/camera_info:=/right/camera_info',
          '/right/camera_info:=/left/camera_info'],
         '/right/image_raw', '/right/image_raw', '/right/camera_info'),
    ],
)  # fmt: skip
def test_names_are_remapped_exactly_once(new_node, topic, suffix, rules, camera, listened, info):
    node = new_node(*rules)
    topics = CameraTopics.resolve(node, topic, suffix, is_only=True)
    assert (topics.camera, topics.listened) == (camera, listened)
    images = node.create_subscription(Image, topics.images, print, 1)
    calibration = node.create_subscription(CameraInfo, topics.info, print, 1)
    assert (images.topic_name, calibration.topic_name) == (listened, info)


def test_names_are_relative_to_the_namespace(new_node):
    node = new_node('image:=eye/image_raw', namespace='/robot')
    topics = CameraTopics.resolve(node, 'image', '', is_only=True)
    assert topics.camera == '/robot/eye/image_raw'
    assert node.resolve_topic_name(topics.info) == '/robot/eye/camera_info'


@pytest.mark.parametrize(
    ('topic', 'suffix', 'published', 'kind', 'hint'),
    [
        ('/eye/compressed', '', '/eye/compressed', CompressedImage,
         'set image_transport to compressed, and the image topic to /eye'),
        ('/eye', '', '/eye/compressed', CompressedImage, 'set image_transport to compressed'),
        ('/eye/compressed', COMPRESSED_SUFFIX, '/eye/compressed', CompressedImage,
         'name the topic without /compressed'),
        ('/eye', COMPRESSED_SUFFIX, '/eye', Image, 'set image_transport to raw'),
        ('/eye', COMPRESSED_SUFFIX, '/eye/compressed', Image, 'set image_transport to raw'),
        ('/eye', '', '/eye', Image, None),
        ('/eye', '', '/ear', CompressedImage, None),
        ('/eye', COMPRESSED_SUFFIX, '/eye/compressed', CompressedImage, None),
    ],
)  # fmt: skip
def test_a_topic_of_the_other_type_is_a_hint(new_node, topic, suffix, published, kind, hint):
    node = new_node()
    node.create_publisher(kind, published, 1)
    while not node.get_publishers_info_by_topic(published):
        rclpy.spin_once(node, timeout_sec=0.01)
    hints = list(CameraTopics.resolve(node, topic, suffix, is_only=True).hints(node))
    assert len(hints) == (hint is not None)
    assert hint is None or hint in hints[0]


def test_swapped_cameras_keep_their_own_names(start, smile):
    """Results of /left/image_raw contain this name, whatever remapping led to it."""
    arguments = [part for rule in SWAPPED for part in ('-r', rule)]
    robot = start('-p', LISTED, *arguments, topic='/left/image_raw')
    assert robot.show(smile).camera == '/left/image_raw'
    status, _ = robot.wait_status(lambda s, _: 'no image' in s.message, 'a silent camera')
    assert 'on /right/image_raw' in status.message
    other = robot.new_publisher('/right/image_raw')
    robot.wait_for_subscriber(other)
    assert robot.send_until_answered(robot.image(smile), other).camera == '/right/image_raw'


def test_a_silent_compressed_camera_is_named_as_it_is_listened_to(start):
    robot = start('-p', 'image_transport:=compressed', '-r', 'image:=/eye/compressed', wait=False)
    robot.new_publisher('/eye/compressed', CompressedImage)
    status, _ = robot.wait_status(lambda s, _: 'name the topic without' in s.message, 'a hint')
    assert 'no image for 2 s on /eye/compressed/compressed' in status.message
