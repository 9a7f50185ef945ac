# SPDX-License-Identifier: Apache-2.0
"""The soak test fails if the node grows or slows down, and always writes its results."""

import json
import re
import sys
from pathlib import Path

import pytest
from processes import Process

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture(scope='module')
def soak():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import soak
    finally:
        sys.path.remove(str(BENCHMARKS))
    return soak


def samples(soak, minutes: int, **changes):
    """A steady run; `changes` map fields to functions of the time in seconds."""
    steady = {
        'memory_mib': lambda s: 240.0 + s % 3,
        'threads': lambda s: 25,
        'descriptors': lambda s: 21,
        'results': lambda s: 27,
    }
    fields = {**steady, **changes}
    return [
        soak.Sample(
            at_s=float(second),
            cpu=0.6,
            sent=30,
            age_ms=25.0,
            event='',
            **{name: value(second) for name, value in fields.items()},
        )
        for second in range(1, 60 * minutes + 1)
    ]


def test_a_steady_run_passes(soak):
    verdict = soak.judge(samples(soak, 10))
    assert verdict.broken == []
    assert abs(verdict.slope_mib_per_min) < 0.1
    assert verdict.throughput_hz == pytest.approx((27, 27), rel=0.01)


def test_growth_during_the_warm_up_is_allowed(soak):
    warm = samples(soak, 10, memory_mib=lambda s: 200.0 + min(s, 100))
    assert soak.judge(warm).broken == []


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('memory_mib', lambda s: 240 + s / 50, r'memory grows by 1\.20 MiB per minute'),
        ('descriptors', lambda s: 21 + s // 500, '1 more file descriptors'),
        ('threads', lambda s: 25 + s // 200, 'more threads'),
        (
            'results',
            lambda s: 27 if s < 300 else 25,
            r'throughput fell from 27\.0 to 25\.0 results/s',
        ),
    ],
)
def test_growth_and_slowdown_are_named(soak, name, value, words):
    (broken,) = soak.judge(samples(soak, 10, **{name: value})).broken
    assert re.search(words, broken)


def test_a_short_run_is_not_judged(soak):
    assert 'too short' in soak.judge(samples(soak, 1)).broken[0]
    assert soak.judge([]).broken


def test_ctrl_c_writes_the_results(tmp_path):
    command = [sys.executable, BENCHMARKS / 'soak.py', '--out', tmp_path, '--minutes', '5']
    # As on a terminal, it shows each sample at once.
    process = Process(command, tmp_path / 'log', variables={'FORCE_COLOR': '1'})
    process.wait_until(lambda: re.search(r' [1-9]\d* results/s', process.output), 'a sample')
    assert process.stop() == 1
    assert 'too short to evaluate' in process.output
    content = json.loads((tmp_path / 'soak.json').read_text())
    assert content['interrupted']
    assert content['samples'][-1]['results'] > 0
    assert (tmp_path / 'soak.png').read_bytes().startswith(b'\x89PNG')
