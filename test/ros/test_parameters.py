"""The table of parameters: complete, without clashes, and the source of config/dan.yaml."""

import re
from pathlib import Path

import yaml

from dan_ros.images.opencv import MAX_PIXELS
from dan_ros.ros.parameters import PARAMETERS, SPECS

CONFIG = Path(__file__).parents[2] / 'config' / 'dan.yaml'


def test_the_configuration_has_the_defaults_of_the_table_and_nothing_else():
    content = yaml.safe_load(CONFIG.read_text())
    assert content == {'/**': {'ros__parameters': {spec.name: spec.default for spec in PARAMETERS}}}


def test_the_configuration_has_the_ranges_of_the_table():
    commented = re.findall(r'((?:^ +# .*\n)+) +([\w.]+):', CONFIG.read_text(), re.M)
    found = {}
    for comment, name in commented:
        span = re.search(r'([\d.]+)(?: \([^)]*\))? to ([\d.]+\d|\d)\b', comment)
        if span:
            found[name] = tuple(map(float, span.groups()))
    assert found == {
        name: (spec.minimum, spec.maximum)
        for name, spec in SPECS.items()
        if spec.minimum is not None and spec.maximum is not None
    }


def test_no_name_is_a_prefix_of_another():
    assert not [(a, b) for a in SPECS for b in SPECS if b.startswith(f'{a}.')]


def test_every_parameter_is_described():
    for spec in PARAMETERS:
        assert spec.description.endswith('.'), spec.name
        assert not spec.problem_with(spec.default)
        is_number = type(spec.default) in (int, float)
        assert not is_number or spec.choices or spec.minimum is not None, spec.name


def test_the_largest_image_is_the_largest_that_opencv_decodes():
    assert SPECS['limits.max_pixels'].maximum == MAX_PIXELS
