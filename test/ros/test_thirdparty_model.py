"""Somebody else's model in the node: Google's Cityscapes DeepLab, 19 classes, no contract."""

import re

import cv2
import numpy as np
import pytest
from harness import DATA, IMAGE_TOPIC, ROOT, NodeProcess, clip_frames, pixels_of
from sensor_msgs.msg import Image

from bisenet_ros.core.contract import read_class_list

MODEL = DATA / 'coral' / 'deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite'

CLASS_LIST = ROOT / 'config' / 'cityscapes19.txt'

#: On CamVid val frames, without any training there (0.84 on its test split, data/README.md).
IOU_FLOOR = 0.75


@pytest.fixture(scope='module')
def node():
    if not MODEL.is_file():
        pytest.skip(f'no {MODEL}')
    with NodeProcess(params={'model': str(MODEL), 'class_names': [str(CLASS_LIST)],
                             'device': 'cpu'}, remap={'image': IMAGE_TOPIC}) as process:
        yield process.wait_active()


def test_class_list():
    names, colors = read_class_list(CLASS_LIST)

    assert len(names) == len(set(names)) == len(set(colors)) == 19
    assert (names[0], names[6], names[13], names[18]) == (
        'road', 'traffic light', 'car', 'bicycle')
    assert (colors[0], colors[13]) == ((128, 64, 128), (0, 0, 142))


def test_start_names_model_and_classes(node):
    line = node.wait_for_line(MODEL.name)

    assert '513x513' in line
    assert 'road, sidewalk, building' in line


def test_labels_masks_and_colors(peer, node, clips):
    (frame,) = clip_frames(clips[1], [5])
    camera = peer.camera()
    watches = [
        peer.watch(Image, f'/segmenter/{name}') for name in ('labels', 'mask', 'color_mask')]
    sent = peer.image(frame)

    answers = peer.ask(camera, sent, *watches)

    labels, mask, colors = (pixels_of(answer) for answer in answers)
    assert {answer.header.stamp.nanosec for answer in answers} == {sent.header.stamp.nanosec}
    assert labels.shape == mask.shape == frame.shape[:2]
    assert labels.max() < 19
    assert len(np.unique(labels)) > 4  # a street has more than road
    np.testing.assert_array_equal(mask, np.where(labels == 0, 255, 0))  # the class named road
    _, palette = read_class_list(CLASS_LIST)
    np.testing.assert_array_equal(colors, np.uint8(palette)[labels])
    # The road is in the lower middle of a dash-cam's picture, and the sky is not.
    assert (labels[500:600, 500:780] == 0).mean() > 0.9
    assert (labels[:100] == 0).mean() < 0.05


def test_mask_of_other_classes(peer, node, clips):
    (frame,) = clip_frames(clips[1], [5])
    camera = peer.camera()
    watches = [peer.watch(Image, f'/segmenter/{name}') for name in ('labels', 'mask')]
    peer.set_or_fail(mask_classes=['car', 'traffic light'])

    labels, mask = (pixels_of(answer) for answer in peer.ask(camera, peer.image(frame), *watches))

    peer.set_or_fail(mask_classes=[])
    np.testing.assert_array_equal(mask, np.where(np.isin(labels, [13, 6]), 255, 0))
    assert mask.any()
    (refused,) = peer.set_parameters(mask_classes=['cars'])
    assert "'car'" in refused.reason


def test_no_confidence_is_offered(peer, node):
    peer.wait_for(lambda: peer.node.count_publishers('/segmenter/labels'), 'the labels')

    assert not peer.node.count_publishers('/segmenter/confidence')


def test_road_of_camvid(peer, node, camvid):
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    overlapping = united = 0
    for stem in (camvid / 'splits' / 'val.txt').read_text().split()[::25]:
        bgr = cv2.imread(str(camvid / 'images' / f'{stem}.jpg'))
        truth = cv2.imread(str(camvid / 'labels' / f'{stem}.png'), cv2.IMREAD_UNCHANGED)
        found = pixels_of(peer.ask(camera, peer.image(bgr), masks)[0]) > 0
        known, road = truth != 11, truth == 3
        overlapping += (found & road & known).sum()
        united += ((found | road) & known).sum()

    assert overlapping / united > IOU_FLOOR


@pytest.mark.parametrize(('class_names', 'reason'), [
    ([], 'has neither a contract .* nor class names; give class_names'),
    (['road'], 'expected 2 to 255'),
    (['/nowhere/classes.txt'], '/nowhere/classes.txt: not a readable class list'),
])
def test_classes_that_are_not_named(start, class_names, reason):
    if not MODEL.is_file():
        pytest.skip(f'no {MODEL}')
    params = {'model': str(MODEL), 'device': 'cpu'}
    node = start(params=params | ({'class_names': class_names} if class_names else {}))

    assert node.wait() == 1
    assert 'Traceback' not in node.output
    assert re.search(reason, node.lines[-1])
