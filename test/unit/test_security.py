# SPDX-License-Identifier: Apache-2.0
"""SECURITY.md's promises about files: reading one runs no code and opens no other file."""

import ast
import importlib.util
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import dan_ros
from dan_ros.backends import CPU_BACKENDS, choose_backend
from dan_ros.backends.tensorrt.engine_cache import EngineCache
from dan_ros.cli.main import cli
from dan_ros.detect.yunet import YuNetDetector
from dan_ros.errors import BackendError, DanError, ModelError
from dan_ros.model.metadata import ModelInfo
from dan_ros.model.onnx_file import parse_onnx
from dan_ros.model.store import read_model
from dan_ros.storage.cache import cache_path, make_cache_folder

PACKAGE = Path(dan_ros.__path__[0])
ROOT = Path(__file__).parents[2]
FILES = [file for file in sorted(PACKAGE.rglob('*.py')) if 'msg' not in file.parts]
PROGRAMS = [*ROOT.glob('launch/*.py'), *ROOT.glob('scripts/*'), *ROOT.glob('examples/*.py')]

HAS_TENSORRT = any(importlib.util.find_spec(name) for name in ('tensorrt', 'tensorrt_rtx'))

# --- nothing is unpickled, nothing is evaluated -------------------------------------------------

PICKLING_MODULES = {'cloudpickle', 'dill', 'joblib', 'jsonpickle', 'marshal', 'pickle', 'shelve'}
SAFE_YAML = {'YAMLError', 'safe_dump', 'safe_load'}
EVALUATING = {'eval', 'exec', 'compile'}
SHELLS = {'os.system', 'os.popen', 'subprocess.getoutput', 'subprocess.getstatusoutput'}
# Users convert checkpoints and resume training runs; even there, only tensors are read.
READS_TENSORS = ('network/checkpoint.py', 'train/checkpoints.py')
NAMES_PICKLE = ('network/checkpoint.py',)  # the class of its errors


def dangers_in(code: str, place: str) -> Iterator[str]:
    """Yield the dangerous statements of a Python file."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom) and place not in NAMES_PICKLE:
            names = [alias.name for alias in node.names] + [getattr(node, 'module', None) or '']
            if PICKLING_MODULES & {name.split('.')[0] for name in names}:
                yield ast.unparse(node)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == 'yaml':
            if node.attr not in SAFE_YAML:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and is_dangerous(node, place):
            yield ast.unparse(node)


def is_dangerous(call: ast.Call, place: str) -> bool:
    called = ast.unparse(call.func)
    options = {k.arg: getattr(k.value, 'value', k.value) for k in call.keywords}
    if called in EVALUATING | SHELLS or options.get('shell', False) is not False:
        return True
    if called == 'torch.load':
        return place not in READS_TENSORS or options.get('weights_only') is not True
    if called in ('np.load', 'numpy.load'):
        return options.get('allow_pickle') is not False
    return options.get('allow_pickle', False) is not False


def place_of(file: Path) -> str:
    root = PACKAGE if file.is_relative_to(PACKAGE) else ROOT
    return file.relative_to(root).as_posix()


@pytest.mark.parametrize('file', [*FILES, *PROGRAMS], ids=place_of)
def test_nothing_is_unpickled_or_evaluated(file):
    assert list(dangers_in(file.read_text(), place_of(file))) == []


@pytest.mark.parametrize(
    'code',
    [
        'import pickle',
        'from pickle import loads',
        'import os.path, shelve',
        'torch.load(path, weights_only=True)',
        'np.load(path)',
        'np.load(path, allow_pickle=True)',
        'archive.read(allow_pickle=is_trusted)',
        'yaml.load(text, yaml.SafeLoader)',
        'yaml.unsafe_load(text)',
        'eval(text)',
        'exec(text)',
        'subprocess.run(text, shell=True)',
        'subprocess.run(text, shell=wanted)',
        'os.system(text)',
    ],
)
def test_what_would_run_code_is_found(code):
    assert list(dangers_in(code, 'pipeline.py'))


def test_tensors_alone_are_read_where_a_person_reads_a_checkpoint():
    assert list(dangers_in('torch.load(path)', READS_TENSORS[0]))
    assert not list(dangers_in('torch.load(path, weights_only=True)', READS_TENSORS[0]))


def test_a_run_unpickles_nothing_and_opens_no_connection(portrait_file):
    """Audit events of Python are checked from opening the pipeline to the result."""
    code = (
        'import sys\n'
        'forbidden = ("pickle.find_class", "socket.connect", "subprocess.Popen", "os.system")\n'
        'def refuse(event, arguments):\n'
        '    if event in forbidden:\n'
        '        raise SystemExit(f"{event}: {arguments}")\n'
        'sys.addaudithook(refuse)\n'
        'import cv2\n'
        'from dan_ros.pipeline import ExpressionPipeline\n'
        'from dan_ros.types import Frame\n'
        f'(faces,) = ExpressionPipeline.open().run([Frame(cv2.imread({str(portrait_file)!r}))])\n'
        'sys.exit(0 if len(faces) == 1 else "found no face")\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_a_run_leaves_no_file_in_the_home(portrait_file, tmp_path):
    """ONNX Runtime's telemetry, for example, stores an id of the device."""
    code = (
        'import cv2\n'
        'from dan_ros.pipeline import ExpressionPipeline\n'
        'from dan_ros.types import Frame\n'
        f'(faces,) = ExpressionPipeline.open().run([Frame(cv2.imread({str(portrait_file)!r}))])\n'
        'assert len(faces) == 1\n'
    )
    unset = ('CI', 'ORT_DISABLE_TELEMETRY')
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    home = tmp_path / 'home'
    home.mkdir()
    environment |= {'HOME': str(home), 'XDG_CACHE_HOME': str(home / 'cache')}
    subprocess.run([sys.executable, '-c', code], check=True, env=environment)
    assert [path for path in home.rglob('*') if path.is_file()] == []


# --- a model is one file, and no program --------------------------------------------------------

OUTSIDE = '../../../../etc/passwd'


def external(location: str = OUTSIDE) -> TensorProto:
    """A tensor that refers to another file."""
    tensor = TensorProto(name='elsewhere', data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value=location)
    return tensor


def node_with(**attributes) -> onnx.NodeProto:
    return helper.make_node('Custom', [], ['made'], name='carrier', **attributes)


def graph_with(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], 'inner', [], [], initializer=[tensor])


def sparse_with(tensor: TensorProto) -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(4), 'indices')
    return helper.make_sparse_tensor(tensor, indices, [8])


def put_into_initialiser(model):
    name = model.graph.initializer[0].name
    model.graph.initializer[0].CopyFrom(external())
    model.graph.initializer[0].name = name


def put_into_sparse_indices(model):
    sparse = sparse_with(numpy_helper.from_array(np.zeros(4, np.float32), 'values'))
    sparse.indices.CopyFrom(external())
    model.graph.sparse_initializer.append(sparse)


def put_into_function(model):
    function = helper.make_function(
        'own', 'F', [], ['made'], [node_with(value=external())], [helper.make_opsetid('', 17)]
    )
    model.functions.append(function)


def put_two_graphs_deep(model):
    inner = helper.make_graph([node_with(body=graph_with(external()))], 'outer', [], [])
    model.graph.node.append(node_with(then_branch=inner))


def leave_only_the_path(model):
    model.graph.initializer[0].external_data.add(key='location', value=OUTSIDE)


def leave_only_the_mark(model):
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


PLACES = {
    'an initialiser': put_into_initialiser,
    'a path that nothing marks': leave_only_the_path,
    'a mark without a path': leave_only_the_mark,
    "a node's attribute": lambda m: m.graph.node.append(node_with(value=external())),
    "a node's list of tensors": lambda m: m.graph.node.append(node_with(values=[external()])),
    'a subgraph': lambda m: m.graph.node.append(node_with(body=graph_with(external()))),
    'a list of subgraphs': lambda m: m.graph.node.append(node_with(b=[graph_with(external())])),
    'a subgraph of a subgraph': put_two_graphs_deep,
    'a sparse initialiser': lambda m: m.graph.sparse_initializer.append(sparse_with(external())),
    'indices of a sparse initialiser': put_into_sparse_indices,
    'a sparse attribute': lambda m: m.graph.node.append(node_with(value=sparse_with(external()))),
    'a function': put_into_function,
    'a training graph': lambda m: m.training_info.add().algorithm.CopyFrom(graph_with(external())),
}


def model_with(change) -> bytes:
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    change(model)
    return model.SerializeToString()


@pytest.fixture
def leading_outside(tmp_path) -> Path:
    """A model file of this package with one initializer that refers to /etc/passwd."""
    path = tmp_path / 'odd.onnx'
    path.write_bytes(model_with(put_into_initialiser))
    return path


@pytest.mark.parametrize('where', PLACES)
def test_a_path_to_another_file_is_refused_wherever_it_stands(where, tmp_path):
    path = tmp_path / 'odd.onnx'
    path.write_bytes(model_with(PLACES[where]))
    with pytest.raises(ModelError, match=r'odd\.onnx .*in another file'):
        read_model(str(path))


def test_the_unchanged_model_is_read_by_its_path(tmp_path):
    path = tmp_path / 'even.onnx'
    path.write_bytes(model_with(lambda model: None))
    assert choose_backend('onnxruntime', str(path)).backend.model.labels[0] == 'neutral'


@pytest.mark.parametrize('backend', ['auto', *CPU_BACKENDS])
def test_every_backend_refuses_it(backend, leading_outside):
    with pytest.raises(ModelError, match='in another file'):
        choose_backend(backend, str(leading_outside))


def test_every_reader_of_bytes_refuses_it(leading_outside):
    from dan_ros.network.export import read_fused

    content = leading_outside.read_bytes()
    for read in (read_fused, ModelInfo.from_onnx, parse_onnx):
        with pytest.raises(ModelError, match='in another file'):
            read(content, 'it')
    with pytest.raises(ModelError, match='in another file'):
        YuNetDetector(content)


def test_weights_beside_the_file_are_refused_as_well(tmp_path, monkeypatch):
    """A model in memory has no folder: ONNX Runtime would read from the current one."""
    model = onnx.load_from_string(read_model('dan_ferplus').content)
    monkeypatch.chdir(tmp_path)
    onnx.save(model, 'split.onnx', save_as_external_data=True, location='weights.bin')
    assert Path('weights.bin').stat().st_size > 1e6
    with pytest.raises(ModelError, match=r"'weights\.bin'.*single file"):
        read_model('split.onnx')


@pytest.mark.parametrize(
    'arguments',
    [
        ['predict', '{picture}', '--model', '{model}'],
        ['explain', '{picture}', '--model', '{model}', '--out', '{folder}/new.png'],
        ['evaluate', '{folder}', '{model}', '--out', '{folder}/out'],
        ['export', '{model}', '-o', '{folder}/new.onnx'],
        ['export', '{model}', '--int8', '--calibrate', '{folder}', '-o', '{folder}/new.onnx'],
        ['adopt', '{model}', 'opencv_zoo', '-o', '{folder}/new.onnx'],
        ['convert', '{model}', '--labels', 'ferplus', '-o', '{folder}/new.onnx'],
        pytest.param(
            ['engine', 'build', '{model}'],
            marks=pytest.mark.skipif(not HAS_TENSORRT, reason='no TensorRT is installed'),
        ),
    ],
    ids=lambda arguments: ' '.join(arguments[:3]),
)
def test_every_command_refuses_it(arguments, leading_outside, portrait_file, ferplus_folder):
    words = {'picture': portrait_file, 'model': leading_outside, 'folder': ferplus_folder}
    result = CliRunner().invoke(cli, [argument.format(**words) for argument in arguments])
    assert isinstance(result.exception, DanError), result.output
    assert 'odd.onnx' in str(result.exception)
    assert not (ferplus_folder / 'new.onnx').exists()


def test_an_engine_within_a_model_is_refused(tmp_path):
    node = helper.make_node(
        'EPContext', [], ['made'], domain='com.microsoft', ep_cache_context=b'a program'
    )
    path = tmp_path / 'engine.onnx'
    path.write_bytes(model_with(lambda model: model.graph.node.append(node)))
    with pytest.raises(ModelError, match='holds an engine'):
        read_model(str(path))


def test_sessions_and_files_are_opened_in_one_place_each():
    """Otherwise a file could bypass the checks.

    quantize reads only a file that it has just written; triton_model runs inside a server.
    """
    openers = {'InferenceSession(': set(), 'onnx.load(': set()}
    for file in FILES:
        for call, places in openers.items():
            if call in file.read_text():
                places.add(place_of(file))
    assert openers == {
        'InferenceSession(': {'backends/onnxruntime.py', 'serve/triton_model.py'},
        'onnx.load(': {'network/quantize.py'},
    }


# --- folders of the cache are private -----------------------------------------------------------


@pytest.fixture
def cache_root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def mode_of(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


@pytest.mark.parametrize('kind', ['models', 'engines'])
def test_folders_are_made_for_the_user_alone(cache_root, kind):
    old = os.umask(0)
    try:
        folder = make_cache_folder(kind)
    finally:
        os.umask(old)
    assert folder == cache_root / 'dan_ros' / kind
    assert [mode_of(folder), mode_of(folder.parent)] == [0o700, 0o700]


@pytest.mark.parametrize('kind', ['models', 'engines'])
def test_folders_open_to_others_are_closed(cache_root, kind):
    cache_path(kind).mkdir(parents=True)
    cache_path(kind).chmod(0o777)
    cache_path(kind).parent.chmod(0o775)
    folder = make_cache_folder(kind)
    assert [mode_of(folder), mode_of(folder.parent)] == [0o700, 0o700]


@pytest.mark.parametrize('link', ['engines', '.'])
def test_a_link_in_the_place_of_a_folder_is_refused(cache_root, tmp_path, link):
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    place = cache_root / 'dan_ros' / link
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)
    with pytest.raises(BackendError, match='is a link.*XDG_CACHE_HOME'):
        EngineCache()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason='only root can give a folder away')
@pytest.mark.parametrize('theirs', ['engines', '.'])
def test_a_folder_of_another_user_is_refused(cache_root, theirs):
    cache_path('engines').mkdir(parents=True)
    os.chown(cache_root / 'dan_ros' / theirs, 12345, 12345)
    with pytest.raises(BackendError, match='belongs to another user'):
        EngineCache()


def test_a_file_in_the_place_of_the_folder_is_named(cache_root):
    cache_root.mkdir()
    (cache_root / 'dan_ros').write_text('a file')
    with pytest.raises(BackendError, match='dan_ros cannot be used'):
        EngineCache()


@pytest.mark.skipif(os.getuid() != 0, reason='only root can make files of another user')
def test_what_others_put_into_an_open_folder_is_removed(cache_root):
    folder = make_cache_folder('engines')
    for name, owner in (('ours', os.getuid()), ('theirs', 12345)):
        (folder / name).write_bytes(b'')
        os.chown(folder / name, owner, -1)
    folder.chmod(0o777)
    make_cache_folder('engines')
    assert [path.name for path in folder.iterdir()] == ['ours']


def test_a_user_without_a_home_is_told_so(monkeypatch):
    for name in ('XDG_CACHE_HOME', 'HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, 'getpwuid', {}.__getitem__)  # raises KeyError
    with pytest.raises(DanError, match='XDG_CACHE_HOME'):
        make_cache_folder('models')
    assert read_model('yunet').sha256  # found in the package that contains it


def test_an_empty_home_is_not_the_root_of_the_disk(monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '')
    monkeypatch.delenv('HOME', raising=False)
    as_without = cache_path('models')  # home folder from the user database
    monkeypatch.setenv('HOME', '')
    assert cache_path('models') == as_without


@pytest.mark.parametrize('arguments', [('list',), ('list', '--json'), ('clean', '--all')])
def test_looking_for_engines_makes_no_folder(cache_root, arguments):
    result = CliRunner().invoke(cli, ['engine', *arguments])
    assert result.exit_code == 0, result.output
    assert not cache_root.exists()


@pytest.mark.parametrize('arguments', [('list',), ('clean',)])
def test_looking_for_engines_in_a_place_that_is_no_folder_says_so(cache_root, arguments):
    cache_root.mkdir()
    (cache_root / 'dan_ros').symlink_to(cache_root)
    (cache_root / 'engines').write_text('a file')
    result = CliRunner().invoke(cli, ['engine', *arguments])
    assert isinstance(result.exception, DanError), result.output
