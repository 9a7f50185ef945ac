# SPDX-License-Identifier: Apache-2.0
"""Real engines, built by TensorRT for RTX."""

import json

import numpy as np
from test_tensorrt import (
    faces,
    floats,
    infer,
    operators,
    quantized,
    trt,
    with_log_softmax,
)

from dan_ros.backends.tensorrt import engine_builder, onnx_transforms
from dan_ros.backends.tensorrt.backend import prepare_engine
from dan_ros.backends.tensorrt.engine_cache import EngineCache
from dan_ros.model import store


def test_expanding_the_log_softmax_changes_no_answer(floats, quantized, faces):
    for new in (floats, quantized):
        old = with_log_softmax(new)
        assert 'LogSoftmax' in operators(old)
        content = onnx_transforms.expand_log_softmax(old)
        assert 'LogSoftmax' not in operators(content)
        np.testing.assert_allclose(infer(content, faces), infer(old, faces), atol=1e-5)
        assert 'LogSoftmax' not in operators(new)
        np.testing.assert_allclose(infer(new, faces), infer(old, faces), atol=1e-5)


def test_engines_build_and_differ_in_size_by_precision(trt, floats, quantized):
    sizes = {}
    for precision in ('fp32', 'fp16', 'int8'):
        content = quantized if precision == 'int8' else floats
        plan, timings = engine_builder.build(trt, content, precision, max_batch=8)
        sizes[precision] = len(plan)
        assert timings == b''  # TensorRT for RTX has no timing cache
    assert sizes['int8'] < 0.7 * sizes['fp16'] < 0.5 * sizes['fp32']


def test_a_real_engine_is_cached(trt, tmp_path):
    cache, messages = EngineCache(tmp_path), []
    file = store.read_model('dan_ferplus_int8')
    plan = prepare_engine(trt, cache, file, max_batch=4, on_progress=messages.append)
    assert prepare_engine(trt, cache, file, max_batch=4, on_progress=messages.append) == plan
    (entry,) = cache.entries()
    assert entry.key.model_sha256 == file.sha256
    assert entry.key.runtime == f'tensorrt_rtx {trt.__version__}'
    assert (entry.key.precision, entry.key.max_batch) == ('int8', 4)
    assert 'using the cached engine' in messages[-1]


def test_the_command_builds_lists_and_cleans(trt, run, monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    for expected in ('building', 'using the cached engine'):
        done = run('engine', 'build', '--precision', 'int8', '--runtime', 'tensorrt_rtx')
        assert done.exit_code == 0
        assert expected in done.stderr
    (found,) = json.loads(run('engine', 'list', '--json').stdout)['engines']
    assert found['built_for']['precision'] == 'int8'
    assert 'dan_ferplus_int8' in run('engine', 'list').stdout
    assert '0 engines deleted' in run('engine', 'clean').stdout
    path = tmp_path / 'dan_ros' / 'engines' / found['file']
    path.write_bytes(b'broken')
    assert 'unusable' in run('engine', 'list').stdout
    assert '1 engine deleted' in run('engine', 'clean').stdout
    assert not path.exists()
