# SPDX-License-Identifier: Apache-2.0
"""The launch files, where ROS's own launch is installed."""

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from ament_index_python.packages import get_package_share_directory
from processes import Process
from recording import record_images

pytest.importorskip('launch_ros')
pytest.importorskip('ros2launch')

SHARE = Path(get_package_share_directory('dan_ros'))
LAUNCH_FILES = ('dan.launch.py', 'dan.launch.xml', 'dan.launch.yaml')

# Prints its arguments and parameters in one line, then ends with the next code of the file CODES.
NODE_STAND_IN = r"""#!/bin/bash
shopt -s nullglob
echo "node: $* $(cat /dev/null $(printf '%s\n' "$@" | grep -F launch_params_) | tr '\n' ' ')"
code=$(head --lines=1 "$CODES")
sed --in-place 1d "$CODES"
[ "$code" = killed ] && kill -KILL $$
exit "${code:-0}"
"""

ARGUMENTS = (
    'image_topic', 'namespace', 'params_file', 'backend', 'model', 'autostart', 'use_sim_time',
    'log_level', 'image_transport', 'input', 'ros4hri', 'respawn', 'depth_topic',
)  # fmt: skip


@pytest.fixture
def launch(tmp_path):
    """Start launch files; the whole process group is killed at the end of the test."""
    started = []

    def start(*arguments: str, file: str | Path = 'dan.launch.py', **variables: str) -> Process:
        target = [str(file)] if isinstance(file, Path) else ['dan_ros', file]
        command = ['ros2', 'launch', *target, *arguments]
        log = tmp_path / 'log'
        started.append(Process(command, log, variables=variables, start_new_session=True))
        return started[-1]

    start.started = started
    yield start
    for process in started:
        if process.exit_code is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


@pytest.fixture
def launched_nodes(launch, tmp_path):
    """Run a launch file with a stand-in for dan_node; return a line per start, and all output."""
    prefix = tmp_path / 'prefix'
    for folder in ('lib/dan_ros', 'share/ament_index/resource_index/packages'):
        (prefix / folder).mkdir(parents=True)
    for package in ('dan_ros', 'ros2bag'):
        (prefix / 'share/ament_index/resource_index/packages' / package).touch()
    (prefix / 'share/dan_ros').symlink_to(SHARE)
    node = prefix / 'lib/dan_ros/dan_node'
    node.write_text(NODE_STAND_IN)
    node.chmod(0o755)
    codes = tmp_path / 'codes'

    def run(*arguments: str, exits: str = '', **options) -> tuple[list[str], str]:
        codes.write_text(exits.replace(' ', '\n'))
        path = f'{prefix}:{os.environ["AMENT_PREFIX_PATH"]}'
        process = launch(*arguments, AMENT_PREFIX_PATH=path, CODES=str(codes), **options)
        process.wait()
        lines = process.output.splitlines()
        return [line for line in lines if ' node: ' in line], process.output

    return run


def stop(process: Process) -> None:
    """Send Ctrl-C to the launch file and its nodes."""
    os.killpg(process.pid, signal.SIGINT)
    process.wait()


@pytest.mark.parametrize('file', LAUNCH_FILES)
def test_every_argument_is_described(file):
    shown = subprocess.run(
        ['ros2', 'launch', 'dan_ros', file, '--show-args'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ARGUMENTS:
        assert f"'{name}':" in shown
    assert 'no description given' not in shown


def test_the_node_starts_and_stops(launch):
    process = launch('image_topic:=/camera/image_raw', 'namespace:=/head', 'use_sim_time:=true')
    process.wait_for_output('waiting for images on /camera/image_raw')
    stop(process)
    assert 'process has finished cleanly' in process.output


def test_arguments_reach_the_node(launch):
    process = launch('image_topic:=/eye/image', 'image_transport:=compressed')
    process.wait_for_output('waiting for images on /eye/image/compressed')
    stop(process)


def test_image_topic_replaces_the_topics_of_the_parameter_file(launch, tmp_path):
    (tmp_path / 'my.yaml').write_text('/**: {ros__parameters: {image_topics: [left, right]}}')
    process = launch('image_topic:=/eye/image', f'params_file:={tmp_path}/my.yaml')
    process.wait_for_output('waiting for images on ')
    stop(process)
    assert 'waiting for images on /eye/image\n' in process.output


@pytest.mark.parametrize('file', LAUNCH_FILES)
def test_every_launch_file_takes_the_arguments(launched_nodes, file):
    (node,), _ = launched_nodes(
        'image_topic:=/eye/image',
        'depth_topic:=/eye/depth',
        'model:=/m.onnx',
        'namespace:=head',
        'autostart:=False',
        file=file,
    )
    assert '-r image:=/eye/image' in node
    assert '__ns:=/head' in node
    assert '/share/dan_ros/config/dan.yaml' in node
    assert 'model.file: /m.onnx' in node
    # launch_ros writes lists as tuples of Python; rcl ignores the tag
    assert re.search(r'depth_topics:( !!python/tuple)?\s+- /eye/depth', node)
    assert 'autostart: false' in node


# A robot's launch files, which use our names for their own purposes.
PARENTS = {
    'py': """
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument, ExecuteProcess, GroupAction, IncludeLaunchDescription, OpaqueFunction,
    SetLaunchConfiguration, TimerAction,
)
from launch.substitutions import LaunchConfiguration

FILE = '{share}/launch/dan.launch.py'


def include(**arguments):
    return IncludeLaunchDescription(FILE, launch_arguments=arguments.items())


def generate_launch_description():
    given = include(image_topic='/given', model=LaunchConfiguration('model'))
    return LaunchDescription([
        DeclareLaunchArgument('model', default_value='/robots/my.urdf'),
        DeclareLaunchArgument('params_file', default_value='/robots/nav2.yaml'),
        SetLaunchConfiguration('use_sim_time', 'perhaps'),
        SetLaunchConfiguration('log_level', 'loud'),
        GroupAction([given]),
        OpaqueFunction(function=lambda context: [include()]),
        TimerAction(period=0.1, actions=[include()]),
        ExecuteProcess(
            cmd=['echo', 'after:', LaunchConfiguration('model'), LaunchConfiguration('params_file'),
                 LaunchConfiguration('respawn', default='unset')],
            output='screen',
        ),
    ])
""",
    'xml': """
<launch>
  <arg name="model" default="/robots/my.urdf"/>
  <arg name="params_file" default="/robots/nav2.yaml"/>
  <let name="use_sim_time" value="perhaps"/>
  <let name="log_level" value="loud"/>
  <group>
    <include file="$(find-pkg-share dan_ros)/launch/dan.launch.xml">
      <arg name="image_topic" value="/given"/>
      <arg name="model" value="$(var model)"/>
    </include>
  </group>
  <include file="$(find-pkg-share dan_ros)/launch/dan.launch.xml"/>
  <include file="$(find-pkg-share dan_ros)/launch/dan.launch.py"/>
  <executable cmd="echo after: $(var model) $(var params_file) unset" output="screen"/>
</launch>
""",
    'yaml': """
launch:
- arg: {{name: model, default: /robots/my.urdf}}
- arg: {{name: params_file, default: /robots/nav2.yaml}}
- let: {{name: use_sim_time, value: perhaps}}
- let: {{name: log_level, value: loud}}
- group:
  - include:
      file: $(find-pkg-share dan_ros)/launch/dan.launch.yaml
      arg:
      - {{name: image_topic, value: /given}}
      - {{name: model, value: $(var model)}}
- include: {{file: $(find-pkg-share dan_ros)/launch/dan.launch.yaml}}
- include: {{file: $(find-pkg-share dan_ros)/launch/dan.launch.py}}
- executable: {{cmd: "echo after: $(var model) $(var params_file) unset", output: screen}}
""",
}


@pytest.mark.parametrize('language', PARENTS)
def test_an_include_gets_only_the_arguments_that_it_was_given(launched_nodes, tmp_path, language):
    parent = tmp_path / f'robot.launch.{language}'
    parent.write_text(PARENTS[language].format(share=SHARE))
    nodes, output = launched_nodes('model:=/robots/your.urdf', 'backend:=gazebo', file=parent)
    assert 'after: /robots/your.urdf /robots/nav2.yaml unset' in output
    given, *others = sorted(nodes, key=lambda node: '/given' not in node)
    assert '-r image:=/given' in given
    assert 'model.file: /robots/your.urdf' in given
    assert len(others) == 2
    for node in others:
        assert 'image:=' not in node
        assert 'model.file' not in node
    for node in nodes:
        assert 'config/dan.yaml' in node
        assert 'nav2.yaml' not in node
        assert 'gazebo' not in node
        assert '--log-level' not in node


@pytest.mark.parametrize(
    'argument', ['use_sim_time:=maybe', 'respawn:=yes', 'params_file:=/no/such.yaml']
)
def test_an_invalid_argument_is_named(launch, argument):
    process = launch(argument)
    assert process.wait() != 0
    assert argument.split(':=')[1] in process.output


@pytest.mark.parametrize(
    ('exits', 'starts'), [('3 killed 1 0 2', 5), ('2', 1)], ids=['lost GPU or crash', 'invalid']
)
def test_respawn_ends_with_an_error_that_a_restart_cannot_mend(launched_nodes, exits, starts):
    nodes, output = launched_nodes('respawn:=true', exits=exits)
    assert len(nodes) == starts
    assert output.count('not restarted') == 1


def test_respawn_gives_up_on_an_invalid_parameter(launch, tmp_path):
    (tmp_path / 'my.yaml').write_text('/**: {ros__parameters: {max_faces: 0}}')
    process = launch('respawn:=true', f'params_file:={tmp_path}/my.yaml')
    process.wait()
    assert process.output.count('max_faces cannot be 0') == 1


NAMESPACED = """
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch_ros.actions import PushRosNamespace


def generate_launch_description():
    arguments = {arguments}
    return LaunchDescription([
        PushRosNamespace('robot'),
        IncludeLaunchDescription('{file}', launch_arguments=arguments.items()),
    ])
"""
LOGGERS = {
    '': 'robot.dan_node',
    'head': 'robot.head.dan_node',
    '/a/b': 'a.b.dan_node',
    '/': 'dan_node',
}


@pytest.mark.parametrize('namespace', LOGGERS)
def test_log_level_is_that_of_the_node(launched_nodes, tmp_path, namespace):
    parent = tmp_path / 'robot.launch.py'
    arguments = {'namespace': namespace, 'log_level': 'debug'}
    parent.write_text(NAMESPACED.format(arguments=arguments, file=SHARE / 'launch/dan.launch.py'))
    (node,), _ = launched_nodes(file=parent)
    assert f'--log-level {LOGGERS[namespace]}:=debug' in node


def test_replay_plays_a_bag_into_the_node_and_ends(launch, tmp_path, smile):
    pytest.importorskip('ros2bag')
    bag = record_images(tmp_path / 'bag', [smile] * 20)
    process = launch(f'bag:={bag}', 'image_topic:=/camera/image_raw', file='replay.launch.py')
    assert process.wait() == 0, process.output
    assert 'waiting for images on /camera/image_raw' in process.output


REPLAY_PARENT = """
<launch>
  <arg name="rate" default="fast"/>
  <arg name="loop" default="perhaps"/>
  <include file="$(find-pkg-share dan_ros)/launch/replay.launch.py">
    <arg name="bag" value="/"/>
    <arg name="image_topic" value="/eye/image"/>
  </include>
</launch>
"""


def test_replay_passes_on_its_arguments_and_no_others(launched_nodes, tmp_path):
    parent = tmp_path / 'robot.launch.xml'
    parent.write_text(REPLAY_PARENT)
    (node,), output = launched_nodes('model:=/robots/my.urdf', file=parent)
    assert '-r image:=/eye/image' in node
    assert 'use_sim_time: true' in node
    assert 'model.file' not in node
    assert '--rate 1.0' in output


def test_a_replay_that_fails_does_not_end_with_0(launch, launched_nodes):
    """Without `ros2 bag`, and with it, because the folder is not a bag."""
    _, output = launched_nodes('bag:=/', file='replay.launch.py')
    assert 'the bag was not played to its end' in output
    assert launch.started[-1].exit_code == 1


def test_replay_names_what_is_missing(launch):
    process = launch('bag:=/no/such/bag', file='replay.launch.py')
    assert process.wait() != 0
    assert '/no/such/bag' in process.output or 'dan-ros bag IN OUT' in process.output
    left = [p.info['cmdline'] for p in psutil.process_iter(['cmdline', 'environ'])
            if (p.info['environ'] or {}).get('ROS_DOMAIN_ID') == str(process.domain.number)
            and any('dan_node' in part for part in p.info['cmdline'] or ())]  # fmt: skip
    assert left == []
