# SPDX-License-Identifier: Apache-2.0
"""Start dan_node; `ros2 launch dan_ros dan.launch.py --show-args` lists the arguments.

An empty argument leaves the value of the parameter file, or the default of the node.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

DEFAULT_PARAMS_FILE = os.path.join(get_package_share_directory('dan_ros'), 'config', 'dan.yaml')

BOOLEANS = ['true', 'false', 'True', 'False']

# name: (default, description)
ARGUMENTS = {
    'image_topic': ('', 'Image topic, for example /camera/image_raw; default: image.'),
    'namespace': ('', 'Namespace of the node and its topics.'),
    'params_file': (DEFAULT_PARAMS_FILE, 'YAML file with parameters.'),
    'respawn': ('false', 'Restart the node if it exits, true or false.'),
    'log_level': ('', 'Log level: debug, info, warn, error or fatal.'),
}
# name: (parameter, description)
PARAMETERS = {
    'backend': ('backend.name', 'Library that runs the network: auto, tensorrt, onnxruntime, ...'),
    'model': ('model.file', 'auto, the name of a known model, or the path of an ONNX file.'),
    'image_transport': ('image_transport', 'raw, or compressed for JPEG and PNG images.'),
    'input': ('input', 'images, or cropped_faces for the faces of another ROS4HRI detector.'),
}
SWITCHES = {
    'ros4hri': ('ros4hri', 'Also publish the faces under /humans/faces, true or false.'),
    'autostart': ('autostart', 'Configure and activate at start, true or false.'),
    'use_sim_time': ('use_sim_time', 'Use the time of /clock, true or false.'),
}


def read_argument(context: LaunchContext, name: str) -> str:
    return LaunchConfiguration(name).perform(context).strip()


def make_node(context: LaunchContext) -> list[Node]:
    values = {name: read_argument(context, name) for name in ARGUMENTS}
    params_file = values['params_file']
    if params_file and not os.path.isfile(params_file):
        raise FileNotFoundError(f'params_file:={params_file}: the file does not exist')
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
        DeclareLaunchArgument(name, default_value='', description=text, choices=['', *BOOLEANS])
        for name, (_, text) in SWITCHES.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=make_node)])
