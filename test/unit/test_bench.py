# SPDX-License-Identifier: Apache-2.0
"""`dan-ros bench` and the timing code."""

import json
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
from dan_ros.bench.pipelines import COUNTS, SIZES, WIDTHS, IntervalRun
from dan_ros.bench.scenes import crop_largest_face, draw_face, make_scene
from dan_ros.bench.timer import Limit, compare, run_interleaved
from dan_ros.bench.tuning import Saving, advise
from dan_ros.cli.main import cli
from dan_ros.detect import open_detector
from dan_ros.types import Frame

MEASURED_SIZES = SIZES[:1]


@pytest.fixture
def quick(monkeypatch):
    """Remove the pauses between the blocks of the timer."""
    monkeypatch.setattr(timer, 'PAUSE_S', 0.0)


def bench(*arguments):
    return CliRunner().invoke(cli, ['bench', *map(str, arguments)], env={'COLUMNS': '160'})


# --- the command --------------------------------------------------------------------------------


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
def test_invalid_arguments_are_exit_code_2(arguments, said, tmp_path):
    empty = tmp_path / 'empty.png'
    cv2.imwrite(str(empty), np.full((200, 200, 3), 99, np.uint8))
    result = bench(*[str(empty) if word == 'EMPTY' else word for word in arguments])
    assert result.exit_code == 2
    assert result.stdout == ''
    assert said in result.stderr.splitlines()[-1]


def test_an_unwritable_folder_is_one_line(run, tmp_path):
    (tmp_path / 'file').write_text('')
    result = run('bench', '--out', tmp_path / 'file' / 'new')
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_keeps_the_results_so_far_and_prints_no_traceback():
    code = (
        'import time; from dan_ros.cli import bench; from dan_ros.bench.timer import Comparison; '
        'bench.open_networks = lambda *a: None; '
        'bench.compare_networks = lambda *a: Comparison("network", "fast", {"fast": 1.25}); '
        'bench.compare_detectors = lambda *a: (print("measuring", flush=True), time.sleep(60)); '
        'from dan_ros.cli.main import main; main()'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code, 'bench', '--seconds', '600'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = list(iter(process.stdout.readline, 'measuring\n'))
    assert lines[-1].split() == ['fast', '1.25', '1.00']
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'Stopped' in stderr
    assert 'Traceback' not in stderr
    assert stdout == ''


# --- timer --------------------------------------------------------------------------------------


def test_variants_alternate_and_warm_up_runs_do_not_count(quick):
    calls = []

    def variant(name):
        def run():
            calls.append(name)
            return len(calls)

        return run

    returned = run_interleaved({'a': variant('a'), 'b': variant('b')}, Limit(rounds=3))
    warm = timer.WARM_UP_RUNS
    assert calls[: 2 * warm] == ['a'] * warm + ['b'] * warm
    assert calls[2 * warm :] == (['a'] * timer.BLOCK_RUNS + ['b'] * timer.BLOCK_RUNS) * 3
    counted = timer.BLOCK_RUNS - timer.DISCARDED_RUNS
    assert len(returned['a']) == len(returned['b']) == 3 * counted
    assert returned['a'][0] == 2 * warm + timer.DISCARDED_RUNS + 1


def test_a_limit_of_seconds_ends_after_a_complete_round(quick):
    def run():
        time.sleep(0.002)

    begun_s = time.monotonic()
    returned = run_interleaved({'a': run, 'b': run}, Limit(seconds=0.2))
    assert time.monotonic() - begun_s >= 0.2
    assert len(returned['a']) == len(returned['b']) > 3
    once = run_interleaved({'a': run, 'b': run}, Limit(seconds=0.0))
    assert len(once['a']) == len(once['b']) == timer.BLOCK_RUNS - timer.DISCARDED_RUNS


def test_the_median_ignores_an_outlier_and_times_are_per_image(quick):
    runs = iter(range(1000))

    def mostly_quick():
        time.sleep(0.2 if next(runs) == timer.WARM_UP_RUNS + timer.DISCARDED_RUNS else 0.002)

    def of_ten_images():
        time.sleep(0.04)

    variants = {'one': mostly_quick, 'ten': of_ten_images}
    result = compare('x', variants, Limit(rounds=2), {'ten': 10})
    assert 2 <= result.times_ms['one'] < 100
    assert 4 <= result.times_ms['ten'] < 40
    faster = result.times_faster
    assert faster['one'] == 1
    assert faster['ten'] == pytest.approx(result.times_ms['one'] / result.times_ms['ten'])


# --- scenes -------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['yunet', 'haar'])
def test_detectors_find_the_drawn_face(name):
    detector = open_detector(name)
    for size, count in product(SIZES, COUNTS):
        assert len(detector.detect(make_scene(*size, count, draw_face()))) == count
    for width in WIDTHS:
        assert len(detector.detect(make_scene(width, width * 3 // 4, 1, draw_face()))) == 1


def test_the_largest_face_is_in_the_middle_of_its_crop(portrait):
    detector = open_detector('yunet')
    face = crop_largest_face(portrait, detector)
    (found,) = detector.detect(face)
    left, top, right, bottom = found.box_xyxy / len(face)
    assert 0.1 < left < 0.5 < right < 0.9
    assert 0.1 < top < 0.5 < bottom < 0.9
    assert crop_largest_face(np.full((100, 100, 3), 99, np.uint8), detector) is None


def test_full_frame_detection_runs_once_per_interval(pipeline):
    size, interval = (640, 480), 5
    seen = []
    detect = pipeline.detector.detect

    class Watching:
        def detect(self, image):
            seen.append(image.shape[1])
            return detect(image)

        detect_in_part = detect

    watched = type(pipeline)(Watching(), pipeline.backend)
    run = IntervalRun(watched, size, 1, draw_face(), interval)
    for _ in range(3):
        run()
    assert seen.count(size[0]) == 3
    assert seen[0] == size[0]
    assert len(seen) >= 3 * interval


def test_the_faces_of_a_scene_move(pipeline):
    face = draw_face()
    (a,), (b,) = (
        pipeline.run([Frame(make_scene(640, 480, 1, face, offset))])[0] for offset in (0, 20)
    )
    assert b.face.box_xyxy[1] - a.face.box_xyxy[1] == pytest.approx(20, abs=3)


# --- machine and advice -------------------------------------------------------------------------


def test_describe_machine_does_not_import_the_libraries():
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


def test_a_fast_machine_needs_no_change():
    advice = advise(10.0, [Saving('detector.interval: 5', 8.0, 'detector')], 'x')
    assert advice.settings == ()
    assert advice.default_hz == advice.advised_hz == 100
    assert 'No change is needed' in advice.text


def test_the_largest_saving_is_suggested_on_a_slow_machine():
    savings = [
        Saving('detector.max_side_px: 320', 15.0, 'detector'),
        Saving('detector.interval: 5', 25.0, 'detector'),
        Saving('backend.threads: 4', -1.0, 'threads'),
    ]
    advice = advise(50.0, savings, 'x')
    assert advice.settings == ('detector.interval: 5',)
    assert advice.advised_hz == pytest.approx(40)
    assert 'set detector.interval: 5: about 40 per second' in advice.text


def test_one_saving_per_kind_and_a_rate_if_all_are_not_enough():
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


def test_only_the_rate_is_suggested_if_nothing_saves_time():
    advice = advise(400.0, [Saving('backend.threads: 2', -5.0, 'threads')], 'x')
    assert advice.settings == ('rate.max_hz: 2',)
    assert 'about 2.5 images per second' in advice.text
    assert 'No measured setting' in advice.text
