# SPDX-License-Identifier: Apache-2.0
"""Many odd messages to the library and to the node; `make stress` sends ten times as many."""

import fuzzing
from amounts import MESSAGES, MESSAGES_OVER_DDS, ROUNDS, note

from dan_ros.types import Frame


def test_images(pipeline, portrait):
    note('images', **fuzzing.run_odd_images(pipeline, MESSAGES, ROUNDS))
    assert len(pipeline.run([Frame(portrait)])[0]) == 1


def test_compressed_images(pipeline, portrait):
    note('compressed_images', **fuzzing.run_odd_pictures(pipeline, MESSAGES, ROUNDS))
    assert len(pipeline.run([Frame(portrait)])[0]) == 1


def test_images_over_dds(robot, smile):
    note('images_over_dds', **fuzzing.send_odd_images(robot, smile, MESSAGES_OVER_DDS))


def test_compressed_images_over_dds(robot, smile):
    report = fuzzing.send_odd_pictures(robot, smile, MESSAGES_OVER_DDS)
    note('compressed_images_over_dds', **report)


def test_damaged_bytes_over_dds(robot, smile):
    note('bytes_over_dds', **fuzzing.send_damaged_bytes(robot, smile, MESSAGES_OVER_DDS))
