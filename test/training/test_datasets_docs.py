"""docs/datasets.md names every kind and key, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from training.datasets import TAXONOMIES
from training.datasets.opening import KINDS
from training.datasets.spec import parsed
from training.datasets.tables import PALETTES
from training.datasets.twins import NEAR_BITS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'datasets.md').read_text()
NAMED = sorted(set(re.findall(rf'(?<![\w/`])`?((?:{"|".join(KINDS)}):[^\s`\'"]+)', PAGE)))


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_has_its_row(kind: str) -> None:
    assert f'\n| `{KINDS[kind].usage}` |' in PAGE


def test_every_key_has_its_row() -> None:
    rows = re.findall(r'^\| ((?:`[a-z]+=[^`]*`(?:, )?)+) \|', PAGE, re.M)
    assert {key for row in rows for key in re.findall(r'`([a-z]+)=', row)} == {
        key for kind in KINDS.values() for key in kind.options}


@pytest.mark.parametrize('spec', NAMED)
def test_every_data_set_named_is_one_of_a_known_form(spec: str) -> None:
    spec = re.sub(r'\[.*\]$|=0\.\d$', '', spec)  # an optional part; a weight
    request = parsed(spec, None, TAXONOMIES['road'], 'stop')
    assert request.argument
    assert set(request.options) <= set(KINDS[request.kind].options)


def test_examples_are_found_at_all() -> None:
    assert len(NAMED) > 15


@pytest.mark.parametrize('name', [*TAXONOMIES, *PALETTES])
def test_taxonomies_and_palettes_are_named(name: str) -> None:
    assert f'`{name}`' in PAGE or f'={name}`' in PAGE


def test_class_lists_are_those_of_the_code() -> None:
    row = re.search(r'\| `camvid11` \| (.*) \|', PAGE)
    assert row is not None
    assert tuple(row.group(1).split(', ')) == TAXONOMIES['camvid11'].classes
    assert f'at most {NEAR_BITS} of 256 bits' in PAGE


def test_commands_name_modules_that_exist() -> None:
    named = set(re.findall(r'python -m (training\.\w+)', PAGE))
    assert 'training.datasets' in named
    for name in named:
        module = ROOT / name.replace('.', '/')
        assert module.with_suffix('.py').is_file() or (module / '__main__.py').is_file()


@pytest.mark.parametrize('text', re.findall(r'```json\n(.*?)\n```', PAGE, re.S))
def test_json_examples_are_json(text: str) -> None:
    assert isinstance(json.loads(text), dict)


def test_links_within_the_page_lead_somewhere() -> None:
    headings = {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
                for heading in re.findall(r'^#+ (.*)$', PAGE, re.M)}
    assert set(re.findall(r'\]\(#([^)]+)\)', PAGE)) <= headings
