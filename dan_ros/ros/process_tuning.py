# SPDX-License-Identifier: Apache-2.0
"""Process settings for steady latency and memory: garbage collector, GIL, allocator."""

import ctypes
import gc
import os
import sys

M_ARENA_MAX = -8  # from glibc's malloc.h
ARENAS = 2
SWITCH_INTERVAL_S = 1e-4  # time until another thread can take the GIL; default 5 ms


def limit_arenas() -> None:
    """Let all threads share a few memory pools, if the C library is glibc.

    By default glibc gives each thread its own pool, up to eight per core, and each pool keeps the
    most memory that a thread ever used. Every resume starts a thread, so over days the process
    would fill them all.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None and 'MALLOC_ARENA_MAX' not in os.environ:
        mallopt(M_ARENA_MAX, ARENAS)


def shorten_switch_interval() -> None:
    """Release the GIL sooner: 5 ms is long compared with an inference."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def freeze_garbage() -> None:
    """Exclude all existing objects from garbage collection.

    Otherwise, a full collection now and then would visit the 200,000 objects of the libraries and
    stop every thread for a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def unfreeze_garbage() -> None:
    """Collect everything again, so that what nobody uses is destroyed before the process ends.

    A frozen DDS participant would leave without a goodbye, and stay in the ROS graph of all others
    for its lease of 20 s.
    """
    gc.unfreeze()
    gc.collect()
