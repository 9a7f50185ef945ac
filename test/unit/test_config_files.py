# SPDX-License-Identifier: Apache-2.0
"""Configurations for viewers and diagnostics name topics, panels and statuses that exist."""

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'config'
FROM_CAMERA = {'/image', '/camera_info'}


def documented_topics() -> set[str]:
    """Full names in the tables of docs/topics.md, for the root namespace."""
    names = re.findall(r'^\| (`[^|]+) \|', (ROOT / 'docs/topics.md').read_text(), re.MULTILINE)
    quoted = {name for cell in names for name in re.findall(r'`([^`]+)`', cell)}
    return {'/' + name.replace('~', 'dan_node').lstrip('/') for name in quoted}


def message_fields(name: str) -> set[str]:
    definition = (ROOT / 'msg' / f'{name}.msg').read_text()
    return set(re.findall(r'^[\w/]+(?:\[[^\]]*\])? (\w+)$', definition, re.MULTILINE))


def panels_of(layout: object) -> list[str]:
    if isinstance(layout, str):
        return [layout]
    assert layout['direction'] in ('row', 'column')
    return panels_of(layout['first']) + panels_of(layout['second'])


def test_the_layout_of_foxglove_shows_our_topics_and_fields():
    content = json.loads((CONFIG / 'foxglove_layout.json').read_text())
    panels = content['configById']
    assert sorted(panels_of(content['layout'])) == sorted(panels)
    text = json.dumps(panels)
    topics = set(re.findall(r'"(/[\w/]+)', text))
    assert topics - FROM_CAMERA <= documented_topics()
    fields = set(re.findall(r'/facial_expressions\.faces\[0\]\.(\w+)', text))
    assert len(fields) >= 4
    assert fields <= message_fields('FacialExpression')


def test_rviz_shows_our_topics():
    content = yaml.safe_load((CONFIG / 'dan.rviz').read_text())
    image, *_ = content['Visualization Manager']['Displays']
    assert image['Topic']['Value'] in documented_topics()


def test_the_analyzer_finds_the_status_of_the_node():
    content = yaml.safe_load((CONFIG / 'analyzers.yaml').read_text())
    analyzer = content['/**']['ros__parameters']['facial_expressions']
    source = (ROOT / 'dan_ros/ros/diagnostics.py').read_text()
    (name,) = re.findall(r"name=f'.*\}(: [\w ]+)'", source)
    assert analyzer['contains'] == [name]
