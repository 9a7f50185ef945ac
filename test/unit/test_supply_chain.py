# SPDX-License-Identifier: Apache-2.0
"""The lock file, and the report of an audit without a network."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / 'requirements' / 'lock.txt').read_text()
PINS = [line.removesuffix(' \\') for line in LOCK.splitlines() if re.match(r'[a-z]', line)]


def requirements_of(name: str) -> list[Requirement]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith('#')]


@pytest.mark.parametrize('wanted', requirements_of('core') + requirements_of('bag'), ids=str)
def test_what_the_library_needs_is_locked_to_a_version_that_fits(wanted):
    locked = [pin for pin in map(Requirement, PINS) if pin.name == wanted.name.lower()]
    assert locked, 'run `make lock`'
    for pin in locked:
        (specifier,) = pin.specifier
        assert specifier.operator == '=='
        assert wanted.specifier.contains(specifier.version)


def test_every_locked_package_has_hashes_and_no_place():
    assert len(PINS) > 10
    for entry in re.split(r'\n(?=[a-z])', LOCK)[1:]:
        assert re.search(r'--hash=sha256:[0-9a-f]{64}', entry), entry.splitlines()[0]
    assert not re.search(r'https?:|file:|--(extra-)?index-url|--find-links|@ ', LOCK)


def test_pip_takes_the_lock_file_as_it_is():
    """This is checked offline: pip accepts the file, but finds no packages."""
    command = [sys.executable, '-m', 'pip', 'install', '--isolated', '--no-index', '--dry-run']
    command += [
        '--ignore-installed',
        '--no-deps',
        '--require-hashes',
        '-r',
        'requirements/lock.txt',
    ]
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert 'No matching distribution found' in result.stderr
    assert 'Invalid requirement' not in result.stderr


@pytest.fixture(scope='module')
def audit():
    spec = importlib.util.spec_from_file_location('audit', ROOT / 'tools' / 'audit.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_audit_without_a_network_is_no_clean_one(audit):
    sound = {'name': 'numpy', 'version': '2.0', 'vulns': []}
    skipped = {'name': 'onnx', 'skip_reason': 'Dependency not found on PyPI'}
    found = {'id': 'CVE-0000-1', 'fix_versions': ['2.1']}
    vulnerable = {'name': 'rich', 'version': '9', 'vulns': [found]}
    text, code = audit.judge([sound])
    assert (code, text) == (0, 'audit: 1 of 1 packages checked, 0 vulnerabilities known')
    text, code = audit.judge([sound, skipped])
    assert (code, 'onnx' in text, '1 of 2' in text) == (2, True, True)
    text, code = audit.judge([sound, skipped, vulnerable])
    assert (code, 'rich 9: CVE-0000-1, fixed in 2.1' in text) == (1, True)
