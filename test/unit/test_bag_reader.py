# SPDX-License-Identifier: Apache-2.0
"""Recordings that were renamed, edited, split or made by other tools are read exactly."""

import contextlib
import os
import re
import resource
import shutil
import sqlite3
import struct
from pathlib import Path

import mcap.writer
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType, IndexType
from recording import (
    IMAGE,
    PERIOD_NS,
    START_NS,
    TYPES,
    raw,
    read_bag,
    record,
    record_images,
    run_bag,
)

from dan_ros.bag.cameras import choose_image_topics
from dan_ros.bag.reader import NEWEST_VERSION, Bag
from dan_ros.errors import DataError

SUFFIXES = {'sqlite3': '.db3', 'mcap': '.mcap'}
STORAGES = pytest.mark.parametrize('storage', SUFFIXES)
NOISE = np.random.default_rng(0).integers(0, 256, (8, 40, 60, 3), np.uint8)
TIMES_NS = [START_NS + i * PERIOD_NS for i in range(8)]


def read_times(path: Path) -> tuple[list[int], str]:
    """Return the bag time of each readable image, and the damage of the bag."""
    bag = Bag(path)
    names = {topic.name for topic in choose_image_topics(bag, ()).topics}
    times_ns = [record.time_ns for record in bag.records(names) if record.message is not None]
    return times_ns, bag.damage


def check_whole(path: Path) -> None:
    """Check that all 8 images are read in order and no damage is reported."""
    assert read_times(path) == (TIMES_NS, '')


def edit(file: Path, pattern: str, replacement: str) -> None:
    text = file.read_text()
    edited = re.sub(pattern, lambda _: replacement, text)
    assert edited != text
    file.write_text(edited)


@pytest.fixture(params=SUFFIXES)
def bag(request, tmp_path) -> Path:
    return record_images(tmp_path / 'in', NOISE, storage=request.param)


@pytest.fixture
def file(bag) -> Path:
    """The storage file of the bag."""
    (found,) = (f for f in bag.iterdir() if f.suffix != '.yaml')
    return found


def image_cdr(time_ns: int) -> bytes:
    index = (time_ns - START_NS) // PERIOD_NS
    return bytes(TYPES.serialize_cdr(raw(NOISE[index], time_ns), IMAGE))


def write_mcap(
    file: Path,
    times_ns=TIMES_NS,
    profile='ros2',
    kind=IMAGE,
    encoding='cdr',
    others=(),
    **options: object,
) -> Path:
    """Write an MCAP file; `others` are types and encodings (schema, message) of topics."""
    writer = mcap.writer.Writer(str(file), chunk_size=15_000, **options)  # two images
    writer.start(profile=profile)
    for number, (name, *other) in enumerate(others):
        schema = writer.register_schema(name, other[0], b'\x00') if name else 0
        channel = writer.register_channel(f'/other{number}', other[1], schema)
        writer.add_message(channel, START_NS, b'\x01\x02', START_NS)
    schema = writer.register_schema(kind, 'ros2msg', b'')
    channel = writer.register_channel('/camera/image_raw', encoding, schema)
    for time_ns in times_ns:
        writer.add_message(channel, time_ns, image_cdr(time_ns), time_ns)
    writer.finish()
    return file


def test_short_type_names_are_read(tmp_path):
    check_whole(write_mcap(tmp_path / 'short.mcap', kind='sensor_msgs/Image'))
    bag = record_images(tmp_path / 'short', NOISE)
    with contextlib.closing(sqlite3.connect(bag / 'short.db3')) as database, database:
        database.execute("UPDATE topics SET type = 'sensor_msgs/Image'")
    check_whole(bag)


@pytest.mark.parametrize('encoding', ['ros1', ''])
def test_an_mcap_of_ros_1_is_named(tmp_path, encoding):
    """Types of ROS 1 have the same short names, but their messages are serialized differently."""
    file = write_mcap(
        tmp_path / 'old.mcap', profile='ros1', kind='sensor_msgs/Image', encoding=encoding
    )
    with pytest.raises(DataError, match=r'serialized as ros1.*rosbags-convert'):
        read_times(file)


@pytest.mark.parametrize('profile', ['', 'ros2', 'px4', 'my tool'])
def test_the_profile_of_an_mcap_does_not_matter(tmp_path, profile):
    check_whole(write_mcap(tmp_path / 'x.mcap', profile=profile))


@pytest.mark.parametrize(
    'qos',
    [
        '',
        '~',
        '""',
        'none',
        '{history: [], depth: x}',
        '[{history: keep_last}]',
        '!profile {depth: 1}',
        '2024-99-99',
        '"- history: 3\\n  depth: 0"',
        '"{ ["',
    ],
)
def test_edited_qos_does_not_matter(bag, qos):
    edit(bag / 'metadata.yaml', r'offered_qos_profiles:.*', f'offered_qos_profiles: {qos}')
    check_whole(bag)


def test_qos_of_the_storage_file_does_not_matter(tmp_path):
    bag = record_images(tmp_path / 'in', NOISE)
    with contextlib.closing(sqlite3.connect(bag / 'in.db3')) as database, database:
        database.execute("UPDATE topics SET offered_qos_profiles = '{ ['")
        database.execute("UPDATE message_definitions SET encoding = 'unknown'")
        database.execute('DROP INDEX timestamp_idx')
    check_whole(bag)


@pytest.mark.parametrize(
    ('pattern', 'replacement', 'version'),
    [
        (r'version: 9', 'version: 10', 10),
        (r'version: 9', 'version: "42"', 42),
        (r'version: 9', 'version: latest', NEWEST_VERSION),
        (r'storage_identifier: \w+', 'storage_identifier: my_plugin', 9),
        (r'  storage_identifier: \w+\n', '', 9),
        (r'in\.\w+', '/home/somebody/in', 9),
        (r'sensor_msgs/msg/Image', 'sensor_msgs/Image', 9),
        (r'topics_with_message_count', 'topics', 9),
    ],
)
def test_other_metadata_does_not_matter(bag, pattern, replacement, version):
    edit(bag / 'metadata.yaml', pattern, replacement)
    check_whole(bag)
    assert Bag(bag).version == version


@pytest.mark.parametrize('new', ['kitchen.db3', 'kitchen.mcap', 'kitchen', 'in.db3.1', 'in.zstd'])
def test_a_renamed_file_is_read(bag, file, new):
    renamed = file.rename(bag / new)
    check_whole(bag)
    check_whole(renamed)
    assert Bag(bag).storage == ('mcap' if file.suffix == '.mcap' else 'sqlite3')


def test_hidden_files_of_macos_are_passed_over(bag, file):
    (bag / 'metadata.yaml').unlink()
    (bag / f'._{file.name}').write_bytes(b'\0\x05\x16\x07\0\x02\0\0Mac OS X')
    (bag / '.DS_Store').write_bytes(b'\0\0\0\1Bud1')
    check_whole(bag)


@STORAGES
def test_a_compressed_file_beside_its_decompressed_copy_is_read_once(tmp_path, storage):
    small = {'storage': storage, 'compression': '' if storage == 'mcap' else 'file'}
    bag = record_images(tmp_path / 'in', NOISE, **small)
    (file,) = (f for f in bag.iterdir() if f.suffix != '.yaml')
    shutil.copy(file, bag / f'in{SUFFIXES[storage]}.zst')
    shutil.copy(file, bag / 'backup.mcap')
    check_whole(bag)  # metadata.yaml lists one file
    (bag / 'metadata.yaml').unlink()
    (bag / 'backup.mcap').unlink()
    if storage == 'sqlite3':
        record_images(tmp_path / 'plain', NOISE)
        shutil.copy(tmp_path / 'plain' / 'plain.db3', bag / 'in.db3')
    check_whole(bag)


@STORAGES
@pytest.mark.parametrize('has_metadata', [False, True])
@pytest.mark.parametrize('is_compressed', [False, True])
@pytest.mark.parametrize(
    'names',
    [
        '0_run_10-00-59 1_run_10-01-00 2_run_10-01-01 3_run_10-01-02',
        'run1.5_8 run1.5_9 run1.5_10 run1.5_11',
        'd c b a',
    ],
)
def test_split_recordings_are_read_in_order(tmp_path, storage, has_metadata, is_compressed, names):
    bag = tmp_path / 'in'
    bag.mkdir()
    for index, name in enumerate(names.split()):
        messages = [
            ('/camera/image_raw', IMAGE, time_ns, raw(NOISE[0], time_ns))
            for time_ns in TIMES_NS[2 * index : 2 * index + 2]
        ]
        compression = 'file' if is_compressed and storage == 'sqlite3' else ''
        part = record(tmp_path / name, messages, storage, compression)
        (file,) = (f for f in part.iterdir() if f.suffix != '.yaml')
        shutil.move(file, bag)
    if has_metadata:
        files = sorted((f.name for f in bag.iterdir()), key=hash)
        listed = '\n'.join(f'  - "{f}"' for f in files)
        shutil.move(part / 'metadata.yaml', bag)
        edit(bag / 'metadata.yaml', r'  - .*\.(db3|mcap).*', listed)
    check_whole(bag)
    assert ('4 files are read as one recording' in Bag(bag).warning) != has_metadata


def test_bag_times_before_1970_are_read(tmp_path):
    messages = [('/image', IMAGE, time_ns, raw(NOISE[0], 0)) for time_ns in (-(10**10), -1, 0, 1)]
    bag = record(tmp_path / 'in', messages)
    assert read_times(bag) == ([-(10**10), -1, 0, 1], '')


def test_files_that_overlap_in_time_are_merged(tmp_path):
    bag = tmp_path / 'in'
    bag.mkdir()
    write_mcap(bag / 'a.mcap', TIMES_NS[1::2])
    write_mcap(bag / 'b.mcap', TIMES_NS[::2])
    check_whole(bag)


@pytest.mark.parametrize('damaged', ['a', 'b', 'c'])
def test_a_damaged_file_costs_only_its_own_messages(tmp_path, damaged):
    """The order of the file names differs from that of the times."""
    bag = tmp_path / 'in'
    bag.mkdir()
    for name, part in (('c', TIMES_NS[:4]), ('a', TIMES_NS[4:6]), ('b', TIMES_NS[6:])):
        write_mcap(bag / f'{name}.mcap', part, compression=CompressionType.NONE)
    file = bag / f'{damaged}.mcap'
    os.truncate(file, 10_000)  # one image
    times_ns, damage = read_times(bag)
    assert times_ns == sorted(times_ns)
    assert len(times_ns) == (5 if damaged == 'c' else 7)
    assert f'{damaged}.mcap is damaged' in damage


@pytest.mark.parametrize('content', [b'', bytes(9000)])
def test_a_file_without_content_costs_nothing(bag, file, content):
    """A power cut leaves such files."""
    (bag / 'metadata.yaml').unlink()
    (bag / f'in_1{file.suffix}').write_bytes(content)
    times_ns, damage = read_times(bag)
    assert times_ns == TIMES_NS
    assert f'in_1{file.suffix} is {"damaged" if content else "empty"}' in damage


def test_missing_files_are_named(tmp_path):
    bag = record_images(tmp_path / 'in', NOISE)
    edit(bag / 'metadata.yaml', r'  - in.db3', '  - in.db3\n  - in_1.db3')
    edit(bag / 'metadata.yaml', r'message_count: 8', 'message_count: 12')
    times_ns, damage = read_times(bag)
    assert times_ns == TIMES_NS
    assert 'contain 8 of 12 images' in damage
    assert damage.endswith('missing are in_1.db3')
    assert 'damaged' not in damage


@pytest.mark.parametrize(
    'options',
    [
        {'use_chunking': False},
        {'index_types': IndexType.NONE},
        {'index_types': IndexType.MESSAGE},
        {'index_types': IndexType.CHUNK},
        {'use_statistics': False},
        {'repeat_channels': False},
        {'repeat_schemas': False},
        {'enable_crcs': False},
        {'compression': CompressionType.LZ4},
        {'compression': CompressionType.NONE},
    ],
    ids=str,
)
@pytest.mark.parametrize('is_sorted', [False, True])
def test_every_form_of_mcap_is_read_in_order(tmp_path, options, is_sorted):
    times_ns = TIMES_NS if is_sorted else [TIMES_NS[i] for i in (3, 1, 2, 0, 7, 5, 6, 4)]
    check_whole(write_mcap(tmp_path / 'x.mcap', times_ns, **options))


def test_other_topics_do_not_matter(tmp_path):
    others = [
        ('foxglove.Log', 'jsonschema', 'json'),
        ('foxglove.SceneUpdate', 'protobuf', 'protobuf'),
        ('my_msgs/msg/Thing', 'unknown', 'cdr'),
        ('', '', 'json'),
    ]
    check_whole(write_mcap(tmp_path / 'x.mcap', others=others))
    check_whole(write_mcap(tmp_path / 'y.mcap', others=others, use_chunking=False))


@pytest.mark.parametrize('use_chunking', [False, True])
def test_an_mcap_without_its_end_is_damaged(tmp_path, use_chunking):
    file = write_mcap(tmp_path / 'x.mcap', use_chunking=use_chunking)
    os.truncate(file, file.stat().st_size - 20)
    times_ns, damage = read_times(file)
    assert times_ns == TIMES_NS
    assert 'x.mcap is damaged' in damage


@pytest.mark.parametrize('number', [1 << 62, (1 << 63) - 1, (1 << 64) - 1])
def test_invalid_numbers_in_an_mcap_cost_only_what_follows(tmp_path, number):
    """An offset of the summary, and in the second file also the length of the second chunk."""
    content = bytearray(write_mcap(tmp_path / 'x.mcap').read_bytes())
    struct.pack_into('<Q', content, len(content) - 28, number)
    (tmp_path / 'x.mcap').write_bytes(content)
    times_ns, damage = read_times(tmp_path / 'x.mcap')
    assert times_ns == TIMES_NS
    chunk = content.index(b'zstd', content.index(b'zstd') + 1)
    struct.pack_into('<Q', content, chunk + 4, number)
    (tmp_path / 'y.mcap').write_bytes(content)
    times_ns, damage = read_times(tmp_path / 'y.mcap')
    assert times_ns[:2] == TIMES_NS[:2]
    assert 'y.mcap is damaged' in damage


def test_a_damaged_index_of_a_chunk_costs_nothing(tmp_path):
    file = write_mcap(tmp_path / 'x.mcap')
    with file.open('r+b') as target:
        chunks = make_reader(target).get_summary().chunk_indexes
        for offset in (at for chunk in chunks for at in chunk.message_index_offsets.values()):
            target.seek(offset + 9)  # after type and length of the record
            target.write(b'\xff' * 6)
    check_whole(file)


def test_a_damaged_chunk_without_index_is_damage(tmp_path):
    file = write_mcap(
        tmp_path / 'x.mcap', compression=CompressionType.NONE, index_types=IndexType.NONE
    )
    content = bytearray(file.read_bytes())
    content[5000] ^= 255  # a pixel
    file.write_bytes(content)
    times_ns, damage = read_times(file)
    assert times_ns == TIMES_NS
    assert '1 chunks are damaged' in damage


NAMES = ['run #3', 'what?', '100%25 done', 'new\nline', 'a:b', 'æ 顔', '-x', '[ab]*', '..x', '%s']


@pytest.mark.parametrize(
    ('storage', 'name'), [*(('sqlite3', name) for name in NAMES), ('mcap', '%s'), ('mcap', 'æ 顔')]
)
def test_paths_may_have_any_characters(tmp_path, nobody, storage, name):
    folder = tmp_path / name
    folder.mkdir()
    bag = record_images(tmp_path / 'in', [nobody] * 3, storage=storage)
    shutil.move(bag, folder / name)
    (folder / name / f'in{SUFFIXES[storage]}').rename(folder / name / (name + SUFFIXES[storage]))
    out = folder / f'out {name}'
    result = run_bag(folder / name, out, '--video', '--detector', 'haar')
    assert result.exit_code == 0, result.output
    assert 'Warning: no video' not in result.output
    assert sorted(path.name for path in folder.iterdir()) == sorted([name, out.name])
    assert sorted(path.suffix for path in out.iterdir()) == sorted(
        ['.csv', '.mp4', '.yaml', SUFFIXES[storage]]
    )
    times_ns = [record.time_ns for record in Bag(out).records(Bag(out).topics)]
    assert times_ns == TIMES_NS[:3]


def test_a_path_that_is_not_utf_8_costs_only_the_video(tmp_path, nobody):
    name = os.fsdecode(b'caf\xe9')
    bag = record_images(tmp_path / 'in', [nobody] * 3)
    result = run_bag(shutil.move(bag, tmp_path / name), tmp_path / f'out{name}', '--video')
    assert result.exit_code == 0, result.output
    assert 'OpenCV cannot write to a path that is not UTF-8' in result.output


@pytest.mark.parametrize('state', ['compressed', 'damaged', 'not closed'])
def test_a_disk_too_full_for_a_temporary_copy_is_named(tmp_path, state):
    """A limit of 4 KiB per file makes writes fail as on a full disk."""
    compression = 'file' if state == 'compressed' else ''
    bag = record_images(tmp_path / 'in', NOISE, compression=compression)
    if state == 'damaged':
        os.truncate(bag / 'in.db3', 40_000)
    elif state == 'not closed':
        shutil.copy(bag / 'in.db3', bag / 'in.db3-wal')

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DataError, match=r'in\.db3.* needs a temporary copy, but .* is full'):
            Bag(bag)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize('suffix', ['.mcap', '.db3', '.bag', ''])
@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'#ROSBAG V2.0\n' + bytes(100), 'is a ROS 1 bag, .* `rosbags-convert'),
        (b'#ROSBAG V1.2\n', 'is a ROS 1 bag'),
        (b'version https://git-lfs.github.com/spec/v1\noid', 'Git LFS pointer, .* `git lfs pull`'),
        (b'\n<!DOCTYPE html><html>', 'is a web page'),
        (b'\xef\xbb\xbf<html lang="en">', 'is a web page'),
        (b'<?xml version="1.0"?><Error>', 'is an XML or HTML text'),
        (b'{"message": "Not Found"}\n', 'is a JSON text'),
        (b'404: Not Found\n', 'is a text that begins with .404: Not Found.'),
        (b'PK\x03\x04' + bytes(50), 'is a ZIP archive, .* unpack it'),
        (b'\x1f\x8b\x08' + bytes(50), 'is a gzip archive'),
        (b'bag' + bytes(254) + b'ustar' + bytes(99), 'is a tar archive'),
    ],
)
def test_other_files_are_named_by_their_first_bytes(tmp_path, suffix, content, words):
    bag = tmp_path / 'bag'
    bag.mkdir()
    (bag / f'x{suffix}').write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        Bag(bag / f'x{suffix}')
    assert 'damaged' not in str(error.value)
    if suffix in SUFFIXES.values() or (suffix == '.bag' and 'ROS 1' in words):
        with pytest.raises(DataError, match=words):
            Bag(bag)


def test_other_files_with_a_known_name_are_named(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / 'x.db3')) as database:
        database.execute('CREATE TABLE contacts (name)')
    (tmp_path / 'empty.mcap').touch()
    for name, words in (
        ('x.db3', 'is an SQLite database, but not a recording'),
        ('empty.mcap', 'is empty'),
    ):
        with pytest.raises(DataError, match=words):
            Bag(tmp_path / name)


def test_two_recordings_in_one_folder_are_an_error(tmp_path):
    write_mcap(tmp_path / 'x.mcap')
    shutil.move(record_images(tmp_path / 'in', NOISE) / 'in.db3', tmp_path / 'x.db3')
    with pytest.raises(DataError, match='contains SQLite and MCAP files'):
        Bag(tmp_path)


def test_results_for_a_renamed_bag_are_those_of_the_bag(tmp_path, smile):
    bag = record_images(tmp_path / 'in', [smile] * 2)
    run_bag(bag, tmp_path / 'a')
    (bag / 'in.db3').rename(bag / 'other.db3')
    assert run_bag(bag, tmp_path / 'b').exit_code == 0
    assert read_bag(tmp_path / 'a') == read_bag(tmp_path / 'b')
