"""How much of everything: little in CI, much in `make stress`, which sets DAN_ROS_STRESS.

The variable names a folder, in which each test leaves what it counted for the report.
"""

import json
import os
from pathlib import Path

FOLDER = os.environ.get('DAN_ROS_STRESS', '')
MESSAGES = 1_000  # of each kind, against the library, in each round
ROUNDS = 10 if FOLDER else 1  # after each hypothesis forgets what it tried
MESSAGES_OVER_DDS = 2_000 if FOLDER else 200  # of each kind, to the node
CYCLES = 1_000 if FOLDER else 50  # of the lifecycle
PAUSES = 300 if FOLDER else 30
STOPS = 30 if FOLDER else 3  # of the process, in each state with each signal


def note(name: str, **counted: object) -> None:
    """Leave what a test counted."""
    if FOLDER:
        Path(FOLDER, f'{name}.json').write_text(json.dumps(counted), encoding='utf-8')
