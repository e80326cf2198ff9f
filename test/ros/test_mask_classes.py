"""A model of three classes, none of them a road: the node must be told what the mask marks."""

import re

import pytest
from harness import PATIENCE_S, NodeProcess
from tflite_models import Toy

CLASSES = ('background', 'gravel', 'grass')

REASON = r"mask_classes: found none, .* expected some of \['background', 'gravel', 'grass'\]"


@pytest.fixture
def model(tmp_path):
    toy = Toy(weights=((0, 0, 0), (1, 0, -1), (0, -1, 1)), bias=(3, -5, 0))
    return str(toy.save(tmp_path, class_names=CLASSES))


def test_mask_of_no_class_is_refused_at_start(start, model):
    node = start(params={'model': model, 'device': 'cpu'})

    assert node.wait(PATIENCE_S) == 1
    assert 'Traceback' not in node.output
    assert re.search(REASON, node.lines[-1])


def test_mask_of_no_class_is_refused_live(peer, model):
    with NodeProcess(
            params={'model': model, 'device': 'cpu', 'mask_classes': ['grass']}) as node:
        node.wait_active()
        (refused,) = peer.set_parameters(mask_classes=[])

        assert not refused.successful
        assert re.search(REASON, refused.reason)
        assert peer.parameter('mask_classes') == ['grass']
        peer.set_or_fail(mask_classes=['gravel', 'grass'])
