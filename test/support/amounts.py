# SPDX-License-Identifier: Apache-2.0
"""Amounts for the tests in test/slow: `make stress` sets DAN_ROS_STRESS and gets many more.

The variable names a folder; each test writes there what it counted, for the report.
"""

import json
import os
from pathlib import Path

FOLDER = os.environ.get('DAN_ROS_STRESS', '')
MESSAGES = 1_000  # of each kind to the library, in each round
ROUNDS = 10 if FOLDER else 1  # after each, hypothesis forgets what it has tried
MESSAGES_OVER_DDS = 2_000 if FOLDER else 200  # of each kind to the node
CYCLES = 1_000 if FOLDER else 100  # of the lifecycle
PAUSES = 300 if FOLDER else 50
STOPS = 30 if FOLDER else 3  # of the process, in each state with each signal


def note(name: str, **counted: object) -> None:
    """Write what a test counted, under `make stress`."""
    if FOLDER:
        Path(FOLDER, f'{name}.json').write_text(json.dumps(counted), encoding='utf-8')
