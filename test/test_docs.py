"""The pages of ``docs`` and the README say what the code does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EDGETPU = (ROOT / 'docs' / 'edgetpu.md').read_text()


def shipped_text():
    """Return the code with strings that go on in the next line joined."""
    files = sorted([*(ROOT / 'bisenet_ros').rglob('*.py'), *(ROOT / 'training').rglob('*.py')])
    code = '\n'.join(path.read_text() for path in files)
    return re.sub(r"'\s*\n\s*f?'", '', code)


def message_rows():
    rows = re.findall(r'^\| (`.+?`) \|', EDGETPU.split('## What the messages mean')[1], re.M)
    return [part for row in rows for quoted in re.findall(r'`([^`]+)`', row)
            for part in quoted.split(' ... ')]


@pytest.mark.parametrize('phrase', message_rows())
def test_every_message_explained_is_one_that_the_code_says(phrase):
    assert phrase in shipped_text()


@pytest.mark.parametrize('module', ['engine', 'engines', 'golden', 'isolation', 'devices'])
def test_every_failure_of_a_device_is_found_in_the_page(module):
    code = (ROOT / 'bisenet_ros' / 'core' / f'{module}.py').read_text()
    code = re.sub(r"'\s*\n\s*f?'", '', code)
    phrases = message_rows()
    # What is not of a device: a damaged or foreign file, which the README's contract covers.
    other = ('device: found', 'cannot be read', 'not a TFLite model', 'inputs and',
             'dynamic shape', 'its input is', 'its output is', 'isolation: found',
             ': found {value}, expected', 'cannot be started')

    raised = re.findall(r"raise (?:Device|Model)Error\(\s*f?'([^\n]+)", code)
    unexplained = [text for text in raised
                   if not any(phrase in text for phrase in (*phrases, *other))
                   and not text.startswith('{')]

    assert not unexplained


@pytest.mark.parametrize('page', [
    'README.md', 'training/README.md', 'bisenet_ros/models/MODEL_CARD.md',
    *sorted(f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md'))])
def test_links_and_pictures_lead_to_files_that_exist(page):
    path = ROOT / page
    targets = re.findall(r'\]\(([^)#]+)\)', path.read_text())

    missing = [target for target in targets if not target.startswith('http')
               and not (path.parent / target).exists()]

    assert not missing


def test_commands_in_the_readme_name_modules_that_exist():
    named = set(re.findall(r'python3? -m ((?:bisenet_ros|training)\.\w+)',
                           (ROOT / 'README.md').read_text() + EDGETPU))

    assert named
    assert {name for name in named
            if not any((ROOT / f'{name.replace(".", "/")}{end}').is_file()
                       for end in ('.py', '/__main__.py'))} == set()
