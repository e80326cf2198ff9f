"""The benchmark tool: what it times, how it sums up, and how it refuses."""

import json
import shutil

import pytest
from tflite_models import Toy

from bisenet_ros import benchmark
from bisenet_ros.core.engine import LiteRtEngine
from bisenet_ros.core.segmenter import SHIPPED_MODEL

SMALL = ['--count', '3', '--warm-up', '1', '--size', '64x48', '--threads', '1']


def test_summary_of_known_times():
    summary = benchmark.Summary.of([index * 1e-3 for index in range(1, 101)])

    assert summary.count == 100
    assert (summary.min, summary.max, summary.mean) == pytest.approx((1.0, 100.0, 50.5))
    assert (summary.p50, summary.p95, summary.p99) == pytest.approx((50.5, 95.05, 99.01))
    assert summary.fps == pytest.approx(1e3 / 50.5)
    assert benchmark.Summary.of([0.002]).stdev == 0.0


def test_models_are_compared_by_name_in_one_run(tmp_path, capsys):
    out = tmp_path / 'out.json'

    code = benchmark.main([*SMALL, '--compare', 'road_128x256', '--json', str(out)])

    assert code == 0
    figures = json.loads(out.read_text())
    large, small = 'road_256x512.tflite on cpu', 'road_128x256.tflite on cpu'
    assert set(figures['milliseconds']) == {large, small}
    for stages in figures['milliseconds'].values():
        assert set(stages) == {'invoke', 'frame', 'host part of frame'}
        assert all(one['count'] == 3 and 0 < one['min'] <= one['p50'] <= one['p99'] <= one['max']
                   for one in stages.values())
    medians = {name: stages['invoke']['p50']
               for name, stages in figures['milliseconds'].items()}
    assert figures['ratios_of_medians'][f'invoke: {large} / {small}'] == pytest.approx(
        medians[large] / medians[small])
    assert f'invoke: {large} / {small}' in capsys.readouterr().out


def test_models_with_the_same_file_name_are_told_apart(tmp_path):
    new = tmp_path / 'new' / SHIPPED_MODEL.name
    new.parent.mkdir()
    for suffix in ('.tflite', '.json'):
        shutil.copy(SHIPPED_MODEL.with_suffix(suffix), new.with_suffix(suffix))
    out = tmp_path / 'out.json'

    assert benchmark.main([*SMALL, '--compare', str(new), str(new), '--json', str(out)]) == 0

    figures = json.loads(out.read_text())
    names = {f'{SHIPPED_MODEL} on cpu', f'{new} on cpu', f'{new} (2) on cpu'}
    assert set(figures['milliseconds']) == set(figures['first_run_ms']) == names
    assert len(figures['ratios_of_medians']) == 2 * 3


def test_figures_are_not_written_over_a_models_contract(tmp_path, capsys):
    model = Toy().save(tmp_path)
    contract = model.with_suffix('.json')
    before = contract.read_bytes()

    assert benchmark.main([*SMALL, '--model', str(model), '--json', str(contract)]) == 1

    assert f'--json: found {str(contract)!r}, which is a file that' in capsys.readouterr().err
    assert contract.read_bytes() == before


def test_runs_of_several_models_alternate(monkeypatch):
    order = []
    run = LiteRtEngine.run
    monkeypatch.setattr(
        LiteRtEngine, 'run', lambda self, image: (order.append(self), run(self, image))[1])
    contestants = benchmark.open_contestants(
        [SHIPPED_MODEL, benchmark.model_path('road_128x256')], ['cpu'], 1)

    benchmark.measure(contestants, 2, 0, (64, 48))

    large, small = (contestant.engine for contestant in contestants)
    runs = [engine for index, engine in enumerate(order) if index % 2 == 0]  # bare, then a frame
    assert runs == [large, small, small, large]


def test_model_without_classes_is_timed_alone(tmp_path, capsys):
    bare = tmp_path / 'bare.tflite'
    shutil.copy(SHIPPED_MODEL, bare)

    assert benchmark.main([*SMALL, '--model', str(bare)]) == 0

    printed = capsys.readouterr()
    assert 'the network alone is timed' in printed.err
    assert 'invoke' in printed.out and 'host part' not in printed.out


def test_models_of_any_classes_are_timed(tmp_path, capsys):
    three = Toy(weights=((0, 0, 0), (1, 0, -1), (0, -1, 1)), bias=(3, -5, 0)).save(
        tmp_path, class_names=('background', 'gravel', 'grass'))

    assert benchmark.main([*SMALL, '--model', str(three)]) == 0

    assert 'host part of frame' in capsys.readouterr().out


@pytest.mark.parametrize(('words', 'said'), [
    (['--model', 'absent.tflite'], 'absent.tflite'),
    (['--device', 'tpu'], 'tpu'),
])
def test_what_cannot_be_timed_is_one_line(words, said, capsys):
    assert benchmark.main([*SMALL, *words]) == 1

    error = capsys.readouterr().err.strip()
    assert said in error and '\n' not in error


@pytest.mark.parametrize('words', [['--size', '64'], ['--size', '8x8'], ['--count', '0']])
def test_impossible_measurements_are_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main([*SMALL, *words])

    assert ended.value.code == 2
    assert 'expected' in capsys.readouterr().err


def test_figures_that_cannot_be_written_are_refused_before_anything_is_timed(
    tmp_path, monkeypatch, capsys,
):
    (tmp_path / 'file').touch()
    monkeypatch.setattr(benchmark, 'measure', lambda *_: pytest.fail('timed'))
    assert benchmark.main([*SMALL, '--json', str(tmp_path / 'file' / 'out.json')]) == 1
    told = capsys.readouterr().err.strip()
    assert 'out.json: cannot be written' in told and '\n' not in told


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, 'measure', interrupted)

    assert benchmark.main(SMALL) == 130
    assert capsys.readouterr().err == 'interrupted; nothing was written.\n'
