#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Source ROS and the workspace, then launch the node with the given arguments.
set -e
. "/opt/ros/$ROS_DISTRO/setup.bash"
. "$HOME/ws/install/setup.bash"
exec ros2 launch dan_ros dan.launch.py "$@"
