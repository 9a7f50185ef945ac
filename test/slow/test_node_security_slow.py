# SPDX-License-Identifier: Apache-2.0
"""The SROS2 policy that docs/sros2.md derives for a remapped camera."""

import re
import subprocess

from test_node_security import PAGE, POLICY, read_policy, settled_graph


def test_the_policy_of_the_page_allows_a_remapped_camera(start, tmp_path):
    (command,) = re.findall(r'^sed .*?policy.xml$', PAGE.read_text(), re.DOTALL | re.MULTILINE)
    command = command.replace(
        '$(ros2 pkg prefix dan_ros)/share/dan_ros/config', f'{POLICY.parents[1]}'
    )
    subprocess.run(['bash', '-c', command], cwd=tmp_path, check=True)
    allowed = read_policy('/head', tmp_path / 'my.policy.xml')
    topic = '/camera/image_raw'
    robot = start('-r', '__ns:=/head', '-r', f'image:={topic}', name='/head/dan_node', topic=topic)
    for rule, names in settled_graph(robot, '/head').items():
        assert names <= allowed[rule], rule
