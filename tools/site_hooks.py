# SPDX-License-Identifier: Apache-2.0
"""Hooks of mkdocs: generated pages, and links that lead out of docs/.

The pages in docs/ are written for GitHub, so they link files such as `../msg/FaceScene.msg`.
Here each linked file becomes a page of the site, and README.md becomes its first page.
"""

import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

LINK = re.compile(r'(\]\(|(?:src|srcset|href)=")(?!https?:|#|mailto:)([^)\s"#]+)')
FENCE = re.compile(r'^ *```')
IMAGES = ('.png', '.svg', '.jpg', '.webp')
LANGUAGES = {'.py': 'python', '.yaml': 'yaml', '.xml': 'xml', '.policy': 'xml', '.cpp': 'cpp'}
PYTHON_PAGE = {
    'Pipelines': (
        'pipeline.ExpressionPipeline',
        'pipeline.PipelineConfig',
        'video_pipeline.VideoPipeline',
        'video_pipeline.VideoConfig',
        'video_pipeline.StampedFrame',
    ),
    'Data': ('types.Frame', 'types.Face', 'types.FaceExpression', 'types.Attention', 'labels'),
    'Tracking': ('tracking.face_tracker.TrackedFace', 'tracking.config.TrackerConfig'),
    'Detectors': ('detect.open_detector', 'detect.base.DetectorConfig', 'detect.base.Detector'),
    'Backends': ('backends.open_backend', 'backends.base.Backend', 'backends.base.BackendConfig'),
    'Training': ('train.losses.AffinityLoss', 'train.losses.PartitionLoss'),
    'Errors': ('errors',),
}


# --- generated pages ----------------------------------------------------------------------------


def messages_page() -> str:
    """Return the page of messages and services, from msg/ and srv/."""
    parts = ['# Messages and services', 'Generated from `msg/` and `srv/`.']
    for path in [*sorted(ROOT.glob('msg/*.msg')), *sorted(ROOT.glob('srv/*.srv'))]:
        parts += [f'## dan_ros/{path.parent.name}/{path.stem}', _code(path.read_text(), 'yaml')]
    return '\n\n'.join(parts)


def commands_page() -> str:
    """Return the page of commands; mkdocs-click inserts the options of each."""
    directive = '::: mkdocs-click\n    :module: dan_ros.cli.main\n    :command: cli'
    options = '    :prog_name: dan-ros\n    :style: table\n    :depth: 1'
    return f'# Commands\n\nGenerated from the command `dan-ros`.\n\n{directive}\n{options}\n'


def python_page() -> str:
    """Return the page of the Python interface; mkdocstrings inserts the docstrings."""
    parts = ['# Python', 'Generated from the docstrings.']
    for title, names in PYTHON_PAGE.items():
        parts += [f'## {title}', *(f'::: dan_ros.{name}' for name in names)]
    return '\n\n'.join(parts)


def decisions_page() -> str:
    """Return the list of docs/adr."""
    rows = []
    for path in sorted(ROOT.glob('docs/adr/*.md')):
        title = path.read_text().partition('\n')[0].removeprefix('# ')
        rows.append(f'* [{title}]({path.name})')
    return '# Decisions\n\nWhat was decided, why, and what else was tried.\n\n' + '\n'.join(rows)


def changes_page() -> str:
    """Return CHANGELOG.rst as Markdown."""
    text = (ROOT / 'CHANGELOG.rst').read_text().replace('``', '`')
    text = re.sub(r'^\^+\n(.*)\n\^+$', r'# \1', text, flags=re.MULTILINE)
    text = re.sub(r'^(.+)\n-+$', r'## \1', text, flags=re.MULTILINE)
    return re.sub(r'^(.+)\n~+$', r'### \1\n', text, flags=re.MULTILINE)


def source_page(path: Path) -> str:
    """Return a page that shows a file of the repository, or lists a folder."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        return f'# {name}/\n\n' + '\n'.join(f'* `{file.name}`' for file in sorted(path.iterdir()))
    return f'# {name}\n\n{_code(path.read_text(), LANGUAGES.get(path.suffix, "text"))}'


def _code(text: str, language: str) -> str:
    return f'````{language}\n{text.rstrip()}\n````'


# --- where files of the repository are in the site ----------------------------------------------


def place_of(path: Path) -> str:
    """Return the place of a file of the repository in the site, such as `project/SECURITY.md`."""
    name = path.relative_to(ROOT).as_posix()
    if name == 'README.md':
        return 'index.md'
    if name == 'docs/adr':
        return 'adr/index.md'
    if name == 'CHANGELOG.rst':
        return 'project/CHANGELOG.md'
    if name.startswith('docs/'):
        return name.removeprefix('docs/')
    if path.suffix in ('.md', *IMAGES):
        return f'project/{name}'
    return f'source/{name.removeprefix(".")}.md'  # mkdocs leaves out hidden folders


def content_of(path: Path) -> str:
    """Return the Markdown of the page of a file that is not in docs/."""
    if path.name == 'CHANGELOG.rst':
        return changes_page()
    return path.read_text() if path.suffix == '.md' else source_page(path)


def on_config(config):
    """List each decision in the navigation."""
    explanation = next(tab['Explanation'] for tab in config['nav'] if 'Explanation' in tab)
    decisions = next(entry['Decisions'] for entry in explanation if 'Decisions' in entry)
    decisions += [f'adr/{path.name}' for path in sorted(ROOT.glob('docs/adr/*.md'))]
    return config


def on_files(files: Files, config) -> Files:
    """Add the generated pages, and a page for each file that another page links."""
    pages = {
        'adr/index.md': decisions_page(),
        'reference/commands.md': commands_page(),
        'reference/messages.md': messages_page(),
        'reference/python.md': python_page(),
    }
    waiting = [ROOT / 'README.md', *(ROOT / 'docs').rglob('*.md')]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if path.suffix in IMAGES and not path.is_relative_to(ROOT / 'docs'):
            files.append(File.generated(config, place_of(path), abs_src_path=str(path)))
        elif not path.is_relative_to(ROOT / 'docs'):
            pages[place_of(path)] = content_of(path)
        if path.suffix != '.md':
            continue
        targets = {(path.parent / match[2]).resolve() for match in LINK.finditer(path.read_text())}
        found = {target for target in targets if target.exists() and ROOT in target.parents}
        waiting += found - seen
        seen |= found
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


# --- the Markdown of GitHub ---------------------------------------------------------------------


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Turn links and indentation of GitHub's Markdown into those of mkdocs."""
    place = PurePosixPath(page.file.src_uri)
    if page.is_homepage:
        page.meta['hide'] = ['navigation']  # the page has no neighbors in the navigation
    written_in = _folder_of(place)
    return indent(LINK.sub(lambda match: match[1] + relink(match[2], written_in, place), markdown))


def _folder_of(place: PurePosixPath) -> Path:
    """Return the folder of the file from which the page at a place was made."""
    if place == PurePosixPath('index.md'):
        return ROOT
    if place.parts[0] in ('project', 'source'):
        return (ROOT / PurePosixPath(*place.parts[1:])).parent
    return (ROOT / 'docs' / place).parent


def relink(target: str, folder: Path, place: PurePosixPath) -> str:
    """Return the link from the page at `place` to what `target` is in `folder`."""
    path = (folder / target).resolve()
    if not path.exists() or ROOT not in path.parents:
        return target
    up = '../' * (len(place.parts) - 1)
    return up + place_of(path)


def indent(markdown: str) -> str:
    """Indent what is below a list by 4 spaces; GitHub also accepts 2 and 3 spaces."""
    lines, shift = [], None
    for line in markdown.split('\n'):
        spaces = len(line) - len(line.lstrip(' '))
        if FENCE.match(line):
            opens = shift is None
            shift_now = (4 - spaces if spaces in (2, 3) else 0) if opens else shift
            lines.append(' ' * shift_now + line)
            shift = shift_now if opens else None
        elif shift is not None:
            lines.append(' ' * shift + line if line else line)
        else:
            lines.append(' ' * (4 - spaces) + line if spaces in (2, 3) else line)
    return '\n'.join(lines)


# --- for screen readers -------------------------------------------------------------------------


def on_page_content(html: str, page, config, files) -> str:
    """Turn empty header cells of tables into ordinary cells."""
    return html.replace('<th></th>', '<td></td>')


def on_post_page(output: str, page, config) -> str:
    """Name the theme's dialog."""
    return output.replace('="search" role="dialog"', '="search" role="dialog" aria-label="Search"')
