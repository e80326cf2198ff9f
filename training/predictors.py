"""
Models as something that labels a frame: a ``.tflite`` on any device, a ``.keras`` in float.

A ``.tflite`` runs through the API that robots use (``bisenet_ros.Segmenter``); a ``.keras`` file
sees the same resized frame and its logits are upsampled and decided in float.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bisenet_ros.core.contract import contract_path, file_sha256, palette, read_class_list, Rgb
from bisenet_ros.core.engines import twins
from bisenet_ros.core.errors import DeviceError, ModelError
from bisenet_ros.core.health import Level
from bisenet_ros.core.postprocess import Wanted
from bisenet_ros.core.segmenter import model_path, Segmenter
from bisenet_ros.core.supervisor import SupervisedEngine
from training.augment import whole_view
from training.learnt import (
    data_sets, described, from_provenance, from_run, Learnt, told_sets,
)
from training.metrics import decision_from_logits, decision_from_probabilities

#: Colour of each deployed class where the class has a customary one (Cityscapes' palette).
COLORS_RGB = {'background': (0, 0, 0), 'road': (128, 64, 128), 'ground': (244, 35, 232),
              'movable': (0, 0, 142)}

#: As long as a device may take to open and run its first frame, and more.
DEVICE_WAIT_S = 60.0

_DEVICE = re.compile(r'(.+)@((?:auto|cpu|usb|pci)(?::\d+)?)')


@dataclasses.dataclass(frozen=True)
class Prediction:
    """``labels`` and ``confidence`` (0..255; None where the model has none): ``uint8[H, W]``."""

    labels: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.uint8] | None


class Predictor(Protocol):
    """What evaluation scores."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id."""
        ...

    @property
    def class_colors_rgb(self) -> tuple[Rgb, ...]:
        """A colour for each class."""
        ...

    @property
    def description(self) -> str:
        """Say how it computes, for a report."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the file that was asked for, as it was when it was opened."""
        ...

    @property
    def ran(self) -> dict[str, str]:
        """Hash by name of each file that labelled frames, such as the one compiled for EdgeTPU."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong so far without ending the scores, for a report."""
        ...

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Names of the data sets that it, and what it began as, was trained on, as far as told."""
        ...

    @property
    def learnt(self) -> Learnt | None:
        """As which of its classes it learnt those of its labels; None where nothing tells."""
        ...

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> Prediction:
        """Label ``uint8[H, W, 3]`` RGB at its own size."""
        ...


def class_colors(names: Sequence[str]) -> tuple[Rgb, ...]:
    """Return a colour for each class: the customary one, or one that tells it apart."""
    customary = set(COLORS_RGB.values())
    spare = iter([color for color in palette(len(names) + len(customary))
                  if color not in customary])
    return tuple(COLORS_RGB.get(name) or next(spare) for name in names)


class TflitePredictor:
    """
    Run a ``.tflite`` as a robot would.

    With ``auto``, the first frame waits until the device serves or was refused. What the
    segmenter warns of is printed on stderr, each once, and kept in ``notes``.

    Parameters
    ----------
    model : Path
    device : str
        As for ``Segmenter.load``.
    class_names : sequence of str
        For a model without a contract: names by id, or the path of one class list.

    Raises
    ------
    ModelError, DeviceError
        As ``Segmenter.load``; or if ``auto`` does not decide itself in time.

    """

    def __init__(self, model: Path, device: str, class_names: Sequence[str] = ()) -> None:
        self._segmenter = Segmenter.load(model, device=device, class_names=class_names)
        contract = self._segmenter.contract
        self.class_names = contract.class_names
        self.class_colors_rgb = contract.class_colors_rgb
        self.trained_on = told_sets(contract.provenance)
        self.learnt = from_provenance(contract.provenance, contract.class_names)
        self._wanted = Wanted(labels=True, confidence=self._segmenter.has_confidence)
        self.notes: tuple[str, ...] = ()
        self._name = model.name
        self.sha256 = file_sha256(model)
        # On the CPU the file itself runs, unless auto was asked to look for its twin.
        cpu_model, tpu_model = twins(model) if device != 'cpu' else (model, model)
        self._hashes = {path: file_sha256(path) for path in {cpu_model, tpu_model}
                        if path.is_file()}
        self._on_cpu, self._on_device = cpu_model, tpu_model
        self._served_by: dict[str, None] = {}
        if device == 'auto':
            _await_device(model, self._segmenter)
        self._note_warnings()

    @property
    def description(self) -> str:
        height, width = self._segmenter.contract.input_hw
        return f'TFLite, {height}x{width}, on {" and ".join(self._where())}'

    @property
    def ran(self) -> dict[str, str]:
        paths = [self._on_cpu if device == 'cpu' else self._on_device for device in self._where()]
        return {path.name: self._hashes[path] for path in paths}

    def _where(self) -> tuple[str, ...]:
        return tuple(self._served_by) or (self._segmenter.device_status.device,)

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> Prediction:
        result = self._segmenter.segment(rgb, wanted=self._wanted)
        self._served_by[self._segmenter.device_status.device] = None
        self._note_warnings()
        if result.labels is None:
            raise ModelError('the segmenter returned no labels; this is a bug.')
        return Prediction(result.labels, result.confidence)

    def _note_warnings(self) -> None:
        for event in self._segmenter.take_events():
            if event.level >= Level.WARN and event.text not in self.notes:
                self.notes += (event.text,)
                print(f'{self._name}: {event.text}', file=sys.stderr)


def _await_device(model: Path, segmenter: Segmenter) -> None:
    """Wait until the device that the CPU stands in for serves, or a reason is known why not."""
    if not isinstance(segmenter.engine, SupervisedEngine):
        return
    deadline = time.monotonic() + DEVICE_WAIT_S
    while (status := segmenter.device_status).device == 'cpu' and not status.problem:
        if time.monotonic() > deadline:
            segmenter.close()
            raise DeviceError(
                f'{model}: the device of auto neither served nor failed within '
                f'{DEVICE_WAIT_S:.0f} s, and the CPU would be scored in its place; name the '
                'device: cpu, usb or pci.')
        time.sleep(0.02)


class KerasPredictor:
    """
    Run a deployable ``.keras`` file in float, of logits or with a softmax behind them.

    Parameters
    ----------
    model : Path
    class_names : sequence of str
        Names by id, or the path of one class list. Where empty, ``config.json`` beside the file
        is asked (a run folder of ``training.train``), and else only ``road`` gets a name.
    road : int or None
        The id of road where nothing names the classes; None: 1 of two, and an error of more.

    Raises
    ------
    ModelError
        If the file is no such model or the names do not fit it.

    """

    def __init__(self, model: Path, class_names: Sequence[str] = (),
                 road: int | None = None) -> None:
        if not model.is_file():
            raise ModelError(f'{model}: no such file.')
        import keras  # here, so that scoring a .tflite needs no training packages

        from training.faults import intact

        with intact(model, 'a Keras model', 'copy it again, or give another', ModelError):
            network = keras.models.load_model(model, compile=False)
        output = network.output
        if isinstance(output, dict):
            network = keras.Model(network.input, output['logits'])
        shapes = network.input_shape, network.output_shape
        if any(len(shape) != 4 or None in shape[1:] for shape in shapes):
            raise ModelError(
                f'{model}: found input {shapes[0]} and output {shapes[1]}, expected an image of '
                'one size to logits; give a deployable model, such as best.keras of a run.')
        self.notes = ()
        self.sha256 = file_sha256(model)
        self.ran = {model.name: self.sha256}
        activation = _last_activation(network)
        if activation == 'sigmoid':
            raise ModelError(
                f'{model}: its output went through a sigmoid, expected logits or a softmax; give '
                'a model without that activation.')
        self._decision = (
            decision_from_probabilities if activation == 'softmax' else decision_from_logits)
        self._model = model
        self._network = network
        self._input_hw = tuple(network.input_shape[1:3])
        self.class_names, self.class_colors_rgb = _keras_classes(
            model, network.output_shape[3], class_names, road)
        self.trained_on = data_sets(model)
        self.learnt = from_run(
            described(model.with_name('config.json')), len(self.class_names))
        self.description = (
            f'Keras, float, {self._input_hw[0]}x{self._input_hw[1]}, {keras.backend.backend()}')

    def scores(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """
        Return ``float32[h, w, C]``, logits or probabilities, at the output's own size.

        Raises
        ------
        ModelError
            If one is not finite.

        """
        view, _ = whole_view(rgb, np.zeros(rgb.shape[:2], np.uint8), self._input_hw)
        result: npt.NDArray[Any] = self._network.predict_on_batch(
            view[None].astype(np.float32) / 255)
        if not (finite := np.isfinite(result)).all():
            raise ModelError(
                f'{self._model}: found {finite.size - finite.sum()} of {finite.size} scores that '
                'are NaN or infinite, expected finite ones; its weights are damaged or its '
                'training went wrong: give another model.')
        return result[0].astype(np.float32)

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> Prediction:
        return Prediction(*self._decision(self.scores(rgb), (rgb.shape[0], rgb.shape[1])))


def _last_activation(network: Any) -> str:
    """Return what a Keras network's scores went through at last, such as ``softmax``."""
    operation = network.outputs[0]._keras_history.operation
    while type(operation).__name__ in ('UpSampling2D', 'Resizing', 'Identity'):
        operation = operation.input._keras_history.operation
    if hasattr(operation, 'outputs') and hasattr(operation, 'layers'):
        return _last_activation(operation)
    activation = getattr(operation, 'activation', None)
    return str(getattr(activation, '__name__', type(operation).__name__)).lower()


def _keras_classes(
    model: Path, count: int, class_names: Sequence[str], road: int | None,
) -> tuple[tuple[str, ...], tuple[Rgb, ...]]:
    colors: tuple[Rgb, ...] | None = None
    source = '--class-names'
    beside = model.with_name('config.json')
    if len(class_names) == 1 and class_names[0].endswith('.txt'):
        names, colors = read_class_list(Path(class_names[0]).expanduser())
    elif class_names:
        names = tuple(class_names)
    elif beside.is_file():
        source = str(beside)
        names = _run_classes(beside)
    elif road is None and count != 2:
        raise ModelError(
            f'{model}: nothing names its {count} classes; give --class-names, or --road if road '
            'alone is to be scored, or put config.json of its run beside it.')
    elif not 0 <= (road := 1 if road is None else road) < count:
        raise ModelError(f'--road: found {road}, expected an id below {count} for {model}.')
    else:
        names = tuple(
            'road' if index == road else 'background' if count == 2 else f'class {index}'
            for index in range(count))
    if len(names) != count:
        raise ModelError(
            f'{model}: has {count} output channels, but {source} names {len(names)} classes.')
    return names, colors or class_colors(names)


def _run_classes(settings: Path) -> tuple[str, ...]:
    """Return the deployed classes that a run's settings name."""
    try:
        names = json.loads(settings.read_text())['config']['classes']
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(f'found {json.dumps(names)}, expected a list of texts')
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f'{settings}: names no classes ({error}); give --class-names.') from error
    return tuple(names)


def parse_model(text: str, device: str) -> tuple[Path, str]:
    """
    Return file and device of ``FILE`` or ``FILE@DEVICE``.

    Raises
    ------
    ModelError
        As ``bisenet_ros.core.segmenter.model_path``, which takes a shipped model's bare name too;
        or if the name is too long.

    """
    file, named = _apart(text)
    try:
        path = model_path(file)
        path.exists()
    except OSError as error:
        raise ModelError(
            f'{file}: cannot be a file ({error.strerror}); give the path of a .tflite or .keras '
            'file.') from error
    return path, device if named is None else named


def _apart(text: str) -> tuple[str, str | None]:
    """Return a model's name and what follows its ``@``; None where no device does."""
    if found := _DEVICE.fullmatch(text):
        return found[1], found[2]
    file, at, other = text.rpartition('@')
    if at and _is_model(file) and not _is_model(text):
        return file, other  # of no known name: opening the device says which there are
    return text, None


def _is_model(text: str) -> bool:
    try:
        return model_path(text).is_file()
    except (ModelError, OSError):
        return False


def names_itself(model: Path) -> bool:
    """Tell whether a contract, or ``config.json`` of a run, lies beside a model."""
    beside = model.with_name('config.json') if model.suffix == '.keras' else contract_path(model)
    return beside.is_file()


def open_predictor(
    text: str, device: str = 'cpu', class_names: Sequence[str] = (), road: int | None = None,
) -> Predictor:
    """
    Open a model by its file name.

    Parameters
    ----------
    text : str
        ``FILE`` or, for a ``.tflite``, ``FILE@DEVICE``.
    device : str
        For a ``.tflite`` that names none.
    class_names, road
        See ``TflitePredictor`` and ``KerasPredictor``.

    Raises
    ------
    ModelError, DeviceError
        If it cannot be used.

    """
    path, device = parse_model(text, device)
    if path.suffix == '.keras':
        if _apart(text)[1] is not None:
            raise ModelError(
                f'{text}: found the device {device} behind a .keras file, expected none: Keras '
                f'runs it in float, where it runs itself; leave @{device} away, or give a '
                '.tflite.')
        return KerasPredictor(path, class_names, road)
    return TflitePredictor(path, device, class_names)
