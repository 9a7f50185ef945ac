# SPDX-License-Identifier: Apache-2.0
"""The summary of many bags: one self-contained page, and a table for programs."""

import base64
import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from dan_ros.bag.many.strip import ALL_COLORS, ALL_LABELS, draw_strip
from dan_ros.bag.settings import BagSettings
from dan_ros.bag.timeline import PREFIX as TIMELINE
from dan_ros.errors import count_of
from dan_ros.palette import ALERT, LIGHT

PAGE, LIST = 'index.html', 'bags.csv'
TEMPLATE = Path(__file__).with_name('page.html')
COLUMNS = (
    'bag',
    'source',
    'state',
    'start_ns',
    'end_ns',
    'images',
    'dropped',
    'images_with_faces',
    'faces',
    'ids',
    *ALL_LABELS,
    'reason',
)


def render_page(
    records: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, str],
    settings: BagSettings,
    fingerprint: str,
    waiting: int,
) -> bytes:
    """Return the page.

    Args:
        records: finished bags by name; see `ResultFolder.records`.
        failures: why bags could not be converted, by name.
        settings, fingerprint: those with which bags are converted now.
        waiting: number of bags that a run did not reach before it was stopped.
    """
    bags = [_describe(name, record['summary']) for name, record in sorted(records.items())]
    by_name = {bag['name']: bag for bag in bags}
    problems = [
        {
            'name': name,
            'reason': failures.get(name) or by_name[name]['reason'],
            'failed': name in failures,
            'has_results': name in by_name,
        }
        for name in sorted({*failures, *(bag['name'] for bag in bags if bag['reason'])})
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    count_of_thousands = partial(count_of, number_format=',')
    environment.filters |= {'number': '{:,}'.format, 'count_of': count_of_thousands}
    count = len({*records, *failures})
    return (
        environment.from_string(TEMPLATE.read_text(encoding='utf-8'))
        .render(
            title=f'Facial expressions in {count_of_thousands(count, "bag")}',
            outdated=sum(record['settings'] != fingerprint for record in records.values()),
            waiting=waiting,
            bags=bags,
            problems=problems,
            total=_total(bags, len(problems), count),
            expressions=_expressions(records.values()),
            legend=_legend(),
            list=LIST,
            settings=settings,
            theme=LIGHT,
            alert=ALERT,
        )
        .encode(errors='replace')
    )


def render_list(
    records: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, str],
    sources: Mapping[str, str],
) -> bytes:
    """Return a CSV with a row per bag; see `render_page`. `sources`: path by name of the bag."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval='')
    table.writeheader()
    for name in sorted({*records, *failures}):
        row: dict[str, Any] = {'bag': name, 'source': sources[name]}
        if name in records:
            row |= _to_row(records[name]['summary'])
        if name in failures:
            row |= {'state': 'failed', 'reason': failures[name]}
        table.writerow(row)
    return text.getvalue().encode(errors='replace')


def problem_of(summary: Mapping[str, Any]) -> str:
    """Return a description of missing results of a bag, or ''."""
    return '; '.join([*filter(None, [summary['damage']]), *summary['drops']])


def _to_row(summary: Mapping[str, Any]) -> dict[str, Any]:
    problem = problem_of(summary)
    return {
        'state': 'incomplete' if problem else 'complete',
        'start_ns': summary['start_ns'],
        'end_ns': summary['end_ns'],
        'images': summary['frames'],
        'dropped': sum(summary['dropped'].values()),
        'images_with_faces': summary['with_faces'],
        'faces': summary['faces'],
        'ids': summary['ids'],
        **{label: summary['labels'].get(label, 0) for label in ALL_LABELS},
        'reason': problem,
    }


def _describe(name: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that the template shows for a bag."""
    labels = list(summary['labels'].items())[:3]
    return {
        'name': name,
        'link': quote(name),
        'pictures': [
            (quote(file), file.removeprefix(TIMELINE).removesuffix('.png'))
            for file in summary.get('pictures', ())
        ],
        'strip': base64.b64encode(draw_strip(summary['strip'])).decode(),
        'seconds': (summary['end_ns'] - summary['start_ns']) / 1e9,
        'minutes': f'{(summary["end_ns"] - summary["start_ns"]) / 60e9:.1f}',
        'images': summary['frames'],
        'dropped': sum(summary['dropped'].values()),
        'with_faces': summary['with_faces'],
        'share_with_faces': _percent(summary['with_faces'], summary['frames']),
        'faces': summary['faces'],
        'ids': summary['ids'],
        'top': ', '.join(f'{label} {_percent(n, summary["faces"])}' for label, n in labels),
        'reason': problem_of(summary),
    }


def _total(bags: Sequence[Mapping[str, Any]], problems: int, count: int) -> dict[str, Any]:
    sums = {key: sum(b[key] for b in bags) for key in ('images', 'dropped', 'faces', 'with_faces')}
    minutes = sum(bag['seconds'] for bag in bags) / 60
    return {
        **sums,
        'bags': count,
        'problems': problems,
        'time': f'{minutes / 60:,.0f}' if minutes >= 600 else f'{minutes:.1f}',
        'unit': 'hours' if minutes >= 600 else 'minutes',
        'share_with_faces': _percent(sums['with_faces'], sums['images']),
    }


def _expressions(records: Any) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record['summary']['labels'])
    total, most = sum(counts.values()), max(counts.values(), default=1)
    return [
        {
            'label': label,
            'color': color,
            'width': round(400 * counts[label] / most),
            'share': _percent(counts[label], total),
            'faces': counts[label],
        }
        for label, color in _legend()
    ]


def _legend() -> list[tuple[str, str]]:
    """Return label and color of each expression."""
    return list(zip(ALL_LABELS, ALL_COLORS, strict=True))


def _percent(part: int, whole: int) -> str:
    return f'{100 * part / whole:.0f}%' if whole else '-'
