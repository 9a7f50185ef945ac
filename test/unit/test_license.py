# SPDX-License-Identifier: Apache-2.0
"""Every source file names its license in the form of SPDX (https://spdx.dev/ids)."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
LINE = '# SPDX-License-Identifier: Apache-2.0'
PATTERNS = ('*.py', '*.sh', 'CMakeLists.txt', '.ci/run', 'scripts/*')
FOLDERS = ('benchmarks', 'dan_ros', 'docker', 'examples', 'launch', 'test', 'tools')
FILES = sorted(
    {file for pattern in PATTERNS for file in ROOT.glob(pattern)}
    | {
        file
        for folder in FOLDERS
        for kind in ('*.py', '*.sh')
        for file in (ROOT / folder).rglob(kind)
    }
)


def test_the_first_line_is_the_license():
    """Only a shebang may precede the license line."""
    missing = []
    for file in FILES:
        lines = [line for line in file.read_text().splitlines()[:2] if not line.startswith('#!')]
        if lines[:1] != [LINE]:
            missing.append(file.relative_to(ROOT).as_posix())
    assert not missing
