# SPDX-License-Identifier: Apache-2.0
"""The evaluation of the benchmarks."""

import importlib
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dan_ros.faces.quality import ACCEPT_ALL
from dan_ros.pipeline import ExpressionPipeline
from dan_ros.plots.style import encode

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


def import_benchmark(name):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope='module')
def node_bench():
    pytest.importorskip('rclpy')
    pytest.importorskip('psutil')
    return import_benchmark('node_bench')


@pytest.fixture
def result(node_bench):
    """Our node: results 10 ms old, 5 ms of processor time each."""
    numbers = dict.fromkeys(
        [field.name for field in node_bench.fields(node_bench.NodeResult)][2:-2], 1.0
    )
    numbers |= {'age_ms': 10.0, 'cpu_ms': 5.0}
    return node_bench.NodeResult(node_bench.DAN_NODE, '640x480 raw, 30 Hz', **numbers)


def test_rounds_are_reduced_to_their_median(node_bench, result):
    rounds = [replace(result, age_ms=age, memory_mib=age) for age in (900.0, 20.0, 10.0)]
    median = node_bench.median_of(rounds)
    assert median.age_ms == median.memory_mib == 20
    assert (median.node, median.images, median.cpu_ms) == (result.node, result.images, 5)


def test_ratios_are_to_the_plain_node_for_the_same_images(node_bench, result):
    plain = replace(result, node=node_bench.PLAIN, age_ms=400.0, cpu_ms=50.0)
    alone = replace(result, images='another')
    ours, itself, without = node_bench.compare_to_plain([result, plain, alone])
    assert (ours.times_fresher, ours.times_less_cpu) == (40, 10)
    assert itself.times_fresher == 1
    assert without.times_fresher is without.times_less_cpu is None


def test_every_plain_case_is_compared_and_60_hz_runs_for_a_minute(node_bench):
    cases = node_bench.CASES
    plain = {(c.size, c.rate_hz) for c in cases if c.node == node_bench.PLAIN}
    ours = {
        (c.size, c.rate_hz) for c in cases if c.node == node_bench.DAN_NODE and not c.parameters
    }
    assert plain <= ours
    assert node_bench.ROUNDS >= 2
    assert {c.seconds for c in cases if c.rate_hz == 60} == {60}


def test_own_time_is_latency_without_detection_and_network(node_bench):
    assert node_bench._own_ms([]) == 0
    values = {'latency_ms': '10.0', 'step_ms.detect': '4.0', 'step_ms.infer': '3.0'}
    assert node_bench._own_ms([values, {}]) == 3


def test_a_search_around_the_face_gives_the_same_answer(portrait):
    robustness = import_benchmark('robustness')
    face = cv2.resize(cv2.cvtColor(portrait[53:186, 156:289], cv2.COLOR_BGR2GRAY), (48, 48))
    pipeline = ExpressionPipeline.open(detector='yunet', quality=ACCEPT_ALL)
    happy = np.array([robustness.labels.CANONICAL.index('happy')])
    found = robustness.compare_interval(pipeline, face[None], happy, 4)
    assert found['images'] == 3
    assert found['full_frame_found'] == found['interval_found'] == 1
    assert found['same_answer'] == found['interval_accuracy'] == 1


def test_the_table_of_conditions_is_in_percent():
    accuracy = import_benchmark('accuracy')
    varied = {'light': {0.5: {'found': 1.0, 'accuracy': 0.25}}}
    assert '| light | 0.5: 100 / 25 |' in accuracy.table_of_conditions(varied)


def test_the_ablation_resumes_and_shows_what_is_missing(tmp_path):
    pytest.importorskip('torch')
    ablation = import_benchmark('ablation')
    setup = ablation.Setup(epochs=2)
    assert {setup.recipe_of(name).num_head for name in ablation.VARIANTS} == {1, 2, 3, 4}
    assert setup.recipe_of('without affinity loss').affinity_weight == 0
    folder = tmp_path / setup.folder_of('1 head')
    folder.mkdir()
    line = '{"accuracy": 0.5, "balanced_accuracy": 0.25, "valid_cross_entropy": 1.5}\n'
    (folder / 'log.jsonl').write_text(2 * line)
    assert '| 1 head | 50.00 | 25.00 | 1.500 |' in ablation.table(tmp_path, setup)
    for other in (ablation.Setup(3), ablation.Setup(2, seed=1), ablation.Setup(2, 0, 3)):
        assert '| 1 head | not run | | |' in ablation.table(tmp_path, other)


def test_the_ablation_starts_from_trained_stages_and_random_ones(tmp_path):
    torch = pytest.importorskip('torch')
    from dan_ros.network.checkpoint import read_state

    ablation = import_benchmark('ablation')
    recipe = ablation.Setup(1, frozen_stages=3).recipe_of('1 head')
    trained = BENCHMARKS.parent / 'models/dan_ferplus.safetensors'
    ablation.write_start(recipe, trained, tmp_path / 'start.safetensors')
    before, start = read_state(trained), read_state(tmp_path / 'start.safetensors')
    equal = {n: torch.equal(before[n].float(), start[n]) for n in start if 'conv' in n}
    assert all(same for name, same in equal.items() if name.startswith('features.6'))
    assert not any(same for name, same in equal.items() if name.startswith('features.7.0.conv1'))
    assert not any(name.startswith('cat_head1') for name in start)


def test_many_bags_scale_until_the_storage_is_the_limit(tmp_path):
    many_bags = import_benchmark('many_bags')
    hours = {cores: many_bags.simulate_hours(cores, 20.0) for cores in (1, 10, 1000, 2000)}
    assert hours[1] / hours[10] == pytest.approx(10, rel=0.01)
    assert hours[2000] > 0.9 * hours[1000]
    bag = many_bags.write_bag(tmp_path / 'in' / 'bag', 2, seed=0)
    many_bags.decode(bag)
    numbers = {'bags_per_minute': dict.fromkeys(('loop', 'jobs 1', 'jobs 2'), 1.0)}
    assert many_bags.draw({**numbers, 'hours': dict.fromkeys(many_bags.CORES, 1.0)}).axes


def test_labels_of_neighboring_panels_do_not_overlap():
    draw_series = import_benchmark('accuracy_plots').draw_series
    shares = {1.0: {'found': 1.0, 'accuracy': 0.9}}
    figure = draw_series({f'{n} has a name as long as a sentence': shares for n in range(4)}, '')
    encode(figure)
    boxes = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert not any(one.overlaps(two) for one, two in itertools.pairwise(boxes))
