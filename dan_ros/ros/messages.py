"""Messages of ROS: the classes that say what faces show, and pictures."""

import numpy as np
from geometry_msgs.msg import Point, Point32, Pose, Quaternion
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from dan_ros.messages import MessageClasses
from dan_ros.msg import FacialExpression, FacialExpressionArray

ROS = MessageClasses(
    FacialExpression, FacialExpressionArray, Point, Point32, Pose, Quaternion, RegionOfInterest
)


def bgr_to_image(image_bgr: np.ndarray, header: Header) -> Image:
    """Message of a picture, uint8 [H, W, 3] in BGR."""
    message = Image(
        header=header,
        height=image_bgr.shape[0],
        width=image_bgr.shape[1],
        encoding='bgr8',
        step=image_bgr.shape[1] * 3,
    )
    message.data.frombytes(memoryview(np.ascontiguousarray(image_bgr)).cast('B'))
    return message
