"""
Benchmark scripts run, briefly, and their JSON has what docs/performance.md is made of.

Not here: ``frame_path.py`` (test/ros/test_node_costs.py), and what takes minutes or data whatever
is asked of it: ``cpu_inference.py``, ``pareto.py``, ``robustness.py``, ``soak.py``.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / 'benchmarks'

MACHINE = {'processor', 'cores', 'kernel', 'python', 'ros', 'versions'}

SYSTEMS = {'segmenter', 'plain', 'relay', 'invoke'}


@pytest.fixture
def run(tmp_path):
    """Give a function that runs a script and returns its JSON."""
    def run_script(name, *arguments, codes=(0,), timeout_s=120):
        pytest.importorskip('rclpy')
        target = tmp_path / f'{name}.json'
        environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
        environment.pop('ROS_DOMAIN_ID', None)  # the scripts find one of their own
        result = subprocess.run(
            [sys.executable, str(BENCHMARKS / f'{name}.py'), *arguments, '--json', str(target)],
            env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert result.returncode in codes, result.stdout + result.stderr
        return json.loads(target.read_text()), result.stdout
    return run_script


@pytest.fixture
def modules(monkeypatch):
    """Let the scripts' own modules be imported by their bare names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


#: A target may be missed on a machine that runs tests: exit code 1 is for that.
MET_OR_NOT = (0, 1)


def test_end_to_end_compares_four_systems_and_adds_rates(run):
    arguments = ('--size', '320x180', '--rounds', '1', '--window', '0.5', '--repeats', '0')

    run('end_to_end', '--rates', '20', *arguments, codes=MET_OR_NOT)
    found, table = run('end_to_end', '--rates', '30', *arguments, codes=MET_OR_NOT)

    assert set(found) == {'machine', 'size', 'threads', 'model', 'rates', 'verdicts'}
    assert set(found['machine']) == MACHINE
    assert list(found['rates']) == ['20', '30']
    for systems in found['rates'].values():
        assert set(systems) == SYSTEMS
        for name, figures in systems.items():
            assert 0 < figures['p50_ms'] <= figures['p95_ms'] <= figures['p99_ms']
            # CPU time is counted in ticks of 10 ms; passing on a few small frames takes less.
            assert figures['cpu_ms_per_mask'] > 0 or name == 'relay'
            assert len(figures['quantiles_ms']) == 51
        assert all(0 < systems[name]['delivered'] <= 1 for name in SYSTEMS - {'invoke'})
    # The latency's target is for 30 Hz.
    assert len(found['verdicts']) == 5
    assert all(verdict['text'] in table for verdict in found['verdicts'])


def test_end_to_end_does_not_mix_different_runs(run, tmp_path):
    (tmp_path / 'end_to_end.json').write_text(json.dumps(
        {'machine': {}, 'size': [1, 1], 'threads': 1, 'model': 'other', 'rates': {}}))

    with pytest.raises(AssertionError, match='is of another machine, size, model or number'):
        run('end_to_end')


def test_footprint_tells_start_imports_and_idling(run):
    found, table = run('footprint', '--rounds', '1', '--window', '0.5', codes=MET_OR_NOT)

    assert set(found) == {'machine', 'imports_ms', 'start_s', 'states', 'verdicts'}
    assert {'rclpy', 'numpy', 'cv2', 'bisenet_ros', 'ai_edge_litert'} <= set(found['imports_ms'])
    assert set(found['start_s']) == {'mask advertised', 'camera subscribed', 'first mask'}
    assert len(found['states']) == 4
    assert not any(state['tensorflow'] for state in found['states'].values())
    assert all(verdict['text'] in table for verdict in found['verdicts'])
    assert next(verdict['met'] for verdict in found['verdicts'] if 'memory' in verdict['text'])


def test_isolation_compares_a_child_with_this_process(run):
    found, table = run('isolation', '--count', '3')

    assert set(found['machine']) == MACHINE
    assert {'in process', 'in a child', 'in a child, in place'} <= set(
        found['p10_median_p90_ms'])
    assert 'in a child, in place' in table


def test_transport_counts_frames_of_three_settings(run):
    found, _ = run('transport', '--frames', '15', codes=MET_OR_NOT)

    assert set(found['machine']) == MACHINE
    assert list(found['figures']) == ['default', 'camera only', 'ours']
    for figures in found['figures'].values():
        assert figures['sent'] == 15
        assert 0 <= figures['received'] <= 15
        assert figures['masks'] <= figures['received']
    assert found['figures']['ours']['masks'] > 0
    # Whose machine it was is not told by paths.
    assert not any('/' in value for value in found['setting'].values())


def test_cameras_are_compared_in_one_process_and_in_many(run):
    found, _ = run('cameras', '--cameras', '2', '--seconds', '1', '--rounds', '1',
                   '--size', '320x240', '--rate', '10')

    (part,) = found
    assert set(part['machine']) == MACHINE
    assert [row['way'] for row in part['rows']] == ['one process', 'a process each']
    for row in part['rows']:
        assert row['masks_hz'] > 0
        assert len(row['each_hz']) == 2


@pytest.mark.training
def test_training_throughput_tells_how_long_a_step_waits(run):
    pytest.importorskip('keras')
    found, table = run(
        'training_throughput', '--presets', 'road_tiny', '--input', '64x64', '--batch', '2',
        '--steps', '1', '--rounds', '1')

    assert found['input_hw'] == [64, 64]
    assert found['batch'] == 2
    assert 'road_tiny' in table
    figures = found['presets']['road_tiny']
    assert all(figures[f'{part}_images_per_s'] > 0 for part in ('input', 'step', 'both'))
    assert 0 <= figures['waiting_share'] <= 1


def test_the_plain_node_sees_the_same_road(modules):
    pytest.importorskip('rclpy')
    pytest.importorskip('ai_edge_litert')
    import plain_node

    from bisenet_ros.core.drive import RenderedDrive
    from bisenet_ros.core.postprocess import Wanted
    from bisenet_ros.core.segmenter import SHIPPED_MODEL, Segmenter

    rgb, _ = RenderedDrive((640, 360), 0).frame(0.0)
    ours = Segmenter.load(num_threads=1).segment(rgb, wanted=Wanted(labels=False, mask=True)).mask

    plain = plain_node.PlainSegmenter(str(SHIPPED_MODEL), 1).mask(rgb)

    assert 0.05 < np.mean(ours == 255) < 0.95
    assert np.mean(plain == ours) > 0.998


def test_verdicts_name_a_missed_target(modules):
    pytest.importorskip('rclpy')
    import end_to_end

    def figures(ms, cpu_ms):
        return {'p50_ms': ms, 'p95_ms': ms, 'p99_ms': ms, 'cpu_ms_per_mask': cpu_ms,
                'masks_hz': 30.0}

    rate = {'segmenter': figures(20, 10), 'plain': figures(50, 30), 'relay': figures(5, 2),
            'invoke': figures(10, 9)}

    assert [met for met, _ in end_to_end.verdicts({'30': rate})] == [True, True, True]
    slow = {**rate, 'segmenter': figures(100, 16)}
    assert [met for met, _ in end_to_end.verdicts({'30': slow})] == [False, False, False]


def test_every_picture_of_the_pages_can_be_drawn_again(tmp_path):
    pytest.importorskip('matplotlib')

    subprocess.run([sys.executable, str(BENCHMARKS / 'plots.py'), '--images', str(tmp_path)],
                   check=True, timeout=120)

    drawn = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    pages = ''.join((ROOT / 'docs' / f'{name}.md').read_text()
                    for name in ('performance', 'evaluation'))
    assert set(drawn) == set(re.findall(r'images/(performance_\w+\.png)', pages))
    assert all(5_000 < size < 150_000 for size in drawn.values())


@pytest.mark.parametrize('name', ['cpu_inference', 'isolation'])
def test_json_that_cannot_be_written_is_refused_before_any_work(tmp_path, name):
    (tmp_path / 'file').touch()
    command = [sys.executable, str(BENCHMARKS / f'{name}.py'), '--json',
               str(tmp_path / 'file' / 'found.json')]

    result = subprocess.run(command, env={**os.environ, 'PYTHONPATH': str(ROOT)}, check=False,
                            capture_output=True, text=True, timeout=60)

    assert result.returncode == 2
    assert not result.stdout
    assert 'argument --json: ' in result.stderr
    assert 'found.json: cannot be written (' in result.stderr


def test_a_model_that_was_not_scored_counts_as_missing(modules, tmp_path):
    pytest.importorskip('keras')
    import pareto

    model, contract = tmp_path / 'a.tflite', tmp_path / 'a.json'
    assert pareto.road_iou(model) == {}
    model.touch()
    assert pareto.road_iou(model) == {}  # stopped before its contract was there
    contract.write_text('{"provenance": {}}')
    assert pareto.road_iou(model) == {}
    contract.write_text('{"provenance": {"road_iou": {"val": {"float": 0.6, "int8": 0.5}}}}')
    assert pareto.road_iou(model) == {'val': 0.5}


def test_fronts_are_of_the_means_over_seeds(modules):
    pytest.importorskip('keras')
    import pareto

    def candidate(width, ms, *road):
        return pareto.Candidate(width, (32, 64), {
            seed: {'a': value, 'b': value + 0.2} for seed, value in enumerate(road)}, ms)

    fast, slow, beaten = candidates = [
        candidate('fast', 1.0, 0.5, 0.7), candidate('slow', 3.0, 0.6, 0.64),
        candidate('beaten', 2.0, 0.7, 0.4)]
    pareto.mark_fronts(candidates)

    assert fast.iou == pytest.approx({'a': 0.6, 'b': 0.8, 'mean': 0.7})
    assert [one.apart for one in candidates] == pytest.approx([0.2, 0.04, 0.3])
    assert fast.fronts == slow.fronts == ['a', 'b', 'mean']
    assert beaten.fronts == []  # though one of its seeds is the best of all
    lines = pareto.table(candidates).splitlines()
    assert [line.split('|')[1].strip() for line in lines[2:]] == ['fast', 'beaten', 'slow']
    assert lines[2] == '| fast | 32x64 | 0.600 | 0.800 | 0.700 | 0.200 | 0.000 | a, b, mean |'


def test_robustness_without_labels_is_null(modules, tmp_path, monkeypatch, capsys):
    pytest.importorskip('ai_edge_litert')
    import robustness
    from tflite_models import Toy
    from written_datasets import write_pair

    write_pair(tmp_path / 'void', 'a', np.full((40, 60), 255, np.uint8))
    model, target = Toy().save(tmp_path), tmp_path / 'found.json'
    monkeypatch.setattr(robustness, 'EFFECTS', ('as it is',))
    monkeypatch.setattr(sys, 'argv', [
        'robustness.py', '--model', str(model), '--data', str(tmp_path), '--on',
        f'ids:{tmp_path}/void', '--json', str(target)])
    robustness.main()

    def refused(text):
        raise ValueError(text)

    rows = json.loads(target.read_text(), parse_constant=refused)['rows']
    assert rows == [{'effect': 'as it is', 'road_iou': [None]}]
    assert '| as it is | - |' in capsys.readouterr().out


def test_robustness_is_of_what_a_model_learnt_as_road(modules, tmp_path, monkeypatch, capsys):
    pytest.importorskip('ai_edge_litert')
    import robustness
    from tflite_models import Toy
    from written_datasets import write_pair

    labels = np.ones((40, 60), np.uint8)
    labels[:, :30] = 2  # ground
    write_pair(tmp_path / 'set', 'a', labels)
    everywhere = Toy(bias=(0, 100))
    both = everywhere.save(tmp_path, 'both', provenance={
        'taxonomy': {'name': 'road', 'classes': ['background', 'road', 'ground', 'movable']},
        'merge': {'background': ['background', 'movable'], 'road': ['road', 'ground']}})
    silent, target = everywhere.save(tmp_path, 'silent'), tmp_path / 'found.json'
    monkeypatch.setattr(robustness, 'EFFECTS', ('as it is',))
    monkeypatch.setattr(sys, 'argv', [
        'robustness.py', '--model', str(both), str(silent), '--data', str(tmp_path), '--on',
        f'ids:{tmp_path}/set', '--json', str(target)])
    robustness.main()

    [row] = json.loads(target.read_text())['rows']
    assert row['road_iou'] == [1.0, 0.5]
    assert capsys.readouterr().err.endswith(
        'note: both.tflite learnt road and ground as road, and is scored so\n')
