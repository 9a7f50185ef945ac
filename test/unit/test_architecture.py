# SPDX-License-Identifier: Apache-2.0
"""The structure of the package: which folder may import which, and where libraries load."""

import ast
import importlib.util
import subprocess
import sys
from collections import Counter, defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dan_ros
from dan_ros.cli.main import SUBCOMMANDS

PACKAGE = Path(dan_ros.__path__[0])
ROOT = Path(__file__).parents[2]
GENERATED = {'msg', 'srv'}  # folders of an installed package
FILES = sorted(
    f for f in PACKAGE.rglob('*.py') if GENERATED.isdisjoint(f.relative_to(PACKAGE).parts)
)

EVERY_COMMAND = ', '.join(f'dan_ros.cli.{name.replace("-", "_")}' for name in SUBCOMMANDS)
HEAVY = {'torch', 'tensorrt', 'openvino', 'matplotlib', 'skimage', 'tritonclient', 'grpc'}

# What each folder or module of dan_ros may import from the others, lowest level first.
MAY_IMPORT = {
    'errors': '',
    'stage_timer': '',
    'storage': 'errors',
    'labels': 'errors',
    'palette': 'labels',
    'plots': 'images labels palette',
    'circumplex': 'labels',
    'types': 'labels',
    'images': 'errors storage types',
    'faces': 'errors images types',
    'tracking': 'errors faces labels types',
    'model': 'errors labels storage',
    'probabilities': 'errors labels model storage',
    'network': 'errors model storage',
    'backends': 'errors images labels model network storage types',
    'serve': 'backends model',
    'detect': 'backends errors faces images model stage_timer types',
    'annotate': 'images labels palette tracking types',
    'image_annotations': 'annotate palette tracking',
    'messages': 'faces labels tracking types',
    'pipeline': 'backends detect errors faces labels model probabilities stage_timer types',
    'video_pipeline': 'detect faces pipeline tracking types',
    'video_parameters': 'errors faces pipeline probabilities tracking video_pipeline',
    'datasets': 'detect errors faces images labels model storage types',
    'calibrate': 'datasets errors evaluate faces images labels model pipeline probabilities storage'
    ' tracking types',
    'evaluate': 'backends datasets errors images labels pipeline plots probabilities storage types',
    'train': 'datasets errors evaluate images labels model network storage',
    'adopt': 'backends errors labels model storage',
    'bag': 'annotate backends detect errors faces image_annotations images labels messages model'
    ' palette pipeline plots probabilities storage tracking types video_pipeline',
    'bench': 'backends detect errors faces images labels model palette pipeline plots storage'
    ' tracking types video_pipeline',
    'view': 'annotate bag errors faces images labels messages palette pipeline tracking types'
    ' video_parameters video_pipeline',
    'ros': 'annotate backends circumplex detect errors faces image_annotations images labels'
    ' messages model msg pipeline probabilities srv stage_timer storage tracking types'
    ' video_parameters video_pipeline view',
    'demo': 'errors images msg ros storage',
    'cli': 'adopt annotate backends bag bench calibrate datasets detect errors evaluate faces'
    ' images labels model network pipeline plots probabilities ros serve storage tracking train'
    ' types video_pipeline view',
}
ROS_FOLDERS = ('ros', 'demo')
ROS_PACKAGES = {'rclpy', 'ament_index_python', 'tf2_msgs', 'hri_msgs'}
ROS_SUFFIXES = ('_msgs', '_srvs', '_interfaces')
TORCH_FILES = ('network/', 'train/', 'datasets/', 'evaluate/', 'backends/torch')


def place(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def owner(file: Path) -> str:
    """The folder of a file, or the name of a module beside the folders."""
    return place(file).split('/')[0].removesuffix('.py')


def imports(file: Path, only_at_import_time: bool = False) -> set[str]:
    """Full names of everything that a file imports."""
    tree = ast.parse(file.read_text())
    names = set()
    for node in tree.body if only_at_import_time else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def libraries(file: Path) -> set[str]:
    return {name.split('.')[0] for name in imports(file)}


def test_no_folder_imports_one_above_it():
    wrong = defaultdict(set)
    for file in FILES:
        for name in imports(file):
            package, _, rest = name.partition('.')
            other = rest.split('.')[0]
            allowed = {'__version__', owner(file), *MAY_IMPORT.get(owner(file), '').split()}
            if package == 'dan_ros' and other not in allowed:
                wrong[place(file)].add(other)
    assert not wrong


def test_the_table_is_complete_and_without_cycles():
    table = {name: others.split() for name, others in MAY_IMPORT.items()}
    assert set(table) == {owner(file) for file in FILES} - {'__init__'}
    TopologicalSorter(table).prepare()  # raises a CycleError


def test_only_ros_and_the_demo_import_ros():
    for file in FILES:
        ros = {n for n in libraries(file) if n in ROS_PACKAGES or n.endswith(ROS_SUFFIXES)}
        assert not ros or owner(file) in ROS_FOLDERS, place(file)


def test_torch_loads_only_where_it_is_needed():
    for file in FILES:
        if not place(file).startswith(TORCH_FILES):
            for name in imports(file, only_at_import_time=True):
                lazy = ('torch', 'dan_ros.network', 'dan_ros.train', 'dan_ros.backends.torch')
                assert not name.startswith(lazy), f'{place(file)}: {name}'


@pytest.mark.parametrize(
    'module',
    ['dan_ros.video_pipeline', 'dan_ros.ros.node', 'dan_ros.cli.main', EVERY_COMMAND],
)
def test_heavy_libraries_load_lazily(module):
    if module.startswith('dan_ros.ros') and not importlib.util.find_spec('rclpy'):
        pytest.skip('ROS is not installed')
    code = (
        f'import {module}, sys; '
        f'heavy = {HEAVY} & set(sys.modules); '
        'sys.exit(f"imported: {heavy}" if heavy else 0)'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_the_node_needs_few_libraries_and_little_memory():
    """Measure a separate process with a node that is configured with its default model."""
    if not importlib.util.find_spec('rclpy'):
        pytest.skip('ROS is not installed')
    code = """if True:
        import sys
        from pathlib import Path
        from dan_ros.ros import process_tuning
        process_tuning.limit_arenas()
        process_tuning.skip_code_generator()
        import rclpy
        from dan_ros.ros.node import DanNode
        rclpy.init()
        node = DanNode()
        node.trigger_configure()
        unwanted = {'torch', 'onnx', 'google.protobuf', 'matplotlib', 'PIL', 'requests', 'pooch',
                    'pydantic', 'pandas', 'scipy', 'lark', 'em'} & sys.modules.keys()
        lines = Path('/proc/self/status').read_text().splitlines()
        status = dict(line.split(':') for line in lines)
        memory_mib = {key: int(status[key].split()[0]) / 1024 for key in ('VmRSS', 'RssAnon')}
        node.close()
        if unwanted or memory_mib['VmRSS'] > 175 or memory_mib['RssAnon'] > 110:
            sys.exit(f'{unwanted} {memory_mib}')
        """
    subprocess.run([sys.executable, '-c', code], check=True)


def test_one_file_imports_opencv():
    """Only `images/opencv.py` may import cv2, because it sets OpenCV's pixel limit before."""
    assert [place(file) for file in FILES if 'cv2' in libraries(file)] == ['images/opencv.py']


def test_every_file_has_a_topic():
    vague = {'utils', 'util', 'helpers', 'helper', 'common', 'misc'}
    assert {place(file) for file in FILES if file.stem in vague} <= {'cli/common.py'}


def test_the_version_is_the_same_everywhere():
    assert f'<version>{dan_ros.__version__}</version>' in (ROOT / 'package.xml').read_text()
    assert f'{dan_ros.__version__} (' in (ROOT / 'CHANGELOG.rst').read_text()
    assert f'version: {dan_ros.__version__}\n' in (ROOT / 'CITATION.cff').read_text()
    assert f'version = "{dan_ros.__version__}"\n' in (ROOT / 'pixi.toml').read_text()


def test_no_two_test_files_have_the_same_name():
    """Pytest would collect only one of them and stop with an error."""
    names = Counter(file.name for file in (ROOT / 'test').rglob('*.py') if file.stem != 'conftest')
    assert [name for name, files in names.items() if files > 1] == []
