"""`make stress`: far more odd messages, lifecycle cycles and stops than in the tests.

    python3 benchmarks/stress.py [--out stress] [--only messages --only cycles --only stops]

Runs the tests in test/slow with larger amounts (test/support/amounts.py), and writes what
they counted: stress.json, and stress.md for people. Exit code 1 if a test fails.
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
PARTS = {
    'messages': ('test_odd_messages.py', ''),
    'cycles': ('test_lifecycle_rounds.py', 'cycles or pauses'),
    'stops': ('test_lifecycle_rounds.py', 'stops'),
}
KINDS = {
    'images': 'images, against the library',
    'compressed_images': 'compressed images, against the library',
    'images_over_dds': 'images, over DDS to the node',
    'compressed_images_over_dds': 'compressed images, over DDS to the node',
    'bytes_over_dds': 'damaged bytes of a message, over DDS to the node',
}
Notes = dict[str, dict[str, Any]]


@click.command()
@click.option('--out', default='stress', type=click.Path(path_type=Path), help='Folder to write.')
@click.option('--only', multiple=True, type=click.Choice([*PARTS]), help='May be repeated.')
def main(out: Path, only: tuple[str, ...]) -> None:
    """Run the tests of the names given, or all, and write their report.

    With --only the other parts stay as the report in the folder has them.
    """
    out.mkdir(parents=True, exist_ok=True)
    earlier = out / 'stress.json'
    content: dict[str, Any] = json.loads(earlier.read_text()) if only and earlier.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for part in only or PARTS:
            started_s = time.monotonic()
            passed = run(part, folder)
            content[part] = {
                'passed': passed,
                'minutes': _minutes(time.monotonic() - started_s),
                'alone': bool(only),
            }
        notes: Notes = {
            path.stem: json.loads(path.read_text(encoding='utf-8'))
            for path in sorted(Path(folder).glob('*.json'))
        }
    content['counted'] = {**content.get('counted', {}), **notes}
    (out / 'stress.json').write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    (out / 'stress.md').write_text(to_markdown(content), encoding='utf-8')
    click.echo(f'{out / "stress.json"}, {out / "stress.md"}')
    sys.exit(0 if all(content[part]['passed'] for part in only or PARTS) else 1)


def run(part: str, folder: str) -> bool:
    """Run one part of the tests; whether all of it passed."""
    file, names = PARTS[part]
    command = [sys.executable, '-m', 'pytest', str(TESTS / file), '-q', '-k', names]
    return (
        subprocess.run(  # noqa: S603
            command, env={**os.environ, 'DAN_ROS_STRESS': folder}, check=False
        ).returncode
        == 0
    )


def to_markdown(content: dict[str, Any]) -> str:
    """The report for people."""
    notes: Notes = content['counted']
    runs = ', '.join(
        f'{part} in {entry["minutes"]:g} minutes{" (a run of its own)" * entry["alone"]}'
        f'{"" if entry["passed"] else " (FAILED)"}'
        for part, entry in content.items()
        if part != 'counted'
    )
    parts = [
        '# Under stress',
        f'Written by `make stress`: {runs}.',
        *_messages(notes),
        *_cycles(notes),
        *_stops(notes),
    ]
    return '\n\n'.join(parts) + '\n'


def _messages(notes: Notes) -> list[str]:
    rows = [
        f'| {title} | {note["messages"]} | {_fate(note)} | {note["memory_growth_mib"]:+.1f} |'
        for name, title in KINDS.items()
        if (note := notes.get(name))
    ]
    if not rows:
        return []
    table = ['| messages | sent | what became of them | memory, MiB |', '|---|---|---|---|', *rows]
    return [
        '## Odd messages',
        'Mostly nearly right: a field off by one, bytes changed, cut or spliced. No exception came '
        'out but the one that drops an image, and a good image still had its answer.',
        '\n'.join(table),
    ]


def _fate(note: dict[str, Any]) -> str:
    outcomes = note.get('outcomes') or {'processed': note['processed'], **note['dropped']}
    missing = note['messages'] - sum(outcomes.values())
    text = ', '.join(f'{count} {name}' for name, count in sorted(outcomes.items()))
    return f'{text}; {missing} never came through the middleware' if missing > 0 else text


def _cycles(notes: Notes) -> list[str]:
    rows = [
        f'| {title} | {note[count]} | {_use(note["after_the_warm_up"])} | '
        f'{_use(note["at_the_end"])} |'
        for name, title, count in (
            ('lifecycle_cycles', 'configure, activate, deactivate, clean up', 'cycles'),
            ('pauses', 'pause, resume', 'pauses'),
        )
        if (note := notes.get(name))
    ]
    if not rows:
        return []
    table = ['| round | times | after the warm-up | at the end |', '|---|---|---|---|', *rows]
    return ['## Round and round, with images arriving', '\n'.join(table)]


def _use(use: dict[str, Any]) -> str:
    return (
        f'{use["memory_mib"]:.0f} MiB, {use["threads"]} threads, {use["descriptors"]} descriptors'
    )


def _stops(notes: Notes) -> list[str]:
    rows = [
        f'| {note["state"]} | {note["signal"]} | {note["stops"]} | {note["longest_s"]:.1f} |'
        for name, note in sorted(notes.items())
        if name.startswith('stops_')
    ]
    if not rows:
        return []
    table = ['| state | signal | times | longest, s |', '|---|---|---|---|', *rows]
    return [
        '## Starts and stops',
        'Each ended with exit code 0 and without a traceback.',
        '\n'.join(table),
    ]


def _minutes(seconds: float) -> float:
    return round(seconds / 60, 1)


if __name__ == '__main__':
    main()
