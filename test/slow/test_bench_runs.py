# SPDX-License-Identifier: Apache-2.0
"""`dan-ros bench`, run once with the smallest settings."""

import json
import sys
from itertools import product

import cv2
import pytest
from test_bench import MEASURED_SIZES, bench

from dan_ros.backends import NO_SERVER
from dan_ros.backends.base import available_cpus, node_threads
from dan_ros.bench import timer
from dan_ros.bench.pipelines import COUNTS, WIDTHS, WITH_INTERVAL
from dan_ros.pipeline import STAGES


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """JSON of one real run with the smallest settings, the output folder, and the output."""
    out = tmp_path_factory.mktemp('bench') / 'new' / 'folder'
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (('PAUSE_S', 0.0), ('WARM_UP_RUNS', 1)):
            patch.setattr(timer, name, value)
        for name, value in (('BLOCK_RUNS', 2), ('DISCARDED_RUNS', 1)):
            patch.setattr(timer, name, value)
        patch.setattr('dan_ros.cli.bench.SIZES', MEASURED_SIZES)
        for name in ('openvino', 'torch'):  # simulates that they are not installed
            patch.setitem(sys.modules, name, None)
            patch.delitem(sys.modules, f'dan_ros.backends.{name}', raising=False)
        result = bench('--seconds', 0, '--out', out)
    assert result.exit_code == 0, result.stderr
    assert str(out) in result.stdout
    return json.loads((out / 'bench.json').read_text()), out, result.stdout


def test_the_plot_is_an_image(measured):
    picture = cv2.imread(str(measured[1] / 'bench.png'))
    assert min(picture.shape[:2]) > 500
    assert picture.std() > 10


def test_every_part_is_measured(measured):
    content, *_ = measured
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
    content, *_ = measured
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
    content, *_ = measured
    absent = {one['what']: one['why'] for one in content['absent']}
    assert 'pip install openvino' in absent['openvino']
    assert 'pip install torch' in absent['torch']
    assert {'tensorrt', 'torch_cuda'} <= absent.keys() or content['defaults']['device'] != 'cpu'
    for variant in content['networks'][0]['times_ms']:
        assert 'onnxruntime' in variant or 'opencv' in variant


def test_tables_end_with_one_line_of_advice(measured):
    content, _, output = measured
    for text in ('network, 4 face(s)', 'median ms', 'steps of the pipeline', 'onnxruntime, dan'):
        assert text in output
    assert 'not measured: openvino: ' in output
    last = [line for line in output.splitlines() if line][-1]
    assert last == content['advice']['text']
    assert last.startswith('One camera of 640x480 with one face: ')
    assert 'images per second' in last


def test_json_on_standard_output_equals_the_file(measured, monkeypatch, tmp_path):
    """The same results, printed with --json."""
    from dan_ros.bench.backends import Unavailable
    from dan_ros.bench.pipelines import PipelineTimes
    from dan_ros.bench.timer import Comparison
    from dan_ros.bench.tuning import Advice
    from dan_ros.cli import bench as module

    content, *_ = measured

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
    seen = []
    monkeypatch.setattr(module, 'measure', lambda *arguments: seen.append(arguments) or results)
    result = bench('--json', '--seconds', 3, '--model', 'dan_ferplus', '--out', tmp_path)
    assert result.exit_code == 0, result.stderr
    assert str(tmp_path) in result.stderr
    assert seen == [(('dan_ferplus',), None, 3.0, NO_SERVER, None)]
    assert json.loads(result.stdout) == {**content, 'notes': ['a note']}
    assert 'note: a note' in bench('--seconds', 3).stdout
