# SPDX-License-Identifier: Apache-2.0
"""A camera node for testing: publishes pictures, a video or a real camera as sensor_msgs/Image.

It publishes on `image_raw` and has the parameters `source`, see `open_source`, and `rate_hz`. The
default source is a moving face of changing size: the astronaut portrait of scikit-image (NASA,
public domain).
"""

from array import array
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dan_ros.errors import DanError, ParameterError
from dan_ros.images.playback import MAX_RATE_HZ, MIN_RATE_HZ, open_source
from dan_ros.ros.publishers import bgr_to_image


class SampleCamera(Node):
    """Publishes images at a fixed rate without end, stamped with the clock of the node.

    Raises:
        ParameterError: the source cannot be opened, or the rate is invalid.
    """

    NAME = 'sample_camera'

    def __init__(self, **options: Any) -> None:
        super().__init__(self.NAME, **options)
        dynamic = ParameterDescriptor(dynamic_typing=True)  # accept integers too
        name = _check_source(self.declare_parameter('source', '', dynamic).value)
        rate_hz = _check_rate(self.declare_parameter('rate_hz', None, dynamic).value)
        try:
            self._source = open_source(name, rate_hz, self.get_logger().warning)
        except DanError as error:
            raise ParameterError(f'source: {error}') from None
        self.set_parameters([Parameter('rate_hz', value=self._source.rate_hz)])
        self.add_on_set_parameters_callback(_refuse_changes)
        self._publisher = self.create_publisher(Image, 'image_raw', qos_profile_sensor_data)
        self.create_timer(1 / self._source.rate_hz, self._publish_next)

    def _publish_next(self) -> None:
        image = next(self._source)
        if image is None:
            self.get_logger().warning(
                'cannot read an image from the source', throttle_duration_sec=5
            )
            return
        header = Header(frame_id='sample_camera', stamp=self.get_clock().now().to_msg())
        self._publisher.publish(bgr_to_image(image, header))


def _refuse_changes(parameters: list[Any]) -> SetParametersResult:
    is_own = any(parameter.name in ('source', 'rate_hz') for parameter in parameters)
    return SetParametersResult(successful=not is_own, reason='needs a restart' if is_own else '')


def _check_source(value: object) -> str:
    if isinstance(value, int | str) and not isinstance(value, bool):
        return str(value)
    shown = list(value) if isinstance(value, array) else value
    raise ParameterError(f'source cannot be {shown!r}: it must be text or the number of a camera')


def _check_rate(value: object) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, int | float) and is_number and MIN_RATE_HZ <= value <= MAX_RATE_HZ:
        return float(value)
    shown = list(value) if isinstance(value, array) else value
    raise ParameterError(
        f'rate_hz cannot be {shown!r}: it must be a number from {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g}'
    )
