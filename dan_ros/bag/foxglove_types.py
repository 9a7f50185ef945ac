# SPDX-License-Identifier: Apache-2.0
"""The messages of foxglove_msgs that a bag of expressions may contain, without that package.

https://docs.foxglove.dev/docs/sdk/schemas/image-annotations describes them. Newer versions have an
additional field `metadata`, which viewers do not need: a bag contains its own definitions.
"""

from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

ANNOTATIONS = 'foxglove_msgs/msg/ImageAnnotations'
DEFINITIONS = {
    'foxglove_msgs/msg/Color': 'float64 r\nfloat64 g\nfloat64 b\nfloat64 a',
    'foxglove_msgs/msg/Point2': 'float64 x\nfloat64 y',
    'foxglove_msgs/msg/CircleAnnotation': """\
builtin_interfaces/Time timestamp
foxglove_msgs/Point2 position
float64 diameter
float64 thickness
foxglove_msgs/Color fill_color
foxglove_msgs/Color outline_color""",
    'foxglove_msgs/msg/PointsAnnotation': """\
uint8 UNKNOWN=0
uint8 POINTS=1
uint8 LINE_LOOP=2
uint8 LINE_STRIP=3
uint8 LINE_LIST=4
builtin_interfaces/Time timestamp
uint8 type
foxglove_msgs/Point2[] points
foxglove_msgs/Color outline_color
foxglove_msgs/Color[] outline_colors
foxglove_msgs/Color fill_color
float64 thickness""",
    'foxglove_msgs/msg/TextAnnotation': """\
builtin_interfaces/Time timestamp
foxglove_msgs/Point2 position
string text
float64 font_size
foxglove_msgs/Color text_color
foxglove_msgs/Color background_color""",
    ANNOTATIONS: """\
builtin_interfaces/Time timestamp
foxglove_msgs/CircleAnnotation[] circles
foxglove_msgs/PointsAnnotation[] points
foxglove_msgs/TextAnnotation[] texts""",
}


def register_annotations(types: Typestore) -> None:
    """Register the messages."""
    for name, definition in DEFINITIONS.items():
        types.register(get_types_from_msg(definition, name))
