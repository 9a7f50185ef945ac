"""`dan-ros bench` and the code that times things."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from dan_ros.backends.base import available_cpus, node_threads
from dan_ros.bench import timer
from dan_ros.bench.machine import describe_machine
from dan_ros.bench.pipelines import COUNTS, SIZES, WIDTHS, WITH_INTERVAL
from dan_ros.bench.scenes import Walk, draw_face, face_of, scene
from dan_ros.bench.timer import Limit, compare, run_interleaved
from dan_ros.bench.tuning import Saving, advise
from dan_ros.cli.main import cli
from dan_ros.detect import open_detector
from dan_ros.pipeline import STAGES
from dan_ros.types import Frame

BENCH = [sys.executable, '-m', 'dan_ros.cli.main', 'bench']
# A Python in which OpenVINO and torch are not installed.
WITHOUT = (
    'import sys; sys.modules.update(openvino=None, torch=None); '
    'from dan_ros.cli.main import main; main()'
)


def run(*arguments, command=BENCH):
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, 'COLUMNS': '160'},
    )


# --- the command --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Of one real run: the object on standard output, and the folder that was written."""
    out = tmp_path_factory.mktemp('bench') / 'new' / 'folder'
    result = run('--json', '--seconds', 0, '--out', out)
    assert result.returncode == 0, result.stderr
    assert str(out) in result.stderr
    return json.loads(result.stdout), out


def test_json_is_all_there_is_on_standard_output_and_in_the_file(measured):
    content, out = measured
    assert json.loads((out / 'bench.json').read_text()) == content


def test_the_picture_is_one(measured):
    picture = cv2.imread(str(measured[1] / 'bench.png'))
    assert picture.shape[0] > picture.shape[1] > 500
    assert picture.std() > 10


def test_every_part_is_measured(measured):
    content, _ = measured
    networks, pipelines = content['networks'], content['pipelines']
    assert [one['title'] for one in networks] == ['network, 1 face(s)', 'network, 4 face(s)']
    assert len(pipelines) == len(SIZES) * len(COUNTS)
    assert {f'yunet, {width} px wide' for width in WIDTHS} <= content['detectors'][
        'times_ms'
    ].keys()
    for one in [*networks, content['detectors'], *pipelines]:
        assert one['baseline'] in one['times_ms']
        assert one['times_faster'][one['baseline']] == 1
        assert all(ms > 0 for ms in one['times_ms'].values()), one
    assert content['machine']['cores'] == str(available_cpus())


def test_the_baseline_is_what_the_node_takes(measured):
    content, _ = measured
    defaults = content['defaults']
    name = ', '.join(defaults[key] for key in ('backend.name', 'model.file', 'precision'))
    assert content['networks'][0]['baseline'] == name
    assert content['pipelines'][0]['baseline'].split()[0] == str(node_threads())


def test_all_faces_of_the_scenes_were_found_and_steps_add_up_to_less_than_all(measured):
    for one, (_, count) in zip(measured[0]['pipelines'], product(SIZES, COUNTS), strict=True):
        assert one['found'] == count
        for way, steps_ms in one['steps_ms'].items():
            assert list(steps_ms) == list(STAGES)
            assert all(ms > 0 for ms in steps_ms.values())
            assert sum(steps_ms.values()) < 1.5 * one['times_ms'][way]  # medians of each
        assert WITH_INTERVAL in one['times_ms']


def test_what_does_not_open_is_named_with_the_reason():
    result = run('--json', '--seconds', 0, command=[sys.executable, '-c', WITHOUT, 'bench'])
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    absent = {one['what']: one['why'] for one in content['absent']}
    assert 'pip install openvino' in absent['openvino']
    assert 'pip install torch' in absent['torch']
    assert {'tensorrt', 'torch_cuda'} <= absent.keys() or content['defaults']['device'] != 'cpu'
    assert all('onnxruntime' in way for way in content['networks'][0]['times_ms'])


def test_tables_end_with_one_line_of_advice():
    result = run('--seconds', 0, '--model', 'dan_ferplus')
    assert result.returncode == 0, result.stderr
    for text in ('network, 4 face(s)', 'median ms', 'steps of the pipeline', 'onnxruntime, dan'):
        assert text in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith('One camera of 640x480 with one face: ')
    assert 'images a second' in last


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--model', 'nosuch'], "there is no model 'nosuch'"),
        (['--model', 'yunet'], 'face_detection_yunet'),
        (['--image', 'nosuch.png'], 'there is no such file'),
        (['--image', 'EMPTY'], 'finds no face in it'),
        (['--seconds', '-1'], '--seconds'),
        (['--seconds', 'soon'], '--seconds'),
        (['--rounds'], 'No such option'),
    ],
)
def test_what_can_not_be_used_is_exit_code_2(arguments, said, tmp_path):
    empty = tmp_path / 'empty.png'
    cv2.imwrite(str(empty), np.full((200, 200, 3), 99, np.uint8))
    result = run(*[str(empty) if word == 'EMPTY' else word for word in arguments])
    assert result.returncode == 2
    assert result.stdout == ''
    assert said in result.stderr.splitlines()[-1]
    assert 'Traceback' not in result.stderr


def test_a_folder_that_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / 'file').write_text('')
    result = run('--out', tmp_path / 'file' / 'folder')
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_ends_it_without_a_traceback():
    code = (
        'import sys; from dan_ros.cli import bench; real = bench.compare_networks; '
        'bench.compare_networks = lambda *a: (print("measuring", flush=True), real(*a))[1]; '
        'from dan_ros.cli.main import main; main()'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code, 'bench', '--seconds', '600'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'measuring\n'
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'Stopped' in stderr
    assert 'Traceback' not in stderr
    assert stdout == ''


def test_help_says_what_is_measured():
    result = CliRunner().invoke(cli, ['bench', '--help'])
    assert result.exit_code == 0
    for option in ('--model', '--image', '--seconds', '--json', '--out'):
        assert option in result.output


# --- turns --------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """No pauses."""
    monkeypatch.setattr(timer, 'PAUSE_S', 0.0)


def test_ways_take_turns_and_what_warms_them_does_not_count(quick):
    calls = []

    def way(name):
        def run():
            calls.append(name)
            return len(calls)

        return run

    returned = run_interleaved({'a': way('a'), 'b': way('b')}, Limit(rounds=3))
    warm = timer.WARM_UP_RUNS
    assert calls[: 2 * warm] == ['a'] * warm + ['b'] * warm
    assert calls[2 * warm :] == (['a'] * timer.TURN_RUNS + ['b'] * timer.TURN_RUNS) * 3
    counted = timer.TURN_RUNS - timer.UNCOUNTED_RUNS
    assert len(returned['a']) == len(returned['b']) == 3 * counted
    assert returned['a'][0] == 2 * warm + timer.UNCOUNTED_RUNS + 1


def test_a_limit_of_seconds_ends_after_a_whole_round(quick):
    def run():
        time.sleep(0.002)

    begun_s = time.monotonic()
    returned = run_interleaved({'a': run, 'b': run}, Limit(seconds=0.2))
    assert time.monotonic() - begun_s >= 0.2
    assert len(returned['a']) == len(returned['b']) > 3
    once = run_interleaved({'a': run, 'b': run}, Limit(seconds=0.0))
    assert len(once['a']) == len(once['b']) == timer.TURN_RUNS - timer.UNCOUNTED_RUNS


def test_the_median_is_deaf_to_an_outlier_and_times_are_for_one_image(quick):
    runs = iter(range(1000))

    def mostly_quick():
        time.sleep(0.2 if next(runs) == timer.WARM_UP_RUNS + timer.UNCOUNTED_RUNS else 0.002)

    def of_ten_images():
        time.sleep(0.04)

    ways = {'one': mostly_quick, 'ten': of_ten_images}
    result = compare('x', ways, 'one', Limit(rounds=2), {'ten': 10})
    assert 2 <= result.times_ms['one'] < 100
    assert 4 <= result.times_ms['ten'] < 40
    faster = result.times_faster
    assert faster['one'] == 1
    assert faster['ten'] == pytest.approx(result.times_ms['one'] / result.times_ms['ten'])


# --- scenes -------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['yunet', 'haar'])
def test_detectors_take_the_drawn_face_for_one(name):
    detector = open_detector(name)
    for size, count in product(SIZES, COUNTS):
        assert len(detector.detect(scene(*size, count, draw_face()))) == count
    for width in WIDTHS:
        assert len(detector.detect(scene(width, width * 3 // 4, 1, draw_face()))) == 1


def test_the_face_of_a_picture_fills_the_middle_of_its_own(portrait):
    detector = open_detector('yunet')
    face = face_of(portrait, detector)
    (found,) = detector.detect(face)
    left, top, right, bottom = found.box_xyxy / len(face)
    assert 0.1 < left < 0.5 < right < 0.9
    assert 0.1 < top < 0.5 < bottom < 0.9
    assert face_of(np.full((100, 100, 3), 99, np.uint8), detector) is None


def test_a_walk_looks_at_one_image_of_an_interval_as_a_whole(pipeline):
    size, interval = (640, 480), 5
    seen = []
    detect = pipeline.detector.detect

    class Watching:
        def detect(self, image):
            seen.append(image.shape[1])
            return detect(image)

    watched = type(pipeline)(Watching(), pipeline.backend)
    walk = Walk(watched, size, 1, draw_face(), interval)
    for _ in range(3):
        walk()
    assert [width == size[0] for width in seen] == ([True] + [False] * (interval - 1)) * 3


def test_a_walk_moves(pipeline):
    face = draw_face()
    (a,), (b,) = (pipeline.run([Frame(scene(640, 480, 1, face, moved))])[0] for moved in (0, 20))
    assert b.face.box_xyxy[1] - a.face.box_xyxy[1] == pytest.approx(20, abs=3)


# --- machine and advice -------------------------------------------------------------------------


def test_the_machine_is_described_without_importing_what_it_names():
    code = (
        'import json, sys; from dan_ros.bench.machine import describe_machine as d; '
        'found = d(); heavy = {"torch", "onnxruntime", "openvino"} & set(sys.modules); '
        'print(json.dumps([found, sorted(heavy)]))'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, check=True)
    found, imported = json.loads(result.stdout)
    assert imported == []
    assert found.keys() == describe_machine().keys()
    assert {'cpu', 'cores', 'load', 'python', 'onnxruntime'} <= found.keys()
    assert 1 <= node_threads() <= available_cpus()


def test_a_machine_that_is_fast_enough_needs_nothing():
    advice = advise(10.0, [Saving('detector.interval: 5', 8.0, 'detector')], 'x')
    assert advice.settings == ()
    assert advice.default_hz == advice.advised_hz == 100
    assert 'Nothing needs to be set' in advice.text


def test_a_slow_machine_is_told_the_setting_that_saves_most():
    savings = [
        Saving('detector.max_side_px: 320', 15.0, 'detector'),
        Saving('detector.interval: 5', 25.0, 'detector'),
        Saving('backend.threads: 4', -1.0, 'threads'),
    ]
    advice = advise(50.0, savings, 'x')
    assert advice.settings == ('detector.interval: 5',)
    assert advice.advised_hz == pytest.approx(40)
    assert 'set detector.interval: 5: about 40 a second' in advice.text


def test_savings_of_one_work_do_not_add_up_and_a_rate_is_named_where_all_is_not_enough():
    savings = [
        Saving('detector.max_side_px: 320', 90.0, 'detector'),
        Saving('detector.interval: 5', 100.0, 'detector'),
        Saving('backend.name: openvino', 50.0, 'network'),
        Saving('backend.threads: 4', 1.0, 'threads'),
    ]
    advice = advise(250.0, savings, 'x')
    assert advice.settings == (
        'detector.interval: 5',
        'backend.name: openvino',
        'rate.max_hz: 10',
    )
    assert advice.advised_hz == pytest.approx(10)


def test_where_nothing_saves_time_only_the_rate_is_named():
    advice = advise(400.0, [Saving('backend.threads: 2', -5.0, 'threads')], 'x')
    assert advice.settings == ('rate.max_hz: 2',)
    assert 'about 2.5 images a second' in advice.text
    assert 'No setting' in advice.text
