# SPDX-License-Identifier: Apache-2.0
"""A scope for a launch file: it gets only the arguments passed to it, and leaks none to others.

ROS's launch has one table of arguments for all files. An included file therefore also sees the
arguments of its parent, such as a `model` that is a URDF, and its defaults remain set for the files
that are included next.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions


def scoped(arguments: Iterable[DeclareLaunchArgument], *actions: Action) -> LaunchDescription:
    """Describe a launch file that reads only those arguments that were passed to it.

    Arguments are passed to it on the command line, by an include, or by an include of another file
    in the same folder that includes it.
    """
    arguments = list(arguments)
    forget = OpaqueFunction(function=_forget_others, args=[{a.name for a in arguments}])
    return LaunchDescription([GroupAction([forget, *arguments, *actions])])


def passed_arguments(context: LaunchContext) -> set[str] | None:
    """Return the names of the arguments passed to the launch file that is being executed.

    Launch keeps no record of them. But it executes a file from within the action that includes it,
    so that this action is on the call stack.

    Returns:
        None if the launch description is executed without an include.
    """
    includes = list(_active_includes())
    if not includes:
        return None
    names, folder = set(), _folder_of(includes[0])
    for include in includes:
        if _folder_of(include) != folder:
            break
        names |= {
            perform_substitutions(context, normalize_to_list_of_substitutions(name))
            for name, _ in include.launch_arguments
        }
    return names


def _forget_others(context: LaunchContext, names: set[str]) -> None:
    passed = passed_arguments(context)
    if passed is not None:
        for name in names - passed:
            context.launch_configurations.pop(name, None)


def _active_includes() -> Iterator[IncludeLaunchDescription]:
    """Yield the includes that are being executed, the innermost first."""
    frame = sys._getframe().f_back
    while frame:
        entity = frame.f_locals.get('entity')
        if isinstance(entity, IncludeLaunchDescription):
            yield entity
        frame = frame.f_back


def _folder_of(include: IncludeLaunchDescription) -> Path:
    """Return the folder of the included file."""
    return Path(include.launch_description_source.location).resolve().parent
