"""The lines between the rooms of the package."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import dan_ros

PACKAGE = Path(dan_ros.__path__[0])
ROOT = Path(__file__).parents[2]
FILES = sorted(PACKAGE.rglob('*.py'))
FILES = [file for file in FILES if 'msg' not in file.relative_to(PACKAGE).parts]
ROS_MODULES = {'rclpy', 'ament_index_python', 'rcl_interfaces', 'sensor_msgs', 'diagnostic_msgs'}
TORCH_ROOMS = (
    'network/',
    'train/',
    'datasets/',
    'evaluate/',
    'backends/torch.py',
    'backends/torch_cuda.py',
)


def place(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def imports(file: Path, at_import_time_only: bool = False) -> set[str]:
    """Full names of the modules a file imports."""
    tree = ast.parse(file.read_text())
    nodes = tree.body if at_import_time_only else list(ast.walk(tree))
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


def roots(file: Path, **options: bool) -> set[str]:
    return {name.split('.')[0] for name in imports(file, **options)}


def test_there_is_something_to_look_at():
    assert len(FILES) > 25


@pytest.mark.parametrize('file', FILES, ids=place)
def test_only_ros_imports_rclpy(file):
    if not place(file).startswith(('ros/', 'demo/')):
        assert not roots(file) & ROS_MODULES


@pytest.mark.parametrize('file', FILES, ids=place)
def test_only_its_rooms_import_torch_and_others_reach_them_lazily(file):
    if place(file).startswith(TORCH_ROOMS):
        return
    assert 'torch' not in roots(file, at_import_time_only=True)
    for name in imports(file, at_import_time_only=True):
        assert not name.startswith(('dan_ros.network', 'dan_ros.backends.torch')), name


@pytest.mark.parametrize('file', FILES, ids=place)
def test_imports_point_one_way(file):
    if place(file).startswith(('ros/', 'cli/', 'bag/', 'demo/')):
        return
    upwards = ('dan_ros.ros', 'dan_ros.cli', 'dan_ros.bag')
    assert not any(name.startswith(upwards) for name in imports(file))


@pytest.mark.parametrize(
    'module',
    ['dan_ros.pipeline', 'dan_ros.ros.node', 'dan_ros.cli.predict', 'dan_ros.cli.bench'],
)
def test_heavy_libraries_load_lazily(module):
    if module.startswith('dan_ros.ros'):
        pytest.importorskip('rclpy')
    code = (
        f'import {module}, sys; '
        'heavy = {"torch", "tensorrt", "openvino", "matplotlib", "skimage"} & set(sys.modules); '
        'sys.exit(f"imported: {heavy}" if heavy else 0)'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('file', FILES, ids=place)
def test_opencv_is_imported_in_one_place_that_sets_its_limit_first(file):
    assert ('cv2' in roots(file)) == (place(file) == 'images/opencv.py')


def test_no_attic():
    assert not [file for file in FILES if file.stem in {'utils', 'helpers', 'common'}]


def test_no_parameter_name_is_a_prefix_of_another():
    pytest.importorskip('rclpy')
    from dan_ros.ros.parameters import SPECS

    assert not [(a, b) for a in SPECS for b in SPECS if b.startswith(f'{a}.')]


def test_every_parameter_is_described():
    pytest.importorskip('rclpy')
    from dan_ros.ros.parameters import PARAMETERS

    for spec in PARAMETERS:
        assert spec.description.endswith('.'), spec.name
        assert not spec.problem_with(spec.default)
        is_number = type(spec.default) in (int, float)
        assert not is_number or spec.choices or spec.minimum is not None, spec.name


def test_what_needs_ros_is_told_from_what_does_not():
    """The lane without ROS leaves out by what a file imports; most files it has to run."""
    spec = importlib.util.spec_from_file_location('selection', ROOT / 'conftest.py')
    selection = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(selection)
    files = sorted((ROOT / 'test').rglob('test_*.py'))
    left_out = {file.name for file in files if selection.needs_ros(file)}
    assert {'test_node.py', 'test_launch.py', 'test_ros4hri.py'} <= left_out
    assert {'test_pipeline.py', 'test_bag.py', 'test_security.py'}.isdisjoint(left_out)
    assert len(left_out) < len(files) / 2


def test_version_is_the_same_everywhere():
    assert f'<version>{dan_ros.__version__}</version>' in (ROOT / 'package.xml').read_text()
    assert f'{dan_ros.__version__} (' in (ROOT / 'CHANGELOG.rst').read_text()
