# SPDX-License-Identifier: Apache-2.0
"""Correct TensorRT's type stubs in this Python's environment, so that a type checker reads them.

Some of their parameters are called `in`, which is a keyword of Python, and one without a default
follows others that have one.
"""

import re
import sysconfig
from pathlib import Path

KEYWORD = re.compile(r'(?<=, )in(?=: )')
LAST = re.compile(r'(?<== None, )channel_axis: int(?=\))')


def main() -> None:
    """Rewrite the file in place; doing it twice changes nothing."""
    file = Path(sysconfig.get_path('purelib'), 'tensorrt_bindings', 'tensorrt.pyi')
    lines = file.read_text(encoding='utf-8').splitlines(keepends=True)
    mended = [
        LAST.sub('channel_axis: int = ...', KEYWORD.sub('in_', line)) if 'def ' in line else line
        for line in lines
    ]
    file.write_text(''.join(mended), encoding='utf-8')


if __name__ == '__main__':
    main()
