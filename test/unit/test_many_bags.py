# SPDX-License-Identifier: Apache-2.0
"""`dan-ros bag` with many bags: what is found, converted, retried and reported."""

import csv
import functools
import importlib
import io
import os
import re
import shutil
import socket
import sqlite3
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock
from urllib.parse import unquote

import duckdb
import numpy as np
import pandas as pd
import pytest
from bag_results import InlineExecutor, read_frames, read_results
from model_files import write_color_model
from pyarrow import parquet
from recording import PERIOD_NS, START_NS, moving_smile, raw, record, record_images, run_bag
from rich.console import Console
from rich.progress import Progress

from dan_ros.bag import timeline
from dan_ros.bag.csv_table import COLUMNS
from dan_ros.bag.many import job as job_module
from dan_ros.bag.many import processes, ray_cluster, sources, strip
from dan_ros.bag.many import run as run_module
from dan_ros.bag.many.job import FATAL, PROGRESS, Job, run_job, stat_files
from dan_ros.bag.parquet_tables import TABLES, schema
from dan_ros.bag.settings import BagSettings
from dan_ros.cli import many_bags
from dan_ros.detect import Detector
from dan_ros.errors import DanError, DataError, GpuLostError
from dan_ros.labels import CANONICAL
from dan_ros.probabilities import Calibration, Prior

IMAGE = 'sensor_msgs/msg/Image'
load_once = functools.lru_cache(job_module._load.__wrapped__)


@pytest.fixture(autouse=True)
def _save_time(monkeypatch):
    """Load each model once for all tests, and draw no timelines."""
    monkeypatch.setattr(job_module, '_load', lambda *names: load_once(*names[:3], 1))
    monkeypatch.setattr(timeline, 'MIN_FRAMES', sys.maxsize)


@pytest.fixture(scope='module')
def images(smile, nobody):
    return moving_smile(smile, nobody)[:4]


@pytest.fixture
def executor(monkeypatch):
    """Runs jobs in this process."""
    inline = InlineExecutor()
    monkeypatch.setattr(many_bags, 'ProcessExecutor', lambda jobs, threads: inline)
    return inline


@pytest.fixture
def bags(tmp_path, images):
    """A folder with three bags; the last one has an image that cannot be read."""
    folder = tmp_path / 'in'
    record_images(folder / 'a', images)
    record_images(folder / 'b', images[::-1], storage='mcap')
    times = [START_NS + index * PERIOD_NS for index in range(3)]
    messages = [raw(images[1], time_ns) for time_ns in times]
    messages[1].step = 1
    pairs = zip(times, messages, strict=True)
    record(folder / 'c', [('/cam/image', IMAGE, time_ns, message) for time_ns, message in pairs])
    return folder


def test_every_image_of_every_bag_is_in_the_tables_once(tmp_path, bags, executor):
    out = tmp_path / 'out'
    result = run_bag(bags, out)
    assert result.exit_code == 1  # an image was dropped
    assert 'c: 2 images, 2 faces' in result.output
    assert 'Error: c: 1 message dropped, bad_step' in result.output
    camera = '/camera/image_raw'
    assert read_frames(out) == [
        *(('a', camera, index, min(index, 1), None) for index in range(4)),
        *(('b', camera, index, int(index < 3), None) for index in range(4)),
        *(
            ('c', '/cam/image', index, int(index != 1), [None, 'bad_step', None][index])
            for index in range(3)
        ),
    ]
    for name in 'abc':
        single = tmp_path / 'single' / name
        run_bag(bags / name, single)
        assert read_results(single) == read_results(out / 'bags' / name)
        check_faces(out, name)
    rows = list(csv.DictReader((out / 'bags.csv').open()))
    assert [(row['bag'], row['state'], row['images'], row['dropped']) for row in rows] == [
        ('a', 'complete', '4', '0'),
        ('b', 'complete', '4', '0'),
        ('c', 'incomplete', '2', '1'),
    ]
    page = (out / 'index.html').read_text()
    assert 'bad_step' in page
    assert page.count('data:image/png') == 3
    assert 'http' not in page  # self-contained


def check_faces(out: Path, name: str) -> None:
    """Compare the table of faces with faces.csv."""
    with (out / 'bags' / name / 'faces.csv').open() as file:
        expected = list(csv.DictReader(file))
    table = pd.read_parquet(out / 'parquet' / 'faces')
    found = table[table.bag == name].to_dict('records')
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert set(COLUMNS) <= set(row)
        assert (row['face_id'], row['label']) == (other['face_id'], other['label'])
        assert (row['bag_time_ns'], row['stamp_ns']) == (
            int(other['bag_time_ns']),
            int(other['stamp_ns']),
        )
        for column in ('left', 'bottom', 'happy', 'raw_sad', 'looking_at_camera'):
            assert row[column] == pytest.approx(float(other[column]), abs=0.006)


def test_other_programs_read_the_tables(tmp_path, bags, executor):
    out = tmp_path / 'out'
    run_bag(bags, out)
    query = (
        f"SELECT bag, count(*), sum(happy) FROM read_parquet('{out}/parquet/faces/*/*.parquet') "
        'GROUP BY bag ORDER BY bag'
    )
    assert [row[:2] for row in duckdb.sql(query).fetchall()] == [('a', 3), ('b', 3), ('c', 2)]
    frames = pd.read_parquet(out / 'parquet' / 'frames')
    assert frames.groupby('bag', observed=True).size().to_dict() == {'a': 4, 'b': 4, 'c': 3}
    file = out / 'parquet' / 'faces' / 'bag=a' / 'faces.parquet'
    for table, columns in TABLES.items():
        assert [field.metadata[b'description'].decode() for field in schema(table)] == [
            description for _, _, description in columns
        ]
    assert parquet.read_schema(file).field('left').metadata[b'description'].endswith(b'pixels')


def test_what_is_done_is_not_done_again(tmp_path, bags, images, executor):
    out = tmp_path / 'out'
    shutil.rmtree(bags / 'c')
    assert run_bag(bags, out).exit_code == 0
    assert sorted(executor.ran) == ['a', 'b']
    before = read_results(out)

    def ran_again(*options):
        executor.ran.clear()
        assert run_bag(bags, out, *options).exit_code == 0
        return sorted(executor.ran)

    assert ran_again() == []
    assert read_results(out) == before
    os.utime(bags / 'a' / 'a.db3')  # the content is the same: it is only read
    assert ran_again() == ['a']
    assert read_results(out) == before
    assert ran_again() == []
    shutil.rmtree(bags / 'b')
    record_images(bags / 'b', images[:2], storage='mcap')
    assert ran_again() == ['b']
    assert [row[0] for row in read_frames(out)] == ['a'] * 4 + ['b'] * 2
    shutil.rmtree(out / 'bags' / 'a')
    assert ran_again() == ['a']
    bags = bags.rename(tmp_path / 'moved')
    assert ran_again() == []
    assert str(bags / 'a') in (out / 'bags.csv').read_text()
    assert len(read_frames(out)) == 6
    assert ran_again() == []
    assert ran_again('--half-life', 0) == ['a', 'b']
    assert ran_again('--half-life', 0) == []
    assert ran_again('--half-life', 0, '--force') == ['a', 'b']


def test_bags_that_move_are_known_by_their_content(tmp_path, images, executor):
    """The bags have the same name and the same sizes."""
    out, old, new = tmp_path / 'out', tmp_path / 'old', tmp_path / 'new'
    for index, name in enumerate('abc'):
        record_images(old / name / 'rosbag2', images[index : index + 1])
    sizes = [[size for _, size, _ in stat_files(bag / 'rosbag2')] for bag in old.iterdir()]
    assert sizes == sizes[:1] * 3
    shutil.move(old / 'c', tmp_path / 'c')
    run_bag(old, out)
    before = read_frames(out)
    assert len(before) == 2
    old.rename(new)
    shutil.move(new / 'b', new / 'a2')  # sorted between a and b
    shutil.move(tmp_path / 'c', new / 'b')  # another bag at the same path
    executor.ran.clear()
    result = run_bag(new, out)
    assert result.exit_code == 0
    assert executor.ran == ['rosbag2']
    assert read_frames(out) == before + [('rosbag2', '/camera/image_raw', 0, 1, None)]
    sources = {row['bag']: row['source'] for row in csv.DictReader((out / 'bags.csv').open())}
    assert sources == {
        'a-rosbag2': str(new / 'a/rosbag2'),
        'b-rosbag2': str(new / 'a2/rosbag2'),
        'rosbag2': str(new / 'b/rosbag2'),
    }


@pytest.mark.parametrize('suffix', ['', '.mcap'])
def test_a_renamed_bag_is_not_judged_again_and_a_copy_is_announced(
    tmp_path, images, executor, suffix
):
    out = tmp_path / 'out'
    bag = record_images(tmp_path / 'mon', images[:2], storage='mcap')
    mon = bag / 'mon.mcap' if suffix else bag
    monday, tue = (tmp_path / f'{name}{suffix}' for name in ('monday', 'tue'))
    run_bag(mon, out, '--jobs', 1)
    frames = read_frames(out)
    mon.rename(monday)
    result = run_bag(monday, out, '--jobs', 1)
    assert f'{monday} was mon{suffix} before; its results stay mon' in result.output
    assert executor.ran == ['mon']
    assert read_frames(out) == frames
    (shutil.copy if suffix else shutil.copytree)(monday, tue)
    result = run_bag(monday, tue, out)
    assert 'Warning: tue has the same content as mon; both are counted' in result.output
    assert executor.ran == ['mon', 'tue']


def test_a_worker_that_dies_is_replaced_three_times(tmp_path, bags, executor):
    executor.deaths = {'a': 2, 'b': 3}
    result = run_bag(bags, tmp_path / 'out')
    assert result.exit_code == 1
    assert [executor.ran.count(name) for name in 'abc'] == [3, 3, 1]
    assert 'in/b: 3 workers died (killed)' in result.output
    assert {row[0] for row in read_frames(tmp_path / 'out')} == {'a', 'c'}
    assert run_bag(bags, tmp_path / 'out').exit_code == 1
    assert {row[0] for row in read_frames(tmp_path / 'out')} == {'a', 'b', 'c'}


def test_the_page_links_to_every_picture(tmp_path, images, executor, monkeypatch):
    monkeypatch.setattr(timeline, 'MIN_FRAMES', 1)
    record_images(tmp_path / 'in', images[1:2])
    run_bag(tmp_path / 'in', tmp_path / 'out', '--jobs', 1)
    links = re.findall('<a href="(.*?)">', (tmp_path / 'out' / 'index.html').read_text())
    (picture,) = (tmp_path / 'out').rglob('*.png')
    targets = [tmp_path / 'out' / unquote(link) for link in links]
    assert targets == [picture.parent, picture]


def test_bags_whose_results_were_removed_are_not_listed(tmp_path, bags, executor):
    out = tmp_path / 'out'
    run_bag(bags / 'a', bags / 'b', out)

    def listed():
        return [row['bag'] for row in csv.DictReader((out / 'bags.csv').open())]

    for part in ('bags/a', 'parquet/frames/bag=a', 'parquet/faces/bag=a'):
        shutil.rmtree(out / part)
    assert 'Warning' not in run_bag(bags / 'b', out, '--jobs', 1).output
    assert listed() == ['b']
    shutil.rmtree(out / 'parquet' / 'faces' / 'bag=b')
    result = run_bag(bags / 'a', out, '--jobs', 1)
    assert 'Warning: bags/b and 1 other: parts of these results are missing' in result.output
    assert listed() == ['a']
    assert 'Warning' not in run_bag(bags / 'a', bags / 'b', out).output
    assert executor.ran == ['a', 'b', 'a', 'b']


def test_results_may_be_removed_during_the_run(tmp_path, bags, executor, monkeypatch):
    out, first_wait = tmp_path / 'out', executor.wait

    def wait(timeout_s):
        if len(executor.ran) == 1:
            shutil.rmtree(out / 'bags' / 'a')
        return first_wait(timeout_s)

    monkeypatch.setattr(executor, 'wait', wait)
    result = run_bag(bags / 'a', bags / 'b', out)
    assert result.exit_code == 0, result.exception
    assert '1 bag, 4 images; see ' in result.output
    assert [row['bag'] for row in csv.DictReader((out / 'bags.csv').open())] == ['b']


@pytest.mark.parametrize('error', [KeyboardInterrupt(), DataError('x'), OSError(28, 'x')])
def test_a_run_that_ends_early_lists_what_is_done(tmp_path, bags, executor, monkeypatch, error):
    out, first_wait = tmp_path / 'out', executor.wait

    def wait(timeout_s):
        if executor.ran:
            raise error
        return first_wait(timeout_s)

    monkeypatch.setattr(executor, 'wait', wait)
    result = run_bag(bags, out)
    assert result.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert '1 bag, 4 images; 2 not done; see ' in result.output
    rows = csv.DictReader((out / 'bags.csv').open())
    assert [row['bag'] for row in rows] == ['a'] == sorted({row[0] for row in read_frames(out)})
    assert '2 bags not done yet' in (out / 'index.html').read_text()


def test_a_summary_that_cannot_be_written_hides_no_error(tmp_path, bags, executor, monkeypatch):
    def fail(timeout_s):
        raise DataError('the disk of out is full')

    monkeypatch.setattr(executor, 'wait', fail)
    for error, warnings in ((OSError(28, 'No space left'), 1), (BrokenPipeError(), 0)):
        monkeypatch.setattr(many_bags, 'atomic_write_bytes', Mock(side_effect=error))
        result = run_bag(bags, tmp_path / 'out')
        assert str(result.exception) == 'the disk of out is full'
        assert result.output.count('index.html and bags.csv are not up to date') == warnings
        assert result.output.count('No space left') == warnings


def test_a_worker_whose_gpu_is_lost_says_so_and_ends(tmp_path, bags, monkeypatch, capsys):
    """Only a new process can use the GPU again."""
    (tmp_path / 'work').mkdir()
    (tmp_path / 'token').write_text('x')
    error = GpuLostError('the GPU failed: unspecified launch failure')
    monkeypatch.setattr(job_module, 'open_pipeline', Mock(side_effect=error))
    monkeypatch.setattr(os, '_exit', Mock(side_effect=SystemExit))
    job = Job(
        *('a', str(bags / 'a'), str(tmp_path / 'work'), 'out', BagSettings().to_json(), ''),
        *(1, '', 'x'),
    )
    with pytest.raises(SystemExit):
        run_job(vars(job))
    os._exit.assert_called_once_with(1)
    assert capsys.readouterr().err == 'a: the GPU failed: unspecified launch failure\n'


def test_a_bad_bag_does_not_stop_the_others(tmp_path, bags, executor):
    out = tmp_path / 'out'
    bad = bags / 'database or disk is full' / 'bad.mcap'  # a name that looks like an error
    bad.parent.mkdir()
    bad.write_text('hello')
    result = run_bag(bad, bags / 'missing', bags / 'a', out)
    assert result.exit_code == 1
    assert "bad.mcap is a text that begins with 'hello'" in result.output
    assert 'missing: there is no such bag' in result.output
    rows = {row['bag']: row for row in csv.DictReader((out / 'bags.csv').open())}
    assert [rows[name]['state'] for name in ('a', 'bad', 'missing')] == [
        'complete',
        'failed',
        'failed',
    ]
    assert 'begins with' in (out / 'index.html').read_text()
    record_images(bags / 'x', [])
    old = read_frames(out)
    shutil.rmtree(bags / 'a')
    shutil.move(bags / 'x', bags / 'a')
    result = run_bag(bags / 'a', out, '--jobs', 1)
    assert result.exit_code == 1
    assert read_frames(out) == old
    assert 'results of an earlier run are kept' in (out / 'index.html').read_text()


def test_a_bag_that_fails_says_why_and_the_others_are_converted(
    tmp_path, images, executor, monkeypatch
):
    bags = tmp_path / 'in'
    for name in 'abcde':
        record_images(bags / name, images[:2])
    errors = {
        'a': PermissionError(13, 'Permission denied', 'a.db3'),
        'b': OSError('Stale file handle'),
        'c': MemoryError(),
        'd': ValueError('odd\nbytes'),
    }
    real_hash, first_wait = job_module.hash_files, executor.wait

    def hash_files(bag):
        if bag.name in errors:
            raise errors[bag.name]
        return real_hash(bag)

    def wait(timeout_s):
        if len(executor.ran) == 4:
            shutil.rmtree(bags / 'e')
        return first_wait(timeout_s)

    monkeypatch.setattr(job_module, 'hash_files', hash_files)
    monkeypatch.setattr(executor, 'wait', wait)
    record_images(bags / 'f', images[:2])
    result = run_bag(bags, tmp_path / 'out')
    assert result.exit_code == 1
    assert [line for line in result.output.splitlines() if line.startswith('Error')] == [
        'Error: a.db3: Permission denied',
        f'Error: {bags}/b: Stale file handle',
        f'Error: {bags}/c needs more memory than there is; use fewer jobs',
        f'Error: {bags}/d: unexpected ValueError: odd bytes',
        f'Error: {bags}/e: it was removed during the run',
    ]
    assert {row[0] for row in read_frames(tmp_path / 'out')} == {'f'}


def test_warnings_name_the_bag_or_the_number_of_bags(tmp_path, images, executor, monkeypatch):
    """All images have one stamp, and there are depth images."""
    depth = np.zeros((8, 8), np.uint16)
    for name in 'ab':
        times = [START_NS + index * PERIOD_NS for index in range(len(images))]
        messages = [('/cam', IMAGE, ns, raw(images[1], START_NS)) for ns in times]
        messages += [('/depth', IMAGE, times[-1], raw(depth, times[-1], '16UC1'))]
        record(tmp_path / 'in' / name, messages)
    monkeypatch.setattr(Detector, 'warning', 'slow detector')
    result = run_bag(tmp_path / 'in', tmp_path / 'out')
    assert result.exit_code == 0, result.output
    for words in (
        'Warning: slow detector\n',
        'Warning: a: all images of /cam have the same stamp',
        'Warning: b: all images of /cam have the same stamp',
        'Warning: /depth is left out in 2 bags: its images are distances',
        'to process it, use --topic /depth\n',
    ):
        assert result.output.count(words) == 1, words


@pytest.mark.parametrize('is_working', [False, True])
def test_a_run_that_waits_for_a_worker_says_so_once(
    tmp_path, bags, executor, monkeypatch, is_working
):
    out, first_wait, now_s = tmp_path / 'out', executor.wait, 0.0

    def wait(timeout_s):
        nonlocal now_s
        now_s += 20.0
        if now_s > 100:
            return first_wait(timeout_s)
        if is_working:
            work = out / '.dan_ros' / 'work' / '1'
            (work / PROGRESS).write_text('0')
        return []

    monkeypatch.setattr(executor, 'wait', wait)
    monkeypatch.setattr(run_module, 'POLL_S', 0.0)
    monkeypatch.setattr(many_bags, 'time', SimpleNamespace(monotonic=lambda: now_s))
    result = run_bag(bags / 'a', out, '--jobs', 1)
    assert result.exit_code == 0
    words = 'Warning: no worker has begun; each needs a core and 1 GB of memory; waiting'
    assert result.output.count(words) == (0 if is_working else 1)


def test_a_model_that_cannot_be_used_is_refused_before_the_work(tmp_path, bags, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_bag(bags, 'out', '--model', 'new/mine.onnx')
    assert isinstance(result.exception, DanError)
    assert str(result.exception).startswith('there is no model ')
    assert not (tmp_path / 'out').exists()


def test_a_worker_in_another_folder_finds_the_model(tmp_path, monkeypatch):
    write_color_model(tmp_path / 'mine.onnx', bias=(0, 0, 0))
    monkeypatch.chdir(tmp_path)
    settings = BagSettings(model='mine.onnx', backend='onnxruntime', detector='yunet')
    assert many_bags._resolve(settings, None).model == str(tmp_path / 'mine.onnx')


def test_a_disk_that_is_full_for_sqlite_stops_the_run(tmp_path):
    job = Job('a', 'a', str(tmp_path), 'out', {}, '', 1, '', 'x')
    with closing(sqlite3.connect(':memory:')) as database:
        database.execute('PRAGMA max_page_count = 1')
        with pytest.raises(sqlite3.Error) as raised:
            database.execute('CREATE TABLE a (b)')
    error = DataError('cannot write')
    error.__cause__ = raised.value
    outcome = job_module._explain(job, error)
    assert outcome['state'] == FATAL
    assert 'the disk of out is full' in outcome['reason']


def test_a_clock_that_is_set_while_recording_costs_no_bag(tmp_path, images, executor):
    """A robot without a clock starts in 1970, and NTP corrects it later."""
    times = [0, PERIOD_NS, START_NS, START_NS + PERIOD_NS]
    pairs = zip(times, images, strict=True)
    record(tmp_path / 'in', [('/cam', IMAGE, ns, raw(image, ns)) for ns, image in pairs])
    out = tmp_path / os.fsdecode(b'out\xff')  # not UTF-8
    result = run_bag(tmp_path / 'in', out, '--jobs', 1)
    assert result.exit_code == 0, result.output
    assert len(read_frames(out.rename(tmp_path / 'out'))) == 4
    histogram = strip._histogram(np.array(times), times[0], times[-1])
    assert (histogram[0], histogram[-1], histogram.sum()) == (2, 2, 4)
    spread = np.array([-(2**63), -(2**62), 2**63 - 1])  # times of a damaged bag
    assert strip._histogram(spread, -(2**63), 2**63 - 1).nonzero()[0].tolist() == [0, 24, 95]


def test_folders_that_cannot_be_used_are_refused_in_one_line(tmp_path, bags, executor, monkeypatch):
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'file').write_text('')
    server = ThreadingHTTPServer(('127.0.0.1', 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    web = f'127.0.0.1:{server.server_port}'
    cases = [
        ((bags, tmp_path / 'other'), 'exists already and has no results of many bags'),
        ((bags, bags / 'a' / 'out'), 'is inside the other'),
        ((bags, bags / 'a' / 'a.db3'), 'is inside the other'),
        ((f'{bags}/*/none*', tmp_path / 'out'), 'no bag matches'),
        ((bags, tmp_path / 'out', '--ray', 'nowhere'), 'is not the address of a Ray cluster'),
        ((bags, tmp_path / 'out', '--ray', '127.0.0.1:1'), 'no Ray cluster answers at 127.0.0.1:1'),
        ((bags, tmp_path / 'out', '--ray', web), 'something else does'),
    ]
    for arguments, words in cases:
        result = run_bag(*arguments)
        assert isinstance(result.exception, DanError), result.output
        assert words in str(result.exception)
        assert '\n' not in str(result.exception)
    server.shutdown()
    server.server_close()
    monkeypatch.setattr(importlib, 'import_module', _fail_for('ray'))
    result = run_bag(bags, tmp_path / 'out', '--ray', 'auto')
    assert "'ray': `pip install ray` (the extra 'ray')" in str(result.exception)
    assert executor.ran == []


def _fail_for(name):
    real = importlib.import_module

    def import_module(module, package=None):
        if module == name:
            raise ModuleNotFoundError(name=name)
        return real(module, package)

    return import_module


def test_two_runs_into_one_folder_and_a_storage_that_is_not_shared(tmp_path, bags, executor):
    out = tmp_path / 'out'
    first_wait = executor.wait

    def wait(timeout_s):
        result = run_bag(bags, out)  # second run while the first one is active
        assert 'another run writes into' in str(result.exception)
        (out / '.dan_ros' / 'work' / 'token').unlink()
        return first_wait(timeout_s)

    executor.wait = wait
    result = run_bag(bags, out)
    assert isinstance(result.exception, DanError)
    assert f'does not see {out}; use storage that all nodes see' in str(result.exception)
    del executor.wait
    assert run_bag(bags, out).exit_code == 1
    assert len(read_frames(out)) == 11


@pytest.mark.parametrize('error', [OSError(28, 'No space left'), OSError(122, 'Quota exceeded')])
def test_a_full_disk_is_known_by_the_cause_of_an_error(tmp_path, error):
    job = Job('a', 'a', str(tmp_path), 'out', {}, '', 1, '', 'x')
    wrapped = DataError('cannot write')
    wrapped.__cause__ = error
    assert job_module._explain(job, wrapped)['state'] == FATAL


def test_a_node_that_cannot_open_the_model_stops_the_run(tmp_path, bags, monkeypatch):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'token').write_text('x')
    monkeypatch.setattr(job_module, 'open_pipeline', Mock(side_effect=DanError('no driver')))
    settings, folder = BagSettings().to_json(), str(tmp_path / 'work')
    outcome = run_job(vars(Job('a', str(bags / 'a'), folder, 'out', settings, '', 1, '', 'x')))
    assert outcome == {'state': FATAL, 'reason': f'on {socket.gethostname()}: no driver'}


def test_a_node_with_another_model_is_refused(tmp_path, bags):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'token').write_text('x')
    settings = BagSettings(backend='onnxruntime', detector='yunet')
    job = Job(
        'a', str(bags / 'a'), str(tmp_path / 'work'), 'out', settings.to_json(), '', 1, '', 'x'
    )
    outcome = run_job(vars(job))
    assert outcome['state'] == FATAL
    assert 'has another version of dan_ros or of' in outcome['reason']


def test_bags_are_found_once(tmp_path, images):
    root = tmp_path / 'in'
    for name in ('monday/run', 'tuesday/run', 'tuesday/2024', '.hidden/run', 'results/bags/run'):
        record_images(root / name, images[:1])
    (root / 'results' / '.dan_ros').mkdir()
    (root / 'notes').mkdir()
    (root / 'loop').symlink_to(root)
    (root / 'tuesday/loose.mcap').touch()
    names = ('monday/run', 'tuesday/2024', 'tuesday/loose.mcap', 'tuesday/run')
    expected = [root / name for name in names]
    assert sources.find_bags([root]) == expected
    pattern = Path(f'{root}/*day/*')
    assert sources.find_bags([pattern, root / 'monday', root / 'monday/run/run.db3']) == expected
    out = tmp_path / 'results'
    assert sources.means_many([root], out)
    assert sources.means_many([root], root / 'results')
    assert sources.means_many([root / 'monday'], out)  # with one bag
    assert not sources.means_many([root / 'monday'], root / 'monday/results')
    assert not sources.means_many([root / 'monday/run'], out)
    assert not sources.means_many([root / 'notes'], out)
    names = sources.name_bags(expected, {})
    assert list(names.values()) == ['monday-run', 'bag_2024', 'loose', 'tuesday-run']
    first = sources.name_bags(expected[:1], {})
    assert first == {expected[0]: 'run'}
    assert sources.name_bags(expected, first)[expected[0]] == 'run'


def test_a_folder_that_cannot_be_read_is_named(tmp_path, images, executor, monkeypatch):
    for name in 'ab':
        record_images(tmp_path / 'in' / name, images[:1])
    scandir = os.scandir

    def scan(path):
        if not isinstance(path, int) and Path(path).name == 'b':
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', scan)
    monkeypatch.setattr(Path, 'iterdir', lambda path: (Path(f.path) for f in scan(path)))
    result = run_bag(tmp_path / 'in', tmp_path / 'x')
    assert (result.exit_code, '1 bag, 1 image' in result.output) == (0, True), result.output
    assert 'in/b is left out: Permission denied' in result.output
    result = run_bag(tmp_path / 'in' / '*', tmp_path / 'y')
    assert (result.exit_code, '1 bag, 1 image; 1 failed' in result.output) == (1, True)
    assert 'in/b: Permission denied' in result.output


def test_lines_are_printed_above_the_progress_bar(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    console = Console(file=io.StringIO(), force_terminal=True)
    with Progress(console=console) as bar:
        bar.add_task('converting')
        many_bags._print_line('a: 3 images')
    assert '\x1b[2Ka: 3 images\n' in console.file.getvalue()


def test_settings_survive_the_way_to_another_process():
    settings = BagSettings(
        topics=('/a',),
        prior=Prior(1.0, (0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)),
        calibration=Calibration({'happy': 0.1}, 1.5, 'abc', weights=((0.2,),)),
    )
    assert BagSettings.from_json(settings.to_json()) == settings


def test_jobs_and_threads_share_the_cores(monkeypatch):
    monkeypatch.setattr(processes, 'available_cpus', lambda: 8)
    monkeypatch.setattr(processes, 'free_bytes', lambda: 5 * 10**9)
    assert [processes.default_jobs(bags) for bags in (1, 4, 100)] == [1, 4, 5]
    assert ray_cluster._describe_death(RuntimeError('a\nb')) == 'RuntimeError: b'


def test_the_documentation_lists_every_column():
    text = (Path(__file__).parents[2] / 'docs' / 'scale.md').read_text()
    for table, columns in TABLES.items():
        _, _, rows = text.partition(f'**`{table}`**')
        for name, kind, description in columns:
            if name.removeprefix('raw_') not in CANONICAL[1:]:
                ending = '`' if name.removeprefix('raw_') not in CANONICAL else '` ...'
                row = next(
                    line for line in rows.splitlines() if line.startswith(f'| `{name}{ending}')
                )
                assert row.endswith(f'| {kind} | {description} |')
