"""A rosbag2 with what the faces of another show, as the node would have published it."""

import posixpath
from pathlib import Path
from typing import Any

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dan_ros.errors import DataError
from dan_ros.messages import MessageClasses
from dan_ros.storage.resources import data_folders

FACE, FACES = 'dan_ros/msg/FacialExpression', 'dan_ros/msg/FacialExpressionArray'
PLUGINS = {'sqlite3': StoragePlugin.SQLITE3, 'mcap': StoragePlugin.MCAP}
WRITTEN_VERSIONS = (8, 9)  # of the metadata, that rosbags writes
FOREVER = QosTime(2147483647, 4294967295)
NODE_QOS = Qos(  # reliable, volatile, depth 10, as the node publishes
    QosHistory.KEEP_LAST,
    10,
    QosReliability.RELIABLE,
    QosDurability.VOLATILE,
    FOREVER,
    FOREVER,
    QosLiveliness.AUTOMATIC,
    FOREVER,
    False,
)


class ExpressionBag:
    """Writes a bag. A context manager; without an error it is complete at the end.

    Args:
        path: the folder to make.
        storage: sqlite3 or mcap.
        version: of the metadata, as near to it as can be written.

    Attributes:
        classes: of the messages to write.
    """

    def __init__(self, path: Path, storage: str, version: int) -> None:
        self._types = _load_types()
        self.classes = MessageClasses(
            *(
                self._types.types[kind]
                for kind in (
                    FACE,
                    FACES,
                    'geometry_msgs/msg/Point',
                    'geometry_msgs/msg/Point32',
                    'geometry_msgs/msg/Pose',
                    'geometry_msgs/msg/Quaternion',
                    'sensor_msgs/msg/RegionOfInterest',
                )
            )
        )
        nearest = WRITTEN_VERSIONS[version > WRITTEN_VERSIONS[0]]
        self._writer = Writer(path, version=nearest, storage_plugin=PLUGINS[storage])  # type: ignore[arg-type]
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> 'ExpressionBag':
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._writer.close()
        else:
            self._writer.abort()

    def write(self, array: Any, time_ns: int) -> None:
        """Write the message of a frame and one of each of its faces, with the bag time given."""
        namespace = posixpath.dirname(array.camera)
        one = self._connect(posixpath.join(namespace, 'facial_expression'), FACE)
        all_ = self._connect(posixpath.join(namespace, 'facial_expressions'), FACES)
        for face in array.faces:
            self._writer.write(one, time_ns, self._types.serialize_cdr(face, FACE))
        self._writer.write(all_, time_ns, self._types.serialize_cdr(array, FACES))

    def _connect(self, topic: str, kind: str) -> Any:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._types, offered_qos_profiles=[NODE_QOS]
            )
        return self._connections[topic]


def _load_types() -> Typestore:
    """The common messages and ours, from the definitions that come with the package."""
    types = get_typestore(Stores.ROS2_HUMBLE)
    for kind in (FACE, FACES):
        filename = f'{kind.rpartition("/")[2]}.msg'
        paths = [folder / filename for folder in data_folders('msg')]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            raise DataError(f'{filename} is missing: build or install the package again')
        types.register(get_types_from_msg(found.read_text(encoding='utf-8'), kind))
    return types
