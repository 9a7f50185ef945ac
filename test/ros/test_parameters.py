# SPDX-License-Identifier: Apache-2.0
"""The table of parameters is complete and consistent."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from dan_ros.images.opencv import MAX_PIXELS
from dan_ros.ros.parameters import PARAMETERS, SPECS

WRITER = Path(__file__).parents[2] / 'tools' / 'write_parameters.py'


def test_no_name_is_a_prefix_of_another():
    assert not [(a, b) for a in SPECS for b in SPECS if b.startswith(f'{a}.')]


def test_every_parameter_is_described():
    for spec in PARAMETERS:
        assert spec.description.endswith('.'), spec.name
        assert not spec.problem_with(spec.default)
        is_number = type(spec.default) in (int, float)
        assert not is_number or spec.choices or spec.limits, spec.name


def test_the_largest_image_is_the_largest_that_opencv_decodes():
    assert SPECS['limits.max_pixels'].limits[1] == MAX_PIXELS


def test_generated_files_are_current():
    """docs/parameters.md and config/dan.yaml are what `make docs` writes."""
    spec = importlib.util.spec_from_file_location('write_parameters', WRITER)
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    page, yaml_text = writer.to_markdown(PARAMETERS), writer.to_yaml(PARAMETERS)
    assert page == writer.PAGE.read_text(), 'run `make docs`'
    assert yaml_text == writer.YAML_FILE.read_text(), 'run `make docs`'
    assert all(f'| `{name}` |' in page for name in SPECS)
    assert yaml.safe_load(yaml_text) == {
        '/**': {'ros__parameters': {spec.name: spec.default for spec in PARAMETERS}}
    }
    comments = ' '.join(re.findall(r'# (.*)', yaml_text))
    assert all(f'{spec.description} Allowed: {spec.allowed}.' in comments for spec in PARAMETERS)


@pytest.mark.parametrize(('value', 'written'), [(1, '1'), (2.5, '2.5'), (True, 'true')])
def test_a_number_for_a_name_tells_how_to_quote_it(value, written):
    problem = SPECS['backend.model_version'].problem_with(value)
    assert problem.endswith(f"""in a shell, write backend.model_version:='"{written}"'""")
    assert SPECS['backend.model_version'].problem_with(written) == ''
