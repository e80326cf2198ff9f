"""
Run a ``.tflite`` file. The only module that knows a runtime.

Runtimes are tried in this order: ``ai_edge_litert``, ``tflite_runtime``. ``tensorflow`` is tried
last and only where the caller allows it: importing it costs seconds and hundreds of megabytes.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bisenet_ros.core import devices
from bisenet_ros.core.cores import usable_cores
from bisenet_ros.core.edgetpu_library import (
    EDGETPU_LIBRARY, list_devices, named, open_library,
)
from bisenet_ros.core.errors import DeviceError, ModelError, first_line

#: The custom operator that ``edgetpu_compiler`` leaves in a model.
EDGETPU_OP = b'edgetpu-custom-op'

INSTALL_RUNTIME = 'pip install ai-edge-litert'

#: More threads than that gain little for a network of this size and take cores from others.
MOST_THREADS = 4

_RUNTIMES = ('ai_edge_litert.interpreter', 'tflite_runtime.interpreter')

_DEVICE = re.compile(r'auto|cpu|(usb|pci)(:\d+)?')


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """
    What a model says of one of its tensors.

    ``scale`` and ``zero_point`` are 0 where the tensor is not quantized:
    real = scale * (stored - zero_point).

    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int

    def __str__(self) -> str:
        text = f'{self.dtype}{list(self.shape)}'
        return f'{text} scale {self.scale:.6g} zero {self.zero_point}' if self.scale else text

    def matches(self, other: TensorSpec) -> bool:
        """Tell whether both have equal shape, type and quantization, whatever their names."""
        return (self.shape, self.dtype, self.scale, self.zero_point) == (
            other.shape, other.dtype, other.scale, other.zero_point)


class Engine(Protocol):
    """
    Something that turns an input tensor into an output tensor.

    Not thread-safe: one caller at a time.

    """

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``usb:0``, ``pci:1``."""
        ...

    @property
    def input(self) -> TensorSpec:
        """The image tensor, ``[1, H, W, 3]``."""
        ...

    @property
    def output(self) -> TensorSpec:
        """The only output tensor."""
        ...

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run the network on ``[H, W, 3]``; return the output without its batch axis, a copy."""
        ...

    def close(self) -> None:
        """Give the device back. Calling it again does nothing."""
        ...


def input_memory(engine: Engine) -> npt.NDArray[Any] | None:
    """
    Return where an engine's next image is best made, which spares ``run`` a copy.

    Valid until the engine is run or closed; None where the engine has no such place. An image may
    be made there and be given to another engine.

    """
    return getattr(engine, 'input_memory', None)


def check_device(device: str) -> None:
    """Raise ``DeviceError`` unless ``device`` is a name that exists."""
    if not _DEVICE.fullmatch(device):
        raise DeviceError(
            f'device: found {device!r}, expected auto, cpu, usb, usb:N, pci or pci:N.')


def find_runtime(allow_tensorflow: bool = True) -> tuple[str, type[Any], Any]:
    """
    Import the first runtime there is.

    Parameters
    ----------
    allow_tensorflow : bool
        Whether ``tensorflow`` may serve where nothing lighter is installed.

    Returns
    -------
    (str, type, callable)
        Its name with version, its ``Interpreter``, its ``load_delegate``.

    Raises
    ------
    DeviceError
        If there is none; the message says what to install, and what each one lacked.

    """
    reasons = []
    for name in _RUNTIMES:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            reasons.append(f'{name.split(".")[0]}: {error}')
            continue
        package = importlib.import_module(name.split('.')[0])
        version = getattr(package, '__version__', '')
        return f'{package.__name__} {version}'.strip(), module.Interpreter, module.load_delegate
    if allow_tensorflow:
        try:
            tensorflow = importlib.import_module('tensorflow')
        except ImportError as error:
            reasons.append(f'tensorflow: {error}')
        else:
            lite = tensorflow.lite
            return (f'tensorflow {tensorflow.__version__}', lite.Interpreter,
                    lite.experimental.load_delegate)
    raise DeviceError(
        f'no TFLite runtime found; install one: {INSTALL_RUNTIME} ({"; ".join(reasons)})')


def automatic_threads() -> int:
    """Return how many threads inference uses when nobody says: the cores we may use, at most 4."""
    return max(1, min(MOST_THREADS, usable_cores()))


def check_model_file(model: Path) -> None:
    """
    Refuse what is no ``.tflite`` file, before a runtime sees it.

    Raises
    ------
    ModelError
        If the file is missing, empty or of another format.

    """
    try:
        with model.open('rb') as file:
            head = file.read(8)
    except OSError as error:
        raise ModelError(f'{model}: cannot be read: {error.strerror}.') from error
    if len(head) < 8 or head[4:] != b'TFL3':
        raise ModelError(
            f'{model}: not a TFLite model (found {head!r} at its start, expected TFL3 in bytes '
            '4 to 8); give the path of a .tflite file, whole.')


def is_compiled_for_edgetpu(model: Path) -> bool:
    """Tell whether a file went through ``edgetpu_compiler``."""
    return EDGETPU_OP in model.read_bytes()


class LiteRtEngine:
    """
    A model in this process, on the CPU or through an EdgeTPU delegate.

    Parameters
    ----------
    model : Path
    num_threads : int
        CPU threads; 0 chooses.
    device : str
        ``cpu``, or an EdgeTPU: ``usb:N``, ``pci:N``, or the first that opens of a kind (``usb``,
        ``pci``) or of all (``auto``).
    options : mapping of str to str
        Further delegate options (``Performance``, ``Usb.AlwaysDfu``, ...).
    allow_tensorflow : bool
        See ``find_runtime``.
    library : str
        Name or path of libedgetpu.

    Raises
    ------
    ModelError
        If the file cannot be run: not a model, damaged, dynamic, not quantized, or compiled for
        another device than asked.
    DeviceError
        If the runtime or the EdgeTPU is not there.

    """

    #: Deadline of one run; nothing can end a run in this process.
    timeout_s = math.inf

    def __init__(
        self, model: Path, num_threads: int = 0, device: str = 'cpu',
        options: Mapping[str, str] | None = None, allow_tensorflow: bool = True,
        library: str = EDGETPU_LIBRARY,
    ) -> None:
        check_device(device)
        check_model_file(model)
        compiled = is_compiled_for_edgetpu(model)
        if compiled and device == 'cpu':
            raise ModelError(
                f'{model}: compiled for the EdgeTPU, but the device is the CPU; give the model '
                'that it was compiled from, or a device (usb, pci).')
        if not compiled and device != 'cpu':
            raise ModelError(
                f'{model}: not compiled for the EdgeTPU, but the device is {device}; compile it '
                '(python -m training.edgetpu compile), or use the CPU.')
        self.device = device
        self.runtime, interpreter, load_delegate = find_runtime(allow_tensorflow)
        self.num_threads = num_threads or automatic_threads()
        delegates = []
        if device != 'cpu':
            delegate, self.device = _open_edgetpu(load_delegate, library, device, options or {})
            delegates.append(delegate)
        try:
            self._interpreter = interpreter(
                model_path=str(model), num_threads=self.num_threads,
                experimental_delegates=delegates)
            self._interpreter.allocate_tensors()
            inputs = [_tensor_spec(detail) for detail in self._interpreter.get_input_details()]
            outputs = [_tensor_spec(detail) for detail in self._interpreter.get_output_details()]
        except (RuntimeError, ValueError) as error:  # UnicodeDecodeError: a damaged name
            if delegates:
                raise _preparing_error(model, self.device, self.runtime, error) from error
            raise ModelError(
                f'{model}: {self.runtime} cannot load it: {first_line(error)}; the file is '
                'damaged or made for a newer runtime: export it again, or update the '
                'runtime.') from error
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                f'{model}: found {len(inputs)} inputs and {len(outputs)} outputs, expected one '
                'of each; export the deployable model (training.quantize).')
        for detail in (*self._interpreter.get_input_details(),
                       *self._interpreter.get_output_details()):
            if any(side < 1 for side in detail.get('shape_signature', detail['shape'])):
                raise ModelError(
                    f'{model}: tensor {detail["name"]!r} has the dynamic shape '
                    f'{detail["shape_signature"].tolist()}, expected a fixed one; export it '
                    'with a batch of one.')
        (self.input,), (self.output,) = inputs, outputs
        _check_tensors(model, self.input, self.output)
        self._input_index = self._interpreter.get_input_details()[0]['index']
        self._output_index = self._interpreter.get_output_details()[0]['index']

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """
        Run the network.

        Parameters
        ----------
        image : uint8[H, W, 3] or int8[H, W, 3]
            As the input tensor says.

        Returns
        -------
        ndarray
            The output without its batch axis; a copy.

        Raises
        ------
        DeviceError
            If the runtime reports a failure.

        """
        interpreter = self._interpreter  # so that close() from another thread waits its turn
        if interpreter is None:
            raise DeviceError(self.fault)
        try:
            interpreter.set_tensor(self._input_index, image[None])
            interpreter.invoke()
            output: npt.NDArray[Any] = interpreter.get_tensor(self._output_index)[0]
        except (RuntimeError, ValueError) as error:
            raise DeviceError(
                f'{self.device}: inference failed: {first_line(error)}') from error
        return output

    @property
    def fault(self) -> str:
        """Why it cannot run any more: it was closed; empty while it can."""
        return '' if self._interpreter is not None else f'{self.device}: the engine is closed.'

    def close(self) -> None:
        """Drop the interpreter, and with it the delegate."""
        self._interpreter = None


def _open_edgetpu(
    load_delegate: Any, library: str, device: str, options: Mapping[str, str],
) -> tuple[Any, str]:
    """
    Open an EdgeTPU.

    It is always named with its index: libedgetpu drops every other option where there is none.

    """
    try:
        listed = named(list_devices(open_library(library)))
    except OSError as error:
        raise DeviceError(
            f'{device}: libedgetpu cannot be loaded ({first_line(error)}); '
            f'{devices.INSTALL_LIBRARY}.') from error
    names = [device] if ':' in device else [
        name for name, _ in listed if device in ('auto', name.partition(':')[0])]
    for name in names:
        try:
            return load_delegate(library, {'device': name, **options}), name
        except ValueError:
            continue  # it gives no reason; the next may be free
    raise DeviceError(
        f'{device}: {devices.refusal(device, listed)}'
        + (f'; or libedgetpu does not know the options {dict(options)}' if options else '') + '.')


def _preparing_error(
    model: Path, device: str, runtime: str, error: BaseException,
) -> ModelError | DeviceError:
    """Return the exception for a model that an opened EdgeTPU does not take."""
    text = first_line(error)
    if 'requires runtime version' in text:
        return ModelError(
            f'{model}: {device}: compiled for a newer libedgetpu: {text} Install a newer '
            'libedgetpu, or compile with edgetpu_compiler --min_runtime_version.')
    if 'custom op handler' in text:
        return DeviceError(
            f'{device}: libedgetpu and {runtime} do not fit together: {text} Install a libedgetpu '
            'that was built for this runtime.')
    return ModelError(
        f'{model}: {device}: {runtime} cannot load it: {text} Compile it again, and see '
        f'{devices.TOOL}.')


def _tensor_spec(detail: Mapping[str, Any]) -> TensorSpec:
    scale, zero_point = detail['quantization']
    return TensorSpec(
        str(detail['name']), tuple(int(side) for side in detail['shape']),
        np.dtype(detail['dtype']), float(scale), int(zero_point))


def _check_tensors(model: Path, image: TensorSpec, result: TensorSpec) -> None:
    if (len(image.shape) != 4 or image.shape[0] != 1 or image.shape[3] != 3
            or image.dtype not in (np.uint8, np.int8) or not image.scale):
        raise ModelError(
            f'{model}: its input is {image}, expected uint8 or int8 [1, H, W, 3] with a '
            'quantization; quantize it (training.quantize).')
    integer = result.dtype in (np.uint8, np.int8, np.int32, np.int64)
    scores = len(result.shape) == 4 and result.dtype in (np.uint8, np.int8) and result.scale
    labels = len(result.shape) in (3, 4)
    if not integer or result.shape[0] != 1 or not (scores or labels):
        raise ModelError(
            f'{model}: its output is {result}, expected quantized scores [1, h, w, C] or integer '
            'class ids [1, h, w]; quantize it (training.quantize).')
