# SPDX-License-Identifier: Apache-2.0
"""Process settings for steady latency and memory: garbage collector, lock, allocator."""

import ctypes
import gc
import os
import sys

M_ARENA_MAX = -8  # of glibc's malloc.h
ARENAS = 2
SWITCH_INTERVAL_S = 1e-4  # time until another thread gets the interpreter's lock; default 5 ms


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
    """Pass the interpreter's lock on sooner: 5 ms are long beside an inference."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def freeze_garbage() -> None:
    """Exclude all present objects from garbage collection.

    A full collection would visit the 200,000 objects of the libraries now and then, and stop every
    thread for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
