"""Where a frame lies on the network's input, and which bytes arrive there."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisenet_ros.core.contract import ModelContract, palette
from bisenet_ros.core.errors import SettingsError
from bisenet_ros.core.preprocess import (
    CHANNELS, FITS, PADDING, Placement, Preprocessor, Rect, placement,
)

Bytes = npt.NDArray[np.uint8]

INPUT_HW = (32, 64)
UINT8 = (np.uint8, 1 / 255, 0)


def contract(
    channels: str = 'rgb', scale: tuple[float, float, float] = (1 / 255,) * 3,
    mean: tuple[float, float, float] = (0.0,) * 3, input_hw: tuple[int, int] = INPUT_HW,
) -> ModelContract:
    return ModelContract(
        input_hw=input_hw, channels=channels, input_scale=scale, input_mean=mean,
        output_kind='logits', output_stride=8, class_names=('a', 'b'),
        class_colors_rgb=palette(2))


def random_rgb(height: int, width: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def network_input(frame: Bytes, channels: str = 'rgb', fit: str = 'stretch') -> Bytes:
    place = placement(frame.shape[:2], INPUT_HW, 8, fit)
    return Preprocessor(contract(), *UINT8).network_input(frame, channels, place)


# -- placement -----------------------------------------------------------------------------------


@pytest.mark.parametrize(('fit', 'frame_hw', 'source', 'target'), [
    ('stretch', (480, 640), Rect(0, 0, 640, 480), Rect(0, 0, 512, 256)),
    ('stretch', (1, 1), Rect(0, 0, 1, 1), Rect(0, 0, 512, 256)),
    # 640x480 is taller than 2:1: full width, 320 rows from row 80
    ('crop', (480, 640), Rect(0, 80, 640, 320), Rect(0, 0, 512, 256)),
    # 400x100 is wider: full height, 200 columns from column 100
    ('crop', (100, 400), Rect(100, 0, 200, 100), Rect(0, 0, 512, 256)),
    ('crop', (481, 641), Rect(0, 80, 641, 320), Rect(0, 0, 512, 256)),
    ('crop', (256, 512), Rect(0, 0, 512, 256), Rect(0, 0, 512, 256)),
    ('crop', (2160, 3840), Rect(0, 120, 3840, 1920), Rect(0, 0, 512, 256)),
    ('crop', (1, 1), Rect(0, 0, 1, 1), Rect(0, 0, 512, 256)),
    ('crop', (1, 4000), Rect(1999, 0, 2, 1), Rect(0, 0, 512, 256)),
    # 640x480 at height 256 is 341.3 wide: 43 cells of 8 are 344, ten cells before, eleven behind
    ('letterbox', (480, 640), Rect(0, 0, 640, 480), Rect(80, 0, 344, 256)),
    # 1280x360 at width 512 is 144 high: 18 of 32 cells, seven above and below
    ('letterbox', (360, 1280), Rect(0, 0, 1280, 360), Rect(0, 56, 512, 144)),
    ('letterbox', (720, 1280), Rect(0, 0, 1280, 720), Rect(24, 0, 456, 256)),
    ('letterbox', (256, 512), Rect(0, 0, 512, 256), Rect(0, 0, 512, 256)),
    ('letterbox', (1, 1), Rect(0, 0, 1, 1), Rect(128, 0, 256, 256)),
    ('letterbox', (4000, 1), Rect(0, 0, 1, 4000), Rect(248, 0, 8, 256)),  # one cell at least
])
def test_placement(fit: str, frame_hw: tuple[int, int], source: Rect, target: Rect) -> None:
    assert placement(frame_hw, (256, 512), 8, fit) == Placement(
        frame_hw, (256, 512), source, target)


SIDE = st.integers(1, 5000)


@settings(max_examples=150, deadline=None)
@given(fit=st.sampled_from(FITS), frame_hw=st.tuples(SIDE, SIDE),
       cells=st.tuples(st.integers(1, 40), st.integers(1, 40)),
       stride=st.sampled_from((1, 4, 8, 32)))
def test_any_placement_keeps_its_promises(
    fit: str, frame_hw: tuple[int, int], cells: tuple[int, int], stride: int,
) -> None:
    input_h, input_w = cells[0] * stride, cells[1] * stride
    place = placement(frame_hw, (input_h, input_w), stride, fit)
    for rect, (height, width) in ((place.source, frame_hw), (place.target, (input_h, input_w))):
        assert 0 <= rect.x < rect.x + rect.width <= width
        assert 0 <= rect.y < rect.y + rect.height <= height
    source, target = place.source, place.target
    assert all(side % stride == 0 for side in (target.x, target.y, target.width, target.height))
    if fit == 'stretch':
        assert (source.height, source.width) == frame_hw
        assert (target.height, target.width) == (input_h, input_w)
    elif fit == 'crop':
        assert (target.height, target.width) == (input_h, input_w)
        assert source.width == frame_hw[1] or source.height == frame_hw[0]
        # the input's aspect to within the rounding of a pixel
        assert (abs(source.width - source.height * input_w / input_h)
                <= max(0.5, 0.5 * input_w / input_h) + 1e-9 or 1 in (source.width, source.height))
        assert abs(2 * source.x + source.width - frame_hw[1]) <= 1  # centred
        assert abs(2 * source.y + source.height - frame_hw[0]) <= 1
    else:
        assert (source.height, source.width) == frame_hw
        scale = min(input_w / frame_hw[1], input_h / frame_hw[0])
        for found, wanted in ((target.height, frame_hw[0] * scale),
                              (target.width, frame_hw[1] * scale)):
            assert abs(found - wanted) <= stride / 2 or found == stride
        assert abs(2 * target.x + target.width - input_w) <= stride
        assert abs(2 * target.y + target.height - input_h) <= stride


def test_unknown_fit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"fit: found 'pad', expected one of stretch, crop, "
                                            r'letterbox'):
        placement((10, 10), INPUT_HW, 8, 'pad')


def test_rect_of_is_a_view_of_rows_and_columns() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    view = Rect(1, 0, 2, 2).of(image)
    np.testing.assert_array_equal(view, [[1, 2], [5, 6]])
    assert np.shares_memory(view, image)


# -- values --------------------------------------------------------------------------------------


def test_halving_a_frame_averages_pairs() -> None:
    frame = np.zeros((64, 128, 3), np.uint8)
    frame[:, 1::2] = 100  # every pair of columns: 0 and 100
    frame[1::2] += 20  # every pair of rows: +0 and +20
    np.testing.assert_array_equal(network_input(frame), np.full((*INPUT_HW, 3), 60, np.uint8))


def test_frame_of_the_inputs_size_arrives_as_it_is_and_stays_untouched() -> None:
    rgb = random_rgb(*INPUT_HW)
    before = rgb.copy()
    image = network_input(rgb)
    np.testing.assert_array_equal(image, rgb)
    image[:] = 0
    np.testing.assert_array_equal(rgb, before)


@pytest.mark.parametrize('fit', FITS)
@pytest.mark.parametrize('order', ['rgb', 'bgr'])
def test_all_channel_orders_agree(order: str, fit: str) -> None:
    rgb = random_rgb(48, 50)
    opaque = np.full((48, 50, 1), 255, np.uint8)
    gray = rgb[..., 0]
    frames = {
        'rgb': rgb, 'bgr': rgb[..., ::-1], 'rgba': np.concatenate([rgb, opaque], -1),
        'bgra': np.concatenate([rgb[..., ::-1], opaque], -1), 'gray': gray}
    assert set(frames) == set(CHANNELS)
    place = placement((48, 50), INPUT_HW, 8, fit)
    inputs = {
        channels: Preprocessor(contract(order), *UINT8).network_input(frame, channels, place)
        for channels, frame in frames.items()}
    expected = inputs['rgb'] if order == 'rgb' else inputs['bgr']
    for channels in ('rgb', 'bgr', 'rgba', 'bgra'):
        np.testing.assert_array_equal(inputs[channels], expected)
    red = expected[..., 0 if order == 'rgb' else 2]
    for channel in range(3):
        np.testing.assert_array_equal(inputs['gray'][..., channel], red)


def test_alpha_is_not_blended_in() -> None:
    rgba = np.full((32, 64, 4), 200, np.uint8)
    rgba[..., 3] = 0
    assert (network_input(rgba, 'rgba') == 200).all()


@pytest.mark.parametrize('fit', FITS)
def test_memory_layout_does_not_matter(fit: str) -> None:
    rgb = random_rgb(45, 77)
    padded_step = np.zeros((45, 90, 3), np.uint8)
    padded_step[:, :77] = rgb
    spread = np.zeros((90, 154, 3), np.uint8)
    spread[::2, ::2] = rgb
    readonly = rgb.copy()
    readonly.flags.writeable = False
    expected = network_input(rgb, fit=fit)
    for frame in (padded_step[:, :77], spread[::2, ::2], np.asfortranarray(rgb),
                  rgb[::-1, ::-1].copy()[::-1, ::-1], rgb.transpose(1, 0, 2).copy().swapaxes(0, 1),
                  readonly):
        np.testing.assert_array_equal(network_input(frame, fit=fit), expected)


@pytest.mark.parametrize('hw', [(1, 1), (1, 77), (45, 1), (33, 65), (2160, 3840)])
@pytest.mark.parametrize('fit', FITS)
def test_any_size_gives_the_inputs_size(hw: tuple[int, int], fit: str) -> None:
    frame = np.full((*hw, 3), 200, np.uint8)
    image = network_input(frame, fit=fit)
    assert image.shape == (*INPUT_HW, 3)
    assert image.dtype == np.uint8
    target = placement(hw, INPUT_HW, 8, fit).target
    assert (target.of(image) == 200).all()


def test_crop_sees_nothing_of_what_is_cut_off() -> None:
    frame = np.zeros((101, 120, 3), np.uint8)
    source = placement((101, 120), INPUT_HW, 8, 'crop').source
    assert source == Rect(0, 20, 120, 60)
    source.of(frame)[:] = 255
    assert (network_input(frame, fit='crop') == 255).all()


def test_letterbox_has_bars_and_a_sharp_border() -> None:
    image = network_input(np.full((60, 60, 3), 255, np.uint8), fit='letterbox')
    expected = np.full((*INPUT_HW, 3), PADDING, np.uint8)
    expected[:, 16:48] = 255
    np.testing.assert_array_equal(image, expected)


def test_letterbox_keeps_nothing_of_frames_before() -> None:
    preprocessor = Preprocessor(contract(), *UINT8)
    for hw, fit in (((60, 60), 'letterbox'), ((20, 200), 'letterbox'), ((60, 60), 'stretch'),
                    ((90, 30), 'letterbox'), ((60, 60), 'letterbox'), ((60, 60), 'letterbox')):
        rgb = random_rgb(*hw, seed=sum(hw))
        place = placement(hw, INPUT_HW, 8, fit)
        np.testing.assert_array_equal(
            preprocessor.network_input(rgb, 'rgb', place), network_input(rgb, fit=fit))


def plain_input(frame: Bytes, channels: str, place: Placement, order: str, dtype: type) -> Bytes:
    """Do it as it is written down: colours first, everything in new arrays."""
    codes = {'rgba': cv2.COLOR_RGBA2RGB, 'bgra': cv2.COLOR_BGRA2RGB, 'bgr': cv2.COLOR_BGR2RGB,
             'gray': cv2.COLOR_GRAY2RGB}
    frame = np.ascontiguousarray(place.source.of(frame))
    rgb = cv2.cvtColor(frame, codes[channels]) if channels in codes else frame
    padded = np.full((*INPUT_HW, 3), PADDING, np.uint8)
    place.target.of(padded)[:] = cv2.resize(
        rgb, (place.target.width, place.target.height), interpolation=cv2.INTER_LINEAR)
    image = padded if order == 'rgb' else padded[..., ::-1]
    return image if dtype == np.uint8 else (image.astype(np.int16) - 128).astype(np.int8)


@pytest.mark.parametrize('dtype', [np.uint8, np.int8])
@pytest.mark.parametrize('order', ['rgb', 'bgr'])
@pytest.mark.parametrize('fit', FITS)
def test_bit_for_bit_the_plain_way(fit: str, order: str, dtype: type) -> None:
    preprocessor = Preprocessor(
        contract(order), dtype, 1 / 255, 0 if dtype == np.uint8 else -128)
    for hw in ((480, 640), (61, 97), (1, 1), (32, 64)):
        for channels in CHANNELS:
            depth = {'gray': (), 'rgba': (4,), 'bgra': (4,)}.get(channels, (3,))
            frame = np.random.default_rng(0).integers(0, 256, (*hw, *depth), np.uint8)
            place = placement(hw, INPUT_HW, 8, fit)
            np.testing.assert_array_equal(
                preprocessor.network_input(frame, channels, place),
                plain_input(frame, channels, place, order, dtype))


@pytest.mark.parametrize('dtype', [np.uint8, np.int8])
@pytest.mark.parametrize('channels', ['rgb', 'bgr', 'gray'])
@pytest.mark.parametrize('fit', FITS)
def test_the_input_is_made_where_it_is_wanted(fit: str, channels: str, dtype: type) -> None:
    preprocessor = Preprocessor(contract(), dtype, 1 / 255, 0 if dtype == np.uint8 else -128)
    frame = random_rgb(45, 77) if channels != 'gray' else random_rgb(45, 77)[..., 0].copy()
    place = placement((45, 77), INPUT_HW, 8, fit)
    expected = preprocessor.network_input(frame, channels, place).copy()
    memory = np.full((*INPUT_HW, 3), 77, dtype)  # of a frame before
    assert preprocessor.network_input(frame, channels, place, memory) is memory
    np.testing.assert_array_equal(memory, expected)


def test_without_a_place_of_its_own_the_input_is_made_in_the_same_memory() -> None:
    preprocessor = Preprocessor(contract(), *UINT8)
    place = placement((45, 77), INPUT_HW, 8)
    first = preprocessor.network_input(random_rgb(45, 77), 'rgb', place)
    assert preprocessor.network_input(random_rgb(45, 77, 1), 'rgb', place) is first


# -- quantization --------------------------------------------------------------------------------


def all_bytes() -> Bytes:
    """Return a frame of 16x16 in which every channel takes every value."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return np.stack([ramp, ramp.T, ramp[::-1]], -1)


@pytest.mark.parametrize(('dtype', 'scale', 'zero_point', 'input_scale', 'mean', 'at'), [
    # at: the tensor's value for camera byte 0, 127, 255 in the first channel
    (np.uint8, 1 / 255, 0, (1 / 255,) * 3, (0.0,) * 3, (0, 127, 255)),
    (np.int8, 1 / 255, -128, (1 / 255,) * 3, (0.0,) * 3, (-128, -1, 127)),
    (np.uint8, 1 / 128, 128, (1 / 128,) * 3, (128.0,) * 3, (0, 127, 255)),
    # half the gain: the tensor resolves only every second byte
    (np.uint8, 2 / 255, 0, (1 / 255,) * 3, (0.0,) * 3, (0, 64, 128)),
    # the tensor ends before the camera does: clipped at both ends
    (np.int8, 1 / 100, 0, (1 / 50,) * 3, (127.0,) * 3, (-128, 0, 127)),
    (np.int8, 0.02, -3, (1 / 58.4, 1 / 57.1, 1 / 57.4), (123.7, 116.3, 103.5), (-109, 0, 109)),
])
@pytest.mark.parametrize('order', ['rgb', 'bgr'])
def test_bytes_become_the_tensors_values(
    order: str, dtype: type, scale: float, zero_point: int,
    input_scale: tuple[float, float, float], mean: tuple[float, float, float],
    at: tuple[int, int, int],
) -> None:
    rgb = all_bytes()
    of = contract(order, input_scale, mean, (16, 16))
    place = placement((16, 16), (16, 16), 8)
    found = Preprocessor(of, dtype, scale, zero_point).network_input(rgb, 'rgb', place)
    seen = rgb if order == 'rgb' else rgb[..., ::-1]  # scale and mean go by the model's channels
    real = (seen.astype(np.float64) - mean) * input_scale
    limits = np.iinfo(dtype)
    expected = np.clip(np.round(real / scale) + zero_point, limits.min, limits.max)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    by_byte = dict(zip(seen[..., 0].flat, found[..., 0].flat, strict=True))
    assert (by_byte[0], by_byte[127], by_byte[255]) == at


def test_bars_are_quantized_too() -> None:
    place = placement((16, 16), INPUT_HW, 8, 'letterbox')
    image = Preprocessor(contract(), np.int8, 1 / 255, -128).network_input(
        np.zeros((16, 16, 3), np.uint8), 'rgb', place)
    assert (image[:, :16] == PADDING - 128).all()
    assert (image[:, 16:48] == -128).all()


def test_resize_is_bilinear_as_in_training() -> None:
    rgb = random_rgb(53, 91)
    expected = cv2.resize(rgb, INPUT_HW[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(network_input(rgb), expected)
