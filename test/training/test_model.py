"""The network has the paper's shapes, the EdgeTPU's rules, and loses nothing on export."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

keras = pytest.importorskip('keras', reason='keras is not installed (pip install .[train])')

from training.losses import ohem_cross_entropy  # noqa: E402
from training.model import (  # noqa: E402
    BOOSTERS, PRESETS, Architecture, build, check_input_hw, deployable, transfer_weights,
)

pytestmark = pytest.mark.training

TINY = Architecture(
    detail_widths=(4, 4, 8), semantic_widths=(4, 4, 8, 8), aggregation_width=8, head_width=8,
    booster_classes=4, booster_width=4)

#: Paper, Table 1 and Figure 6, for a 512x1024 input: stride and width of every stage.
STAGES = {
    'detail_s1_2_relu': (2, 64),
    'detail_s2_3_relu': (4, 64),
    'detail_s3_3_relu': (8, 128),
    'stem_fuse_relu': (4, 16),
    's3_ge2_relu': (8, 32),
    's4_ge2_relu': (16, 64),
    's5_ge4_relu': (32, 128),
    'context_fuse': (32, 128),
    'bga_fuse_bn': (8, 128),
    'head_conv_relu': (8, 1024),
    'logits': (8, 2),
}


@functools.cache
def preset(name: str) -> keras.Model:
    """Return a preset at 256x512; tests that share it only look at it."""
    return build(PRESETS[name], (256, 512))


@pytest.fixture(autouse=True)
def restored_policy() -> Iterator[None]:
    """Leave Keras' global dtype policy as it was."""
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every weight a value of its own, moving statistics included."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        low, high = (0.5, 1.5) if 'variance' in weight.name else (-0.5, 0.5)
        weight.assign(rng.uniform(low, high, weight.shape))
    return model


def picture(height: int, width: int, batch: int = 1) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).random((batch, height, width, 3), np.float32)


def numpy_of(tensor: object) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = keras.ops.convert_to_numpy(tensor)
    return array


def test_stages_of_the_paper() -> None:
    model = build(PRESETS['paper'], (512, 1024))
    for name, (stride, width) in STAGES.items():
        assert model.get_layer(name).output.shape == (
            None, 512 // stride, 1024 // stride, width), name


@pytest.mark.parametrize('name', ['road', 'original'])
def test_stages_of_the_other_presets_keep_the_strides(name: str) -> None:
    for layer, (stage_stride, _) in STAGES.items():
        stride = PRESETS[name].output_stride if layer == 'logits' else stage_stride
        shape = preset(name).get_layer(layer).output.shape
        assert shape[1:3] == (256 // stride, 512 // stride), layer


def test_second_depthwise_expands_no_further() -> None:
    assert preset('paper').get_layer('s3_ge1_expand').output.shape[-1] == 6 * 16
    assert preset('paper').get_layer('s3_ge1_depthwise').output.shape[-1] == 6 * 16
    assert preset('original').get_layer('s3_ge1_depthwise').output.shape[-1] == 36 * 32


#: All and trainable parameters of every preset.
COUNTS = {
    # Counted from markus-k/bisenetv2-tf2's own notebook at 256x512 and two classes.
    'original': (3_117_766, 3_085_262),
    'paper': (3_357_634, 3_340_818),
    'many_classes': (2_425_459, 2_410_307),
    'road_wide': (2_209_610, 2_194_842),
    'road': (1_749_906, 1_735_842),
    'road_slim': (944_086, 933_650),
    'road_tiny': (389_946, 383_138),
    'road_no_context_add': (1_733_010, 1_719_202),
}


@pytest.mark.parametrize(('name', 'total', 'trainable'), [
    (name, *counts) for name, counts in COUNTS.items()])
def test_parameter_counts(name: str, total: int, trainable: int) -> None:
    model = preset(name)
    assert model.count_params() == total
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == trainable


def test_every_preset_is_counted() -> None:
    assert set(PRESETS) == set(COUNTS)


def test_original_leaves_at_full_size() -> None:
    assert preset('original').output.shape == (None, 256, 512, 2)


@pytest.mark.parametrize('input_hw', [(32, 32), (32, 96), (160, 64)])
def test_any_multiple_of_32(input_hw: tuple[int, int]) -> None:
    height, width = input_hw
    assert build(TINY, input_hw, batch_size=1).output.shape == (1, height // 8, width // 8, 2)


@pytest.mark.parametrize('num_classes', [1, 3, 19, 150])
def test_any_number_of_classes(num_classes: int) -> None:
    arch = dataclasses.replace(TINY, num_classes=num_classes)
    assert build(arch, (32, 64)).output.shape == (None, 4, 8, num_classes)


@pytest.mark.parametrize('stride', [4, 2, 1])
def test_output_strides(stride: int) -> None:
    arch = dataclasses.replace(TINY, output_stride=stride)
    assert build(arch, (64, 96)).output.shape == (None, 64 // stride, 96 // stride, 2)


@pytest.mark.parametrize('input_hw', [(0, 32), (33, 64), (64, 48), (-32, 64), (16, 32)])
def test_other_sizes_are_refused(input_hw: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match='input_hw: found .* multiples of 32'):
        check_input_hw(input_hw)
    with pytest.raises(ValueError, match='input_hw: found .* multiples of 32'):
        build(TINY, input_hw)


@pytest.mark.parametrize('stride', [0, 3, 16])
def test_other_output_strides_are_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f'output_stride: found {stride}, expected 8, 4, 2 or 1'):
        build(dataclasses.replace(TINY, output_stride=stride), (32, 32))


def test_boosters_are_for_training_only() -> None:
    boosted = build(TINY, (64, 64), boosters=True)
    assert set(boosted.output) == {'logits', *BOOSTERS}
    strides = dict(zip(BOOSTERS, (4, 8, 16, 32, 8), strict=True))
    for name, stride in strides.items():
        assert boosted.output[name].shape == (None, 64 // stride, 64 // stride, 4)
    model = deployable(boosted, TINY, (64, 64))
    assert not [layer.name for layer in model.layers if 'booster' in layer.name]
    assert model.count_params() == build(TINY, (64, 64)).count_params()
    assert model.count_params() < boosted.count_params()


def test_boosters_have_the_deployed_classes_unless_told_otherwise() -> None:
    boosted = build(dataclasses.replace(TINY, booster_classes=0, num_classes=3), (32, 32),
                    boosters=True)
    assert {output.shape[-1] for output in boosted.output.values()} == {3}


def test_export_keeps_the_logits() -> None:
    boosted = randomised(build(TINY, (64, 96), boosters=True))
    image = picture(64, 96)
    before = numpy_of(boosted(image, training=False)['logits'])
    after = numpy_of(deployable(boosted, TINY, (64, 96))(image, training=False))
    assert np.ptp(before) > 0.1
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)


def test_export_is_static_and_float32_whatever_trained_it() -> None:
    keras.config.set_dtype_policy('mixed_bfloat16')
    boosted = randomised(build(TINY, (32, 64), boosters=True))
    model = deployable(boosted, TINY, (64, 96))
    assert keras.config.dtype_policy().name == 'mixed_bfloat16'
    assert model.input.shape == (1, 64, 96, 3)
    assert {layer.compute_dtype for layer in model.layers} == {'float32'}
    assert all(None not in layer.output.shape for layer in model.layers)


def test_export_refuses_another_architecture() -> None:
    other = build(dataclasses.replace(TINY, head_width=12), (32, 32))
    with pytest.raises(ValueError, match='found no weights for head_conv, head_conv_bn, '
                                         'head_logits; expected .* the same architecture'):
        deployable(other, TINY, (32, 32))


def test_weights_are_copied_by_name() -> None:
    source = randomised(build(TINY, (32, 32)), seed=1)
    target = randomised(build(dataclasses.replace(TINY, num_classes=5), (64, 32), boosters=True),
                        seed=2)
    own = {layer.name: layer.get_weights() for layer in target.layers}
    kept = transfer_weights(source, target, skip=lambda name: name.startswith('stem_'))
    fitting = [layer.name for layer in target.layers
               if layer.weights and layer.name not in kept]
    assert 'head_logits' in kept  # other number of classes
    assert 'stem_conv' in kept  # skipped
    assert 'booster_s3' in kept  # absent from the source
    assert 's4_ge1_expand' in fitting
    for name in fitting:
        for copied, wanted in zip(target.get_layer(name).get_weights(),
                                  source.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(copied, wanted)
    for name in kept:
        for left, before in zip(target.get_layer(name).get_weights(), own[name], strict=True):
            np.testing.assert_array_equal(left, before)


def producer(tensor: keras.KerasTensor) -> keras.Layer:
    return tensor._keras_history.operation


@pytest.mark.parametrize('name', ['paper', 'road'])
def test_nothing_is_normalised_right_behind_a_pooling_layer(name: str) -> None:
    pooling = (keras.layers.GlobalAveragePooling2D, keras.layers.AveragePooling2D,
               keras.layers.MaxPooling2D)
    model = build(PRESETS[name], (64, 64), boosters=True)
    norms = [layer for layer in model.layers
             if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    # It folds into a convolution only.
    for layer in norms:
        assert not isinstance(producer(layer.input), pooling), layer.name
        assert isinstance(producer(layer.input),
                          (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)), layer.name


@pytest.mark.parametrize('name', ['paper', 'road'])
def test_context_add_takes_the_mean_first(name: str) -> None:
    mean, features = preset(name).get_layer('context_add').input
    assert mean.shape[1:3] == (1, 1)
    assert features.shape[1:3] == (8, 16)


def test_context_add_can_be_left_out() -> None:
    model = build(dataclasses.replace(TINY, context_add=False), (32, 32))
    names = {layer.name for layer in model.layers}
    assert 'context_fuse' in names
    assert not names & {'context_add', 'context_mean', 'context_conv'}


def test_upsampling_is_bilinear_everywhere() -> None:
    for name in PRESETS:
        resizes = [layer for layer in preset(name).layers
                   if isinstance(layer, keras.layers.UpSampling2D)]
        assert resizes
        assert {layer.interpolation for layer in resizes} == {'bilinear'}


@pytest.mark.slow
def test_one_batch_can_be_overfitted() -> None:
    arch = dataclasses.replace(
        TINY, detail_widths=(8, 8, 16), aggregation_width=16, head_width=16)
    random.seed(0)
    model = build(arch, (32, 64), bn_momentum=0.8)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=False,
        loss=lambda labels, logits: ohem_cross_entropy(labels, logits))
    images = picture(32, 64, batch=4) * 0.3
    labels = np.zeros((4, 4, 8), np.uint8)
    for index in range(4):  # a bright rectangle elsewhere in each picture
        top, left = 16 * (index // 2), 32 * (index % 2)
        images[index, top:top + 16, left:left + 32] += 0.6
        labels[index, top // 8:top // 8 + 2, left // 8:left // 8 + 4] = 1
    losses = [float(model.train_on_batch(images, labels)) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]
    predicted = numpy_of(model(images, training=False)).argmax(-1)
    assert (predicted == labels).mean() > 0.97
