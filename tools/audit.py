# SPDX-License-Identifier: Apache-2.0
"""Check the locked packages for known vulnerabilities, and print the result.

Needs the network. Exit code 0: no package has a known vulnerability; 1: a package has one; 2: not
all packages could be checked, most likely because there is no network. pip-audit itself returns 0
in that case.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parents[1] / 'requirements' / 'lock.txt'
SOUND, VULNERABLE, UNKNOWN = 0, 1, 2


def main() -> int:
    """Run pip-audit of this script's environment on the lock file."""
    command = [sys.executable, '-m', 'pip_audit', '--requirement', str(LOCK), '--require-hashes']
    command += ['--disable-pip', '--progress-spinner', 'off', '--format', 'json']
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        packages = json.loads(result.stdout)['dependencies']
    except (ValueError, KeyError):
        last = (result.stderr.strip() or 'pip-audit printed nothing').splitlines()[-1]
        print(f'audit: no package could be checked; is there a network? {last}', file=sys.stderr)
        return UNKNOWN
    text, code = judge(packages)
    print(text, file=sys.stderr if code else sys.stdout)
    return code


def judge(packages: list[dict[str, Any]]) -> tuple[str, int]:
    """Return the result of pip-audit's list of packages, as text and as an exit code."""
    lines, skipped = [], [p['name'] for p in packages if 'skip_reason' in p]
    for package in packages:
        name = f'{package["name"]} {package.get("version", "")}'
        for found in package.get('vulns', []):
            mended = ', '.join(found['fix_versions']) or 'no version yet'
            lines.append(f'{name}: {found["id"]}, fixed in {mended}')
    if skipped:
        lines.append(f'could not be checked; is there a network? {", ".join(skipped)}')
    known = sum(len(package.get('vulns', [])) for package in packages)
    lines.append(
        f'audit: {len(packages) - len(skipped)} of {len(packages)} packages checked, '
        f'{known} vulnerabilities known'
    )
    return '\n'.join(lines), VULNERABLE if known else UNKNOWN if skipped else SOUND


if __name__ == '__main__':
    sys.exit(main())
