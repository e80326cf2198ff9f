"""
First-order cost of a model on an EdgeTPU: activation memory, parameters, bytes and time.

The model of time is a fit, by least squares, to six of Google's models with the bytes read from
their compiled files: time = 0.1 ms + 4.04 * ideal cycles / 500 MHz + bytes / bandwidth. It met
those six within 11 %. What it cannot know before a compilation are the instruction bytes and
whether activations go through the host; see ``KNOWN_ERROR``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from training.edgetpu_rules import TILE_MEMORY_BYTES, TILES_PER_SIDE, tile_bytes
from training.tflite_file import Operation, Tensor

#: Bytes per second of each way to attach the chip. PCIe is a bound drawn from VGG16, USB 3 was
#: fitted, USB 2 is Inception v4's parameter stream.
LINKS = {'PCIe': 400e6, 'USB 3': 320e6, 'USB 2': 36e6}
_CLOCK_HZ = 500e6
_START_S = 1e-4
_CYCLE_FACTOR = 4.04

#: Parameters that stay on the chip; the rest is streamed in every inference.
CACHE_BYTES = int(7.5 * 2 ** 20)
#: Of the line through Google's two compiled pairs at hand: 23,648 bytes for 3 operations, 365,664
#: for 82.
_INSTRUCTION_BYTES, _INSTRUCTION_BYTES_EACH = 10_700, 4_330
#: Google's DeepLab writes the input of its 33x33 pooling (1.4 MB) to the host once and reads it
#: six times. Where between the 16 kB of BiSeNet's mean and this the compiler begins to is unknown.
_SPILL_BYTES, _SPILL_TRANSFERS = 2 ** 20, 7

KNOWN_ERROR = (
    "the fit meets six of Google's models within 11 %, all with their compiled bytes known. For "
    'the BiSeNetV2 of markus-k/bisenetv2-tf2 at 256x512, published with 15.9 ms on PCIe and 58.8 '
    'ms on USB 2 in two subgraphs, it says 14.2 and 61.4 (12.9 and 47.0 with the last resize on '
    'the CPU). Instruction bytes are guessed from two '
    'compiled files: 0.1 to 0.8 MB have been seen, and 0.1 MB is 0.3 ms on PCIe and USB 3 and '
    '2.8 ms on USB 2. Dense 3x3 convolutions may take only 0.6 to 0.75 of the computing time '
    "stated. What the host's CPU does is not in it.")


@dataclasses.dataclass(frozen=True)
class Memory:
    """
    Activation memory in bytes per tile.

    Parameters
    ----------
    peak : int
        Of what is alive at once.
    peak_at : str
        The operation it happens at.
    waiting : int
        The part of it that this operation does not touch, at the operation where most has to
        wait while there is not room for everything: it goes through the host, or the chain is
        worked on in slices. 0 if there is always room.
    waiting_at : str

    """

    peak: int
    peak_at: str
    waiting: int
    waiting_at: str

    @property
    def fits(self) -> bool:
        return self.peak <= TILE_MEMORY_BYTES


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the chip has to do and move in one inference, in so many runs; bytes."""

    runs: int
    ideal_cycles: int
    input_bytes: int
    output_bytes: int
    parameter_bytes: int
    instruction_bytes: int
    scratch_bytes: int

    @property
    def streamed_bytes(self) -> int:
        """Return the parameters that do not fit the cache."""
        return max(self.parameter_bytes - CACHE_BYTES, 0)

    @property
    def moved_bytes(self) -> int:
        """Return what crosses the link in every inference."""
        return (self.input_bytes + self.output_bytes + self.instruction_bytes
                + self.scratch_bytes + self.streamed_bytes)

    @property
    def compute_s(self) -> float:
        return _CYCLE_FACTOR * self.ideal_cycles / _CLOCK_HZ

    def latency_s(self, link: str) -> float:
        """Return the predicted seconds of one inference over one of ``LINKS``."""
        return self.runs * _START_S + self.compute_s + self.moved_bytes / LINKS[link]

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(ours + theirs for ours, theirs in zip(
            dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


def ideal_cycles(operation: Operation) -> int:
    """Return the cycles with every multiplier busy; 0 for what is no convolution."""
    if operation.name not in ('CONV_2D', 'DEPTHWISE_CONV_2D', 'FULLY_CONNECTED'):
        return 0
    h, w, c = operation.outputs[0].hwc
    weights = operation.inputs[1].shape
    per_pixel = math.ceil(c / 64)
    if operation.name == 'CONV_2D':
        per_pixel *= weights[1] * weights[2] * math.ceil(weights[3] / 4)
    elif operation.name == 'DEPTHWISE_CONV_2D':
        per_pixel *= weights[1] * weights[2]
    else:
        per_pixel *= math.ceil(weights[1] / 4)
        h = w = 1
    return math.ceil(h / TILES_PER_SIDE) * math.ceil(w / TILES_PER_SIDE) * per_pixel


def parameter_bytes(operation: Operation) -> int:
    """
    Return the bytes of an operation's parameters on the chip.

    Output channels are padded to 64, input channels to 4, with 16 bytes for each padded output
    channel: fitted to Google's compiled DeepLab, which it meets within 0.2 %.

    """
    if operation.name not in ('CONV_2D', 'DEPTHWISE_CONV_2D', 'FULLY_CONNECTED'):
        return sum(tensor.elements for tensor in operation.constants
                   if tensor.dtype in ('int8', 'uint8'))
    weights = operation.inputs[1].shape
    padded = math.ceil(operation.outputs[0].shape[-1] / 64) * 64
    if operation.name == 'DEPTHWISE_CONV_2D':
        each = weights[1] * weights[2]
    else:
        each = math.prod(weights[1:-1]) * math.ceil(weights[-1] / 4) * 4
    return padded * (each + 16)


def _moved(tensor: Tensor, *, padded: bool) -> int:
    """Return a tensor's bytes on the link; results have channels in fours."""
    h, w, c = tensor.hwc
    return math.ceil(h * w * (math.ceil(c / 4) * 4 if padded else c) / 8) * 8


def _spilled(operation: Operation) -> int:
    whole_map = operation.name == 'MEAN' or (
        operation.name == 'AVERAGE_POOL_2D' and operation.outputs[0].hwc[:2] == (1, 1))
    size = operation.inputs[0].elements
    return size * _SPILL_TRANSFERS if whole_map and size > _SPILL_BYTES else 0


def cost(operations: Sequence[Operation], entering: Sequence[Tensor],
         leaving: Sequence[Tensor]) -> Cost:
    """
    Add up what a subgraph on the chip costs.

    Parameters
    ----------
    operations : sequence of Operation
        What the chip runs.
    entering, leaving : sequence of Tensor
        Activations that the host sends and gets.

    Returns
    -------
    Cost

    """
    return Cost(
        runs=1,
        ideal_cycles=sum(map(ideal_cycles, operations)),
        input_bytes=sum(_moved(tensor, padded=False) for tensor in entering),
        output_bytes=sum(_moved(tensor, padded=True) for tensor in leaving),
        parameter_bytes=sum(map(parameter_bytes, operations)),
        instruction_bytes=_INSTRUCTION_BYTES + _INSTRUCTION_BYTES_EACH * len(operations),
        scratch_bytes=sum(map(_spilled, operations)))


def memory(operations: Sequence[Operation]) -> Memory:
    """
    Follow what is alive through a subgraph, in the order of the file.

    Parameters
    ----------
    operations : sequence of Operation
        What the chip runs. Results are streamed out: they need no room after their last use.

    Returns
    -------
    Memory

    """
    last_use = {tensor.index: position for position, operation in enumerate(operations)
                for tensor in (*operation.outputs, *operation.activations)}
    alive: dict[int, int] = {}
    peak = waiting = 0
    peak_at = waiting_at = ''
    # What enters is there from the start.
    produced = {tensor.index for operation in operations for tensor in operation.outputs}
    alive.update((tensor.index, tile_bytes(tensor)) for operation in operations
                 for tensor in operation.activations if tensor.index not in produced)
    for position, operation in enumerate(operations):
        touched = {tensor.index for tensor in (*operation.activations, *operation.outputs)}
        alive.update((tensor.index, tile_bytes(tensor)) for tensor in operation.outputs)
        total = sum(alive.values())
        aside = sum(size for index, size in alive.items() if index not in touched)
        label = f'{operation.index} {operation.name}'
        if total > peak:
            peak, peak_at = total, label
        if total > TILE_MEMORY_BYTES and aside > waiting:
            waiting, waiting_at = aside, label
        alive = {index: size for index, size in alive.items() if last_use[index] > position}
    return Memory(peak, peak_at, waiting, waiting_at)
