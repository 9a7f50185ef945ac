# SPDX-License-Identifier: Apache-2.0
"""Play a recorded bag into dan_node: `ros2 launch dan_ros replay.launch.py bag:=PATH`.

The node uses the time of the bag. The launch ends with the bag, unless loop:=true. To process every
image of a bag on any computer, use `dan-ros bag IN OUT` instead.
"""

import os
import shlex

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from dan_ros.ros.launch_scope import scoped

NODE_LAUNCH = os.path.join(get_package_share_directory('dan_ros'), 'launch', 'dan.launch.py')
ARGUMENTS = {
    'bag': (None, 'Bag: a folder, or a .db3 or .mcap file.'),
    'rate': ('1.0', 'Playback speed; 1.0 is real time.'),
    'delay': ('5.0', 'Seconds before playback starts, while the node loads its models.'),
    'play_options': ('', 'More options for `ros2 bag play`.'),
}
BOOLEANS = ['true', 'false', 'True', 'False']


def make_replay(context: LaunchContext) -> list:
    # The node is made here, after the checks: launch does not stop it if a later action fails.
    values = {name: LaunchConfiguration(name).perform(context).strip() for name in ARGUMENTS}
    try:
        get_package_prefix('ros2bag')
    except PackageNotFoundError:
        raise RuntimeError(
            '`ros2 bag` is not installed: apt install ros-$ROS_DISTRO-rosbag2, or use '
            '`dan-ros bag IN OUT`, which does not need ROS'
        ) from None
    if not os.path.exists(values['bag']):
        raise FileNotFoundError(f'bag:={values["bag"]}: the bag does not exist')
    is_endless = LaunchConfiguration('loop').perform(context).lower() == 'true'
    command = ['ros2', 'bag', 'play', values['bag'], '--clock', '100']
    command += ['--rate', values['rate'], '--delay', values['delay']]
    command += ['--loop'] * is_endless + shlex.split(values['play_options'])
    player = ExecuteProcess(cmd=command, output='screen')
    end = OnProcessExit(target_action=player, on_exit=end_with_bag)
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(NODE_LAUNCH), launch_arguments=[('use_sim_time', 'true')]
    )
    return [node, RegisterEventHandler(end), player]


def end_with_bag(event: ProcessExited, context: LaunchContext) -> EmitEvent:
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(
            f'the bag was not played to its end: `ros2 bag play` ended with exit code '
            f'{event.returncode}; see its output above'
        )
    return EmitEvent(event=Shutdown(reason='the bag has ended'))


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    arguments.append(
        DeclareLaunchArgument(
            'loop',
            default_value='false',
            description='Repeat the bag until Ctrl-C, true or false.',
            choices=BOOLEANS,
        )
    )
    return scoped(arguments, OpaqueFunction(function=make_replay))
