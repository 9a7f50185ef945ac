# SPDX-License-Identifier: Apache-2.0
"""`dan-ros doctor` on the real backends and detectors."""

import importlib.util
import json


def test_doctor_runs_every_backend_and_detector(run):
    result = run('doctor', '--json')
    assert result.exit_code == 0, result.stdout
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


def test_doctor_fails_if_the_server_that_was_given_is_silent(run):
    result = run('doctor', '--json', '--url', 'grpc://127.0.0.1:9')
    assert result.exit_code == 1
    findings = {f['subject']: f for f in json.loads(result.stdout)['findings']}
    assert findings['backend kserve']['state'] == 'error'
    assert 'Connection refused' in findings['backend kserve']['remedy']
