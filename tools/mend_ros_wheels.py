# SPDX-License-Identifier: Apache-2.0
"""Correct the include folders in the CMake files of the ROS 2 wheels, in this Python's environment.

`export_*__rosidl_generator_pyExport.cmake` name the folders of the machine the wheels were built
on; they are replaced by this machine's folders of Python and NumPy.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

PYTHON_FOLDER = re.compile(r'/opt/[^";]*?/include/python3\.\d+(?=["; ])')
NUMPY_FOLDER = re.compile(r'/opt/[^";]*?/numpy/_core/include(?=["; ])')


def main() -> None:
    """Rewrite the files in place; doing it twice changes nothing."""
    files = list(Path(sys.prefix).glob('share/*/cmake/export_*__rosidl_generator_pyExport.cmake'))
    for file in files:
        text = file.read_text()
        text = NUMPY_FOLDER.sub(numpy.get_include(), text)
        text = PYTHON_FOLDER.sub(sysconfig.get_paths()['include'], text)
        file.write_text(text)
    if not files:
        sys.exit(f'no ROS 2 wheels under {sys.prefix}')


if __name__ == '__main__':
    main()
