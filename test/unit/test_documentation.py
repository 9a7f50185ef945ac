# SPDX-License-Identifier: Apache-2.0
"""Files, headings, commands, parameters and topics named in pages exist; examples run."""

import ast
import importlib.util
import inspect
import re
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import click
import cv2
import pages
import pytest
import yaml

import dan_ros
from dan_ros.backends import registry as backend_registry
from dan_ros.cli.main import SUBCOMMANDS, cli
from dan_ros.detect import registry as detector_registry
from dan_ros.faces import quality
from dan_ros.messages import MessageClasses
from dan_ros.ros.statistics import CAUSES

ROOT = Path(__file__).parents[2]
PACKAGE = Path(dan_ros.__path__[0])
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('models/*.md')])
CODE_FILES = ('py', 'md', 'yaml', 'xml', 'txt', 'msg', 'sh', 'cpp', 'svg', 'png', 'onnx', 'json')
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()}
MADE_BY_COMMANDS = ('demo/', 'dist/', 'evaluation/', 'install/', 'bench/', 'build/', 'runs/')


def place_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize('page', PAGES, ids=place_of)


def blocks_of(page: Path, language: str) -> list[str]:
    """Contents of a page's code blocks in one language, '' for those that name none."""
    text = re.sub(r'^ +(```)', r'\1', page.read_text(), flags=re.MULTILINE)
    blocks = re.findall(r'^```(\w*)\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    return [content for name, content in blocks if name == language]


def without_blocks(page: Path) -> str:
    return re.sub(r'^ *```.*?^ *```', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)


def quoted_in(page: Path) -> list[str]:
    """Everything between backquotes outside of code blocks."""
    return [quote.replace('\n', ' ') for quote in re.findall(r'`([^`]+)`', without_blocks(page))]


def commands_in(page: Path, program: str) -> list[list[str]]:
    """Words after the program's name of every command, in blocks and between backquotes."""
    blocks = [*blocks_of(page, ''), *blocks_of(page, 'bash')]
    lines = [line for block in blocks for line in block.replace('\\\n', ' ').split('\n')]
    parts = [part for line in lines + quoted_in(page) for part in re.split(r'&&|\|', line)]
    found = [re.match(rf'\s*(?:\w+=\S+ )*{program}(?: (.*))?$', part) for part in parts]
    return [shlex.split(match[1] or '', comments=True) for match in found if match]


# --- links --------------------------------------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    """Anchors of a page's headings, formed as on GitHub."""
    headings = re.findall(r'^#+ (.*)$', without_blocks(page), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', without_blocks(page)):
        if re.match(r'[a-z]+:', target):
            assert target.startswith('https://'), target
            continue
        name, _, anchor = target.partition('#')
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert path.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors_of(path), target


def test_every_page_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / 'README.md']
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != '.md' or not page.is_file():
            continue
        seen.add(page)
        targets = re.findall(r'\]\(([^)\s#]+)', page.read_text())
        found = [(page.parent / target).resolve() for target in targets if ':' not in target]
        waiting += [
            one for path in found for one in (path.glob('*.md') if path.is_dir() else [path])
        ]
    assert {place_of(page) for page in PAGES} == {place_of(page) for page in seen}


@every_page
def test_files_that_are_named_exist(page):
    for quote in quoted_in(page):
        if not re.fullmatch(rf'[\w./-]+\.({"|".join(CODE_FILES)})|[\w./-]+/', quote):
            continue
        if '/' not in quote or quote.startswith(MADE_BY_COMMANDS) or quote.startswith('.venv'):
            continue
        if quote.split('/')[0] in FOLDERS:
            assert (ROOT / quote).exists() or (PACKAGE / quote).exists(), quote


# --- commands -----------------------------------------------------------------------------------


@every_page
def test_make_targets_exist(page):
    targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    for words in commands_in(page, 'make'):
        for word in words:
            assert '=' in word or word in targets, words


@every_page
def test_dan_ros_commands_and_options_exist(page):
    for words in commands_in(page, 'dan-ros'):
        if not words or words[0].startswith('-'):
            continue
        assert words[0] in SUBCOMMANDS, words
        command = cli.get_command(click.Context(cli), words[0])
        if isinstance(command, click.Group) and len(words) > 1 and not words[1].startswith('-'):
            assert words[1] in command.commands, words
            command = command.commands[words[1]]
        options = {option for parameter in command.params for option in parameter.opts}
        for word in words[1:]:
            if word.startswith('-') and word != '--help':
                assert word.split('=')[0] in options, words


@every_page
def test_programs_and_launch_arguments_exist(page):
    for words in commands_in(page, 'ros2 run dan_ros'):
        assert (ROOT / 'scripts' / words[0]).is_file(), words
    for words in commands_in(page, 'ros2 launch dan_ros'):
        file = ROOT / 'launch' / words[0]
        sources = file.read_text() + (ROOT / 'launch' / 'dan.launch.py').read_text()
        for name in [word.partition(':=')[0] for word in words[1:] if ':=' in word]:
            assert f"'{name}'" in sources, words


@pytest.mark.parametrize('page', pages.WITH_COMMANDS, ids=place_of)
def test_a_command_runs_or_says_why_not(page):
    """test/slow/test_page_commands.py runs the commands."""
    for block in pages.blocks_of(page):
        assert block.language or block.reason, block.text
        assert not (block.reason and block.language), block.text


@pytest.mark.parametrize('page', pages.WITH_COMMANDS, ids=place_of)
def test_a_command_that_asks_a_node_runs_after_the_node_was_started(page):
    is_started = False
    for block in pages.blocks_of(page):
        if block.language == 'bash' and re.search(r'\bros2 (topic|param|service|node)', block.text):
            assert is_started, block.text
        is_started = is_started or block.is_background


@every_page
def test_scripts_and_their_options_exist(page):
    for words in commands_in(page, 'python3'):
        if words and re.match(r'\w+/', words[0]):
            source = (ROOT / words[0]).read_text()
            assert all(f"'{word}'" in source for word in words if word.startswith('-')), words


# --- the site -----------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation_of_the_site():
    """`make site` refuses pages outside the navigation; tools/site_hooks.py adds the decisions."""
    navigation = (ROOT / 'mkdocs.yml').read_text()
    for page in ROOT.glob('docs/**/*.md'):
        name = page.relative_to(ROOT / 'docs').as_posix()
        assert name.startswith('adr/') or f': {name}\n' in navigation, name


# --- parameters and topics ----------------------------------------------------------------------

PARAMETERS = yaml.safe_load((ROOT / 'config' / 'dan.yaml').read_text())['/**']['ros__parameters']
OTHER_PARAMETERS = {'use_sim_time', 'source'}  # of ROS, and of sample_camera
GROUPS = sorted({name.partition('.')[0] for name in PARAMETERS if '.' in name})


@every_page
def test_parameters_exist(page):
    text = page.read_text()
    named = set(re.findall(rf'`((?:{"|".join(GROUPS)})\.[a-z_]+)(?:: [^`]*)?`', text))
    named |= {
        words[words.index('/dan_node') + 1]
        for words in commands_in(page, 'ros2 param')
        if '/dan_node' in words[:-1] and 'NAME' not in words and words[0] not in ('dump', 'load')
    }
    named |= set(re.findall(r'-p "?([a-z_.]+):=', text))
    assert named <= {*PARAMETERS, *OTHER_PARAMETERS}, named - {*PARAMETERS}


def test_the_page_of_topics_has_those_of_the_policy():
    """test_node_security.py compares the policy with the running node."""
    policy = ElementTree.parse(ROOT / 'config' / 'sros2' / 'dan_node.policy.xml').getroot()
    allowed = {
        entry.text.replace('*', '<id>')
        for kind in ('topic', 'service')
        for entry in policy.iter(kind)
    }
    text = (ROOT / 'docs' / 'topics.md').read_text()
    rows = re.findall(
        r'^\| (`[^|]+) \|', text.partition('The values of `/diagnostics`')[0], re.MULTILINE
    )
    rows += re.findall(r'^\| (`~[^|]+) \|', text, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r'`([^`]+)`', row)} == allowed


def test_the_page_of_topics_has_every_cause_of_a_drop():
    text = (ROOT / 'docs' / 'topics.md').read_text()
    causes = set()
    for file in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ('FrameError', '.count_dropped')
            ):
                causes |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant)}
    assert {'bad_step', 'superseded', 'lost'} <= causes
    assert causes <= set(CAUSES)
    for name in {*CAUSES, *quality.REASONS}:
        assert f'`{name}`' in text, name


def test_the_page_of_topics_has_every_key_of_the_diagnostics():
    text = (ROOT / 'docs' / 'topics.md').read_text()
    keys = {
        key.value
        for name in ('ros/status.py', 'backends/kserve/backend.py')
        for node in ast.walk(ast.parse((PACKAGE / name).read_text()))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert {'fps', 'backend_why', 'server_calls'} <= keys
    assert [key for key in keys if f'`{key}`' not in text] == []


# Constant parts of the node's messages.
MESSAGES = (
    'waiting for images on',
    'has an incompatible QoS, so no messages arrive',
    'the middleware loses images on their way',
    'paused, see ~/set_enabled',
    'no CUDA device',
    'is damaged or another version',
    'images dropped: ',
    'the local model classifies the faces',
    'did not answer within',
    'unknown parameter',
    'it must be',
)


@pytest.mark.parametrize('text', MESSAGES)
def test_messages_in_troubleshooting_exist(text):
    sources = ''.join(file.read_text() for file in PACKAGE.rglob('*.py'))
    assert text in (ROOT / 'docs' / 'troubleshooting.md').read_text()
    assert text in sources


# --- facts that stand in two places --------------------------------------------------------------


def test_the_map_of_the_code_has_every_folder():
    named = re.findall(r'^(\w+)/ ', (ROOT / 'CONTRIBUTING.md').read_text(), re.MULTILINE)
    assert sorted(named) == sorted({path.parent.name for path in PACKAGE.glob('*/*.py')})


def test_the_code_that_contributing_quotes_is_that_of_the_package():
    sources = ''.join(file.read_text() for file in PACKAGE.rglob('*.py'))
    blocks = blocks_of(ROOT / 'CONTRIBUTING.md', '')
    quotes = [block for block in blocks if re.match(r'\s*(class |Spec\()', block)]
    assert len(quotes) == 2
    assert all(line.strip() in sources for quote in quotes for line in quote.splitlines())
    (field,) = [block for block in blocks if block.lstrip().startswith('distance=')]
    names = {n.id for n in ast.walk(ast.parse(f'dict({field})')) if isinstance(n, ast.Name)}
    parameters = inspect.signature(MessageClasses._face).parameters
    assert names <= {'dict', 'float', 'np', *parameters}


def test_the_readme_quotes_the_page_of_accuracy():
    accuracy = (ROOT / 'docs' / 'accuracy.md').read_text()
    rows = re.findall(
        r'^\| (?:\*\*dan_ros|\[face-api).*', (ROOT / 'README.md').read_text(), re.MULTILINE
    )
    numbers = [number for row in rows for number in re.findall(r'\d+\.\d', row)]
    assert len(numbers) > 6
    assert [number for number in numbers if number not in accuracy] == []


def test_the_quality_declaration_has_every_ros_package():
    text = (ROOT / 'QUALITY_DECLARATION.md').read_text()
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    needed = [entry.text for kind in ('depend', 'exec_depend') for entry in package.iter(kind)]
    assert [n for n in needed if f'`{n}`' not in text and not n.startswith('python3-')] == []


# --- examples -----------------------------------------------------------------------------------

WITH_EXAMPLES = [page for page in PAGES if blocks_of(page, 'python')]


def test_there_are_examples():
    assert {'README.md', 'CONTRIBUTING.md'} <= {page.name for page in WITH_EXAMPLES}


PATH_OF_BLOCK = re.compile(r'# (dan_ros|test)/(.+)/(\w+)\.py\n')


@pytest.fixture
def registries():
    """Undo what examples register."""
    tables = backend_registry.REGISTRY, detector_registry.REGISTRY
    saved = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, saved, strict=True):
        table.clear()
        table.update(content)


def import_block(block: str, package: str, name: str, folder: Path, monkeypatch) -> None:
    """Import a block as a new module of a package, for example `dan_ros.detect.lbp`."""
    (folder / f'{name}.py').write_text(block)
    parent = importlib.import_module(package)
    monkeypatch.setattr(parent, '__path__', [*parent.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, f'{package}.{name}', raising=False)
    importlib.import_module(f'{package}.{name}')


def run_block(block: str, page: Path, names: dict, folder: Path, request) -> None:
    """Run a block of a page.

    A first line such as `# dan_ros/detect/lbp.py` names the file that it belongs to: it is added to
    an existing module, or imported as a new one. Functions of a test file are called.
    """
    place = PATH_OF_BLOCK.match(block)
    code = compile(block, place_of(page), 'exec')
    if not place:
        exec(code, names)
    elif place[1] == 'test':
        tests = {'__name__': place[3]}
        exec(code, tests)
        for function in [value for name, value in tests.items() if name.startswith('test_')]:
            arguments = inspect.signature(function).parameters
            function(**{name: request.getfixturevalue(name) for name in arguments})
    else:
        package = f'dan_ros.{place[2].replace("/", ".")}'
        if (PACKAGE / place[2] / f'{place[3]}.py').exists():
            exec(code, vars(importlib.import_module(f'{package}.{place[3]}')))
        else:
            monkeypatch = request.getfixturevalue('monkeypatch')
            import_block(block, package, place[3], folder, monkeypatch)


@pytest.mark.parametrize('page', WITH_EXAMPLES, ids=place_of)
def test_examples_run(page, portrait, tmp_path, monkeypatch, registries, request):
    """Run the examples of a page in order, beside a photo."""
    cv2.imwrite(str(tmp_path / 'photo.jpg'), portrait)
    monkeypatch.chdir(tmp_path)
    names = {'__name__': 'example'}
    for block in blocks_of(page, 'python'):
        run_block(block, page, names, tmp_path, request)
