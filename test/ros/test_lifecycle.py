# SPDX-License-Identifier: Apache-2.0
"""The lifecycle, pauses and stops, with images arriving; test/slow repeats them far more often."""

import signal

import lifecycle
import pytest

SIGNALS = {
    'unconfigured': signal.SIGINT,
    'inactive': signal.SIGTERM,
    'active': signal.SIGINT,
    'paused': signal.SIGHUP,
    'finalized': signal.SIGINT,
}


def test_lifecycle_cycles_with_images_arriving(robot, smile):
    lifecycle.cycle(robot, smile, cycles=12)


def test_pauses_with_images_arriving(robot, smile):
    lifecycle.pause(robot, smile, pauses=12)


@pytest.mark.parametrize('state', lifecycle.STATES)
def test_stops_in_every_state(tmp_path, smile, state):
    lifecycle.stop_in(state, SIGNALS[state], tmp_path, smile)
