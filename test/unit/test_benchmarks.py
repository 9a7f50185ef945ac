"""What the benchmarks make of their measurements."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture(scope='module')
def node_bench():
    pytest.importorskip('rclpy')
    pytest.importorskip('psutil')
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import node_bench
    finally:
        sys.path.remove(str(BENCHMARKS))
    return node_bench


@pytest.fixture
def result(node_bench):
    """Of our node: results 10 ms old, 5 ms of processor time each."""
    numbers = dict.fromkeys(
        [field.name for field in node_bench.fields(node_bench.NodeResult)][2:-2], 1.0
    )
    numbers |= {'age_ms': 10.0, 'cpu_ms': 5.0}
    return node_bench.NodeResult(node_bench.OURS, '640x480 raw, 30 Hz', **numbers)


def test_turns_come_to_their_median(node_bench, result):
    turns = [replace(result, age_ms=age, memory_mib=age) for age in (900.0, 20.0, 10.0)]
    median = node_bench.median_of(turns)
    assert median.age_ms == median.memory_mib == 20
    assert (median.node, median.images, median.cpu_ms) == (result.node, result.images, 5)


def test_ratios_are_to_the_plain_node_on_the_same_images(node_bench, result):
    plain = replace(result, node=node_bench.NAIVE, age_ms=400.0, cpu_ms=50.0)
    alone = replace(result, images='another')
    ours, itself, without = node_bench.compare_to_plain([result, plain, alone])
    assert (ours.times_fresher, ours.times_less_cpu) == (40, 10)
    assert itself.times_fresher == 1
    assert without.times_fresher is without.times_less_cpu is None


def test_every_case_that_can_be_compared_is_and_the_minute_is_one(node_bench):
    cases = node_bench.CASES
    plain = {(c.size, c.rate_hz) for c in cases if c.node == node_bench.NAIVE}
    ours = {(c.size, c.rate_hz) for c in cases if c.node == node_bench.OURS and not c.parameters}
    assert plain <= ours
    assert node_bench.TURNS >= 2
    assert {c.seconds for c in cases if c.rate_hz == 60} == {60}


def test_faces_looked_for_where_they_were_get_the_same_answer(portrait, tmp_path):
    """One real face, in a file of FER+'s form."""
    face = cv2.resize(cv2.cvtColor(portrait[53:186, 156:289], cv2.COLOR_BGR2GRAY), (48, 48))
    votes = np.zeros((1, 10), np.uint8)
    votes[0, 1] = 10  # happy
    for split in ('train', 'valid'):
        np.savez(tmp_path / f'ferplus_{split}.npz', images=face[None], votes=votes)
    done = subprocess.run(
        [sys.executable, BENCHMARKS / 'robustness.py', tmp_path, '--interval', '4'],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found['images'] == 3
    assert found['whole_found'] == found['near_found'] == 1
    assert found['same_answer'] == found['near_accuracy'] == 1
