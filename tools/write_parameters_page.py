"""Write docs/parameters.md from the node's own table, dan_ros/ros/parameters.py."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from dan_ros.ros.parameters import PARAMETERS, Spec

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'parameters.md'
INTRODUCTION = """\
# Parameters of `dan_node`

`make docs` writes this page from [parameters.py](../dan_ros/ros/parameters.py); a test keeps it so.
[config/dan.yaml](../config/dan.yaml) has the same names and defaults, to be copied and changed:
`ros2 launch dan_ros dan.launch.py params_file:=my.yaml`. Several are launch arguments as well, see
`ros2 launch dan_ros dan.launch.py --show-args`.

*Live* parameters change while the node runs, as in
`ros2 param set /dan_node expression.min_confidence 0.5`. The others are read when the node is
configured: at start, or after `ros2 lifecycle set /dan_node cleanup`. A value that is not allowed
is refused with those that are; at start it ends the node with one line and exit code 2. A name that
there is not is a warning in the log.

Besides these there are ROS 2's own: `use_sim_time`, and
`qos_overrides.<topic>.<publisher or subscription>.<policy>`.
"""


def write_page(specs: Iterable[Spec]) -> str:
    """The whole page: a table for each group of names."""
    parts = [INTRODUCTION]
    for group, members in groupby(sorted(specs, key=_group_of), key=_group_of):
        rows = [_row(spec) for spec in members]
        head = '| name | default | allowed | live | |\n|---|---|---|---|---|'
        parts.append('\n'.join([f'## {group}', '', head, *rows, '']))
    return '\n'.join(parts)


def _group_of(spec: Spec) -> str:
    """What stands before the dot of a name; the node itself where there is none."""
    return spec.name.partition('.')[0] if '.' in spec.name else 'The node'


def _row(spec: Spec) -> str:
    default = '`[""]`' if isinstance(spec.default, list) else f'`{_text(spec.default)}`'
    choices = ', '.join(f'`{_text(choice)}`' for choice in spec.choices)
    live = 'live' if spec.live else ''
    description = spec.description.replace('|', '\\|')
    return f'| `{spec.name}` | {default} | {choices or spec.allowed} | {live} | {description} |'


def _text(value: object) -> str:
    """A value as YAML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != '' else '""'


if __name__ == '__main__':
    PAGE.write_text(write_page(PARAMETERS))
    print(PAGE)
