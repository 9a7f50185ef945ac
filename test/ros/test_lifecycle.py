"""Round and round, on and off: the lifecycle and the process, with images arriving all the time.

`make stress` goes round twenty times as often.
"""

import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import pytest
from amounts import CYCLES, PAUSES, STOPS, note
from lifecycle_msgs.msg import Transition
from robot import Program, Robot
from std_srvs.srv import SetBool

CYCLE = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
)
# From the end of the warm-up on; the C library gives memory back in large steps.
GROWTH_MIB = 16.0
WARM_UP_CYCLES = 10


@dataclass(frozen=True)
class Use:
    """What a process holds."""

    memory_mib: float
    threads: int
    descriptors: int


def usual(uses: list[Use]) -> Use:
    """Of several rounds: their median memory, which falls and rises by tens of MiB from one round
    to the next, and their most threads and descriptors.
    """
    return Use(
        statistics.median(use.memory_mib for use in uses),
        max(use.threads for use in uses),
        max(use.descriptors for use in uses),
    )


def use_of(robot: Robot) -> Use:
    process = psutil.Process(robot.node.process.pid)
    with process.oneshot():
        memory_mib = process.memory_info().rss / 2**20
        return Use(round(memory_mib, 1), process.num_threads(), process.num_fds())


def test_lifecycle_cycles_with_images_arriving(start, smile):
    """Everything a cycle takes is given back; the last one works as the first."""
    robot = start('-p', 'autostart:=false', wait=False)
    image = robot.image(smile)
    timer = robot.client.create_timer(0.05, lambda: robot.publisher.publish(image))
    uses = []
    started_s = time.monotonic()
    for cycle in range(CYCLES):
        for transition in CYCLE:
            assert robot.change_state(transition), f'cycle {cycle}, transition {transition}'
            if transition == Transition.TRANSITION_ACTIVATE:
                robot.frames.clear()
                robot.spin_until(lambda: robot.frames, 'a result')
        uses.append(use_of(robot))
    robot.client.destroy_timer(timer)
    early, late = usual(uses[WARM_UP_CYCLES : 2 * WARM_UP_CYCLES]), usual(uses[-WARM_UP_CYCLES:])
    note(
        'lifecycle_cycles',
        cycles=CYCLES,
        seconds=round(time.monotonic() - started_s),
        after_the_warm_up=vars(early),
        at_the_end=vars(late),
        most_memory_mib=max(use.memory_mib for use in uses),
    )
    assert late.memory_mib - early.memory_mib < GROWTH_MIB
    assert late.descriptors <= early.descriptors
    assert late.threads <= early.threads
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    assert robot.show(smile).faces[0].label == 'happy'


def test_pauses_with_images_arriving(start, smile):
    robot = start()
    uses = []
    for _ in range(PAUSES):
        for enabled in (False, True):
            answer = robot.call(SetBool, 'set_enabled', SetBool.Request(data=enabled))
            assert answer.success
        assert robot.show(smile).faces
        uses.append(use_of(robot))
    early, late = usual(uses[WARM_UP_CYCLES : 2 * WARM_UP_CYCLES]), usual(uses[-WARM_UP_CYCLES:])
    note('pauses', pauses=PAUSES, after_the_warm_up=vars(early), at_the_end=vars(late))
    assert late.memory_mib - early.memory_mib < GROWTH_MIB
    assert late.descriptors <= early.descriptors
    assert late.threads <= early.threads


def stay_unconfigured(robot: Robot) -> None:
    assert robot.state == 'unconfigured'


def become_inactive(robot: Robot) -> None:
    assert robot.change_state(Transition.TRANSITION_CONFIGURE), robot.node.output


def become_active(robot: Robot) -> None:
    become_inactive(robot)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE), robot.node.output


def become_paused(robot: Robot) -> None:
    become_active(robot)
    assert robot.call(SetBool, 'set_enabled', SetBool.Request(data=False)).success


def become_finalized(robot: Robot) -> None:
    become_active(robot)
    assert robot.change_state(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert robot.state == 'finalized'


STATES = {
    'unconfigured': stay_unconfigured,
    'inactive': become_inactive,
    'active': become_active,
    'paused': become_paused,
    'finalized': become_finalized,
}


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('state', STATES)
def test_stops_in_every_state(tmp_path, smile, state, number):
    """With exit code 0 and no traceback, each time, and not after long."""
    reach: Callable[[Robot], None] = STATES[state]
    seconds, threads, descriptors = [], set(), set()
    for repeat in range(STOPS):
        robot = Robot(tmp_path / f'node{repeat}.log', '-p', 'autostart:=false')
        try:
            reach(robot)
            if state == 'active':
                assert robot.show(smile).faces
            use = use_of(robot)
            threads.add(use.threads)
            descriptors.add(use.descriptors)
            started_s = time.monotonic()
            code = robot.node.stop(number)
            seconds.append(time.monotonic() - started_s)
        finally:
            robot.close()
        assert code == 0, robot.node.output
        assert 'Traceback' not in robot.node.output
    note(
        f'stops_{state}_{number.name}',
        state=state,
        signal=number.name,
        stops=STOPS,
        longest_s=round(max(seconds), 2),
        threads=sorted(threads),
        descriptors=sorted(descriptors),
    )
    assert max(seconds) < 10


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_stops_while_it_configures(tmp_path, number):
    """The signal waits for the end of the transition and is not forgotten."""
    seconds = []
    for repeat in range(STOPS):
        program = Program('dan_node', log=tmp_path / f'{repeat}.log')
        time.sleep(0.9 + 0.6 * repeat / STOPS)  # models are loaded about then
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
