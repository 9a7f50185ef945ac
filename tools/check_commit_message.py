#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks a commit message: a short imperative subject, then a blank line.

python3 tools/check_commit_message.py FILE

pre-commit calls it with the file that git gives to its hook `commit-msg`.
"""

import re
import sys
from pathlib import Path

MAX_SUBJECT = 72  # characters
# Verbs in the imperative with the ending of a past tense or a gerund.
IMPERATIVES = 'Bring Embed Exceed Feed Need Ping Proceed Seed Shed Speed'


def find_problems(message: str) -> list[str]:
    """Find what is wrong with a commit message.

    >>> find_problems('Add a detector')
    []
    >>> find_problems('Add a detector.')
    ['the subject ends with "."']
    """
    lines = [line for line in message.splitlines() if not line.startswith('#')]
    subject = lines[0] if lines else ''
    if subject.startswith(('fixup! ', 'squash! ')):
        return []
    body = ['the second line is not blank'] if lines[1:] and lines[1] else []
    return [*_problems_of_subject(subject), *body]


def _problems_of_subject(subject: str) -> list[str]:
    problems = []
    first = subject.partition(' ')[0]
    if not re.fullmatch(r'[A-Z][a-z-]+', first):
        problems.append(f'the subject starts with "{first}": start with a verb, as in "Add"')
    elif first.endswith(('ed', 'ing')) and first not in IMPERATIVES.split():
        problems.append(f'the subject starts with "{first}": use the imperative, as in "Add"')
    if len(subject) > MAX_SUBJECT:
        problems.append(f'the subject has {len(subject)} characters, at most {MAX_SUBJECT} fit')
    if subject.endswith('.'):
        problems.append('the subject ends with "."')
    return problems


def main() -> int:
    """Check the message in a file; print its problems."""
    problems = find_problems(Path(sys.argv[1]).read_text(encoding='utf-8'))
    for problem in problems:
        print(f'commit message: {problem}', file=sys.stderr)
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
