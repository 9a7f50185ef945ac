# SPDX-License-Identifier: Apache-2.0
"""The wording of messages."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import dan_ros

FILES = sorted(Path(dan_ros.__path__[0]).rglob('*.py'))


def is_count_of(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'count_of'


def plural(call: ast.Call) -> str:
    """The plural of the noun in a call of `count_of`."""
    noun, *others = (argument.value for argument in call.args[1:])
    return others[0] if others else f'{noun.split()[-1]}s'


def is_number(part: ast.expr) -> bool:
    """Whether a part of an f-string is plainly a number, such as `len(faces)` or `count`."""
    code = ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ''
    return code.startswith(('len(', 'sum(')) or code in ('count', 'found', 'n', 'number', 'total')


def test_no_message_says_1_images():
    """Messages use `count_of` for every noun that some message counts with it."""
    nodes = [(file, node) for file in FILES for node in ast.walk(ast.parse(file.read_text()))]
    plurals = {plural(node) for _, node in nodes if is_count_of(node)}
    assert {'images', 'faces', 'bags', 'entries'} <= plurals
    noun = rf'(?: \w+)? (?:{"|".join(plurals)})\b(?!/)'
    wrong = [
        f'{file.name}: {text}'
        for file in FILES
        for text in re.findall(r'}}' + noun, file.read_text())
    ]
    for file, node in nodes:
        for value, text in pairwise(node.values if isinstance(node, ast.JoinedStr) else ()):
            if is_number(value) and isinstance(text, ast.Constant) and re.match(noun, text.value):
                wrong.append(f'{file.name}:{value.lineno}: {ast.unparse(value.value)}{text.value}')
    assert not wrong, '\n'.join(wrong)
