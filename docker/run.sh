#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Sources ROS and the workspace, then launches the node with the arguments given.
set -e
. "/opt/ros/$ROS_DISTRO/setup.bash"
. "$HOME/ws/install/setup.bash"
exec ros2 launch dan_ros dan.launch.py "$@"
