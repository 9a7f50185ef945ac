# SPDX-License-Identifier: Apache-2.0
"""Process settings for steady latency and memory: garbage collector, GIL, allocator."""

import ctypes
import gc
import inspect
import os
import sys

M_ARENA_MAX = -8  # from glibc's malloc.h
ARENAS = 2
SWITCH_INTERVAL_S = 1e-4  # time until another thread can take the GIL; default 5 ms
# ROS 2's generator of Python messages, with a parser and a template engine.
CODE_GENERATOR = 'rosidl_generator_py.generate_py_impl'


def limit_arenas() -> None:
    """Let all threads share a few memory pools, if the C library is glibc.

    By default glibc gives each thread its own pool, up to eight per core, and each pool keeps the
    most memory that a thread ever used. Every resume starts a thread, so over days the process
    would fill them all.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None and 'MALLOC_ARENA_MAX' not in os.environ:
        mallopt(M_ARENA_MAX, ARENAS)


def use_one_blas_thread() -> None:
    """Do not start NumPy's threads for matrix products, which the node does not need.

    They take 0.1 s of processor time at the start. Call this before NumPy is imported.
    """
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')


def skip_code_generator() -> None:
    """Do not import ROS 2's code generator, which rclpy would import with the type support.

    The type support does not need it. Call this before messages are imported.
    """
    sys.modules.setdefault(CODE_GENERATOR, None)  # type: ignore[arg-type]  # as if not installed


def prepare_logging() -> None:
    """Tell `inspect` which modules have been imported, for the log calls of rclpy.

    rclpy looks up the module of each caller, for which `inspect` would resolve the paths of all
    modules: 80 ms at the first call.
    """
    names: dict[str, str] = getattr(inspect, 'modulesbyfile', {})
    for name, module in sys.modules.copy().items():
        if file := getattr(module, '__file__', None):
            names.setdefault(file, name)


def shorten_switch_interval() -> None:
    """Release the GIL sooner: 5 ms is long compared with an inference."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def settle_memory() -> None:
    """Exclude all existing objects from garbage collection, and return unused memory to the system.

    Otherwise, each full collection would visit the 200,000 objects of the libraries and block every
    thread for 0.1 s. Imports leave no garbage.
    """
    gc.freeze()
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'malloc_trim'):  # glibc
        libc.malloc_trim(0)


def unfreeze_garbage() -> None:
    """Include all objects in garbage collection again, and destroy unused ones.

    Threads, callbacks and errors refer to each other, and so to models that are not used any more.
    A frozen DDS participant would leave without notice, and other processes would keep it in the
    ROS graph for its lease of 20 s.
    """
    gc.unfreeze()
    gc.collect()
