# SPDX-License-Identifier: Apache-2.0
"""Many rounds through the lifecycle, many pauses, many stops; `make stress` repeats them more."""

import signal
import time

import lifecycle
import pytest
from amounts import CYCLES, PAUSES, STOPS, note
from robot import Program

every_signal = pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])


def test_lifecycle_cycles_with_images_arriving(robot, smile):
    started_s = time.monotonic()
    report = lifecycle.cycle(robot, smile, CYCLES)
    note('lifecycle_cycles', seconds=round(time.monotonic() - started_s), **report)


def test_pauses_with_images_arriving(robot, smile):
    note('pauses', **lifecycle.pause(robot, smile, PAUSES))


@every_signal
@pytest.mark.parametrize('state', lifecycle.STATES)
def test_stops_in_every_state(tmp_path, smile, state, number):
    stops = [lifecycle.stop_in(state, number, tmp_path, smile) for _ in range(STOPS)]
    uses, seconds = zip(*stops, strict=True)
    note(
        f'stops_{state}_{number.name}',
        state=state,
        signal=number.name,
        stops=STOPS,
        longest_s=round(max(seconds), 2),
        threads=sorted({use.threads for use in uses}),
        descriptors=sorted({use.descriptors for use in uses}),
    )


@every_signal
def test_stops_while_it_configures(tmp_path, number):
    """The signal waits for the end of the transition and is not forgotten."""
    seconds = []
    for repeat in range(STOPS):
        program = Program('dan_node', log=tmp_path / 'log')
        program.wait_for_library('onnxruntime')
        time.sleep(0.6 * repeat / STOPS)  # a different moment of the transition each time
        started_s = time.monotonic()
        assert program.stop(number) == 0, program.output
        seconds.append(time.monotonic() - started_s)
        assert 'Traceback' not in program.output
    note(
        f'stops_configuring_{number.name}',
        state='starting or configuring',
        signal=number.name,
        stops=STOPS,
        longest_s=round(max(seconds), 2),
    )
