"""Write what the last soak gave into docs/faults.md, from docs/soak.json, which `make soak` makes.

make soak && cp soak/soak.json soak/soak.png docs/ && make docs
"""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ROOT / 'docs' / 'soak.json'
PAGE = ROOT / 'docs' / 'faults.md'
BLOCK = re.compile(r'(<!-- soak -->\n).*?(\n<!-- end -->)', re.DOTALL)


def write_page(text: str, content: dict[str, Any]) -> str:
    """The page with the numbers of `content` in the place of those it has."""
    return BLOCK.sub(lambda match: f'{match[1]}\n{_told(content)}\n{match[2]}', text)


def _told(content: dict[str, Any]) -> str:
    verdict, drops = content['verdict'], content['dropped']
    broken = sum(count for cause, count in drops.items() if cause.startswith(('bad_', 'too_')))
    first, last = verdict['throughput_hz']
    young, old = verdict['age_ms']
    held = 'every bound held' if not verdict['broken'] else '; '.join(verdict['broken'])
    samples = content['samples']
    told = (
        f'In the run below, of {content["minutes"]:.0f} minutes, {held}. After the warm-up memory '
        f'rose by {verdict["slope_mib_per_min"]:.2f} MiB a minute, to '
        f'{samples[-1]["memory_mib"]:.0f} MiB; {first:.1f} results a second came in the first '
        f'third and {last:.1f} in the last, of a median age of {young:.0f} and {old:.0f} ms. '
        f'{broken:,} broken images were counted by their cause, {drops.get("superseded", 0):,} '
        f'were superseded by newer ones, and {drops.get("lost", 0):,}, most of them in bursts, '
        'were lost by the middleware, which said so.'
    )
    return textwrap.fill(told, 110)


def main() -> None:
    """Write the page."""
    content = json.loads(NUMBERS.read_text(encoding='utf-8'))
    text = PAGE.read_text(encoding='utf-8')
    PAGE.write_text(write_page(text, content), encoding='utf-8')


if __name__ == '__main__':
    main()
