"""Which engine runs a model: the CPU, an EdgeTPU, or an EdgeTPU with the CPU standing in."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bisenet_ros.core.contract import ModelContract, file_sha256
from bisenet_ros.core.edgetpu_library import EDGETPU_LIBRARY
from bisenet_ros.core.engine import Engine, LiteRtEngine, check_device, is_compiled_for_edgetpu
from bisenet_ros.core.errors import DeviceError, ModelError, SettingsError
from bisenet_ros.core.golden import TrustCheck
from bisenet_ros.core.health import Level
from bisenet_ros.core.isolation import IsolatedEngine, check_in_child
from bisenet_ros.core.supervisor import Device, Event, SupervisedEngine

ISOLATIONS = ('auto', 'process', 'none')

COMPILED_SUFFIX = '_edgetpu'

#: The first run of a model on a device loads its weights: it may take longer than later ones.
FIRST_RUN_S = 5.0

#: The fallback is left this many times the time that its first frame took.
RESERVE = 2.0


@dataclasses.dataclass(frozen=True)
class Placing:
    """
    Where and how a model runs.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``usb``, ``usb:N``, ``pci`` or ``pci:N``.
    isolation : str
        Whether in a child process: ``auto`` (for an EdgeTPU), ``process`` or ``none``.
    num_threads : int
        CPU threads; 0 chooses.
    inference_timeout_s, open_timeout_s : float
        Deadlines of a frame and of opening a device, in a child process.
    delegate_options : mapping of str to str
        For libedgetpu: ``Performance``, ``Usb.AlwaysDfu``, ``Usb.MaxBulkInQueueLength``.
    allow_tensorflow : bool
        Whether tensorflow may serve as the runtime.
    library : str
        Name or path of libedgetpu.

    """

    device: str = 'auto'
    isolation: str = 'auto'
    num_threads: int = 0
    inference_timeout_s: float = 2.0
    open_timeout_s: float = 30.0
    delegate_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    allow_tensorflow: bool = True
    library: str = EDGETPU_LIBRARY

    def __post_init__(self) -> None:
        """Refuse what does not exist or is out of range."""
        check_device(self.device)
        if self.isolation not in ISOLATIONS:
            raise SettingsError(
                f'isolation: found {self.isolation!r}, expected one of {", ".join(ISOLATIONS)}.')
        for name, value, low, high in (
                ('num_threads', self.num_threads, 0, 64),
                ('inference_timeout_s', self.inference_timeout_s, 0.05, 60),
                ('device_open_timeout_s', self.open_timeout_s, 1, 300)):
            if not low <= value <= high:
                raise SettingsError(f'{name}: found {value}, expected {low} to {high}.')


@dataclasses.dataclass(frozen=True)
class Model:
    """
    What is needed to know of a model before it is opened.

    Parameters
    ----------
    path : Path
        The file that was asked for, for the CPU or compiled.
    verify : callable
        Takes one of the model's files; raises ``ModelError`` if it is damaged, returns whether
        that is certain: whether somebody wrote down the file's hash.
    contract_of : callable
        Takes an engine with the model loaded, returns the contract; raises ``ModelError`` if the
        two disagree.
    labels_of : callable
        Segments a frame with an engine and a contract.

    """

    path: Path
    verify: Callable[[Path], bool]
    contract_of: Callable[[Engine], ModelContract]
    labels_of: Callable[
        [Engine, ModelContract, npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]


#: What opens a model: ``open_engine``, or the ``open`` of a pool.
Opener = Callable[
    [Model, Placing, threading.Event | None], tuple[Engine, ModelContract, list[Event]]]


def twins(model: Path) -> tuple[Path, Path]:
    """Return the paths of a model for the CPU and of the same compiled, given either."""
    if is_compiled_for_edgetpu(model):
        stem = model.stem.removesuffix(COMPILED_SUFFIX)
        return model.with_name(f'{stem}.tflite'), model
    return model, model.with_name(f'{model.stem}{COMPILED_SUFFIX}.tflite')


def open_engine(
    model: Model, placing: Placing, stop: threading.Event | None = None,
) -> tuple[Engine, ModelContract, list[Event]]:
    """
    Open a model.

    Parameters
    ----------
    model : Model
    placing : Placing
    stop : threading.Event or None
        Ends the opening of a device early when set.

    Returns
    -------
    (Engine, ModelContract, list of Event)
        And what there is to tell.

    Raises
    ------
    ModelError, DeviceError
        If the model cannot run on the device that was asked for.

    """
    cpu_model, tpu_model = twins(model.path)
    if placing.device == 'cpu' or not tpu_model.exists():
        if placing.device not in ('auto', 'cpu'):
            raise ModelError(
                f'{model.path}: not compiled for the EdgeTPU, but the device is '
                f'{placing.device}, and {tpu_model.name} is not beside it; compile it '
                '(python -m training.edgetpu compile), or use the CPU.')
        engine = _open_cpu(model, model.path, placing, stop)
        with _closed_on_error(engine):
            contract = model.contract_of(engine)
        events = [] if placing.device == 'cpu' else [Event(
            Level.OK, f'the CPU runs the model: {tpu_model} is not there.')]
        return engine, contract, events
    if not cpu_model.exists():
        return _open_edgetpu_alone(model, cpu_model, tpu_model, placing, stop)
    cpu = _open_cpu(model, cpu_model, placing, stop)
    with _closed_on_error(cpu):
        contract = model.contract_of(cpu)
        check = TrustCheck(cpu, lambda engine, frame: model.labels_of(engine, contract, frame))
        if placing.device == 'auto':
            return _supervised(model, tpu_model, placing, cpu, check, stop), contract, []
    cpu.close()
    return _supervised(model, tpu_model, placing, None, check, stop), contract, []


def _open_edgetpu_alone(
    model: Model, cpu_model: Path, tpu_model: Path, placing: Placing,
    stop: threading.Event | None,
) -> tuple[Engine, ModelContract, list[Event]]:
    """Open a compiled model that came without the one it was compiled from."""
    try:
        engine = _supervised(model, tpu_model, placing, None, None, stop)
    except DeviceError as error:
        if placing.device != 'auto':
            raise
        raise DeviceError(
            f'{error} The CPU cannot stand in: {cpu_model} is not there.') from error
    with _closed_on_error(engine):
        contract = model.contract_of(engine)
    return engine, contract, [Event(
        Level.WARN, f'{engine.device} is not checked against the CPU: {cpu_model} is not there.')]


class FirstFile:
    """
    A model's file as it was when it was first looked at.

    The engine's user knows its tensors and classes from then on: another model under its name,
    put there while the node runs, is not to be served as if it were the first.

    """

    def __init__(self, path: Path) -> None:
        self._path, self._sha256 = path, ''

    def check(self) -> None:
        """Raise ``ModelError`` if the file is another one than at the first call."""
        found = file_sha256(self._path)
        if found != (self._sha256 or found):
            raise ModelError(
                f'{self._path}: found another model than the one that was opened first, expected '
                'the same; to use the new one, clean up and configure again, or restart.')
        self._sha256 = found


def _open_cpu(
    model: Model, path: Path, placing: Placing, stop: threading.Event | None,
) -> Engine:
    certain = model.verify(path)
    if placing.isolation != 'process':
        if not certain:
            check_in_child(
                path, placing.allow_tensorflow, timeout_s=placing.open_timeout_s, stop=stop)
        return LiteRtEngine(path, placing.num_threads, allow_tensorflow=placing.allow_tensorflow)

    first = FirstFile(path)

    def open_device(stop: threading.Event) -> Device:
        first.check()
        return IsolatedEngine(
            path, placing.num_threads, allow_tensorflow=placing.allow_tensorflow,
            timeout_s=FIRST_RUN_S, open_timeout_s=placing.open_timeout_s, stop=stop)

    return SupervisedEngine('cpu', open_device, timeout_s=placing.inference_timeout_s, stop=stop)


def _supervised(
    model: Model, tpu_model: Path, placing: Placing, cpu: Engine | None,
    check: TrustCheck | None, stop: threading.Event | None,
) -> SupervisedEngine:
    first = FirstFile(tpu_model)

    def open_device(stop: threading.Event) -> Device:
        model.verify(tpu_model)
        if check is None:  # which compares labels, so that a mended model may take its place
            first.check()
        if placing.isolation == 'none':
            return LiteRtEngine(
                tpu_model, placing.num_threads, placing.device, placing.delegate_options,
                placing.allow_tensorflow, placing.library)
        return IsolatedEngine(
            tpu_model, placing.num_threads, placing.device, placing.delegate_options,
            placing.allow_tensorflow, placing.library, timeout_s=FIRST_RUN_S,
            open_timeout_s=placing.open_timeout_s, stop=stop)

    return SupervisedEngine(
        placing.device, open_device, cpu, check, timeout_s=placing.inference_timeout_s,
        reserve_s=RESERVE * check.trusted_s if cpu and check else 0.0, stop=stop)


@contextlib.contextmanager
def _closed_on_error(engine: Engine) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.close()
        raise
