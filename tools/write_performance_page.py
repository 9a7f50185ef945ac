"""Write the measured numbers into the pages, from docs/bench.json, which `make bench` makes.

A page has them between `<!-- bench: NAME -->` and `<!-- end -->`; everything else is left alone.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ROOT / 'docs' / 'bench.json'
PAGES = (ROOT / 'docs' / 'performance.md', ROOT / 'README.md')
BLOCK = re.compile(r'(<!-- bench: (\w+) -->\n).*?(\n<!-- end -->)', re.DOTALL)
PLAIN, OURS = 'plain node', 'dan_node'
BUNDLED = 'here, 96 px int8'

Content = dict[str, Any]


def write_page(text: str, content: Content) -> str:
    """A page with the numbers of `content` in the place of those it has."""

    def fill(match: re.Match[str]) -> str:
        return f'{match[1]}\n{BLOCKS[match[2]](content)}\n{match[3]}'

    return BLOCK.sub(fill, text)


def _machine(content: Content) -> str:
    machine, threads = content['machine'], content['node_threads']
    versions = ', '.join(f'{name} {machine[name]}' for name in ('onnxruntime', 'torch', 'openvino'))
    cores = machine['cores']
    measured = (
        f'Measured on {machine["cpu"]}, {cores} cores, load {machine["load"]} before it began, '
        f'Python {machine["python"]}, {versions}; {content["rounds"]} rounds of turns for each '
        f'part, {content["seconds"]:g} s for each case of a node. "Here" runs on all {cores} cores '
        'where no number of threads is named, as `ExpressionPipeline.open` does; the node takes '
        f'all but one, so {threads}.'
    )
    return f'{measured} {content["note"]}' if 'note' in content else measured


def _side_by_side(content: Content, kind: str) -> str:
    """Comparisons of the same ways, a row a way: milliseconds, and how many times faster."""
    chosen = [c for c in content['comparisons'] if c['title'].startswith(f'{kind}, ')]
    titles = [_shown(c['title'].removeprefix(f'{kind}, ')) for c in chosen]
    rows = [
        [way, *(_cell(comparison, way) for comparison in chosen)] for way in chosen[0]['times_ms']
    ]
    return _table([kind, *titles], rows)


def _shown(title: str) -> str:
    """With the number of faces as people say it."""
    return title.replace('1 face(s)', 'one face').replace('face(s)', 'faces')


def _cell(comparison: Content, way: str) -> str:
    time = _ms(comparison['times_ms'][way])
    if way == comparison['baseline']:
        return f'{time} ms'
    return f'{time} ms, **{comparison["times_faster"][way]:.1f}**'


def _steps(content: Content) -> str:
    steps_ms = content['pipeline_steps_ms']
    steps = list(next(iter(steps_ms.values())))
    rows = [
        [_shown(name), *(f'{times[step]:.2f} ms' for step in steps)]
        for name, times in steps_ms.items()
    ]
    return _table(['pipeline, all cores', *steps], rows)


def _growth(content: Content) -> str:
    """By faces, pixels and cameras, and what one more of each costs."""
    rows = []
    for growth in content['pipeline_growth']:
        times_ms, floors_ms = growth['times_ms'], growth['floors_ms']
        cells = [f'{name}: {_ms(ms)} ms ({_ms(floors_ms[name])})' for name, ms in times_ms.items()]
        rows.append([growth['title'], ', '.join(cells)])
    return _table(['grows with', 'median, and the floor'], rows)


def _costs(content: Content) -> str:
    """What one more of each costs, in words."""
    faces, pixels, cameras = (growth['times_ms'] for growth in content['pipeline_growth'])
    small, usual, large = '320x240', '640x480', '1920x1440'
    return '\n'.join(
        [
            f'* **A face** more costs {_ms((faces["8"] - faces["1"]) / 7)} ms in a batch, **a '
            f'camera** more, with one face, {_ms((cameras["4"] - cameras["1"]) / 3)} ms: a '
            'detection; all share one batch of faces.',
            '* **Pixels** up to `detector.max_side_px` cost a detection of as many: '
            f'{_ms(pixels[small])} ms at {small}, {_ms(pixels[usual])} at {usual}. Beyond it they '
            'cost reducing the image for the detector and cutting out larger faces: '
            f'{_ms(pixels[large])} ms at {large}, {pixels[large] / pixels[usual]:.1f} times as '
            'much for nine times the pixels.',
        ]
    )


def _nodes(content: Content) -> str:
    rows = [
        [
            node['node'].replace(OURS, 'here'),
            node['images'],
            f'{node["age_ms"]:.0f} ms, {node["age_99_ms"]:.0f} ms',
            _times(node['times_fresher'], node),
            f'{node["done_hz"]:.0f}',
            f'{node["cpu_ms"]:.0f} ms',
            _times(node['times_less_cpu'], node),
            f'{node["memory_mib"]:.0f} MiB',
            f'{node["start_s"]:.1f} s',
        ]
        for node in content['nodes']
    ]
    head = ['node', 'images', 'age of results, median and 99th percentile', 'times fresher']
    head += ['results a second', 'CPU a result', 'times less', 'memory', 'start to first result']
    return _table(head, rows)


def _own(content: Content) -> str:
    """The node's own cost; compressed images aside, whose decoding is not the node's."""
    rows = [
        [
            ', '.join([node['images'], *node['node'].split(', ')[1:]]),
            f'{node["own_ms"]:.1f} ms',
            f'{node["own_with_reduce_ms"]:.1f} ms',
        ]
        for node in content['nodes']
        if node['node'].startswith(OURS)
    ]
    return _table(['images', 'own cost', 'with the reduction for the detector'], rows)


def _share(content: Content) -> str:
    """Of a core, at 30 Hz."""
    usual, with_interval = (
        _core_percent(_node(content, name)) for name in (OURS, f'{OURS}, detector.interval 5')
    )
    return (
        f'* At 30 images of 640x480 a second with one face it takes {usual} of one core; with '
        f'`detector.interval: 5`, {with_interval}.'
    )


def _summary(content: Content) -> str:
    """Of README.md: the pipeline on 640x480 with one face, and the node at 30 Hz."""
    title = 'pipeline, 640x480, 1 face(s)'
    (pipeline,) = (one for one in content['comparisons'] if one['title'] == title)
    node = _node(content, OURS)
    times_ms, ratio = pipeline['times_ms'], pipeline['times_faster'][BUNDLED]
    return (
        f'On {content["machine"]["cores"]} cores an image of 640x480 with one face takes '
        f"{_ms(times_ms[BUNDLED])} ms, in the official demo's way, whose model is larger, "
        f'{ratio:.0f} times as much; with `detector.interval: 5` '
        f'{_ms(times_ms[f"{BUNDLED}, detector.interval 5"])} ms. Over DDS at 30 Hz a result is '
        f'{node["age_ms"]:.0f} ms old when it comes, and the node takes {_core_percent(node)} of '
        'one core.'
    )


def _node(content: Content, name: str) -> Content:
    """A node on 640x480 raw at 30 Hz."""
    images = '640x480 raw, 30 Hz'
    (node,) = (n for n in content['nodes'] if (n['node'], n['images']) == (name, images))
    found: Content = node
    return found


def _core_percent(node: Content) -> str:
    return f'{node["cpu_ms"] * node["done_hz"] / 10:.0f} %'


def _times(ratio: float | None, node: Content) -> str:
    return '' if ratio is None or node['node'] == PLAIN else f'**{ratio:.1f}**'


def _ms(ms: float) -> str:
    """Two digits that count."""
    return f'{ms:.0f}' if ms >= 100 else f'{ms:.1f}' if ms >= 1 else f'{ms:.2f}'


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


BLOCKS: dict[str, Callable[[Content], str]] = {
    'machine': _machine,
    'networks': lambda content: _side_by_side(content, 'network'),
    'detectors': lambda content: _side_by_side(content, 'detector'),
    'crops': lambda content: _side_by_side(content, 'crop and batch'),
    'pipelines': lambda content: _side_by_side(content, 'pipeline'),
    'steps': _steps,
    'growth': _growth,
    'costs': _costs,
    'nodes': _nodes,
    'own': _own,
    'share': _share,
    'summary': _summary,
}


def main() -> None:
    """Write all pages; a run of `make bench` that left parts out is refused."""
    content = json.loads(NUMBERS.read_text(encoding='utf-8'))
    missing = [key for key, value in content.items() if not value]
    if missing:
        sys.exit(f'{NUMBERS} lacks {", ".join(missing)}: run `make bench` without --only')
    for page in PAGES:
        page.write_text(write_page(page.read_text(encoding='utf-8'), content), encoding='utf-8')
        print(page)


if __name__ == '__main__':
    main()
