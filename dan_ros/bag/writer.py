# SPDX-License-Identifier: Apache-2.0
"""Writes expressions to a rosbag2, as the node would publish them."""

import posixpath
import sqlite3
from collections.abc import Sequence
from functools import cache
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
from rosbags.rosbag2.enums import CompressionMode
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dan_ros.bag.foxglove_types import ANNOTATIONS, register_annotations
from dan_ros.errors import DataError
from dan_ros.image_annotations import TOPIC_SUFFIX, AnnotationClasses
from dan_ros.messages import MessageClasses
from dan_ros.storage.resources import data_folders
from dan_ros.tracking.events import FaceEvent
from dan_ros.tracking.face_tracker import TrackedFace

FACE, FACES = 'dan_ros/msg/FacialExpression', 'dan_ros/msg/FacialExpressionArray'
EVENT = 'dan_ros/msg/FacialExpressionEvent'
SCENE, STATE = 'dan_ros/msg/FaceScene', 'dan_ros/msg/FaceState'
PLUGINS = {'sqlite3': StoragePlugin.SQLITE3, 'mcap': StoragePlugin.MCAP}
METADATA_VERSIONS = (8, 9)  # supported by rosbags
FOREVER = QosTime(2147483647, 4294967295)  # RMW_DURATION_INFINITE
NODE_QOS = Qos(  # QoS of the node's publishers: reliable, volatile, depth 10
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


class _SqliteStorage(Sqlite3Writer):
    """Opens a path with any characters; rosbags puts the path into a URI without quoting it."""

    def __init__(self, path: Path, _: CompressionMode) -> None:
        self.path = path / f'{path.name}.db3'
        self.conn = sqlite3.connect(self.path)
        self.conn.executescript(self.SQLITE_SCHEMA)
        self.cursor = self.conn.cursor()


class ExpressionBagWriter:
    """Writes a bag. A context manager, which completes the bag unless there is an error.

    The metadata have the version of `METADATA_VERSIONS` that is nearest to `version`.

    Attributes:
        classes: message classes for `write`.

    Raises:
        DataError: the definition of a message is missing.
    """

    def __init__(self, path: Path, storage: str, version: int) -> None:
        self._types = _load_types()
        self.classes = MessageClasses(self._types.types.__getitem__)
        self._annotation_classes = AnnotationClasses(self._types.types.__getitem__)
        nearest = min(max(version, METADATA_VERSIONS[0]), METADATA_VERSIONS[-1])
        self._writer = Writer(path, version=nearest, storage_plugin=PLUGINS[storage])  # type: ignore[arg-type]
        self._writer.STORAGE_PLUGINS = {
            StoragePlugin.SQLITE3: _SqliteStorage,
            StoragePlugin.MCAP: McapWriter,
        }
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> 'ExpressionBagWriter':
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._writer.close()
        else:
            self._writer.abort()

    def write(self, array: Any, time_ns: int) -> None:
        """Write the FacialExpressionArray of one frame, and each of its faces, at a bag time."""
        namespace = posixpath.dirname(array.camera)
        face_topic = self._connect(posixpath.join(namespace, 'facial_expression'), FACE)
        array_topic = self._connect(posixpath.join(namespace, 'facial_expressions'), FACES)
        for face in array.faces:
            self._writer.write(face_topic, time_ns, self._types.serialize_cdr(face, FACE))
        self._writer.write(array_topic, time_ns, self._types.serialize_cdr(array, FACES))

    def write_events(
        self, events: Sequence[FaceEvent], header: Any, camera: str, time_ns: int
    ) -> None:
        """Write a FacialExpressionEvent per change; arguments as for `FaceTable.write`."""
        topic = posixpath.join(posixpath.dirname(camera), 'facial_expression_events')
        connection = self._connect(topic, EVENT)
        for event in events:
            message = self.classes.event(event, header, camera)
            self._writer.write(connection, time_ns, self._types.serialize_cdr(message, EVENT))

    def write_annotations(
        self,
        faces: Sequence[TrackedFace],
        header: Any,
        camera: str,
        size: tuple[int, int],
        time_ns: int,
    ) -> None:
        """Write the faces of one frame as a foxglove_msgs/ImageAnnotations.

        Arguments as for `FaceTable.write`, and the (width, height) of the image, pixels.
        """
        topic = self._connect(camera + TOPIC_SUFFIX, ANNOTATIONS)
        message = self._annotation_classes.annotations(faces, header.stamp, size)
        self._writer.write(topic, time_ns, self._types.serialize_cdr(message, ANNOTATIONS))

    def _connect(self, topic: str, kind: str) -> Any:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._types, offered_qos_profiles=[NODE_QOS]
            )
        return self._connections[topic]


@cache  # reading the definitions takes longer than writing a short bag
def _load_types() -> Typestore:
    """Return the common message types with those of this package, and the annotations."""
    types = get_typestore(Stores.ROS2_HUMBLE)
    for kind in (FACE, FACES, EVENT, STATE, SCENE):
        filename = f'{kind.rpartition("/")[2]}.msg'
        paths = [folder / filename for folder in data_folders('msg')]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            raise DataError(f'{filename} is missing; build or install dan_ros again')
        types.register(get_types_from_msg(found.read_text(encoding='utf-8'), kind))
    register_annotations(types)
    return types
