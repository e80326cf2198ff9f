"""The contract file: what is written is read, and what is wrong is named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bisenet_ros.core import contract
from bisenet_ros.core.contract import (
    ModelContract, contract_path, file_sha256, palette, read_class_list, read_contract,
)
from bisenet_ros.core.errors import ModelError
from bisenet_ros.core.segmenter import SHIPPED_MODEL

ROAD = ModelContract(
    input_hw=(256, 512), channels='bgr', input_scale=(0.5, 0.25, 1.0),
    input_mean=(1.0, -2.0, 127.5), output_kind='probabilities', output_stride=8,
    class_names=('background', 'road'), class_colors_rgb=((0, 0, 0), (128, 64, 255)),
    sha256='ab', edgetpu_sha256='cd', provenance={'commit': 'e', 'scores': [0.9]})


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / 'm.json'
    path.write_text(text, encoding='utf-8')
    return path


def changed(*keys: str | int, value: Any) -> str:
    """Return ROAD's text with one field set to something else."""
    raw = json.loads(ROAD.to_json())
    place = raw
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(raw)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_contract(written(tmp_path, ROAD.to_json())) == ROAD


def test_file_layout_is_the_documented_one() -> None:
    assert json.loads(ROAD.to_json()) == {
        'schema': 1,
        'input': {'height': 256, 'width': 512, 'channels': 'bgr',
                  'scale': [0.5, 0.25, 1.0], 'mean': [1.0, -2.0, 127.5]},
        'output': {'kind': 'probabilities', 'stride': 8},
        'classes': [{'name': 'background', 'color_rgb': [0, 0, 0]},
                    {'name': 'road', 'color_rgb': [128, 64, 255]}],
        'unlabeled': 255,
        'sha256': 'ab', 'edgetpu_sha256': 'cd',
        'provenance': {'commit': 'e', 'scores': [0.9]},
    }


def test_hash_of_the_compiled_model_and_provenance_may_be_left_out(tmp_path: Path) -> None:
    raw = json.loads(ROAD.to_json())
    del raw['edgetpu_sha256'], raw['provenance']
    read = read_contract(written(tmp_path, json.dumps(raw)))
    assert read == dataclasses.replace(ROAD, edgetpu_sha256='', provenance={})


def test_shipped_contract_is_the_shipped_models() -> None:
    shipped = read_contract(contract_path(SHIPPED_MODEL))
    assert shipped.sha256 == hashlib.sha256(SHIPPED_MODEL.read_bytes()).hexdigest()
    assert shipped.class_names == ('background', 'road')
    assert (shipped.input_hw, shipped.output_kind, shipped.output_stride) == (
        (256, 512), 'logits', 8)
    assert {'command', 'commit', 'datasets', 'road_iou'} <= set(shipped.provenance)


@pytest.mark.parametrize(('keys', 'name'), [
    (('input',), 'input'), (('output',), 'output'), (('classes',), 'classes'),
    (('unlabeled',), 'unlabeled'), (('sha256',), 'sha256'),
    (('input', 'height'), 'height'), (('input', 'width'), 'width'),
    (('input', 'channels'), 'channels'), (('input', 'scale'), 'scale'),
    (('input', 'mean'), 'mean'), (('output', 'kind'), 'kind'), (('output', 'stride'), 'stride'),
    (('classes', 1, 'name'), 'name'), (('classes', 0, 'color_rgb'), 'color_rgb'),
])
def test_missing_field_is_named(
    tmp_path: Path, keys: tuple[str | int, ...], name: str,
) -> None:
    raw = json.loads(ROAD.to_json())
    place = raw
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    with pytest.raises(
            ModelError,
            match=rf"m\.json: field '{name}' is missing; export .* training\.quantize"):
        read_contract(written(tmp_path, json.dumps(raw)))


@pytest.mark.parametrize(('text', 'said'), [
    (changed('schema', value=2), r'schema is 2, this version reads 1; export'),
    (changed('schema', value='1'), r"schema is '1', this version reads 1; export"),
    ('{}', r'schema is None, this version reads 1; export'),
    ('[1, 2]', r"schema is 'list', this version reads 1; export"),
    ('', r'not a JSON file \(.*\); export the model again'),
    (ROAD.to_json()[:-40], r'not a JSON file \(.*\); export the model again'),
    (changed('unlabeled', value=0), r'unlabeled: found 0, expected 255'),
    (changed('input', value=3), r'not laid out as a contract \(.*\); export'),
    (changed('classes', value=5), r'not laid out as a contract \(.*\); export'),
    (changed('classes', value=['road', 'sky']), r'not laid out as a contract \(.*\); export'),
    (changed('input', 'height', value='256'), r"height: found '256', expected a whole number"),
    (changed('input', 'width', value=0.5), r'width: found 0\.5, expected a whole number'),
    (changed('input', 'width', value=0), r'found input \(256, 0\) .* expected positive'),
    (changed('output', 'stride', value=0), r'output stride 0, expected positive'),
    (changed('output', 'stride', value=True), r'stride: found True, expected a whole number'),
    (changed('input', 'channels', value='yuv'), r"channels: found 'yuv', expected 'rgb' or 'bgr'"),
    (changed('input', 'scale', value=[1, 2]), r'scale: found \[1, 2\], expected three numbers'),
    (changed('input', 'scale', value=[1, 0, 1]), r'input scale: found .*, expected above 0'),
    (changed('input', 'scale', value=[1, float('nan'), 1]), r'scale: found .* three numbers'),
    (changed('input', 'mean', value=7), r'mean: found 7, expected three numbers'),
    (changed('input', 'mean', value=[0, 0, 'x']), r'mean: found .*, expected three numbers'),
    (changed('output', 'kind', value='scores'),
     r"output kind: found 'scores', expected one of \('logits', 'probabilities', 'labels'\)"),
    (changed('classes', value=[]), r'class names: found 0, expected 2 to 255'),
    (changed('classes', 0, 'name', value='road'), r'found a name twice'),
    (changed('classes', 0, 'color_rgb', value=[0, 0]),
     r'color_rgb: found \[0, 0\], expected three whole numbers'),
    (changed('classes', 0, 'color_rgb', value=[0, 0, 256]), r'a value outside 0\.\.255'),
    (changed('classes', 0, 'color_rgb', value=[0, 0, -1]), r'a value outside 0\.\.255'),
])
def test_what_is_wrong_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ModelError, match=rf'm\.json: .*{said}') as caught:
        read_contract(written(tmp_path, text))
    assert '\n' not in str(caught.value)


def test_missing_file_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'none\.json: cannot be read: No such file'):
        read_contract(tmp_path / 'none.json')
    (tmp_path / 'm.json').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ModelError, match=r'm\.json: not a JSON file'):
        read_contract(tmp_path / 'm.json')


def test_number_of_classes_is_limited_by_the_unlabeled_id() -> None:
    def of(count: int) -> ModelContract:
        return dataclasses.replace(
            ROAD, class_names=tuple(map(str, range(count))), class_colors_rgb=palette(count))

    assert len(of(255).class_names) == 255
    for count in (1, 256):
        with pytest.raises(ModelError, match=rf'class names: found {count}, expected 2 to 255'):
            of(count)
    with pytest.raises(ModelError, match=r'class colours: found 3 for 2 classes; expected one'):
        dataclasses.replace(ROAD, class_colors_rgb=palette(3))


@pytest.mark.parametrize(('model', 'beside'), [
    ('a/road.tflite', 'a/road.json'),
    ('a/road_edgetpu.tflite', 'a/road.json'),
    ('v1.2.tflite', 'v1.2.json'),
])
def test_contract_lies_beside_the_model(model: str, beside: str) -> None:
    assert contract_path(Path(model)) == Path(beside)


def test_file_hash(tmp_path: Path) -> None:
    path = tmp_path / 'x'
    path.write_bytes(b'abc')
    assert file_sha256(path) == (
        'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')  # FIPS 180-2, B.1
    with pytest.raises(ModelError, match=r'y: cannot be read: No such file'):
        file_sha256(tmp_path / 'y')


# -- class lists ---------------------------------------------------------------------------------


def test_class_list_with_names_colours_and_comments(tmp_path: Path) -> None:
    path = tmp_path / 'names.txt'
    path.write_text(
        '\ufeff# id order\nroad 128 64 128\n\n  traffic light  250 170 30 \nsky\nzone 30\n1 2 3\n',
        encoding='utf-8')
    names, colors = read_class_list(path)
    assert names == ('road', 'traffic light', 'sky', 'zone 30', '1 2 3')
    assert colors == ((128, 64, 128), (250, 170, 30), *palette(5)[2:])


@pytest.mark.parametrize(('data', 'said'), [
    (None, r'not a readable class list: .*No such file'),
    (b'\xff\xfe', r'not a readable class list: '),
    (b'', r'names no class; expected 2 to 255, one a line'),
    (b'# road\n\n', r'names no class; expected 2 to 255, one a line'),
    (b'road\n', r'names 1 class; expected 2 to 255, one a line'),
])
def test_unusable_class_list(tmp_path: Path, data: bytes | None, said: str) -> None:
    path = tmp_path / 'names.txt'
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ModelError, match=rf'{re.escape(str(path))}: {said}'):
        read_class_list(path)


@pytest.mark.parametrize(('line', 'said'), [
    ('wall 300 0 0', 'found the colour 300 0 0, expected three numbers of 0 to 255'),
    ('road', "found the class 'road' a second time, expected each name once")])
def test_the_line_of_a_class_list_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / 'names.txt'
    path.write_text(f'# ids\nroad\n{line}\n')
    with pytest.raises(ModelError, match=rf'names\.txt, line 3: {said}'):
        read_class_list(path)


def test_digits_that_int_does_not_know_are_part_of_the_name(tmp_path: Path) -> None:
    path = tmp_path / 'names.txt'
    path.write_text('area m² ² ² ²\nrest\n', encoding='utf-8')
    assert read_class_list(path)[0] == ('area m² ² ² ²', 'rest')


def test_default_colours_are_the_voc_map() -> None:
    assert palette(5) == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert palette(9)[8] == (64, 0, 0)
    assert len(set(palette(255))) == 255


def test_unlabeled_is_the_largest_byte() -> None:
    assert contract.UNLABELED == 255
