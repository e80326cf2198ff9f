"""The launch file for several cameras: its arguments, its wiring, its end."""

import ast
import re

import pytest
from installed_trees import ROOT
from test_launch import (  # noqa: F401 - fixtures
    MODEL, assert_clean_end, installs, launch, needs_launch, wait_for_images,
)

FILE = 'cameras.launch.py'

ARGUMENTS = [
    'cameras', 'images', 'model', 'device', 'params_file', 'namespace', 'source', 'log_level']


def test_arguments():
    calls = [node for node in ast.walk(ast.parse((ROOT / 'launch' / FILE).read_text()))
             if isinstance(node, ast.Call)
             and ast.unparse(node.func) == 'DeclareLaunchArgument']

    assert [ast.literal_eval(call.args[0]) for call in calls] == ARGUMENTS
    for call in calls:
        assert {'default_value', 'description'} <= {word.arg for word in call.keywords}


@needs_launch
@pytest.mark.parametrize('kind', ['pip', 'colcon'])
def test_cameras_of_one_process_are_segmented_apart(launch, peer, kind):  # noqa: F811
    launched = launch(
        FILE, 'cameras:=front,rear', 'images:=/usb_cam/image_raw,color/image', 'source:=drive',
        'namespace:=robot', kind=kind)

    front, rear, _, _ = wait_for_images(
        peer, launched, '/robot/front/segmenter/mask', '/robot/rear/segmenter/mask',
        '/usb_cam/image_raw', '/robot/rear/color/image')

    assert front.encoding == rear.encoding == 'mono8'
    names = {name for name, _ in peer.node.get_topic_names_and_types()}
    assert names >= {'/usb_cam/camera_info', '/robot/rear/color/camera_info'}
    assert_clean_end(launched, processes=3)


@needs_launch
def test_parameters_of_all_and_of_one(launch, peer, tmp_path):  # noqa: F811
    params_file = tmp_path / 'params.yaml'
    params_file.write_text(
        '/**:\n  ros__parameters:\n    smoothing: 0.5\n    device: usb:7\n'
        '/b/segmenter:\n  ros__parameters:\n    smoothing: 0.75\n')

    launched = launch(FILE, 'cameras:=/a, b/', 'source:=drive', f'params_file:={params_file}',
                      'device:=cpu', f'model:={MODEL}', 'log_level:=WARN')
    wait_for_images(peer, launched, '/a/segmenter/mask', '/b/segmenter/mask')

    assert {(side, name): peer.parameter(name, f'/{side}/segmenter')
            for side in 'ab' for name in ('smoothing', 'device', 'model')} == {
        ('a', 'smoothing'): 0.5, ('b', 'smoothing'): 0.75, ('a', 'device'): 'cpu',
        ('b', 'device'): 'cpu', ('a', 'model'): str(MODEL), ('b', 'model'): str(MODEL)}
    assert '[INFO] [a' not in launched.output
    assert_clean_end(launched, processes=3)


@needs_launch
@pytest.mark.parametrize(('arguments', 'said'), [
    (['cameras:=a,b,c', 'images:=/x,/y'],
     r'images: found 2 topics, expected one for each of the 3 cameras a, b, c'),
    *[([f'cameras:={names}'],
       rf"cameras: found '{names}', expected the name of each camera once, of letters, digits and "
       'single underscores, with commas between') for names in (
           'a,', 'front,re-ar', 'a,a', '1st', 'a__b')],
    (['cameras:=a,b', 'images:=/x,'], r"images: found '/x,', expected topics with commas between"),
    (['cameras:=a', 'images:=~/x'], r"images: found '~/x', expected topics with commas")])
def test_lists_that_do_not_fit_are_refused(launch, arguments, said):  # noqa: F811
    launched = launch(FILE, *arguments)

    assert launched.process.wait(60) != 0
    assert re.search(said, launched.output)
    assert 'process started' not in launched.output
