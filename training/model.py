"""
BiSeNetV2 in Keras 3 (arXiv 2004.02147), free of any backend's own operations.

``build`` returns a functional model whose layers carry the paper's stage names.
Comments behind a block give its output: stride x channels, with the paper's widths.

The network is laid out for the EdgeTPU from the start:

* the input has a fixed batch of one when exported, so no shape arithmetic is left in the graph;
* the global mean keeps its dimensions and is the *first* operand of the broadcasting addition
  (the other order makes TFLite insert a RESHAPE);
* no BatchNormalization follows a pooling layer directly (it could not be folded away);
* upsampling is bilinear (Keras' nearest becomes a chain of unmappable operations);
* logits leave at stride 8: the host upsamples them to the camera's size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
from keras import layers

from training.normalization import FusedBatchNormalization

#: Names of the training-only outputs, in the order of the paper's Figure 6, plus the one on the
#: segmentation head's own features.
BOOSTERS = ('booster_stem', 'booster_s3', 'booster_s4', 'booster_s5', 'booster_head')

#: The network halves its input five times.
SIZE_MULTIPLE = 32


@dataclasses.dataclass(frozen=True)
class Architecture:
    """
    What is built: everything that changes the number or shape of the weights.

    Parameters
    ----------
    num_classes : int
        Channels of the deployed output.
    detail_widths : tuple of 3 int
        Channels of the detail branch's stages S1, S2, S3 (paper: 64, 64, 128).
    semantic_widths : tuple of 4 int
        Channels of stem, S3, S4, S5 of the semantic branch (paper: 16, 32, 64, 128).
    aggregation_width : int
        Channels inside bilateral guided aggregation (paper: 128).
    head_width : int
        Channels of the 3x3 convolution in the segmentation head (1024 in CoinCheung/BiSeNet).
    expansion : int
        Expansion ratio of the gather-and-expansion layers (paper: 6).
    output_stride : int
        8, 4, 2 or 1: input pixels per output pixel. 8 is for deployment; 1 is the original's.
    booster_classes : int
        Channels of the training-only heads; 0 means the same as ``num_classes``. A finer set of
        classes there teaches the features what the two deployed classes leave out.
    booster_width : int
        Channels of the 3x3 convolution in each booster head.
    context_add : bool
        False leaves out the broadcasting addition of the context embedding, whose mapping by
        the EdgeTPU compiler nobody has shown for every version.
    original : bool
        Build the quirks of markus-k/bisenetv2-tf2 (``model.py`` at ec79cf1) for measurements
        side by side: second depthwise and shortcut at multiplier 6, first convolution of a
        gather-and-expansion layer already at the output width, biases before normalization,
        2x2 max-pool in the stem, normalization behind the global mean, two 3x3 convolutions in
        the head.

    """

    num_classes: int = 2
    detail_widths: tuple[int, int, int] = (64, 64, 128)
    semantic_widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    aggregation_width: int = 128
    head_width: int = 1024
    expansion: int = 6
    output_stride: int = 8
    booster_classes: int = 0
    booster_width: int = 32
    context_add: bool = True
    original: bool = False


PRESETS: dict[str, Architecture] = {
    'paper': Architecture(),
    'road_wide': Architecture(
        detail_widths=(24, 48, 128), aggregation_width=128, head_width=128, booster_classes=4),
    'road': Architecture(
        detail_widths=(16, 32, 96), aggregation_width=96, head_width=64, booster_classes=4),
    'road_slim': Architecture(
        detail_widths=(12, 24, 64), semantic_widths=(12, 24, 48, 96), aggregation_width=64,
        head_width=48, booster_classes=4),
    'road_tiny': Architecture(
        detail_widths=(8, 16, 32), semantic_widths=(8, 16, 32, 64), aggregation_width=32,
        head_width=32, booster_classes=4),
    # Should a compiler refuse the broadcasting addition; see training/README.md for its cost.
    'road_no_context_add': Architecture(
        detail_widths=(16, 32, 96), aggregation_width=96, head_width=64, booster_classes=4,
        context_add=False),
    # For a dozen classes and more; `num_classes` is set to what a configuration has.
    'many_classes': Architecture(
        num_classes=19, detail_widths=(32, 64, 128), head_width=256, booster_width=64),
    'original': Architecture(head_width=4, output_stride=1, original=True),
}


class _Blocks:
    """Layer constructors that share normalization and the original's habits."""

    def __init__(self, momentum: float, original: bool, fused_norm: bool) -> None:
        self.momentum = momentum
        self.use_bias = original
        self.norm_layer = FusedBatchNormalization if fused_norm else layers.BatchNormalization

    def norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return self.norm_layer(momentum=self.momentum, name=f'{name}_bn')(x)

    def conv(
        self, x: keras.KerasTensor, width: int, kernel: int, name: str, *,
        stride: int = 1, relu: bool = True, norm: bool = True,
    ) -> keras.KerasTensor:
        x = layers.Conv2D(
            width, kernel, strides=stride, padding='same', name=name,
            use_bias=self.use_bias or not norm, kernel_initializer='he_normal')(x)
        if norm:
            x = self.norm(x, name)
        return layers.ReLU(name=f'{name}_relu')(x) if relu else x

    def depthwise(
        self, x: keras.KerasTensor, name: str, *, stride: int = 1, multiplier: int = 1,
    ) -> keras.KerasTensor:
        x = layers.DepthwiseConv2D(
            3, strides=stride, padding='same', depth_multiplier=multiplier, name=name,
            use_bias=self.use_bias, depthwise_initializer='he_normal')(x)
        return self.norm(x, name)


def _detail_branch(
    image: keras.KerasTensor, arch: Architecture, block: _Blocks,
) -> keras.KerasTensor:
    """Build the wide and shallow branch (paper section 4.1, Table 1)."""
    x = image
    for stage, (width, convolutions) in enumerate(
            zip(arch.detail_widths, (2, 3, 3), strict=True), start=1):
        for index in range(convolutions):
            x = block.conv(x, width, 3, f'detail_s{stage}_{index + 1}',
                           stride=2 if index == 0 else 1)
    return x  # 8x128


def _stem(
    image: keras.KerasTensor, width: int, arch: Architecture, block: _Blocks,
) -> keras.KerasTensor:
    """Build the stem block (paper Figure 4a)."""
    x = block.conv(image, width, 3, 'stem_conv', stride=2)
    left = block.conv(x, width // 2, 1, 'stem_left_1')
    left = block.conv(left, width, 3, 'stem_left_2', stride=2)
    right = layers.MaxPooling2D(
        2 if arch.original else 3, strides=2, padding='same', name='stem_pool')(x)
    x = layers.Concatenate(name='stem_concat')([left, right])
    return block.conv(x, width, 3, 'stem_fuse')  # 4x16


def _gather_expand(
    x: keras.KerasTensor, width: int, stride: int, name: str, arch: Architecture, block: _Blocks,
) -> keras.KerasTensor:
    """Build a gather-and-expansion layer (paper Figure 5)."""
    shortcut = x
    # Figure 5 leaves the first convolution's width open; CoinCheung/BiSeNet keeps the input's.
    gathered = width if arch.original else x.shape[-1]
    y = block.conv(x, gathered, 3, f'{name}_gather')
    if stride == 2:
        y = block.depthwise(y, f'{name}_expand', stride=2, multiplier=arch.expansion)
        y = block.depthwise(
            y, f'{name}_depthwise', multiplier=arch.expansion if arch.original else 1)
        shortcut = block.depthwise(
            shortcut, f'{name}_shortcut_depthwise', stride=2,
            multiplier=arch.expansion if arch.original else 1)
        shortcut = block.conv(shortcut, width, 1, f'{name}_shortcut_project', relu=False)
    else:
        y = block.depthwise(y, f'{name}_expand', multiplier=arch.expansion)
    y = block.conv(y, width, 1, f'{name}_project', relu=False)
    y = layers.Add(name=f'{name}_add')([y, shortcut])
    return layers.ReLU(name=f'{name}_relu')(y)


def _context_embedding(
    x: keras.KerasTensor, arch: Architecture, block: _Blocks,
) -> keras.KerasTensor:
    """Build the context embedding block (paper Figure 4b)."""
    width = x.shape[-1]
    if arch.context_add:
        context = layers.GlobalAveragePooling2D(keepdims=True, name='context_mean')(x)
        if arch.original:
            context = block.norm(context, 'context_mean')
        # Not in the paper's order: its normalization behind the mean cannot be folded on the
        # EdgeTPU; the one behind the 1x1 convolution takes over.
        context = block.conv(context, width, 1, 'context_conv')
        x = layers.Add(name='context_add')([context, x])  # the 1x1 operand first, see above
    return layers.Conv2D(
        width, 3, padding='same', name='context_fuse', kernel_initializer='he_normal')(x)  # 32x128


def _aggregate(
    detail: keras.KerasTensor, semantic: keras.KerasTensor, arch: Architecture, block: _Blocks,
) -> keras.KerasTensor:
    """Build bilateral guided aggregation (paper section 4.3, Figure 6)."""
    width = arch.aggregation_width

    def project(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = block.depthwise(x, f'{name}_depthwise')
        return layers.Conv2D(
            width, 1, name=name, use_bias=block.use_bias, kernel_initializer='he_normal')(x)

    def upsample(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.UpSampling2D(4, interpolation='bilinear', name=name)(x)

    detail_keep = project(detail, 'bga_detail_keep')  # 8
    detail_down = block.conv(detail, width, 3, 'bga_detail_down', stride=2, relu=False)
    detail_down = layers.AveragePooling2D(
        3, strides=2, padding='same', name='bga_detail_pool')(detail_down)  # 32
    semantic_keep = layers.Activation('sigmoid', name='bga_semantic_keep_gate')(
        project(semantic, 'bga_semantic_keep'))  # 32
    semantic_up = block.conv(semantic, width, 3, 'bga_semantic_up', relu=False)
    semantic_up = layers.Activation('sigmoid', name='bga_semantic_up_gate')(
        upsample(semantic_up, 'bga_semantic_up_resize'))  # 8

    fine = layers.Multiply(name='bga_fine')([detail_keep, semantic_up])
    coarse = layers.Multiply(name='bga_coarse')([semantic_keep, detail_down])
    coarse = upsample(coarse, 'bga_coarse_resize')
    x = layers.Add(name='bga_add')([fine, coarse])
    return block.conv(x, width, 3, 'bga_fuse', relu=False)  # 8x128


def check_input_hw(input_hw: tuple[int, int]) -> None:
    """Raise ``ValueError`` unless height and width are positive multiples of 32."""
    if any(side < SIZE_MULTIPLE or side % SIZE_MULTIPLE for side in input_hw):
        raise ValueError(
            f'input_hw: found {input_hw[0]}x{input_hw[1]}, expected a height and a width that are '
            f'multiples of {SIZE_MULTIPLE}; the network halves its input five times.')


def check_output_stride(stride: int) -> None:
    """Raise ``ValueError`` unless a head at stride 8 can be brought to this one."""
    if stride not in (8, 4, 2, 1):
        raise ValueError(f'output_stride: found {stride}, expected 8, 4, 2 or 1.')


def build(
    arch: Architecture, input_hw: tuple[int, int], *,
    boosters: bool = False, batch_size: int | None = None, bn_momentum: float = 0.95,
) -> keras.Model:
    """
    Build BiSeNetV2.

    Parameters
    ----------
    arch : Architecture
        Widths and variants.
    input_hw : (int, int)
        Input height and width in pixels, multiples of 32.
    boosters : bool
        Add the training-only heads; the model then returns a dict with the keys ``logits`` and
        ``BOOSTERS``.
    batch_size : int or None
        Fixed batch size; 1 for export, so that every shape is static.
    bn_momentum : float
        Of the moving statistics. 0.99, Keras' default, lags on runs of a few thousand steps.

    Returns
    -------
    keras.Model
        ``float32[N, H, W, 3]`` RGB in [0, 1] to logits ``float32[N, H/s, W/s, num_classes]``
        with ``s = output_stride``; booster logits leave at their own stage's stride.

    Raises
    ------
    ValueError
        If ``input_hw`` or ``output_stride`` cannot be built.

    """
    check_input_hw(input_hw)
    check_output_stride(arch.output_stride)
    block = _Blocks(bn_momentum, arch.original, fused_norm=boosters)
    stem_width, s3, s4, s5 = arch.semantic_widths
    image = keras.Input((*input_hw, 3), batch_size=batch_size, name='image')

    detail = _detail_branch(image, arch, block)
    stages = {'stem': _stem(image, stem_width, arch, block)}
    x = stages['stem']
    for stage, width, count in (('s3', s3, 2), ('s4', s4, 2), ('s5', s5, 4)):
        for index in range(count):
            x = _gather_expand(x, width, 2 if index == 0 else 1, f'{stage}_ge{index + 1}',
                               arch, block)
        stages[stage] = x
    semantic = _context_embedding(x, arch, block)

    fused = _aggregate(detail, semantic, arch, block)
    features = block.conv(fused, arch.head_width, 3, 'head_conv')
    logits = layers.Conv2D(
        arch.num_classes, 3 if arch.original else 1, padding='same', name='head_logits')(features)
    if arch.output_stride < 8:
        logits = layers.UpSampling2D(
            8 // arch.output_stride, interpolation='bilinear', name='head_resize')(logits)
    # Named so that the exported tensor tells what it is.
    logits = layers.Activation('linear', name='logits', dtype='float32')(logits)
    if not boosters:
        return keras.Model(image, logits, name='bisenetv2')

    classes = arch.booster_classes or arch.num_classes
    outputs = {'logits': logits}
    for name, stage in zip(BOOSTERS[:-1], stages.values(), strict=True):
        y = block.conv(stage, arch.booster_width, 3, f'{name}_conv')
        outputs[name] = layers.Conv2D(classes, 1, name=name, dtype='float32')(y)
    outputs['booster_head'] = layers.Conv2D(
        classes, 1, name='booster_head', dtype='float32')(features)
    return keras.Model(image, outputs, name='bisenetv2_boosted')


def transfer_weights(
    source: keras.Model, target: keras.Model, *, skip: Callable[[str], bool] = lambda _: False,
) -> list[str]:
    """
    Copy weights between two models by layer name.

    Parameters
    ----------
    source, target : keras.Model
        Models of ``build``; ``target`` may lack layers of ``source`` (boosters, say).
    skip : callable
        Tells of a layer's name whether to leave it as it is in ``target``.

    Returns
    -------
    list of str
        Names of the layers of ``target`` that kept their own weights: skipped, absent from
        ``source``, or of another shape there.

    """
    theirs = {layer.name: layer for layer in source.layers}
    kept = []
    for layer in target.layers:
        if not layer.weights:
            continue
        other = theirs.get(layer.name)
        if (skip(layer.name) or other is None
                or [w.shape for w in other.weights] != [w.shape for w in layer.weights]):
            kept.append(layer.name)
        else:
            layer.set_weights(other.get_weights())
    return kept


def deployable(
    trained: keras.Model, arch: Architecture, input_hw: tuple[int, int],
) -> keras.Model:
    """
    Return the model to export: no boosters, a batch of one, static shapes.

    Parameters
    ----------
    trained : keras.Model
        A model of ``build`` with the same architecture, with or without boosters; its input
        size may differ, since no weight depends on it.
    arch : Architecture
        What ``trained`` was built from.
    input_hw : (int, int)
        Input height and width of the exported model in pixels.

    Returns
    -------
    keras.Model
        ``float32[1, H, W, 3]`` to ``float32[1, H/s, W/s, num_classes]``.

    Raises
    ------
    ValueError
        If a layer of the deployed network has no counterpart in ``trained``.

    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy('float32')
    try:
        model = build(arch, input_hw, batch_size=1)
    finally:
        keras.config.set_dtype_policy(policy)
    if missing := transfer_weights(trained, model):
        raise ValueError(
            f'{trained.name}: found no weights for {", ".join(missing)}; expected a model built '
            'from the same architecture.')
    return model
