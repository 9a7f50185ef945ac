# SPDX-License-Identifier: Apache-2.0
"""A plain rclpy node: conversion and inference in the callback, queue depth 10.

It publishes the message of this package, so that one client can measure both nodes.
"""

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from dan_ros.msg import FacialExpression, FacialExpressionArray
from naive.pipeline import NaivePipeline


class NaiveNode(Node):
    """Subscribes to `image` and publishes `facial_expressions`."""

    def __init__(self) -> None:
        super().__init__('dan_node')
        self._pipeline = NaivePipeline()
        self._publisher = self.create_publisher(FacialExpressionArray, 'facial_expressions', 10)
        self.create_subscription(Image, 'image', self._on_image, 10)

    def _on_image(self, message: Image) -> None:
        image = np.frombuffer(bytes(message.data), np.uint8)
        image = image.reshape(message.height, message.width, 3).copy()
        array = FacialExpressionArray(header=message.header)
        for (left, top, width, height), probabilities in self._pipeline.run(image):
            face = FacialExpression(header=message.header)
            face.roi.x_offset, face.roi.y_offset = int(left), int(top)
            face.roi.width, face.roi.height = int(width), int(height)
            face.probabilities = probabilities
            face.expression = int(probabilities.argmax())
            array.faces.append(face)
        self._publisher.publish(array)


if __name__ == '__main__':
    rclpy.init()
    rclpy.spin(NaiveNode())
