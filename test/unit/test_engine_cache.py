# SPDX-License-Identifier: Apache-2.0
"""The cache of TensorRT engines: keys, damage, other users, races, a killed build."""

import multiprocessing
import stat
import threading
import time
from dataclasses import replace

import pytest
from processes import wait_until

from dan_ros.backends.tensorrt import engine_cache
from dan_ros.backends.tensorrt.engine_cache import EngineCache, EngineKey
from dan_ros.errors import BackendError

KEY = EngineKey('ab' * 32, 'tensorrt 10.3.0', 'Orin', '8.7', '540.4', 'fp16', 64)


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    return EngineCache(tmp_path / 'engines')


def refuse(*_):
    raise OSError(28, 'No space left on device')


def test_an_engine_is_built_once(cache):
    built, messages = [], []

    def build() -> bytes:
        built.append(1)
        return b'plan'

    for _ in range(3):
        assert cache.read_or_build(KEY, 'dan', build, on_progress=messages.append) == b'plan'
    assert len(built) == 1
    assert messages[-1].startswith('using the cached engine')
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize('field', list(KEY.__dataclass_fields__))
def test_engines_differ_by_every_field_of_the_key(cache, field):
    other = replace(KEY, **{field: 7 if field == 'max_batch' else 'other'})
    assert cache.read_or_build(KEY, 'dan', lambda: b'one') == b'one'
    assert cache.read_or_build(other, 'dan', lambda: b'two') == b'two'
    assert cache.read_or_build(KEY, 'dan', lambda: b'three') == b'one'


DAMAGE = {
    'truncated': lambda content: content[:-1],
    'flipped': lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    'empty': lambda content: b'',
    'of another program': lambda content: b'an engine of another program',
    'without header': lambda content: content[40:],
    'header of another shape': lambda content: content.replace(b'"key"', b'"kei"'),
    'for another machine': lambda content: content.replace(b'"8.7"', b'"9.0"'),
}


@pytest.mark.parametrize('kind', DAMAGE)
def test_a_damaged_or_foreign_engine_is_set_aside_and_built_again(cache, kind):
    messages = []
    cache.read_or_build(KEY, 'dan', lambda: b'good plan')
    path = cache.path_of(KEY, 'dan')
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    plan = cache.read_or_build(KEY, 'dan', lambda: b'new plan', on_progress=messages.append)
    assert plan == b'new plan'
    assert 'aside' in messages[0]
    assert path.with_suffix('.unusable').exists()
    assert cache.read_or_build(KEY, 'dan', lambda: b'newer') == b'new plan'


def test_an_engine_that_does_not_load_is_built_again(cache):
    cache.read_or_build(KEY, 'dan', lambda: b'old')
    assert cache.read_or_build(KEY, 'dan', lambda: b'new', lambda plan: plan == b'new') == b'new'


def test_an_engine_that_others_can_write_is_not_used(cache):
    cache.read_or_build(KEY, 'dan', lambda: b'mine')
    cache.path_of(KEY, 'dan').chmod(0o666)
    assert cache.read_or_build(KEY, 'dan', lambda: b'new') == b'new'


def test_an_engine_that_cannot_be_stored_is_reported_and_used(cache, monkeypatch):
    monkeypatch.setattr(engine_cache, 'atomic_write', refuse)
    messages = []
    with pytest.raises(BackendError, match='No space left.*free some space'):
        cache.read_or_build(KEY, 'dan', lambda: b'plan')
    plan = cache.read_or_build(
        KEY, 'dan', lambda: b'plan', on_progress=messages.append, must_store=False
    )
    assert plan == b'plan'
    assert 'built again' in messages[-1]


def test_extra_data_is_kept_where_it_can_be(cache, monkeypatch):
    assert cache.read_extra('tensorrt 10/A B.timings') == b''
    cache.store_extra('tensorrt 10/A B.timings', b'times')
    monkeypatch.setattr(engine_cache, 'atomic_write', refuse)
    cache.store_extra('tensorrt 10/A B.timings', b'newer')
    assert cache.read_extra('tensorrt 10/A B.timings') == b'times'


def test_access_to_an_open_folder_is_restricted(tmp_path):
    (tmp_path / 'engines').mkdir(mode=0o777)
    EngineCache(tmp_path / 'engines')
    assert stat.S_IMODE((tmp_path / 'engines').stat().st_mode) == 0o700


def test_builders_that_start_at_once_build_once(cache):
    """A lock belongs to an opened file, so threads compete for it as processes do."""
    built, messages = [], []

    def waiting() -> int:
        return sum('waiting for another process' in message for message in messages)

    def build() -> bytes:
        built.append(1)
        wait_until(lambda: waiting() == 2, 'two that wait')
        return b'plan'

    threads = [
        threading.Thread(
            target=cache.read_or_build,
            args=(KEY, 'dan', build),
            kwargs={'on_progress': messages.append},
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1]
    assert waiting() == 2


def _build_forever(folder) -> None:
    def build() -> bytes:
        (folder / 'started').touch()
        time.sleep(600)
        return b''

    EngineCache(folder).read_or_build(KEY, 'dan', build)


def test_a_killed_build_leaves_no_engine_and_no_lock(cache):
    process = multiprocessing.get_context('spawn').Process(
        target=_build_forever, args=(cache.folder,)
    )
    process.start()
    while not (cache.folder / 'started').exists():
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert cache.entries() == []
    assert cache.read_or_build(KEY, 'dan', lambda: b'plan') == b'plan'
