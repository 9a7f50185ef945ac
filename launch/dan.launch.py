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

ARGUMENTS = {
    'image_topic': ('', 'Image topic of the camera, such as /camera/image_raw; default: image.'),
    'namespace': ('', 'Namespace of the node and its topics.'),
    'params_file': (DEFAULT_PARAMS_FILE, 'YAML file of parameters.'),
    'backend': ('', 'Parameter backend.name: auto, onnxruntime or torch.'),
    'model': ('', 'Parameter model.file: auto, a known model, or the path of an ONNX file.'),
    'autostart': ('', 'Parameter autostart: whether the node activates itself, true or false.'),
    'use_sim_time': ('', 'Whether to take time from /clock, true or false.'),
    'log_level': ('', 'Logger level: debug, info, warn, error or fatal.'),
}
TRUTH = {'true': True, '1': True, 'false': False, '0': False}


def to_bool(name: str, text: str) -> bool:
    if text.lower() not in TRUTH:
        raise ValueError(f'{name}:={text} can not be read: give true or false')
    return TRUTH[text.lower()]


def make_node(context: LaunchContext) -> list[Node]:
    values = {name: LaunchConfiguration(name).perform(context).strip() for name in ARGUMENTS}
    params_file = values['params_file']
    if params_file and not os.path.isfile(params_file):
        raise FileNotFoundError(f'params_file:={params_file}: there is no such file')
    overrides = {}
    if values['backend']:
        overrides['backend.name'] = values['backend']
    if values['model']:
        overrides['model.file'] = values['model']
    for name in ('autostart', 'use_sim_time'):
        if values[name]:
            overrides[name] = to_bool(name, values[name])
    return [
        Node(
            package='dan_ros',
            executable='dan_node',
            name='dan_node',
            namespace=values['namespace'],
            output='screen',
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
    return LaunchDescription([*arguments, OpaqueFunction(function=make_node)])
