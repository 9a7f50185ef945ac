# SPDX-License-Identifier: Apache-2.0
"""Start dan_node; `ros2 launch dan_ros dan.launch.py --show-args` lists the arguments.

An empty argument leaves the value of the parameter file, or the default of the node. When another
launch file includes this one, only the arguments of the include count.
"""

import os
import time
from collections.abc import Callable

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.utilities import prefix_namespace

from dan_ros.ros.launch_scope import scoped
from dan_ros.ros.restarts import RestartLimit

DEFAULT_PARAMS_FILE = os.path.join(get_package_share_directory('dan_ros'), 'config', 'dan.yaml')

NODE = 'dan_node'
BOOLEANS = ['true', 'false', 'True', 'False']

# name: (default, description)
ARGUMENTS = {
    'image_topic': (
        '',
        'Image topic, for example /camera/image_raw; default: image. It replaces image_topics of '
        'params_file; if the file has several depth_topics, give depth_topic too.',
    ),
    'depth_topic': ('', 'Depth topic aligned to the images; default: none.'),
    'namespace': ('', 'Namespace of the node and its topics.'),
    'params_file': (DEFAULT_PARAMS_FILE, 'YAML file with parameters.'),
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


def read_parameters(context: LaunchContext) -> list:
    params_file = read_argument(context, 'params_file')
    if params_file and not os.path.isfile(params_file):
        raise FileNotFoundError(f'params_file:={params_file}: the file does not exist')
    overrides = {}
    for name, (parameter, _) in {**PARAMETERS, **SWITCHES}.items():
        if value := read_argument(context, name):
            overrides[parameter] = value.lower() == 'true' if name in SWITCHES else value
    if read_argument(context, 'image_topic'):  # remaps `image`, see `make_node`
        overrides['image_topics'] = ['image']
    if depth_topic := read_argument(context, 'depth_topic'):
        overrides['depth_topics'] = [depth_topic]
    return [source for source in (params_file, overrides) if source]


def read_log_level(context: LaunchContext) -> list[str]:
    """Return the options that set the log level of the node, but not that of rcl."""
    level = read_argument(context, 'log_level')
    if level and ':=' not in level:
        parent = context.launch_configurations.get('ros_namespace')
        namespace = prefix_namespace(parent, read_argument(context, 'namespace'))
        logger = f'{namespace}/{NODE}'.strip('/').replace('/', '.')
        level = f'{logger}:={level}'
    return ['--log-level', level] if level else []


def make_node(context: LaunchContext) -> list[Action]:
    image_topic = read_argument(context, 'image_topic')
    is_respawned = read_argument(context, 'respawn').lower() == 'true'
    node = Node(
        package='dan_ros',
        executable='dan_node',
        name=NODE,
        namespace=read_argument(context, 'namespace'),
        output='screen',
        respawn=is_respawned,
        respawn_delay=1.0,
        parameters=read_parameters(context),
        remappings=[('image', image_topic)] if image_topic else [],
        ros_arguments=read_log_level(context),
    )
    handler = OnProcessExit(target_action=node, on_exit=make_exit_handler())
    return [RegisterEventHandler(handler), node] if is_respawned else [node]


def make_exit_handler() -> Callable:
    """Return a handler that ends the restarts of a node when they do not help."""
    limit = RestartLimit()

    def end_respawn(event: ProcessExited, context: LaunchContext) -> EmitEvent | None:
        reason = limit.reason_against(event.returncode, time.monotonic())
        if not reason:
            return None
        get_logger(event.process_name).error(f'not restarted: {reason}')
        return EmitEvent(event=ShutdownProcess(process_matcher=matches_action(event.action)))

    return end_respawn


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
    arguments.append(
        DeclareLaunchArgument(
            'respawn',
            default_value='false',
            description='Restart the node if it exits, true or false.',
            choices=['', *BOOLEANS],
        )
    )
    return scoped(arguments, OpaqueFunction(function=make_node))
