"""
What a frame may cost, in counts that do not depend on the machine.

numpy tells ``tracemalloc`` of its memory, and OpenCV's results are numpy arrays; what OpenCV, the
runtime and the middleware take inside is not seen. ``benchmarks/frame_path.py`` measures time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tflite_models import Toy
from traced_memory import traced_bytes

from bisenet_ros.core import isolation
from bisenet_ros.core.buffers import Scratch
from bisenet_ros.core.contract import palette
from bisenet_ros.core.engine import LiteRtEngine, input_memory
from bisenet_ros.core.engines import Opener, open_engine
from bisenet_ros.core.isolation import IsolatedEngine
from bisenet_ros.core.outputs import ENCODINGS, OutputPainter
from bisenet_ros.core.postprocess import ScoreDecoder, Wanted
from bisenet_ros.core.preprocess import FITS
from bisenet_ros.core.segmenter import (
    OUTPUT_SIZES,
    SHIPPED_MODEL,
    Segmenter,
    Settings,
    load_contract,
)
from bisenet_ros.core.shared import EnginePool

HD = (720, 1280)

#: The smaller one first.
SHIPPED = sorted(SHIPPED_MODEL.parent.glob('*.tflite'))

#: What may be allocated while a frame is under way: scores, masks' rows and small things, but no
#: copy of a frame (2.7 MB), of a result (0.9 MB) or of the network's input (0.4 MB).
SMALL_BYTES = 100_000

#: What may stay behind after a thousand frames: two bytes of each, less than a reference takes.
GROWTH_BYTES = 2_000
FRAMES = 1000

#: Frames that are counted and not measured may be small.
SMALL = (90, 160)

OUTPUT_SETS = [('mask',), ('labels', 'confidence'), tuple(ENCODINGS)]


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most memory that was held at once, above what was held before."""
    return traced_bytes(work)[1]


def held_bytes(work: Callable[[], object]) -> int:
    """Return what is still held behind some work, above what was held before."""
    return traced_bytes(work)[0]


def growth_bytes(work: Callable[[], object], times: int) -> int:
    """Return what stays behind."""
    def repeated(count: int) -> None:
        for _ in range(count):
            work()

    return traced_bytes(lambda: repeated(times), lambda: repeated(5))[0]


def spied(owner: object, name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return the arguments of all calls of a function that are made from now on."""
    calls, function = [], getattr(owner, name)

    def spy(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(owner, name, spy)
    return calls


def frame_bgr(hw: tuple[int, int] = HD) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)


class CountingInterpreter:
    """A runtime's interpreter, with what crosses its border counted."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter, self.calls = interpreter, []

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        self.calls.append(('in', value.nbytes))
        self._interpreter.set_tensor(index, value)

    def invoke(self) -> None:
        self.calls.append(('invoke', 0))
        self._interpreter.invoke()

    def get_tensor(self, index: int) -> np.ndarray:
        value = self._interpreter.get_tensor(index)
        self.calls.append(('out', value.nbytes))
        return value


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return Toy().save(tmp_path)


# -- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize('model', SHIPPED, ids=lambda model: model.stem)
def test_the_shipped_models_operations_and_bytes(model: Path) -> None:
    operations = LiteRtEngine(model, 1)._interpreter._get_ops_details()
    # XNNPACK leaves the operations that it took over in the list, and adds itself.
    names = [operation['op_name'] for operation in operations
             if operation['op_name'] != 'DELEGATE']
    assert len(names) <= 77
    assert model.stat().st_size <= 2_000_000


@pytest.mark.parametrize(('model', 'bytes_in', 'bytes_out'), [
    (SHIPPED[0], 128 * 256 * 3, 16 * 32 * 2), (SHIPPED[1], 256 * 512 * 3, 32 * 64 * 2),
    (SHIPPED[2], 256 * 512 * 3, 32 * 64 * 2),
], ids=[model.stem for model in SHIPPED])
def test_the_bytes_that_cross_the_border(model: Path, bytes_in: int, bytes_out: int) -> None:
    engine = LiteRtEngine(model, 1)
    counting = engine._interpreter = CountingInterpreter(engine._interpreter)
    segmenter = Segmenter(engine, load_contract(model))
    for _ in range(3):
        segmenter.segment(frame_bgr(SMALL), wanted=Wanted(True, True, True))
    # In: a byte for each value of the image. Out: one for each of two logits at stride 8; at full
    # size and in float, as networks often end, they would be 256 times as many.
    assert counting.calls == 3 * [('in', bytes_in), ('invoke', 0), ('out', bytes_out)]


@pytest.mark.parametrize('shared', [False, True])
def test_one_invocation_a_frame(
    shared: bool, toy: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    opener = EnginePool().open if shared else open_engine
    segmenter = Segmenter.load(toy, device='cpu', num_threads=1, opener=opener)
    engine = segmenter.engine._shared.engine if shared else segmenter.engine
    runs, invocations = spied(engine, 'run', monkeypatch), spied(
        engine._interpreter, 'invoke', monkeypatch)
    for index, fit in enumerate(FITS):
        segmenter.settings = Settings(fit=fit, smoothing=0.5)
        segmenter.segment(frame_bgr(SMALL), wanted=Wanted(True, True, True))
        assert len(runs) == len(invocations) == index + 1
    segmenter.close()


# -- memory --------------------------------------------------------------------------------------


class Frames:
    """Frames to pictures, in memory that is used again, as the node does it."""

    def __init__(
        self, model: Path | None, names: tuple[str, ...], hw: tuple[int, int] = HD,
        opener: Opener = open_engine, **settings: object,
    ) -> None:
        self.segmenter = Segmenter.load(
            model, device='cpu', num_threads=1, settings=Settings(**settings), opener=opener)
        self._painter = OutputPainter(self.segmenter.contract)
        self._names, self._frame, self._memory = names, frame_bgr(hw), Scratch()

    def run(self) -> None:
        result = self.segmenter.segment(
            self._frame, channels='bgr', wanted=OutputPainter.wanted(self._names),
            allocate=self._memory)
        self._painter.paint(
            self._names, result, self._frame, 0.5, allocate=self._memory)


@pytest.mark.parametrize('names', OUTPUT_SETS)
@pytest.mark.parametrize('fit', FITS)
@pytest.mark.parametrize('output_size', OUTPUT_SIZES)
def test_no_copy_of_frame_input_or_result(
    names: tuple[str, ...], fit: str, output_size: str,
) -> None:
    frames = Frames(None, names, fit=fit, min_confidence=0.6, output_size=output_size)
    frames.run()  # which allocates what is used again
    assert peak_bytes(frames.run) < SMALL_BYTES


def test_no_copy_is_made_for_an_engine_that_is_shared() -> None:
    pool = EnginePool()
    frames = Frames(None, ('mask',), opener=pool.open)
    frames.run()
    assert peak_bytes(frames.run) < SMALL_BYTES
    pool.close()


@pytest.mark.parametrize(('names', 'pixels'), [
    # Bytes for each of the frame's: the mask, and how far one score is ahead of the other, in 16
    # bits; or the two pictures, and the lead in 16 and in 8 bits. A frame has three.
    (('mask',), 1 + 2),
    (('labels', 'confidence'), 2 + 2 + 1),
])
def test_what_is_kept_holds_no_copy_of_a_frame(names: tuple[str, ...], pixels: int) -> None:
    frames = Frames(None, names)
    frames.segmenter.segment(frame_bgr(SMALL))  # the runtime's own
    # And the network's input, with and without the camera's order of colours.
    made = pixels * HD[0] * HD[1] + 2 * 256 * 512 * 3
    assert held_bytes(frames.run) < made + SMALL_BYTES


@pytest.mark.parametrize('names', OUTPUT_SETS)
def test_a_thousand_frames_leave_nothing_behind(toy: Path, names: tuple[str, ...]) -> None:
    frames = Frames(toy, names, SMALL, smoothing=0.5)
    assert growth_bytes(frames.run, FRAMES) < GROWTH_BYTES


def test_a_caller_without_memory_gets_its_results_and_pays_for_no_more() -> None:
    segmenter = Segmenter.load(device='cpu', num_threads=1)
    frame, kept = frame_bgr(), []

    def work() -> None:
        kept.append(segmenter.segment(frame, wanted=Wanted(True, True, True)))

    work()
    results_bytes = 3 * HD[0] * HD[1]
    assert results_bytes <= peak_bytes(work) < results_bytes + SMALL_BYTES
    first, second = kept
    assert not np.shares_memory(first.mask, second.mask)


@pytest.mark.parametrize('classes', [3, 19])
def test_many_classes_take_no_memory_per_frame(classes: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(-100, 100, (32, 64, classes)).astype(np.int16)
    decoder, memory = ScoreDecoder(classes, 0.05, 'logits'), Scratch()

    def work() -> None:
        decoder.decide(
            scores, HD[::-1], Wanted(True, True, True), frozenset({1}), 0.6, memory)

    work()
    # A few float copies of the scores at the network's own size, nothing at the frame's.
    assert peak_bytes(work) < SMALL_BYTES + 8 * scores.size * 4
    assert len(palette(classes)) == classes


def test_memory_follows_the_largest_frame_and_stays() -> None:
    segmenter, memory = Segmenter.load(device='cpu', num_threads=1), Scratch()
    sizes = [frame_bgr(hw) for hw in ((480, 640), HD, SMALL)]

    def work() -> None:
        for frame in sizes:
            segmenter.segment(frame, wanted=Wanted(mask=True), allocate=memory)

    work()
    assert peak_bytes(work) < SMALL_BYTES


# -- a child process -----------------------------------------------------------------------------


def test_the_input_is_made_in_the_childs_memory(
    toy: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, here = IsolatedEngine(toy), LiteRtEngine(toy, 1)
    contract = Toy().contract()
    copies = spied(isolation.np, 'copyto', monkeypatch)

    def into_memory() -> int:
        return sum(target is memory for target, *_ in copies)

    try:
        segmenter = Segmenter(engine, contract)
        memory, frame = engine.input_memory, frame_bgr(SMALL)
        memory[:] = 0
        runs = spied(engine, 'run', monkeypatch)
        result = segmenter.segment(frame)
        expected = Segmenter(here, contract).segment(frame)
        np.testing.assert_array_equal(result.labels, expected.labels)
        assert memory.any()
        assert engine.input_memory is memory
        assert [image is memory for image, in runs] == [True]
        assert into_memory() == 0
        # An image from elsewhere is copied there.
        image = np.random.default_rng(1).integers(0, 256, memory.shape, np.uint8)
        np.testing.assert_array_equal(engine.run(image), here.run(image))
        np.testing.assert_array_equal(memory, image)
        assert into_memory() == 1
        monkeypatch.undo()
        assert growth_bytes(lambda: segmenter.segment(frame), FRAMES) < GROWTH_BYTES
    finally:
        engine.close()
    assert engine.input_memory is None
    memory[:] = 1  # lent memory outlives the engine


def test_the_supervisor_passes_the_childs_memory_on(
    toy: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    segmenter = Segmenter.load(toy, device='cpu', isolation='process')
    try:
        memory = input_memory(segmenter.engine)
        memory[:] = 0
        runs = spied(segmenter.engine, 'run', monkeypatch)
        segmenter.segment(np.full((*SMALL, 3), 9, np.uint8))
        assert (memory == 9).all()
        assert [image is memory for image, in runs] == [True]
    finally:
        segmenter.close()
    assert input_memory(segmenter.engine) is None


def test_an_engine_without_such_memory_is_asked_for_none(toy: Path) -> None:
    assert input_memory(LiteRtEngine(toy, 1)) is None
