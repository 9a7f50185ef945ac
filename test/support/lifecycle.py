# SPDX-License-Identifier: Apache-2.0
"""Rounds through the lifecycle, pauses and stops of the node, with images arriving."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from lifecycle_msgs.msg import Transition
from robot import Robot

CYCLE = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
)
MAX_GROWTH_MIB = 16.0  # largest growth after the warm-up
WARM_UP = 0.1  # part of the rounds
IMAGE_PERIOD_S = 0.05

Report = dict[str, Any]  # counts of a test


@dataclass(frozen=True)
class Use:
    """Resources of a process."""

    memory_mib: float
    threads: int
    descriptors: int


def use_of(robot: Robot) -> Use:
    """Resources of the node's process."""
    process = psutil.Process(robot.node.pid)
    with process.oneshot():
        memory_mib = process.memory_info().rss / 2**20
        return Use(round(memory_mib, 1), process.num_threads(), process.num_fds())


def steady(uses: list[Use]) -> Use:
    """Least memory, which varies by tens of MiB, and the most threads and descriptors."""
    return Use(
        min(use.memory_mib for use in uses),
        max(use.threads for use in uses),
        max(use.descriptors for use in uses),
    )


def assert_no_growth(uses: list[Use]) -> Report:
    """The second half of the rounds uses no more than the first after the warm-up; return both."""
    warm = uses[int(WARM_UP * len(uses)) :]
    early, late = steady(warm[: len(warm) // 2]), steady(warm[len(warm) // 2 :])
    assert late.memory_mib - early.memory_mib < MAX_GROWTH_MIB, (early, late)
    assert late.descriptors <= early.descriptors, (early, late)
    assert late.threads <= early.threads, (early, late)
    return {'after_the_warm_up': vars(early), 'at_the_end': vars(late)}


def cycle(robot: Robot, smile: np.ndarray, cycles: int) -> Report:
    """Go through the lifecycle; no cycle leaks resources, and the node works after the last."""
    robot.clean_up()
    image = robot.image(smile)
    timer = robot.client.create_timer(IMAGE_PERIOD_S, lambda: robot.publisher.publish(image))
    uses = []
    for number in range(cycles):
        for transition in CYCLE:
            assert robot.change_state(transition), f'cycle {number}, transition {transition}'
            if transition == Transition.TRANSITION_ACTIVATE:
                robot.frames.clear()
                robot.spin_until(lambda: robot.frames, 'a result')
        uses.append(use_of(robot))
    robot.client.destroy_timer(timer)
    report = assert_no_growth(uses)
    robot.configure()
    assert robot.show(smile).faces[0].label == 'happy'
    return {
        'cycles': cycles,
        **report,
        'most_memory_mib': max(use.memory_mib for use in uses),
    }


def pause(robot: Robot, smile: np.ndarray, pauses: int) -> Report:
    """Pause and resume; no pause leaks resources."""
    uses = []
    for _ in range(pauses):
        assert robot.set_enabled(False).success
        assert robot.set_enabled(True).success
        assert robot.show(smile).faces
        uses.append(use_of(robot))
    return {'pauses': pauses, **assert_no_growth(uses)}


# --- stops --------------------------------------------------------------------------------------


def stay_unconfigured(robot: Robot) -> None:
    assert robot.state == 'unconfigured'


def become_inactive(robot: Robot) -> None:
    assert robot.change_state(Transition.TRANSITION_CONFIGURE), robot.output


def become_active(robot: Robot) -> None:
    become_inactive(robot)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE), robot.output


def become_paused(robot: Robot) -> None:
    become_active(robot)
    assert robot.set_enabled(False).success


def become_finalized(robot: Robot) -> None:
    become_active(robot)
    assert robot.change_state(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert robot.state == 'finalized'


STATES: dict[str, Callable[[Robot], None]] = {
    'unconfigured': stay_unconfigured,
    'inactive': become_inactive,
    'active': become_active,
    'paused': become_paused,
    'finalized': become_finalized,
}


def stop_in(
    state: str, number: signal.Signals, folder: Path, smile: np.ndarray
) -> tuple[Use, float]:
    """Bring a node to a state and stop it with a signal; check exit code 0 and no traceback.

    Returns:
        Resources of the node before the stop, and the duration of the stop, seconds.
    """
    robot = Robot(folder / 'node.log', '-p', 'autostart:=false')
    try:
        STATES[state](robot)
        if state == 'active':
            assert robot.show(smile).faces
        use = use_of(robot)
        started_s = time.monotonic()
        code = robot.node.stop(number)
        seconds = time.monotonic() - started_s
    finally:
        robot.close()
    assert code == 0, robot.output
    assert 'Traceback' not in robot.output
    return use, seconds
