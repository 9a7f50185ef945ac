# SPDX-License-Identifier: Apache-2.0
"""The commands of README and tutorials: which of them run in tests, and why others do not.

A block of ```bash runs as written. A comment before the block can say more:

    <!-- runs until stopped -->             in the background, to the end of the page
    <!-- needs ros2 -->                     only where there is the program ros2
    <!-- not run: needs a camera -->        never; such a block is a plain ```
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITH_COMMANDS = (
    ROOT / 'README.md',
    ROOT / 'docs' / 'how-it-works.md',
    *sorted((ROOT / 'docs' / 'tutorials').glob('*.md')),
)
BLOCK = re.compile(r'^(?:<!-- ([^\n]*) -->\n)?```(\w*)\n(.*?)^```', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        notes: parts of the comment before it.
        language: such as `bash`; '' if it names none.
        text: its content.
    """

    notes: tuple[str, ...]
    language: str
    text: str

    @property
    def reason(self) -> str:
        """Reason why the block never runs, or ''."""
        return next(
            (n.removeprefix('not run: ') for n in self.notes if n.startswith('not run')), ''
        )

    @property
    def is_background(self) -> bool:
        """Whether the block runs to the end of the page."""
        return 'runs until stopped' in self.notes

    @property
    def can_run(self) -> bool:
        """Whether this machine has the program that the block needs."""
        needs = [note.removeprefix('needs ') for note in self.notes if note.startswith('needs ')]
        return all(shutil.which(program) for program in needs)


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks of a page."""
    return [
        Block(tuple(filter(None, notes.split('; '))), language, text)
        for notes, language, text in BLOCK.findall(page.read_text())
    ]
