"""The table of parameters is complete and consistent."""

from dan_ros.images.opencv import MAX_PIXELS
from dan_ros.ros.parameters import PARAMETERS, SPECS


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
