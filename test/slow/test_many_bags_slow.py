# SPDX-License-Identifier: Apache-2.0
"""Slow tests of `dan-ros bag` with many bags: real workers, kills, signals, and a Ray cluster."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from bag_results import read_frames, read_results
from command import run_with_file_limit
from processes import wait_until
from recording import moving_smile, record_images

from dan_ros.bag.many.sources import STATE

NAMES = ('a', 'b', 'c', 'd')
IMAGES = 24
WORKER = 'dan_ros.bag.many.processes'
# A machine on which only OpenCV can run the network.
ONLY_OPENCV = (
    'import sys; sys.modules.update(dict.fromkeys(["onnxruntime", "openvino", "torch"]))\n'
    'from dan_ros.cli.main import main; main()'
)


@pytest.fixture(scope='module')
def bags(tmp_path_factory, smile, nobody):
    folder = tmp_path_factory.mktemp('bags')
    images = moving_smile(smile, nobody) * (IMAGES // 12)
    for index, name in enumerate(NAMES):
        shifted = images[index:] + images[:index]
        kinds = {'a': {'compression': 'file'}, 'c': {'storage': 'sqlite3'}}
        record_images(folder / name, shifted, **kinds.get(name, {'storage': 'mcap'}))
    return folder


@pytest.fixture(scope='module')
def expected(bags, tmp_path_factory):
    """Results of one process."""
    out = tmp_path_factory.mktemp('one') / 'out'
    process = start(bags, out, '--jobs', 1)
    assert process.wait() == 0, process.stderr.read()
    assert read_frames(out) == sorted(
        (name, '/camera/image_raw', frame, int((frame + index) % 12 > 0), None)
        for index, name in enumerate(NAMES)
        for frame in range(IMAGES)
    )
    return read_results(out)


def start(*arguments: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-m', 'dan_ros.cli.main', 'bag', *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    """Processes below the driver that convert bags."""
    return [p for p in psutil.Process(process.pid).children() if WORKER in ' '.join(p.cmdline())]


def is_busy(out: Path, count: int = 2) -> bool:
    """Whether workers are in the middle of bags."""
    files = (out / STATE / 'work').glob('*/progress')
    return sum(float(file.read_text() or 0) > 0 for file in files) >= count


def writes_to(folder: Path, process: psutil.Process) -> bool:
    """Whether a process has opened a file below the folder."""
    try:
        return any(str(folder) in file.path for file in process.open_files())
    except psutil.NoSuchProcess:
        return False


def wait_until_busy(process: subprocess.Popen, out: Path, count: int = 2) -> None:
    wait_until(
        lambda: is_busy(out, count),
        'work',
        output=lambda: process.stderr.read() if process.poll() is not None else '',
        has_ended=lambda: process.poll() is not None,
    )


def finish(process: subprocess.Popen) -> tuple[str, list[str]]:
    """Wait for success; return standard output and the lines of standard error."""
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return output, errors.splitlines()


def test_single_bags_and_two_jobs_give_the_same_bytes(tmp_path, bags, expected):
    out = tmp_path / 'out'
    output, errors = finish(start(bags, out, '--jobs', 2))
    assert read_results(out) == expected
    assert errors[0].startswith('4 bags, 2 at a time with ')
    assert output.count(f'{IMAGES} images, ') == 4
    finish(start(bags / 'b', tmp_path / 'b'))
    single = {f'bags/b/{name}': content for name, content in read_results(tmp_path / 'b').items()}
    assert single.items() <= expected.items()


def test_the_bag_of_a_killed_worker_is_tried_again(tmp_path, bags, expected):
    out = tmp_path / 'out'
    process = start(bags, out, '--jobs', 2)
    wait_until_busy(process, out)
    workers(process)[0].kill()
    _, errors = finish(process)
    assert sum('its worker ended (killed' in line for line in errors) == 1
    assert read_results(out) == expected


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_and_is_continued(tmp_path, bags, expected, number):
    out = tmp_path / 'out'
    (tmp_path / 'tmp').mkdir()
    env = {**os.environ, 'TMPDIR': str(tmp_path / 'tmp')}
    process = start(bags, out, '--jobs', 2, start_new_session=True, env=env)
    wait_until_busy(process, out)
    below = workers(process)
    assert len(below) == 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    if number != signal.SIGKILL:
        assert errors.splitlines()[-1] == 'Stopped'
        assert not (out / '.dan_ros' / 'work').exists()
        assert not list((tmp_path / 'tmp').iterdir())
    assert 'Traceback' not in errors
    assert not psutil.wait_procs(below, timeout=30)[1]
    if number != signal.SIGTERM:  # SIGTERM has the same effect as SIGINT
        finish(start(bags, out, '--jobs', 2))
        assert read_results(out) == expected


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path, bags, expected):
    out = tmp_path / 'out'
    finish(start(bags / 'a', out, '--jobs', 1))
    process = run_with_file_limit(20_000, 'bag', bags, out, '--jobs', 2)
    assert process.returncode == 1
    message = f'Error: the disk of {out} is full; free some space and run the same command again'
    assert process.stderr.splitlines()[-1] == message
    _, errors = finish(start(bags, out, '--jobs', 2))
    assert 'done already: 1 of 4 bags' in errors
    assert read_results(out) == expected


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster of two nodes with one core each; also its second node."""
    monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    utils = pytest.importorskip('ray.cluster_utils')
    head = {'num_cpus': 1, 'include_dashboard': False}
    cluster = utils.Cluster(initialize_head=True, head_node_args=head)
    yield cluster, cluster.add_node(num_cpus=1)
    cluster.shutdown()


def test_a_ray_node_that_is_killed_loses_nothing(tmp_path, bags, expected, cluster):
    (cluster, node), out = cluster, tmp_path / 'out'
    process = start(bags, out, '--ray', cluster.address)
    raylet = psutil.Process(node.all_processes['raylet'][0].process.pid)
    wait_until(
        lambda: any(writes_to(out, worker) for worker in raylet.children(recursive=True)),
        'work on the node',
        has_ended=lambda: process.poll() is not None,
    )
    for part in [raylet, *raylet.children(recursive=True)]:
        part.kill()
    output, errors = finish(process)
    assert '4 bags on a Ray cluster with 2 cores' in errors
    assert sum('its worker ended (its node died' in line for line in errors) == 1
    assert len(output.splitlines()) == 5  # nothing from Ray
    assert read_results(out) == expected


def test_the_nodes_of_a_ray_cluster_choose_the_backend(tmp_path, bags, expected, cluster):
    """The starting machine may have no GPU; in this test, it would choose another backend."""
    out = tmp_path / 'out'
    arguments = [
        sys.executable,
        '-c',
        ONLY_OPENCV,
        'bag',
        bags,
        out,
        '--ray',
        cluster[0].address,
    ]
    process = subprocess.run(
        list(map(str, arguments)), capture_output=True, text=True, check=False, timeout=200
    )
    assert process.returncode == 0, process.stderr
    assert read_results(out) == expected


def test_ctrl_c_ends_a_local_ray_cluster(tmp_path, bags, expected):
    """It is a cluster of its own, whatever other cluster Ray knows."""
    pytest.importorskip('ray')
    out = tmp_path / 'out'
    env = {**os.environ, 'RAY_ADDRESS': '127.0.0.1:1'}
    process = start(bags, out, '--ray', 'local', '--jobs', 2, start_new_session=True, env=env)
    wait_until_busy(process, out, 1)
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[1:] == ['Stopped']
    assert not psutil.wait_procs(below, timeout=30)[1]
