# SPDX-License-Identifier: Apache-2.0
"""Names of the topics of a camera, remapped exactly once, and hints about a wrong topic."""

from collections.abc import Iterator
from dataclasses import dataclass

from rclpy.node import Node

from dan_ros.faces.camera_model import INFO_TOPIC, info_topic
from dan_ros.images.compressed import COMPRESSED_SUFFIX

RAW_TYPE, COMPRESSED_TYPE = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


@dataclass(frozen=True)
class CameraTopics:
    """Topics of a camera.

    rclpy remaps every name that it is given. So `images` and `info` are names before remapping, for
    rclpy; the other attributes are names after remapping, for logs and messages.
    """

    images: str  # topic of the image subscription
    info: str  # topic of the calibration
    listened: str  # resolved name of the image subscription
    camera: str  # resolved name of the image topic, without the suffix of the transport

    @classmethod
    def resolve(cls, node: Node, topic: str, suffix: str, is_only: bool) -> 'CameraTopics':
        """Resolve the topics of a camera.

        Rules for `<topic>/compressed` or the `camera_info` beside the topic apply, if there are
        any. Otherwise these topics are next to the resolved image topic.

        Args:
            node: has the remapping rules.
            topic: name of the image topic before remapping.
            suffix: suffix of the transport.
            is_only: whether this is the only camera; then a rule for `camera_info` applies, too.
        """
        images = topic + suffix
        if suffix and not _is_remapped(node, images):
            images = node.resolve_topic_name(topic) + suffix
        listened = node.resolve_topic_name(images)
        camera = listened.removesuffix(suffix) or listened
        infos = [info_topic(topic), *([INFO_TOPIC] if is_only else [])]
        remapped = [name for name in infos if _is_remapped(node, name)]
        return cls(images, (remapped or [info_topic(camera)])[0], listened, camera)

    def hints(self, node: Node) -> Iterator[str]:
        """Yield possible reasons for missing images: another type of publisher, or no publisher."""
        types = {peer.topic_type for peer in node.get_publishers_info_by_topic(self.images)}
        is_compressed = self.listened != self.camera
        if is_compressed and RAW_TYPE in types:
            yield f'{self.listened} has the type {RAW_TYPE}: set image_transport to raw'
        elif is_compressed and self.camera in _publishing(node, COMPRESSED_TYPE):
            yield (
                f'{self.camera} itself has the type {COMPRESSED_TYPE}: name the topic without '
                f'{COMPRESSED_SUFFIX}, which the node adds'
            )
        elif is_compressed and self.camera in _publishing(node, RAW_TYPE) and not types:
            yield f'{self.camera} has the type {RAW_TYPE}: set image_transport to raw'
        elif not is_compressed and COMPRESSED_TYPE in types:
            name = self.listened.removesuffix(COMPRESSED_SUFFIX)
            yield (
                f'{self.listened} has the type {COMPRESSED_TYPE}: set image_transport to '
                f'compressed, and the image topic to {name}'
            )
        elif self.listened + COMPRESSED_SUFFIX in _publishing(node, COMPRESSED_TYPE) and not types:
            yield (
                f'only {self.listened}{COMPRESSED_SUFFIX} exists: set image_transport to compressed'
            )


def _is_remapped(node: Node, topic: str) -> bool:
    return node.resolve_topic_name(topic) != node.resolve_topic_name(topic, only_expand=True)


def _publishing(node: Node, message_type: str) -> set[str]:
    """Return the names of the topics of a type."""
    return {name for name, types in node.get_topic_names_and_types() if message_type in types}
