# SPDX-License-Identifier: Apache-2.0
"""How much the tests in test/slow do; `make stress` sets DAN_ROS_STRESS, so that they do more.

The variable names a folder, into which each test writes its counts for the report.
"""

import json
import os
from pathlib import Path

FOLDER = os.environ.get('DAN_ROS_STRESS', '')
MESSAGES = 1_000  # messages of each kind to the library, per round
ROUNDS = 10 if FOLDER else 1  # rounds, after each of which hypothesis forgets what it tried
MESSAGES_OVER_DDS = 2_000 if FOLDER else 200  # messages of each kind to the node
CYCLES = 1_000 if FOLDER else 100  # lifecycle cycles
PAUSES = 300 if FOLDER else 50
STOPS = 30 if FOLDER else 3  # stops of the process, per state and signal


def note(name: str, **counted: object) -> None:
    """Write the counts of a test, if run by `make stress`."""
    if FOLDER:
        Path(FOLDER, f'{name}.json').write_text(json.dumps(counted), encoding='utf-8')
