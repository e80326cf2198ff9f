"""Read what ``edgetpu_compiler`` prints; formats as in public logs of versions 2.1 to 16."""

from __future__ import annotations

import dataclasses
import re

MAPPED = 'Mapped to Edge TPU'

#: What went wrong, in order of how much it tells, and what to do.
_FAILURES = (
    (r"Didn't find op for builtin opcode '\w+' version '\d+'",
     'the operator is newer than the compiler: `check` names it; write the model without it'),
    (r'Op builtin_code out of range: \d+',
     'the operator is newer than the compiler: `check` names it; write the model without it'),
    (r'Encountered unresolved custom op: \S+', 'write the model without custom operators'),
    (r'Model not quantized', 'convert it with full int8 quantization (training.quantize)'),
    (r'delegate that only supports static-sized tensors',
     'convert it with a fixed batch of 1 (training.quantize does)'),
    (r'Compilation failed due to large activation tensors in model',
     'take a smaller input or narrower layers; sizes are not monotone, a neighbour may pass'),
    (r'Model failed in Tflite interpreter', 'try it with ai-edge-litert first'),
    (r'Internal compiler error[^\n]*', 'the compiler gives no cause; `check` lists the suspects'),
    (r'Model could not be parsed', 'convert it again, or copy it again'),
    (r'Invalid model', 'convert it again, or copy it again'),
    (r'Compilation failed[^\n]*', 'the compiler gives no cause; `check` lists the suspects'),
)
_ROW = re.compile(r'^(\S+) +(\d+) +(\S.*?) *$')
_SIZE = re.compile(r'([\d.]+)(B|KiB|MiB|GiB)')
_UNITS = {'B': 1, 'KiB': 2 ** 10, 'MiB': 2 ** 20, 'GiB': 2 ** 30}


@dataclasses.dataclass(frozen=True)
class LogRow:
    """Operators of one kind that met the same fate."""

    operator: str
    count: int
    status: str

    @property
    def mapped(self) -> bool:
        return self.status == MAPPED


@dataclasses.dataclass(frozen=True)
class CompilerLog:
    """
    What a compiler run said.

    Parameters
    ----------
    version : str
        Empty if the text names none.
    failure : str
        Its own words; empty if it did not fail.
    remedy : str
        What to do about ``failure``.
    subgraphs, operations : int or None
        None where the text does not say.
    cached_bytes, streamed_bytes : int or None
        Parameters on the chip and off it.
    rows : tuple of LogRow

    """

    version: str
    failure: str
    remedy: str
    subgraphs: int | None
    operations: int | None
    cached_bytes: int | None
    streamed_bytes: int | None
    rows: tuple[LogRow, ...]

    @property
    def mapped(self) -> int:
        return sum(row.count for row in self.rows if row.mapped)

    @property
    def on_cpu(self) -> int:
        return sum(row.count for row in self.rows if not row.mapped)


def parse_log(text: str) -> CompilerLog:
    """Read the standard output of ``edgetpu_compiler -s``, or its log file."""
    version = re.search(r'Edge TPU Compiler version (\S+)', text)
    failure, remedy = next(
        ((found.group(0), remedy) for pattern, remedy in _FAILURES
         if (found := re.search(pattern, text))), ('', ''))
    return CompilerLog(
        version.group(1) if version else '', failure, remedy,
        _number(text, 'Number of Edge TPU subgraphs'), _number(text, 'Total number of operations'),
        _bytes(text, 'On-chip memory used for caching model parameters'),
        _bytes(text, 'Off-chip memory used for streaming uncached model parameters'),
        _rows(text))


def _number(text: str, label: str) -> int | None:
    found = re.search(rf'{label}: *(\d+)', text)
    return int(found.group(1)) if found else None


def _bytes(text: str, label: str) -> int | None:
    found = re.search(rf'{label}: *{_SIZE.pattern}', text)
    return round(float(found.group(1)) * _UNITS[found.group(2)]) if found else None


def _rows(text: str) -> tuple[LogRow, ...]:
    """Return the rows of the last table; a run and its log file hold the same one."""
    rows: list[LogRow] = []
    inside = False
    for line in text.splitlines():
        if re.match(r'Operator +Count +Status', line):
            rows, inside = [], True
        elif inside and (found := _ROW.match(line)):
            rows.append(LogRow(found.group(1), int(found.group(2)), found.group(3)))
        elif inside and line.strip():
            inside = False
    return tuple(rows)
