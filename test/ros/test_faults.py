"""
What can go wrong around a model, and the one line that says it: file, found, expected, remedy.

A device's faults are in ``test_device_faults.py``, bad frames in ``test_fuzz.py``, the input's in
``test_qos_diagnostics.py``.
"""

import json
import os
import re
import shutil

import pytest
from harness import DATA, IMAGE_TOPIC, ROOT, clip_frames, level_of, values_of
from sensor_msgs.msg import Image
from tflite_models import Toy, compiled_model, float_model

from bisenet_ros.core.segmenter import SHIPPED_MODEL

CORAL_COMPILED = (
    DATA / 'coral' / 'deeplab_mobilenet_edgetpu_slim_cityscapes_quant_edgetpu.tflite')

TOY = Toy()


def shipped(folder):
    """Return a copy of the shipped model and its contract."""
    model = folder / SHIPPED_MODEL.name
    shutil.copy(SHIPPED_MODEL, model)
    shutil.copy(SHIPPED_MODEL.with_suffix('.json'), model.with_suffix('.json'))
    return model


def changed_contract(folder, **changes):
    model = shipped(folder)
    contract = json.loads(model.with_suffix('.json').read_text())
    model.with_suffix('.json').write_text(json.dumps({**contract, **changes}))
    return model


def missing_model(folder):
    return folder / 'nowhere.tflite'


def a_folder(folder):
    return folder


def empty_file(folder):
    model = folder / 'empty.tflite'
    model.write_bytes(b'')
    return model


def another_format(folder):
    model = folder / 'network.tflite'
    model.write_bytes(b'\x08\x01\x12\x00pytorch' * 50)
    return model


def truncated(folder):
    model = shipped(folder)
    model.write_bytes(model.read_bytes()[:100_000])
    return model


def truncated_without_contract(folder):
    model = truncated(folder)
    model.with_suffix('.json').unlink()
    return model


def wrong_hash(folder):
    model = shipped(folder)
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    return model


def no_contract(folder):
    model = shipped(folder)
    model.with_suffix('.json').unlink()
    return model


def contract_is_no_json(folder):
    model = shipped(folder)
    model.with_suffix('.json').write_text('{"schema": 1,')
    return model


def newer_contract(folder):
    return changed_contract(folder, schema=99)


def incomplete_contract(folder):
    model = shipped(folder)
    contract = json.loads(model.with_suffix('.json').read_text())
    del contract['classes']
    model.with_suffix('.json').write_text(json.dumps(contract))
    return model


def contract_of_another_size(folder):
    contract = json.loads(SHIPPED_MODEL.with_suffix('.json').read_text())
    return changed_contract(folder, input=contract['input'] | {'width': 1024})


def contract_of_other_classes(folder):
    contract = json.loads(SHIPPED_MODEL.with_suffix('.json').read_text())
    extra = {'name': 'sky', 'color_rgb': [1, 2, 3]}
    return changed_contract(folder, classes=[*contract['classes'], extra])


def float_file(folder):
    model = folder / 'float.tflite'
    model.write_bytes(float_model())
    return model


def dynamic_shape(folder):
    def damage(model):
        model.subgraphs[0].tensors[0].shapeSignature = [-1, 32, 64, 3]

    model = folder / 'dynamic.tflite'
    model.write_bytes(TOY.file(damage))
    return model


def newer_operator(folder):
    def damage(model):
        model.operatorCodes[-1].version = 99

    model = folder / 'newer.tflite'
    model.write_bytes(TOY.file(damage))
    return model


def compiled_on_cpu(folder):
    model = folder / 'toy_edgetpu.tflite'
    model.write_bytes(compiled_model())
    return model


#: What is wrong; what is found and expected; what to do.
BAD_MODELS = [
    (missing_model, 'cannot be read: No such file or directory', ''),
    (a_folder, 'cannot be read: Is a directory', ''),
    (empty_file, r"not a TFLite model \(found b'' at its start, expected TFL3", 'give the path'),
    (another_format, r'not a TFLite model \(found .*expected TFL3', 'give the path'),
    (truncated, r'its sha256 is \w{12}\.\.\., road_256x512.json says \w{12}', 'copy both again'),
    (truncated_without_contract, 'cannot load it', 'export it again, or update the runtime'),
    (wrong_hash, r'its sha256 is \w{12}\.\.\., road_256x512.json says \w{12}', 'copy both again'),
    (no_contract, r'neither a contract \(road_256x512.json\) nor class names',
     'give class_names, or a class list as road_256x512.txt'),
    (contract_is_no_json, 'road_256x512.json: ', ''),
    (newer_contract, 'road_256x512.json: .*99.*1', ''),
    (incomplete_contract, "road_256x512.json: field 'classes' is missing",
     'export the model again'),
    (contract_of_another_size, r'input height and width is \(256, 512\), its contract says '
     r'\(256, 1024\)', 'export the model again'),
    (contract_of_other_classes, r'output channels is \(2,\), its contract says \(3,\)',
     'export the model again'),
    (float_file, r'float32\[1, 32, 64, 3\], expected uint8 or int8', 'quantize it'),
    (dynamic_shape, r'dynamic shape \[-1, 32, 64, 3\], expected a fixed one', 'export it'),
    (newer_operator, 'cannot load it', 'update the runtime'),
    (compiled_on_cpu, 'compiled for the EdgeTPU, but the device is the CPU',
     'give the model that it was compiled from'),
]


@pytest.mark.parametrize(('make', 'found', 'remedy'), BAD_MODELS,
                         ids=[make.__name__ for make, _, _ in BAD_MODELS])
def test_bad_model_is_one_line_and_exit_code_1(start, tmp_path, make, found, remedy):
    model = make(tmp_path)
    node = start(params={'model': str(model), 'device': 'cpu', 'isolation': 'none'})

    assert node.wait() == 1
    lines = [line for line in node.lines if 'XNNPACK' not in line]
    assert len(lines) == 1, node.output
    assert str(tmp_path) in lines[0]
    assert re.search(found, lines[0]), lines[0]
    assert remedy in lines[0]


@pytest.mark.parametrize('make', [truncated, float_file, compiled_on_cpu],
                         ids=lambda make: make.__name__)
def test_bad_model_without_autostart_leaves_a_node_that_answers(peer, start, tmp_path, make):
    node = start(params={'model': str(make(tmp_path)), 'device': 'cpu', 'autostart': False,
                         'diagnostics_period_s': 0.2})
    diagnostics = peer.diagnostics()

    assert not peer.transition('configure')
    assert peer.state() == 'unconfigured'
    status = diagnostics.fresh('inference')
    assert level_of(status) == 2
    assert str(tmp_path) in status.message
    assert 'Traceback' not in node.output
    peer.set_or_fail(model='')
    assert peer.transition('configure')


def test_compiled_model_of_google_on_the_cpu(start):
    if not CORAL_COMPILED.is_file():
        pytest.skip(f'no {CORAL_COMPILED}')
    node = start(params={'model': str(CORAL_COMPILED), 'device': 'cpu'})

    assert node.wait() == 1
    assert 'compiled for the EdgeTPU, but the device is the CPU' in node.lines[-1]


def test_a_model_without_confidence_offers_none(peer, start, tmp_path):
    """And refuses a threshold on it, at start and live."""
    model = Toy(kind='labels').save(tmp_path)
    params = {'model': str(model), 'device': 'cpu', 'isolation': 'none'}
    refused = start(params={**params, 'min_confidence': 0.5})
    assert refused.wait() == 1
    assert 'min_confidence: found 0.5, expected 0' in refused.lines[-1]
    start(params=params, remap={'image': IMAGE_TOPIC}).wait_active()

    (result,) = peer.set_parameters(min_confidence=0.5)

    assert not result.successful
    assert 'expected 0: this model gives labels without a confidence' in result.reason
    peer.wait_for(lambda: peer.node.count_publishers('/segmenter/labels'), 'the labels')
    assert not peer.node.count_publishers('/segmenter/confidence')


def test_no_runtime_is_named_with_what_to_install(start, tmp_path):
    """A robot on which nobody has installed one: neither package can be imported."""
    for name in ('ai_edge_litert', 'tflite_runtime'):
        (tmp_path / f'{name}.py').write_text(f'raise ImportError("no module named {name}")\n')
    node = start(env={'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'})

    assert node.wait() == 1
    assert 'Traceback' not in node.output
    assert 'pip install ai-edge-litert' in node.lines[-1]


def test_a_bad_frame_does_not_stop_good_ones(peer, start, clips):
    node = start(remap={'image': IMAGE_TOPIC}, params={'diagnostics_period_s': 0.2}).wait_active()
    (frame,) = clip_frames(clips[1], [0])
    camera, masks = peer.camera(), peer.watch(Image, '/segmenter/mask')
    diagnostics = peer.diagnostics()
    peer.ask(camera, peer.image(frame), masks)
    damaged = []
    for field, value in (('step', 1), ('height', 0), ('width', 1_000_000), ('encoding', 'none'),
                         ('encoding', 'nv12')):
        image = peer.image(frame)
        setattr(image, field, value)
        damaged.append(image)
    damaged.append(peer.image(frame))
    damaged[-1].data = damaged[-1].data[:1000]

    def malformed():
        return int(values_of(diagnostics.latest('input'))['frames malformed'])

    for number, image in enumerate(damaged, 1):
        def counted(image=image, number=number):
            if malformed() < number:
                camera.publish(image)
                peer.spin_for(0.3)
            return malformed() >= number

        diagnostics.fresh('input')
        peer.wait_for(counted, f'malformed frame {number}')

    peer.ask(camera, peer.image(frame), masks)
    assert all(masks.with_stamp(image.header) is None for image in damaged)
    assert 'Traceback' not in node.output
    # Throttled: a camera of 30 Hz must not fill the disk with complaints.
    assert len([line for line in node.lines if 'Frame dropped' in line]) <= len(damaged)
