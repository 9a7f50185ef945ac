# SPDX-License-Identifier: Apache-2.0
"""The choice of ROS 2 for `make build`, which never mixes two distributions."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'tools' / 'make_environment.py'


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The script, working in an empty folder."""
    spec = importlib.util.spec_from_file_location('make_environment', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    return module


def leave_outputs(folder):
    for name in ('build/dan_ros', 'install/dan_ros'):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / 'old').touch()


@pytest.mark.parametrize('before', ['', 'kilted wheels, Python 3.12', 'humble distribution'])
def test_outputs_of_another_ros_are_removed(tool, tmp_path, before):
    leave_outputs(tmp_path)
    if before:
        (tmp_path / 'install' / tool.ORIGIN).write_text(before)
    tool.start_builds('jazzy wheels, Python 3.12')
    assert not (tmp_path / 'build').exists()
    assert os.listdir(tmp_path / 'install') == [tool.ORIGIN]


def test_outputs_of_the_same_ros_stay(tool, tmp_path):
    tool.start_builds('jazzy wheels, Python 3.12')
    leave_outputs(tmp_path)
    tool.start_builds('jazzy wheels, Python 3.12')
    assert (tmp_path / 'build' / 'dan_ros' / 'old').exists()
    assert (tmp_path / 'install' / 'dan_ros' / 'old').exists()


@pytest.mark.parametrize(
    ('before', 'after', 'stays'),
    [
        ('kilted', 'jazzy', False),
        ('jazzy', 'kilted', False),
        ('jazzy', 'jazzy', True),
        ('', 'kilted', True),  # made when only Kilted was supported
        ('', 'jazzy', False),
    ],
)
def test_a_virtual_environment_is_kept_only_for_its_own_ros(
    tool, tmp_path, monkeypatch, before, after, stays
):
    monkeypatch.setattr(tool.venv, 'create', lambda folder, **_: folder.mkdir(exist_ok=True))
    folder = tmp_path / '.venv'
    folder.mkdir()
    (folder / 'package').touch()
    if before:
        (folder / tool.ORIGIN).write_text(f'{before} wheels, {tool.python_version()}')
    origin = f'{after} wheels, {tool.python_version()}'
    tool.create(folder, origin)
    assert (folder / 'package').exists() == stays
    assert (folder / tool.ORIGIN).read_text() == origin


def test_a_linked_environment_is_left_to_its_owner(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool.venv, 'create', lambda folder, **_: folder.mkdir())
    (tmp_path / 'shared').mkdir()
    (tmp_path / 'shared' / 'package').touch()
    (tmp_path / '.venv').symlink_to('shared')
    tool.create(tmp_path / '.venv', 'jazzy wheels, Python 3.12')
    assert (tmp_path / 'shared' / 'package').exists()
    assert not (tmp_path / '.venv').is_symlink()


def test_all_ros_wheels_are_of_one_distribution(tool):
    jazzy = [line for line in tool.ros_requirements('jazzy') if line.startswith('ros-')]
    assert 'ros-jazzy-rclpy[fastrtps]' in jazzy
    assert all(name.startswith('ros-jazzy-') for name in jazzy)
    kilted = [line for line in tool.ros_requirements('kilted') if line.startswith('ros-')]
    assert 'ros-rclpy[fastrtps]' in kilted
    assert not any('jazzy' in name for name in kilted)


def run_make(*arguments, **variables):
    """Run `make build`; return its exit code, its output and its error lines."""
    environment = {k: v for k, v in os.environ.items() if k not in ('ROS_DISTRO', 'WHEELS')}
    done = subprocess.run(
        ['make', '--silent', 'build', *arguments],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize(
    ('variables', 'command'),
    [
        ({}, 'install/dan_ros/lib/dan_ros/dan_node'),
        ({'ROS_DISTRO': 'jazzy'}, 'ros2 run dan_ros dan_node'),
    ],
)
def test_the_end_of_a_build_says_how_to_start_the_node(variables, command):
    code, output, _ = run_make('--dry-run', **variables)
    assert code == 0
    assert f'the node: {command}"' in output.splitlines()[-1]


def test_wheels_that_do_not_exist_are_refused():
    code, _, lines = run_make('WHEELS=humble')
    assert code != 0
    assert 'WHEELS=humble: only kilted and jazzy exist as wheels' in lines[0]
    assert len(lines) == 2  # the second line is an error of make


def test_wheels_beside_a_sourced_distribution_are_refused():
    code, _, lines = run_make('WHEELS=jazzy', ROS_DISTRO='humble')
    assert code != 0
    assert 'WHEELS=jazzy, but ROS 2 humble is sourced' in lines[0]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ('distribution', 'origin', 'warns'),
    [
        ('', 'kilted wheels, Python 3.11', False),
        ('', 'humble distribution, Python 3.10', True),
        ('humble', 'humble distribution, Python 3.10', False),
        ('jazzy', 'humble distribution, Python 3.10', True),
        ('jazzy', 'jazzy wheels, Python 3.12', True),
        ('jazzy', '', False),
    ],
)
def test_env_sh_warns_of_a_build_for_another_ros(tmp_path, distribution, origin, warns):
    (tmp_path / 'env.sh').write_bytes((ROOT / 'env.sh').read_bytes())
    (tmp_path / 'install').mkdir()
    (tmp_path / 'install' / 'local_setup.bash').touch()
    if origin:
        (tmp_path / 'install' / 'dan_ros_origin').write_text(origin)
    done = subprocess.run(
        ['bash', '-euc', '. ./env.sh'],
        cwd=tmp_path,
        env={'PATH': os.environ['PATH'], **({'ROS_DISTRO': distribution} if distribution else {})},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ('was built with' in done.stderr) == warns
