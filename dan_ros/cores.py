"""How many cores there are, and how many of them the node takes."""

import os


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def node_threads() -> int:
    """How many the node takes by default for network and detector: all cores but one."""
    return max(1, cores() - 1)
