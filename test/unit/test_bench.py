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
from dan_ros.bench.pipelines import COUNTS, SIZES, WIDTHS, WITH_INTERVAL, IntervalRun
from dan_ros.bench.scenes import crop_largest_face, draw_face, make_scene
from dan_ros.bench.timer import Limit, compare, run_interleaved
from dan_ros.bench.tuning import Saving, advise
from dan_ros.cli.main import cli
from dan_ros.detect import open_detector
from dan_ros.pipeline import STAGES
from dan_ros.types import Frame

MEASURED_SIZES = SIZES[:1]


@pytest.fixture
def quick(monkeypatch):
    """No pauses between the blocks of the timer."""
    monkeypatch.setattr(timer, 'PAUSE_S', 0.0)


def bench(*arguments):
    return CliRunner().invoke(cli, ['bench', *map(str, arguments)], env={'COLUMNS': '160'})


# --- the command --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """JSON of one real run with the smallest settings, and the output folder."""
    out = tmp_path_factory.mktemp('bench') / 'new' / 'folder'
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (('PAUSE_S', 0.0), ('WARM_UP_RUNS', 1)):
            patch.setattr(timer, name, value)
        for name, value in (('BLOCK_RUNS', 2), ('DISCARDED_RUNS', 1)):
            patch.setattr(timer, name, value)
        patch.setattr('dan_ros.cli.bench.SIZES', MEASURED_SIZES)
        for name in ('openvino', 'torch'):  # as if they were not installed
            patch.setitem(sys.modules, name, None)
            patch.delitem(sys.modules, f'dan_ros.backends.{name}', raising=False)
        result = bench('--json', '--seconds', 0, '--out', out)
    assert result.exit_code == 0, result.stderr
    assert str(out) in result.stderr
    return json.loads(result.stdout), out


def test_json_on_standard_output_equals_the_file(measured):
    content, out = measured
    assert json.loads((out / 'bench.json').read_text()) == content


def test_the_plot_is_an_image(measured):
    picture = cv2.imread(str(measured[1] / 'bench.png'))
    assert picture.shape[0] > picture.shape[1] > 500
    assert picture.std() > 10


def test_every_part_is_measured(measured):
    content, _ = measured
    networks, pipelines = content['networks'], content['pipelines']
    detector_times_ms = content['detectors']['times_ms']
    assert [one['title'] for one in networks] == ['network, 1 face(s)', 'network, 4 face(s)']
    assert len(pipelines) == len(MEASURED_SIZES) * len(COUNTS)
    assert {f'yunet, {width} px wide' for width in WIDTHS} <= detector_times_ms.keys()
    for one in [*networks, content['detectors'], *pipelines]:
        assert one['baseline'] in one['times_ms']
        assert one['times_faster'][one['baseline']] == 1
        assert all(ms > 0 for ms in one['times_ms'].values()), one
    assert content['detectors']['baseline'] == 'yunet, 640 px wide'
    assert content['machine']['cores'] == str(available_cpus())


def test_the_baseline_is_the_default_of_the_node(measured):
    content, _ = measured
    defaults = content['defaults']
    name = ', '.join(defaults[key] for key in ('backend.name', 'model.file', 'precision'))
    assert content['networks'][0]['baseline'] == name
    assert content['pipelines'][0]['baseline'].split()[0] == str(node_threads())


def test_all_faces_are_found_and_the_steps_are_within_the_total(measured):
    cases = product(MEASURED_SIZES, COUNTS)
    for one, (_, count) in zip(measured[0]['pipelines'], cases, strict=True):
        assert one['found'] == count
        for variant, steps_ms in one['steps_ms'].items():
            assert list(steps_ms) == list(STAGES)
            assert all(ms > 0 for ms in steps_ms.values())
            assert sum(steps_ms.values()) < 1.5 * one['times_ms'][variant]  # medians of each
        assert WITH_INTERVAL in one['times_ms']


def test_unavailable_backends_are_named_with_the_reason(measured):
    content, _ = measured
    absent = {one['what']: one['why'] for one in content['absent']}
    assert 'pip install openvino' in absent['openvino']
    assert 'pip install torch' in absent['torch']
    assert {'tensorrt', 'torch_cuda'} <= absent.keys() or content['defaults']['device'] != 'cpu'
    for variant in content['networks'][0]['times_ms']:
        assert 'onnxruntime' in variant or 'opencv' in variant


def test_tables_end_with_one_line_of_advice(measured, monkeypatch):
    """The same results without --json."""
    from dan_ros.bench.backends import Unavailable
    from dan_ros.bench.pipelines import PipelineTimes
    from dan_ros.bench.timer import Comparison
    from dan_ros.bench.tuning import Advice
    from dan_ros.cli import bench as module

    content, _ = measured

    def restore(kind, fields):
        return kind(**{name: value for name, value in fields.items() if name != 'times_faster'})

    results = module.Results(
        content['machine'],
        content['defaults'],
        [Unavailable(one['what'], one['why']) for one in content['absent']],
        [restore(Comparison, one) for one in content['networks']],
        restore(Comparison, content['detectors']),
        [restore(PipelineTimes, one) for one in content['pipelines']],
        restore(Advice, content['advice']),
        ['a note'],
    )
    assert json.loads(json.dumps(results.to_json())) == {**content, 'notes': ['a note']}
    seen = []
    monkeypatch.setattr(module, 'measure', lambda *arguments: seen.append(arguments) or results)
    result = bench('--seconds', 3, '--model', 'dan_ferplus')
    assert result.exit_code == 0, result.stderr
    assert seen == [(('dan_ferplus',), None, 3.0)]
    for text in ('network, 4 face(s)', 'median ms', 'steps of the pipeline', 'onnxruntime, dan'):
        assert text in result.stdout
    assert 'not measured: openvino: ' in result.stdout
    assert 'note: a note' in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith('One camera of 640x480 with one face: ')
    assert 'images per second' in last


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


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / 'file').write_text('')
    command = [
        sys.executable,
        '-m',
        'dan_ros.cli.main',
        'bench',
        '--out',
        tmp_path / 'file' / 'new',
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_ends_it_without_a_traceback():
    code = (
        'import sys, time; from dan_ros.cli import bench; '
        'bench.measure = lambda *a: (print("measuring", flush=True), time.sleep(60)); '
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


def test_help_names_every_option():
    result = CliRunner().invoke(cli, ['bench', '--help'])
    assert result.exit_code == 0
    for option in ('--model', '--image', '--seconds', '--json', '--out'):
        assert option in result.output


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

    watched = type(pipeline)(Watching(), pipeline.backend)
    run = IntervalRun(watched, size, 1, draw_face(), interval)
    for _ in range(3):
        run()
    assert [width == size[0] for width in seen] == ([True] + [False] * (interval - 1)) * 3


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
