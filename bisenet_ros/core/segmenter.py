"""The whole of it without ROS: a model, its contract, and frames to masks."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bisenet_ros.core import postprocess
from bisenet_ros.core.buffers import Allocate, Scratch, new_array
from bisenet_ros.core.contract import (
    UNLABELED, ModelContract, contract_path, file_sha256, palette, read_class_list, read_contract,
)
from bisenet_ros.core.edgetpu_library import EDGETPU_LIBRARY
from bisenet_ros.core.engine import Engine, TensorSpec, check_model_file, input_memory
from bisenet_ros.core.engines import Model, Opener, Placing, open_engine
from bisenet_ros.core.errors import ModelError, SettingsError
from bisenet_ros.core.health import Level
from bisenet_ros.core.postprocess import Decision, ScoreDecoder, Wanted
from bisenet_ros.core.preprocess import CHANNELS, FITS, Placement, Preprocessor, placement
from bisenet_ros.core.shared import EngineShare
from bisenet_ros.core.supervisor import DeviceStatus, Event, SupervisedEngine

#: The model that comes with the package.
SHIPPED_MODEL = Path(__file__).parents[1] / 'models' / 'road_256x512.tflite'

OUTPUT_SIZES = ('input', 'model')


@dataclasses.dataclass(frozen=True)
class Settings:
    """
    What may change between two frames.

    Parameters
    ----------
    mask_classes : tuple of str
        Classes that the mask marks; empty means every class but the first for a model of two,
        ``road`` for others, which must have it then.
    min_confidence : float
        Probability in [0, 1] below which a pixel is unlabeled.
    output_size : str
        ``input``: results have the frame's size; ``model``: the network's input size.
    fit : str
        ``stretch``, ``crop`` or ``letterbox``, see ``preprocess.placement``.
    smoothing : float
        Weight in [0, 0.95] of the past in an exponential mean of the scores.

    """

    mask_classes: tuple[str, ...] = ()
    min_confidence: float = 0.0
    output_size: str = 'input'
    fit: str = 'stretch'
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is out of range, naming the range."""
        if isinstance(cast('object', self.mask_classes), str):
            raise SettingsError(
                f'mask_classes: found the text {self.mask_classes!r}, expected a tuple of names: '
                f'({self.mask_classes!r},).')
        for name, value, low, high in (
                ('min_confidence', self.min_confidence, 0.0, 1.0),
                ('smoothing', self.smoothing, 0.0, 0.95)):
            if not low <= value <= high:
                raise SettingsError(f'{name}: found {value}, expected {low} to {high}.')
        for name, text, choices in (
                ('output_size', self.output_size, OUTPUT_SIZES), ('fit', self.fit, FITS)):
            if text not in choices:
                raise SettingsError(
                    f'{name}: found {text!r}, expected one of {", ".join(choices)}.')


@dataclasses.dataclass(frozen=True)
class Timings:
    """Seconds that one frame took, by stage."""

    preprocess: float
    invoke: float
    postprocess: float

    @property
    def total(self) -> float:
        return self.preprocess + self.invoke + self.postprocess


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """
    Result for one frame; ``None`` for what was not asked for.

    ``labels``: ``uint8[H, W]`` class ids, 255 = unlabeled. ``confidence``: ``uint8[H, W]``,
    probability of the reported class times 255. ``mask``: ``uint8[H, W]``, 255 on the mask
    classes. ``timings``: seconds.

    """

    labels: npt.NDArray[np.uint8] | None
    confidence: npt.NDArray[np.uint8] | None
    mask: npt.NDArray[np.uint8] | None
    timings: Timings


def model_path(model: Path | str | None) -> Path:
    """
    Return the file that a model's name means.

    Parameters
    ----------
    model : Path, str or None
        Path of a ``.tflite`` file; or the bare name of a model that comes with the package
        (``road_128x256``), unless such a file lies in the current folder; None is the default.

    Raises
    ------
    ModelError
        If it is neither.

    """
    if model is None:
        return SHIPPED_MODEL
    try:
        path = Path(model).expanduser()
    except RuntimeError as error:
        raise ModelError(f'{model}: {error}; give the whole path.') from error
    if path.name == str(model) and not path.suffix and not path.exists():
        shipped = sorted(SHIPPED_MODEL.parent.glob('*.tflite'))
        for file in shipped:
            if file.stem == path.name:
                return file
        raise ModelError(
            f'{model}: found no such file, expected the path of a .tflite, or one of '
            f'{", ".join(file.stem for file in shipped)}, which come with the package.')
    return path


def load_contract(model: Path, class_names: Sequence[str] = ()) -> ModelContract | None:
    """
    Read and verify the contract beside a model.

    Parameters
    ----------
    model : Path
    class_names : sequence of str
        If not empty they must be the contract's.

    Returns
    -------
    ModelContract or None
        None if there is no file beside the model.

    Raises
    ------
    ModelError
        If the contract cannot be read or the two files are not from the same export.

    """
    path = contract_path(model)
    if not path.exists():
        return None
    contract = read_contract(path)
    expected = _written_sha256(contract, model)
    if expected and (found := file_sha256(model)) != expected:
        raise ModelError(
            f'{model}: its sha256 is {found[:12]}..., {path.name} says {expected[:12]}...; the '
            'file is damaged or the two are not from the same export: copy both again.')
    if class_names and tuple(class_names) != contract.class_names:
        raise ModelError(
            f'{path}: its classes are {list(contract.class_names)}, but class_names says '
            f'{list(class_names)}; class_names is for models without a contract, leave it empty.')
    return contract


def _written_sha256(contract: ModelContract, model: Path) -> str:
    compiled = model.stem.endswith('_edgetpu')
    return contract.edgetpu_sha256 if compiled else contract.sha256


def infer_contract(model: Path, engine: Engine, class_names: Sequence[str]) -> ModelContract:
    """
    Work out a contract for a model that came without one.

    Parameters
    ----------
    model : Path
        For messages, and for ``<model>.txt``, a class list (``contract.read_class_list``) that
        is read where ``class_names`` is empty.
    engine : Engine
        With the model loaded.
    class_names : sequence of str
        Names by class id, or the path of one class list.

    Returns
    -------
    ModelContract

    Raises
    ------
    ModelError
        If the tensors leave a doubt or the classes are not named.

    """
    image, result = engine.input, engine.output
    if image.dtype != np.uint8:
        raise ModelError(
            f'{model}: has no contract and its input is {image}, expected uint8; write a contract '
            f'({contract_path(model).name}), see the README.')
    beside = model.with_suffix('.txt')
    if len(class_names) == 1 and class_names[0].endswith('.txt'):
        names, colors = read_class_list(Path(class_names[0]).expanduser())
    elif class_names:
        names, colors = tuple(class_names), palette(len(class_names))
    elif beside.is_file():
        names, colors = read_class_list(beside)
    else:
        raise ModelError(
            f'{model}: has neither a contract ({contract_path(model).name}) nor class names; give '
            f'class_names, or a class list as {beside.name}.')
    if result.dtype in (np.int32, np.int64) and len(result.shape) == 3:
        kind = 'labels'
    elif len(result.shape) == 4 and result.shape[3] == len(names):
        kind = 'probabilities' if _is_softmax(result) else 'logits'
    else:
        raise ModelError(
            f'{model}: has no contract and its output is {result}, expected int64 [1, h, w] or '
            f'scores [1, h, w, {len(names)}] for the {len(names)} class names given; write a '
            'contract, or name the right number of classes.')
    input_hw = image.shape[1], image.shape[2]
    stride = max(1, round(input_hw[0] / result.shape[1]))
    return ModelContract(
        input_hw=input_hw, channels='rgb', input_scale=(image.scale,) * 3,
        input_mean=(float(image.zero_point),) * 3, output_kind=kind, output_stride=stride,
        class_names=names, class_colors_rgb=colors)


def _is_softmax(result: TensorSpec) -> bool:
    """Tell whether a tensor is quantized as TFLite demands it of a softmax."""
    return (result.dtype in (np.int8, np.uint8) and result.scale == 1 / 256
            and result.zero_point == np.iinfo(result.dtype).min)


def _range(result: TensorSpec) -> tuple[float, float]:
    """Return the smallest and the largest value that a quantized tensor can hold."""
    limits = np.iinfo(result.dtype)
    return ((limits.min - result.zero_point) * result.scale,
            (limits.max - result.zero_point) * result.scale)


def check_agreement(model: Path, contract: ModelContract, engine: Engine) -> None:
    """
    Refuse a contract that says other than the model itself.

    Raises
    ------
    ModelError
        Naming the field, what the model says and what the contract says.

    """
    image, result = engine.input, engine.output
    stride, (height, width) = contract.output_stride, contract.input_hw
    pairs: list[tuple[str, Sequence[int], Sequence[int]]] = [
        ('input height and width', image.shape[1:3], contract.input_hw),
        ('output height and width', result.shape[1:3],
         (-(-height // stride), -(-width // stride)))]
    if contract.output_kind == 'labels':
        pairs.append(('output dimensions', (len(result.shape),), (3,)))
    else:
        pairs.append(('output channels', result.shape[3:], (len(contract.class_names),)))
        pairs.append(('output quantized', (bool(result.scale),), (True,)))
    for field, found, said in pairs:
        if tuple(found) != tuple(said):
            raise ModelError(
                f'{model}: {field} is {tuple(found)}, its contract says {tuple(said)}; the two '
                'are not from the same export: export the model again with training.quantize.')
    if contract.output_kind == 'labels':
        return
    lowest, highest = _range(result)
    if contract.output_kind == 'logits' and _is_softmax(result):
        raise ModelError(
            f'{model}: its scores lie in 0 to 1 ({result}), as those of a softmax do; its '
            'contract says "logits": write "probabilities", or export the model without the '
            'softmax.')
    if contract.output_kind == 'probabilities' and not -0.1 <= lowest < highest <= 1.1:
        raise ModelError(
            f'{model}: its scores can be {lowest:.4g} to {highest:.4g} ({result}); its contract '
            'says "probabilities", which are 0 to 1: write "logits".')


class Segmenter:
    """
    Segment frames with one model.

    Not thread-safe: one frame at a time. ``settings`` may be replaced by any thread between two
    frames.

    Parameters
    ----------
    engine : Engine
        With the model loaded.
    contract : ModelContract
    settings : Settings or None
        None is the default, for models too without a class that the mask would mark: only a
        frame of which the mask is wanted is refused then.

    Raises
    ------
    SettingsError
        If ``settings`` names a class that the model does not have, or no class where the model
        has none that an empty ``mask_classes`` means.

    """

    def __init__(
        self, engine: Engine, contract: ModelContract, settings: Settings | None = None,
    ) -> None:
        self.engine = engine
        self.contract = contract
        self._preprocessor = Preprocessor(
            contract, engine.input.dtype, engine.input.scale, engine.input.zero_point)
        self._decoder = None
        if contract.output_kind != 'labels':
            self._decoder = ScoreDecoder(
                len(contract.class_names), engine.output.scale, contract.output_kind)
        self._scratch = Scratch()
        self._mean: npt.NDArray[np.float32] | None = None
        self._mean_of: Placement | None = None
        self._events: list[Event] = []
        self._unnamed_told = False
        self._state: tuple[Settings, frozenset[int] | None] = Settings(), None
        if settings is not None:
            self.settings = settings

    @classmethod
    def load(
        cls, model: str | Path | None = None, *, device: str = 'auto', num_threads: int = 0,
        class_names: Sequence[str] | str | Path = (), settings: Settings | None = None,
        isolation: str = 'auto', inference_timeout_s: float = 2.0,
        device_open_timeout_s: float = 30.0, delegate_options: Mapping[str, str] | None = None,
        edgetpu_library: str = EDGETPU_LIBRARY, allow_tensorflow: bool = True,
        stop: threading.Event | None = None, opener: Opener = open_engine,
    ) -> Segmenter:
        """
        Load a model.

        Parameters
        ----------
        model : path or None
            A ``.tflite`` file, or the name of a shipped model, see ``model_path``; None is the
            shipped road model.
        device : str
            ``auto``, ``cpu``, ``usb``, ``usb:N``, ``pci`` or ``pci:N``. An EdgeTPU runs
            ``<model>_edgetpu.tflite``. ``auto`` takes one if that file is there; the CPU serves
            until it has opened and given the CPU's labels for a golden frame, and whenever it
            fails.
        num_threads : int
            CPU threads, 0 to 64; 0 chooses.
        class_names : sequence of str, or path
            For models without a contract: names by class id, or the path of one class list.
        settings : Settings or None
            See ``Segmenter``.
        isolation : str
            Whether inference runs in a child process: ``auto`` (for an EdgeTPU), ``process`` or
            ``none``.
        inference_timeout_s, device_open_timeout_s : float
            Deadlines of a frame and of opening a device in a child process.
        delegate_options : mapping of str to str or None
            For libedgetpu: ``Performance``, ``Usb.AlwaysDfu``, ``Usb.MaxBulkInQueueLength``.
        edgetpu_library : str
            Name or path of libedgetpu.
        allow_tensorflow : bool
            Whether tensorflow may serve as the runtime where nothing lighter is installed.
        stop : threading.Event or None
            Ends the opening of a device early when set.
        opener : callable
            Opens the engine; ``EnginePool.open`` gives a share of one that several use.

        Returns
        -------
        Segmenter

        Raises
        ------
        ModelError
            If the model or its contract cannot be used.
        DeviceError
            If no runtime or not the asked device is there.
        SettingsError
            If a setting is out of range or names an unknown class.

        """
        placing = Placing(
            device, isolation, num_threads, inference_timeout_s, device_open_timeout_s,
            delegate_options or {}, allow_tensorflow, edgetpu_library)
        path = model_path(model)
        if isinstance(class_names, (str, Path)):
            class_names = (str(class_names),)
        check_model_file(path)
        contract = load_contract(path, class_names)  # its hash first: a damaged file stays unread

        def verify(file: Path) -> bool:
            beside = load_contract(file)
            return beside is not None and bool(_written_sha256(beside, file))

        def contract_of(engine: Engine) -> ModelContract:
            found = contract or infer_contract(path, engine, class_names)
            check_agreement(path, found, engine)
            return found

        def labels_of(
            engine: Engine, contract: ModelContract, frame: npt.NDArray[np.uint8],
        ) -> npt.NDArray[np.uint8]:
            result = cls(engine, contract).segment(frame, wanted=Wanted(labels=True))
            return cast('npt.NDArray[np.uint8]', result.labels)

        engine, contract, events = opener(
            Model(path, verify, contract_of, labels_of), placing, stop)
        try:
            segmenter = cls(engine, contract, settings)
        except SettingsError:
            engine.close()
            raise
        segmenter._events = events
        return segmenter

    @property
    def device_status(self) -> DeviceStatus:
        """Where frames are served, and why not on the device asked for."""
        if isinstance(self.engine, (SupervisedEngine, EngineShare)):
            return self.engine.status
        return DeviceStatus(self.engine.device)

    def take_events(self) -> list[Event]:
        """Return what happened to the device since the last call, for a log."""
        events, self._events = self._events, []
        if isinstance(self.engine, (SupervisedEngine, EngineShare)):
            events += self.engine.take_events()
        return events

    @property
    def turn(self) -> AbstractContextManager[object]:
        """What to hold from the choice of a frame on, where several share the engine."""
        return self.engine if isinstance(self.engine, EngineShare) else nullcontext()

    @property
    def sharers(self) -> int:
        """How many use the engine, this one included."""
        return self.engine.sharers if isinstance(self.engine, EngineShare) else 1

    def set_inference_timeout(self, timeout_s: float) -> None:
        """Change the deadline of a frame; without a child process there is none."""
        if isinstance(self.engine, (SupervisedEngine, EngineShare)):
            self.engine.timeout_s = timeout_s

    @property
    def settings(self) -> Settings:
        """What may change between two frames."""
        return self._state[0]

    @settings.setter
    def settings(self, settings: Settings) -> None:
        classes = self.mask_class_ids(settings.mask_classes)
        if settings.min_confidence > 0 and not self.has_confidence:
            raise SettingsError(
                f'min_confidence: found {settings.min_confidence}, expected 0: this model gives '
                'labels without a confidence.')
        # One assignment, so that a frame under way sees the old or the new and no mixture.
        self._state = settings, classes

    @property
    def has_confidence(self) -> bool:
        """Whether the model tells how sure it is."""
        return self.contract.output_kind != 'labels'

    def mask_class_ids(self, names: Sequence[str]) -> frozenset[int]:
        """
        Return the ids of the classes that the mask marks.

        Raises
        ------
        SettingsError
            If a name is not one of the model's classes, or none is given and there is no
            default.

        """
        known = self.contract.class_names
        if not names:
            if len(known) == 2:
                return frozenset({1})
            if 'road' not in known:
                raise SettingsError(
                    'mask_classes: found none, and the model has no class road, which that means; '
                    f'expected some of {list(known)}: set mask_classes to what the mask shall '
                    'mark.')
            names = ('road',)
        if unknown := [name for name in names if name not in known]:
            raise SettingsError(
                f'mask_classes: found {unknown}, expected some of {list(known)}.')
        return frozenset(known.index(name) for name in names)

    def output_hw(self, frame_hw: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the results for a frame of a size, in pixels."""
        return self._output_hw(frame_hw, self.settings)

    def _output_hw(self, frame_hw: tuple[int, int], settings: Settings) -> tuple[int, int]:
        return frame_hw if settings.output_size == 'input' else self.contract.input_hw

    def reset(self) -> None:
        """Forget the past frames that ``smoothing`` remembers; not while a frame is under way."""
        self._mean = None

    def close(self) -> None:
        """Give the device back."""
        self.engine.close()

    def segment(
        self, frame: npt.NDArray[np.uint8], *, channels: str = 'rgb',
        wanted: Wanted | None = None, allocate: Allocate = new_array,
    ) -> Segmentation:
        """
        Segment one frame.

        Parameters
        ----------
        frame : uint8[H, W, 3]
            RGB unless ``channels`` says otherwise; any size, any strides.
        channels : str
            ``rgb``, ``bgr``, ``rgba``, ``bgra`` or ``gray`` (then ``uint8[H, W]``).
        wanted : Wanted or None
            Which results to compute; None means labels, and confidence where the model has one.
        allocate : callable
            Takes a result's name and shape, returns the ``uint8`` memory to write it into; by
            default that is new.

        Returns
        -------
        Segmentation
            At the frame's size, or the network's input size if the settings say so.

        Raises
        ------
        ValueError
            If ``frame`` is not such an array.
        SettingsError
            If the mask is wanted, and no class was named where there is no default.
        DeviceError
            If the device fails.

        """
        depth = {'gray': (), 'rgba': (4,), 'bgra': (4,)}.get(channels, (3,))
        if channels not in CHANNELS:
            raise ValueError(f'channels: found {channels!r}, expected one of {CHANNELS}.')
        if (not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or 0 in frame.shape
                or frame.ndim < 2 or frame.shape[2:] != depth):
            found = (f'{frame.dtype}{list(frame.shape)}' if isinstance(frame, np.ndarray)
                     else type(frame).__name__)
            expected = ', '.join(('H', 'W', *map(str, depth)))
            raise ValueError(f'frame: found {found}, expected uint8[{expected}], not empty.')
        if wanted is None:
            wanted = Wanted(labels=True, confidence=self.has_confidence)
        settings, mask_classes = self._state
        if mask_classes is None:
            mask_classes = (self.mask_class_ids(settings.mask_classes) if wanted.mask
                            else frozenset())
        started = time.perf_counter()
        frame_hw = frame.shape[0], frame.shape[1]
        place = placement(
            frame_hw, self.contract.input_hw, self.contract.output_stride, settings.fit)
        image = self._preprocessor.network_input(
            frame, channels, place, input_memory(self.engine))
        prepared = time.perf_counter()
        output = self.engine.run(image)
        invoked = time.perf_counter()
        decision = self._decide(output, place, wanted, settings, mask_classes, allocate)
        finished = time.perf_counter()
        return Segmentation(
            decision.labels, decision.confidence, decision.mask,
            Timings(prepared - started, invoked - prepared, finished - invoked))

    def _decide(
        self, output: npt.NDArray[Any], place: Placement,
        wanted: Wanted, settings: Settings, mask_classes: frozenset[int], allocate: Allocate,
    ) -> Decision:
        stride, target = self.contract.output_stride, place.target
        cells = output[target.y // stride:-(-(target.y + target.height) // stride),
                       target.x // stride:-(-(target.x + target.width) // stride)]
        output_hw = self._output_hw(place.frame_hw, settings)
        rect = postprocess.output_rect(place, output_hw)
        size = rect.width, rect.height
        of_part = allocate if size == output_hw[::-1] else self._scratch
        if self._decoder is None:
            self._tell_of_unnamed(cells)
            decision = postprocess.decide_labels(
                cells, len(self.contract.class_names), size, wanted, mask_classes,
                of_part)
        else:
            scores = cells.astype(np.int16) - self.engine.output.zero_point
            decision = self._decoder.decide(
                self._smooth(scores, place, settings.smoothing), size, wanted, mask_classes,
                settings.min_confidence, of_part)
        return postprocess.expand(decision, rect, output_hw, allocate)

    def _tell_of_unnamed(self, ids: npt.NDArray[Any]) -> None:
        """Tell, once, of ids that no name was given for: they are unlabeled in the results."""
        names = self.contract.class_names
        if self._unnamed_told or int(ids.max()) < len(names):
            return
        if unnamed := set(np.unique(ids).tolist()) - {*range(len(names)), UNLABELED}:
            self._unnamed_told = True
            self._events.append(Event(Level.WARN, (
                f'class_names: found {len(names)} names ({", ".join(names)}), but the model '
                f'reports class {min(unnamed)}: such pixels are unlabeled; name every class.')))

    def _smooth(
        self, scores: npt.NDArray[np.int16], place: Placement, weight: float,
    ) -> npt.NDArray[np.int16] | npt.NDArray[np.float32]:
        """Blend scores into the running mean; start anew when frames change their place."""
        if weight == 0:
            self._mean = None
            return scores
        current = scores.astype(np.float32)
        if self._mean is not None and self._mean_of == place:
            current = current + (self._mean - current) * np.float32(weight)
        self._mean, self._mean_of = current, place
        return current
