# SPDX-License-Identifier: Apache-2.0
"""The summary of many bags: one self-contained page, and a table for programs."""

import base64
import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from dan_ros.bag.many.strip import ALL_COLORS, ALL_LABELS, draw_strip
from dan_ros.bag.settings import BagSettings
from dan_ros.bag.timeline import PREFIX as TIMELINE
from dan_ros.errors import count_of
from dan_ros.palette import ALERT, LIGHT

PAGE, LIST = 'index.html', 'bags.csv'
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

TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: {{ theme.ink }}; background: {{ theme.paper }};
  max-width: 78rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid {{ theme.grid }};
  white-space: nowrap; vertical-align: top; }
th { position: sticky; top: 0; background: {{ theme.paper }}; vertical-align: bottom; }
.text { text-align: left; } .wrap { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
.totals { display: flex; flex-wrap: wrap; gap: 2.5rem; margin: 1.5rem 0; }
.totals b { display: block; font-size: 1.7rem; line-height: 1.2; }
.strip { display: block; width: 240px; height: 40px; image-rendering: pixelated;
  border-bottom: 1px solid {{ theme.muted }}; }
.swatch { display: inline-block; width: .9em; height: .9em; vertical-align: -.1em;
  border: 1px solid {{ theme.muted }}; margin-right: .3em; }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.bar { display: inline-block; height: 1em; vertical-align: -.15em;
  border: 1px solid {{ theme.muted }}; }
.problem { color: {{ alert }}; font-weight: 600; } small { color: {{ theme.muted }}; }
</style>
<h1>{{ title }}</h1>
<div class="totals">
<div><b>{{ total.bags | number }}</b>bags</div>
<div><b>{{ total.time }}</b>{{ total.unit }}</div>
<div><b>{{ total.images | number }}</b>images</div>
<div><b>{{ total.dropped | number }}</b>dropped</div>
<div><b>{{ total.share_with_faces }}</b>images with a face</div>
<div><b>{{ total.faces | number }}</b>faces</div>
<div><b>{{ total.problems | number }}</b>bags with problems</div>
</div>
<p>Model {{ settings.model }} on {{ settings.backend }}, detector {{ settings.detector }}.
A face is counted once in each image that shows it.</p>
{% if outdated %}
<p class="problem">{{ outdated | count_of('bag') }} converted by an earlier run with other options.
</p>
{% endif %}
{% if waiting %}
<p class="problem">{{ waiting | count_of('bag') }} not done yet; the same command continues.</p>
{% endif %}
{% if problems %}
<h2>Problems</h2>
<table>
<tr><th class="text">bag</th><th class="text">what happened</th></tr>
{% for bag in problems %}
<tr><td class="text">{{ bag.name }}</td>
<td class="text wrap problem">{{ bag.reason }}
{% if bag.has_results and bag.failed %}<br><small>The results of an earlier run are kept.</small>
{% endif %}</td></tr>
{% endfor %}
</table>
{% endif %}
<h2>Expressions of all faces</h2>
<table style="width: auto">
{% for row in expressions %}
<tr><td class="text">{{ row.label }}</td><td class="text">
<span class="bar" style="width: {{ row.width }}px; background: {{ row.color }}"></span></td>
<td>{{ row.share }}</td><td>{{ row.faces | number }}</td></tr>
{% endfor %}
</table>
<h2>Bags</h2>
<p>The picture shows the expressions of the faces from the first to the last image of a bag: the
higher a band, the larger its share. White: no face. A black mark below: images were dropped.</p>
<p class="legend">{% for label, color in legend %}<span><span class="swatch"
style="background: {{ color }}"></span>{{ label }}</span>{% endfor %}</p>
<table>
<tr><th class="text">bag</th><th class="text">expressions over time</th><th>minutes</th>
<th>images</th><th>dropped</th><th>images<br>with a face</th><th>faces</th><th>ids</th>
<th class="text">most frequent</th></tr>
{% for bag in bags %}
<tr><td class="text wrap"><a href="bags/{{ bag.link }}/">{{ bag.name }}</a>
{% if bag.pictures %}
<details><summary>faces over time</summary>
{% for link, face in bag.pictures %}
<a href="bags/{{ bag.link }}/{{ link }}">{{ face }}</a>
{% endfor %}
</details>
{% endif %}</td>
<td><img class="strip" alt="{{ bag.top or 'no faces' }}" title="{{ bag.top or 'no faces' }}"
src="data:image/png;base64,{{ bag.strip }}"></td>
<td>{{ bag.minutes }}</td><td>{{ bag.images | number }}</td>
<td{% if bag.dropped %} class="problem"{% endif %}>{{ bag.dropped | number }}</td>
<td>{{ bag.share_with_faces }}</td><td>{{ bag.faces | number }}</td><td>{{ bag.ids | number }}</td>
<td class="text wrap">{{ bag.top }}</td></tr>
{% endfor %}
</table>
<p><small>{{ list }} has this table for programs. The tables of all images and all faces are in
parquet/frames and parquet/faces.</small></p>
</html>
"""


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
        environment.from_string(TEMPLATE)
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
