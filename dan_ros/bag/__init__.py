# SPDX-License-Identifier: Apache-2.0
"""Convert recorded bags of images to bags of expressions, without ROS."""
