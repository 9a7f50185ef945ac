# SPDX-License-Identifier: Apache-2.0
"""Start dan_node. Try `ros2 launch dan_ros dan.launch.py --show-args`.

An argument left empty overrides nothing: defaults are the node's own, or the parameter file's.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

DEFAULT_PARAMS_FILE = os.path.join(get_package_share_directory('dan_ros'), 'config', 'dan.yaml')

TRUTHS = ['true', 'false', 'True', 'False']

# name: (default, description)
ARGUMENTS = {
    'image_topic': ('', 'Image topic of the camera, such as /camera/image_raw; default: image.'),
    'namespace': ('', 'Namespace of the node and its topics.'),
    'params_file': (DEFAULT_PARAMS_FILE, 'YAML file of parameters.'),
    'respawn': ('false', 'Whether to start the node anew when it ends by itself, true or false.'),
    'log_level': ('', 'Logger level: debug, info, warn, error or fatal.'),
}
# name: (parameter, description)
PARAMETERS = {
    'backend': ('backend.name', 'What runs the network, such as auto, tensorrt or onnxruntime.'),
    'model': ('model.file', 'auto, a known model, or the path of an ONNX file.'),
    'image_transport': ('image_transport', 'raw, or compressed for JPEG and PNG.'),
    'input': ('input', 'images, or cropped_faces for those of another ROS4HRI face detector.'),
}
SWITCHES = {
    'ros4hri': ('ros4hri', 'Whether to publish under /humans/faces as well, true or false.'),
    'autostart': ('autostart', 'Whether the node activates itself, true or false.'),
    'use_sim_time': ('use_sim_time', 'Whether to take time from /clock, true or false.'),
}


def read_argument(context: LaunchContext, name: str) -> str:
    return LaunchConfiguration(name).perform(context).strip()


def make_node(context: LaunchContext) -> list[Node]:
    values = {name: read_argument(context, name) for name in ARGUMENTS}
    params_file = values['params_file']
    if params_file and not os.path.isfile(params_file):
        raise FileNotFoundError(f'params_file:={params_file}: there is no such file')
    overrides = {}
    for name, (parameter, _) in {**PARAMETERS, **SWITCHES}.items():
        if value := read_argument(context, name):
            overrides[parameter] = value.lower() == 'true' if name in SWITCHES else value
    return [
        Node(
            package='dan_ros',
            executable='dan_node',
            name='dan_node',
            namespace=values['namespace'],
            output='screen',
            respawn=values['respawn'].lower() == 'true',
            respawn_delay=1.0,
            parameters=[source for source in (params_file, overrides) if source],
            remappings=[('image', values['image_topic'])] if values['image_topic'] else [],
            ros_arguments=['--log-level', values['log_level']] if values['log_level'] else [],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value='', description=f'Parameter {parameter}: {text}')
        for name, (parameter, text) in PARAMETERS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value='', description=text, choices=['', *TRUTHS])
        for name, (_, text) in SWITCHES.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=make_node)])
