# SPDX-License-Identifier: Apache-2.0
"""The CI workflows: pinned actions, read-only rights, and every promised platform."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / '.github' / 'workflows').glob('*.yml'))
CI_RUN = ROOT / '.ci' / 'run'
HOOKS = ROOT / '.pre-commit-config.yaml'
CONTENTS = {file.name: yaml.safe_load(file.read_text()) for file in WORKFLOWS}

every_workflow = pytest.mark.parametrize('file', WORKFLOWS, ids=lambda file: file.name)


@every_workflow
def test_actions_are_pinned_by_hash_and_name_their_version(file):
    used = re.findall(r'uses: (.*)', file.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r'[\w./-]+@[0-9a-f]{40}  # v[0-9.]+', action), action


def test_an_action_has_the_same_version_everywhere():
    used = {action for file in WORKFLOWS for action in re.findall(r'uses: (.*)', file.read_text())}
    names = [action.split('@')[0] for action in used]
    assert len(names) == len(set(names)), used


@every_workflow
def test_a_workflow_may_only_read(file):
    content = CONTENTS[file.name]
    assert content['permissions'] == {'contents': 'read'}
    for job in content['jobs'].values():
        assert 'permissions' not in job
        assert job['timeout-minutes'] <= 90
        checkouts = [s for s in job['steps'] if s.get('uses', '').startswith('actions/checkout@')]
        assert all(step['with'] == {'persist-credentials': False} for step in checkouts)


def test_hooks_are_pinned_by_hash():
    for repository in yaml.safe_load(HOOKS.read_text())['repos']:
        assert repository['repo'] == 'local' or re.fullmatch(r'[0-9a-f]{40}', repository['rev'])


def test_the_platforms_are_those_that_the_readme_promises():
    jobs = CONTENTS['ci.yml']['jobs']
    assert jobs['ros']['strategy']['matrix']['distribution'] == [
        'humble', 'jazzy', 'kilted', 'lyrical', 'rolling',
    ]  # fmt: skip
    pythons = jobs['core']['strategy']['matrix']['python']
    assert f'requires-python = ">={pythons[0]}"' in (ROOT / 'pyproject.toml').read_text()
    readme = (ROOT / 'README.md').read_text()
    assert f'Python {pythons[0]} to {pythons[-1]}' in readme


def test_the_targets_and_files_that_workflows_call_exist():
    steps = [
        s for content in CONTENTS.values() for job in content['jobs'].values() for s in job['steps']
    ]
    commands = '\n'.join(step.get('run', '') for step in steps)
    targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    called = re.findall(r'^make ([\w-]+)$', commands, re.MULTILINE)
    assert {'test-all', 'audit', 'sbom'} <= set(called) <= set(targets)
    for path in re.findall(r'bash (\S+)', commands):
        assert (ROOT / path).is_file()


def test_ci_runs_the_command_of_the_readme_and_then_the_slow_tests():
    commands = [line for line in CI_RUN.read_text().splitlines() if line.startswith('make ')]
    assert commands == ['make lint', 'make test', 'make test ARGS=test/slow']
    assert '\nmake test\n' in (ROOT / 'README.md').read_text()
