# SPDX-License-Identifier: Apache-2.0
"""Stops of the node; test/slow has those in other states, rounds of the lifecycle and pauses."""

import signal

import lifecycle
import pytest


@pytest.mark.parametrize(('state', 'number'), [('active', 'SIGINT'), ('paused', 'SIGHUP')])
def test_stops(tmp_path, smile, state, number):
    lifecycle.stop_in(state, signal.Signals[number], tmp_path, smile)
