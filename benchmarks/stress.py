# SPDX-License-Identifier: Apache-2.0
"""`make stress`: the robustness tests with many more messages, lifecycle cycles and stops.

    python3 benchmarks/stress.py [--out stress] [--only messages --only cycles --only stops]

Runs the tests in test/slow with larger amounts (test/support/amounts.py), and writes what
they counted to stress.json. Exit code 1 if a test fails.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

TESTS = Path(__file__).parents[1] / 'test' / 'slow'
PARTS = {  # file and pytest's -k expression
    'messages': ('test_odd_messages.py', ''),
    'cycles': ('test_lifecycle_rounds.py', 'cycles or pauses'),
    'stops': ('test_lifecycle_rounds.py', 'stops'),
}


@click.command()
@click.option('--out', default='stress', type=click.Path(path_type=Path), help='Output folder.')
@click.option('--only', multiple=True, type=click.Choice([*PARTS]), help='May be repeated.')
def main(out: Path, only: tuple[str, ...]) -> None:
    """Run all parts, or only those given; the file keeps earlier results of the other parts."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / 'stress.json'
    results = json.loads(path.read_text(encoding='utf-8')) if only and path.is_file() else {}
    for part in only or PARTS:
        results[part] = run(part)
        path.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    click.echo(json.dumps(results, indent=1))
    click.echo(path)
    sys.exit(0 if all(results[part]['passed'] for part in only or PARTS) else 1)


def run(part: str) -> dict[str, Any]:
    """Run the tests of one part; return their result, duration and counts."""
    file, names = PARTS[part]
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(  # noqa: S603
            [sys.executable, '-m', 'pytest', str(TESTS / file), '-q', '-k', names],
            env={**os.environ, 'DAN_ROS_STRESS': folder},
            check=False,
        )
        counted = {
            path.stem: json.loads(path.read_text(encoding='utf-8'))
            for path in sorted(Path(folder).glob('*.json'))
        }
    minutes = round((time.monotonic() - start_s) / 60, 1)
    return {'passed': process.returncode == 0, 'minutes': minutes, 'counted': counted}


if __name__ == '__main__':
    main()
