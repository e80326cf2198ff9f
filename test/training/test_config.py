"""Configurations say what is wrong with them, and what the command line changes in them."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from tiny_training import SOURCE, TINY, tiny_config  # noqa: E402

from training import rebuild  # noqa: E402
from training.augment import EFFECTS, WEATHER, Augmentation  # noqa: E402
from training.config import Config, ConfigError, Phase, load_config, parse_weighted  # noqa: E402
from training.train import overridden, parser  # noqa: E402

pytestmark = pytest.mark.training

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(('changes', 'message'), [
    ({'merge': (0, 1)}, r'merge: found \(0, 1\), expected one deployed class id below 2'),
    ({'merge': (0, 1, 2, 0)}, r'merge: found \(0, 1, 2, 0\), expected one deployed class id'),
    ({'classes': ('a', 'road', 'b'), 'merge': (0, 1, 2, 0)},
     'num_classes is 2, but classes names 3'),
    ({'mark': 'sky'}, "mark: found 'sky', expected one of"),
    ({'phases': ()}, 'phases, train and validate must each name at least one'),
    ({'validate': ()}, 'phases, train and validate must each name at least one'),
    ({'taxonomy': 'camvid12'}, "taxonomy: found 'camvid12', expected road, camvid11"),
    ({'taxonomy': 'camvid11'}, r'merge: found \(0, 1, 0, 0\), expected .* for each of .*\'sky\''),
    ({'merge': ()}, r"merge: found none, with classes \('background', 'road'\) and a taxonomy of "
     r"\('background', 'road', 'ground', 'movable'\), expected the same names in both"),
    ({'classes': ('road', 'road')}, r"classes: found \('road', 'road'\), expected each name once"),
    ({'class_weights': 'rare'}, "class_weights: found 'rare', expected none, inverse_log or"),
    ({'class_weights': (1.0,)}, r'class_weights: found \(1.0,\), expected a number of at least 0'),
    ({'class_weights': (0.0, 0.0)}, 'not all of them 0'),
    ({'sequence_balance': 1.5}, 'sequence_balance: found 1.5, expected 0 to 1'),
    ({'ema_decay': 1.0}, 'ema_decay: found 1.0, expected at least 0.0 and below 1.0'),
    ({'accumulate': 0}, 'accumulate: found 0, expected at least 1'),
    ({'patience': -1}, 'patience: found -1, expected at least 0'),
    ({'on_bad': 'ignore'}, "on_bad: found 'ignore', expected stop or skip"),
    ({'architecture': dataclasses.replace(TINY, booster_classes=3)},
     r'architecture\.booster_classes: found 3, expected 0, or one for each of'),
    ({'architecture': dataclasses.replace(TINY, output_stride=3)},
     r'architecture\.output_stride: found 3, expected 8, 4, 2 or 1'),
    ({'phases': (Phase((33, 70), 1),)},
     'phases: input_hw: found 33x70, expected a height and a width that are multiples of 32'),
    ({'phases': (Phase((32, 32), 1), Phase((32, 64), 0))},
     'phases: found 0 epochs at 32x64, expected at least 1; leave out'),
    ({'batch_size': 0}, 'batch_size: found 0, expected at least 1'),
    ({'loss_stride': 3}, r'loss_stride: found 3, expected one of \(1, 2, 4, 8\)'),
    ({'learning_rate': -1.0}, 'learning_rate: found -1.0, expected at least 0'),
    ({'learning_rate': float('nan')}, 'learning_rate: found nan, expected at least 0'),
    ({'booster_weight': -1.0}, 'booster_weight: found -1.0, expected at least 0'),
    ({'train': (('synthetic:8', 1.0), ('synthetic:4', 0.0))},
     "train: found the weight 0.0 of 'synthetic:4', expected a number above 0; leave out"),
    ({'train': (('synthetic:8', -1.0),)}, "train: found the weight -1.0 of 'synthetic:8'"),
    ({'precision': 'float17'}, "precision: found 'float17', expected float32 or mixed_bfloat16"),
    ({'merge': (0, 0, 0, 0)}, r'merge: found \(0, 0, 0, 0\), of which none becomes road, exp'),
    ({'images_per_epoch': 8.0}, '^images_per_epoch: found 8.0, expected int'),
    ({'accumulate': 1.5}, '^accumulate: found 1.5, expected int'),
    ({'pictures': True}, '^pictures: found True, expected int'),
    ({'learning_rate': '0.1'}, "^learning_rate: found '0.1', expected float"),
    ({'phases': (Phase((64.0, 128), 1),)},  # type: ignore[arg-type]
     r'^phases\[0\]\.input_hw: found \(64\.0, 128\), expected tuple\[int, int\]'),
    ({'phases': ((32, 32), 1)}, r'^phases: found \(\(32, 32\), 1\), expected tuple\[Phase, ...'),
    ({'freeze': 'stem'},
     r"^freeze: found 'stem', expected tuple\[str, ...\]; one alone is written \('stem',\)"),
    ({'train': 'camvid:train'}, "^train: found 'camvid:train', expected tuple"),
    ({'train': ('camvid:train', 1.0)}, r"^train: found \('camvid:train', 1.0\), expected tuple"),
    ({'augmentation': Augmentation(blur='much')},  # type: ignore[arg-type]
     "^augmentation.blur: found 'much', expected float"),
    ({'architecture': dataclasses.replace(TINY, detail_widths=(4, 0, 8))},
     r'^architecture\.detail_widths: found \(4, 0, 8\), expected at least 1 each'),
    ({'architecture': dataclasses.replace(TINY, detail_widths=(4, 8))},
     r'^architecture\.detail_widths: found \(4, 8\), expected tuple\[int, int, int\]'),
    ({'images_per_epoch': 3}, r'images_per_epoch: found 3, expected at least a batch \(4\)'),
])
def test_configurations_that_cannot_train_are_refused(
    changes: dict[str, Any], message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(tiny_config(), **changes)


def test_configuration_files_that_hold_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'absent\.py: no such configuration file'):
        load_config(tmp_path / 'absent.py')
    (tmp_path / 'empty.py').write_text('CONFIG = 3\n')
    with pytest.raises(ConfigError, match=r'empty\.py: found CONFIG of type int, expected'):
        load_config(tmp_path / 'empty.py')


@pytest.mark.parametrize(('source', 'message'), [
    ('CONFIG = (', r"broken\.py: found SyntaxError: '\(' was never closed .*line 1.*; expected"),
    ('\nimport nothere\n',
     r"broken\.py, line 2: found ModuleNotFoundError: No module named 'nothere'; expected"),
    ('from training.model import PRESETS\nPRESETS["raod"]\n',
     r"broken\.py, line 2: found KeyError: 'raod'; expected Python that sets CONFIG; see train"),
    ('raise ValueError("one\\ntwo")', r'line 1: found ValueError: one; expected'),
    ('from training.config import Config\nCONFIG = Config(archtecture=3)\n',
     r"line 2: found TypeError: .* unexpected keyword argument 'archtecture'; expected"),
])
def test_configuration_files_that_cannot_be_run_are_refused(
    tmp_path: Path, source: str, message: str,
) -> None:
    path = tmp_path / 'broken.py'
    path.write_text(source)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert '\n' not in str(caught.value)


def test_a_setting_that_a_file_gets_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'tiny.py'
    path.write_text(SOURCE.replace('batch_size=4', 'batch_size=0'))
    with pytest.raises(ConfigError, match='^batch_size: found 0, expected at least 1'):
        load_config(path)


@pytest.mark.parametrize('path', sorted(
    path for path in (ROOT / 'training' / 'configs').glob('*.py')
    if (ROOT / 'docs' / 'figures' / f'{path.stem}_history.csv').is_file()),
    ids=lambda path: path.stem)
def test_notes_name_the_epoch_that_the_history_would_choose(path: Path) -> None:
    config = load_config(path)
    with (ROOT / 'docs' / 'figures' / f'{path.stem}_history.csv').open(newline='') as file:
        rows = [row for row in csv.DictReader(file)
                if row['input_hw'] == '{}x{}'.format(*config.input_hw)]
    best = max(rows, key=lambda row: sum(float(row[f'iou {spec}']) for spec in config.validate))
    note = ' '.join(path.read_text().split('"""')[1].split())
    assert f'epoch {best["epoch"]}' in note
    for spec in config.validate:
        assert f'{float(best[f"iou {spec}"]):.3f} on {spec}' in note


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'training' / 'configs').glob('*.py')), ids=lambda path: path.stem)
def test_configurations_in_the_repository_load(path: Path) -> None:
    config = load_config(path)
    assert config.input_hw == config.phases[-1].input_hw
    assert config.phase_of(0).input_hw == config.phases[0].input_hw
    assert config.phase_of(config.epochs - 1) == config.phases[-1]
    told = path.read_text().split('"""')[1]
    # A shipped run that starts from another one is made by the command that trains both.
    assert (f'training.rebuild {path.stem} ' if path.stem in rebuild.shipped()
            else f'training/configs/{path.name}') in told
    if config.init.startswith('runs/'):
        assert 'training.rebuild ' in told


def test_shipped_configuration_deploys_road() -> None:
    config = load_config(ROOT / 'training' / 'configs' / 'road_256x512.py')
    assert isinstance(config, Config)
    assert config.input_hw == (256, 512)
    assert config.classes[config.merge[1]] == 'road'


def test_an_empty_merge_goes_by_names_not_by_places(tmp_path: Path) -> None:
    (tmp_path / 'mine.json').write_text('["road", "rest", "background"]')
    config = tiny_config(
        taxonomy=str(tmp_path / 'mine.json'), classes=('background', 'road', 'rest'), merge=(),
        architecture=dataclasses.replace(TINY, num_classes=3, booster_classes=0))
    assert [config.classes[target] for target in config.merge] == ['road', 'rest', 'background']


def test_empty_merge_keeps_every_class() -> None:
    config = tiny_config(
        merge=(), classes=('background', 'road', 'ground', 'movable'),
        architecture=dataclasses.replace(TINY, num_classes=4, booster_classes=0))
    assert config.merge == (0, 1, 2, 3)
    assert not config.boosters_are_finer
    assert tiny_config().boosters_are_finer


def test_taxonomy_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'indoor.json'
    path.write_text(json.dumps(['floor', 'wall', 'thing']))
    config = tiny_config().with_taxonomy(str(path))
    assert config.classes == config.training_classes == ('floor', 'wall', 'thing')
    assert config.architecture.num_classes == 3 and config.mark == 'mean'


def test_another_taxonomy_takes_all_its_classes() -> None:
    config = tiny_config(class_weights='inverse_log').with_taxonomy('camvid11')
    assert len(config.classes) == config.architecture.num_classes == 11
    assert config.merge == tuple(range(11)) and config.architecture.booster_classes == 0
    assert config.mark == 'mean' and config.class_weights == 'inverse_log'
    assert config.with_taxonomy('camvid11') is config
    with pytest.raises(ConfigError, match="taxonomy: found 'camvid12', expected road, camvid11"):
        config.with_taxonomy('camvid12')


def test_weights_of_other_classes_are_not_dropped_silently() -> None:
    config = tiny_config(class_weights=(1.0, 2.0))
    with pytest.raises(ConfigError, match=r'class_weights: found \(1.0, 2.0\), one for each of'):
        config.with_taxonomy('camvid11')


def test_lists_serve_as_tuples() -> None:
    config = tiny_config(
        train=[['synthetic:8', 1]], classes=['background', 'road'], freeze=['stem'])
    assert config == tiny_config(train=(('synthetic:8', 1),), freeze=('stem',))
    assert isinstance(config.classes, tuple)


def test_the_same_taxonomy_is_unmerged_and_chosen_by_the_mean() -> None:
    """`--taxonomy road` on a configuration that merges road's classes into two."""
    config = tiny_config()
    assert config.taxonomy == 'road' and len(config.classes) == 2
    config = config.with_taxonomy('road')
    assert config.classes == config.training_classes and len(config.classes) == 4
    assert config.merge == (0, 1, 2, 3) and config.mark == 'mean'
    assert config.architecture.num_classes == 4
    # Unmerged already, but chosen by one class: only that changes.
    weighted = dataclasses.replace(config, mark='road', class_weights=(1.0, 2.0, 3.0, 4.0))
    assert weighted.with_taxonomy('road') == dataclasses.replace(weighted, mark='mean')


@pytest.mark.parametrize(('epochs', 'wanted'), [
    (51, [36, 15]), (17, [12, 5]), (2, [1, 1]), (3, [2, 1]), (102, [72, 30])])
def test_phases_are_scaled_in_proportion(epochs: int, wanted: list[int]) -> None:
    config = tiny_config(phases=(Phase((32, 32), 36), Phase((32, 64), 15))).with_epochs(epochs)
    assert [phase.epochs for phase in config.phases] == wanted
    assert [phase.input_hw for phase in config.phases] == [(32, 32), (32, 64)]


def test_every_phase_keeps_an_epoch() -> None:
    phases = (Phase((32, 32), 1), Phase((32, 64), 98), Phase((64, 64), 1))
    config = tiny_config(phases=phases)
    for epochs in range(3, 30):
        scaled = config.with_epochs(epochs)
        assert scaled.epochs == epochs and min(phase.epochs for phase in scaled.phases) >= 1
    with pytest.raises(ConfigError, match='epochs: found 2, expected at least one for each of'):
        config.with_epochs(2)


def test_weights_of_data_sets() -> None:
    assert parse_weighted([
        'camvid:train', 'camvid:train=0.25', 'ids:a=b,every=2', 'ids:a,every=2=3', 'ids:c,d',
    ]) == (('camvid:train', 1.0), ('camvid:train', 0.25), ('ids:a=b,every=2', 1.0),
           ('ids:a,every=2', 3.0), ('ids:c,d', 1.0))


@pytest.mark.parametrize('text', ['camvid:train=0', 'camvid:train=-1', 'camvid:train=',
                                  'camvid:train=much', 'camvid:train=inf', 'camvid:train=nan'])
def test_weights_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r'--dataset: found the weight .* expected a number abo'):
        parse_weighted([text])


def test_command_line_overrides_the_configuration() -> None:
    args = parser().parse_args([
        '--config', 'any.py', '--dataset', 'synthetic:5=2', 'synthetic:6', '--validate',
        'synthetic:2', '--init', 'runs/other', '--freeze', 'detail', '--on-bad', 'skip',
        '--epochs', '7'])
    config = overridden(tiny_config(), args)
    assert config.train == (('synthetic:5', 2.0), ('synthetic:6', 1.0))
    assert config.validate == ('synthetic:2',)
    assert (config.init, config.freeze, config.on_bad) == ('runs/other', ('detail',), 'skip')
    assert config.epochs == 7
    nothing = parser().parse_args(['--config', 'any.py'])
    assert overridden(tiny_config(), nothing) == tiny_config()


@pytest.mark.parametrize(('changes', 'message'), [
    ({'ohem_threshold': 0.0}, 'ohem_threshold: found 0.0, expected above 0 and at most 1'),
    ({'ohem_threshold': 1.5}, 'ohem_threshold: found 1.5, expected above 0 and at most 1'),
    ({'momentum': 1.0}, 'momentum: found 1.0, expected at least 0.0 and below 1.0'),
    ({'bn_momentum': 1.5}, 'bn_momentum: found 1.5, expected at least 0.0 and below 1.0'),
    ({'warmup_steps': -5}, 'warmup_steps: found -5, expected at least 0'),
    ({'poly_power': -0.5}, 'poly_power: found -0.5, expected at least 0.0 and finite'),
    ({'poly_power': float('inf')}, 'poly_power: found inf, expected at least 0.0 and finite'),
    ({'weight_decay': -1e-4}, 'weight_decay: found -0.0001, expected at least 0.0'),
    ({'learning_rate': float('inf')}, 'learning_rate: found inf, expected at least 0.0 and fin'),
    ({'seed': -1}, 'seed: found -1, expected at least 0'),
    ({'class_weights': (1.0, float('inf'))}, r'class_weights: found \(1.0, inf\), exp'),
    *(({name: float('nan')}, f'{name}: found nan, expected') for name in (
        'ohem_threshold', 'momentum', 'bn_momentum', 'poly_power', 'weight_decay', 'ema_decay',
        'jaccard_weight', 'booster_weight', 'sequence_balance')),
])
def test_settings_out_of_their_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(tiny_config(), **changes)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'scale': (0.0, 1.0)}, r'scale: found \(0.0, 1.0\), expected two numbers above 0, the low'),
    ({'scale': (2.0, 1.0)}, r'scale: found \(2.0, 1.0\)'),
    ({'scale': (1.0, float('nan'))}, r'scale: found \(1.0, nan\)'),
    ({'aspect': 0.9}, 'aspect: found 0.9, expected at least 1, finite'),
    ({'rotation_deg': float('nan')}, 'rotation_deg: found nan, expected 0 to 360'),
    ({'colour': -1.0}, 'colour: found -1.0, expected at least 0'),
    ({'perspective': 0.5}, 'perspective: found 0.5, expected 0 to 0.45'),
    *(({name: value}, rf'{name}: found {value}, expected 0 to 1\.')
      for name in (*EFFECTS, *WEATHER, 'tone', 'paste', 'hood', 'markings', 'obstacles')
      for value in (-0.1, 1.1, float('nan'))),
])
def test_augmentation_that_draws_no_view_is_refused(
    changes: dict[str, Any], message: str,
) -> None:
    with pytest.raises(ConfigError, match=rf'^augmentation\.{message}'):
        tiny_config(augmentation=Augmentation(**changes))


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'one.json').write_text('["road"]')
    with pytest.raises(ConfigError, match=(
            r"classes: found \('road',\), expected at least 2, .*; add 'background', to the tax")):
        tiny_config(taxonomy=str(tmp_path / 'one.json'), classes=('road',), merge=(),
                    architecture=dataclasses.replace(TINY, num_classes=1, booster_classes=0))
    with pytest.raises(ConfigError, match=r"classes: found \('road',\), expected at least 2"):
        tiny_config().with_taxonomy(str(tmp_path / 'one.json'))
