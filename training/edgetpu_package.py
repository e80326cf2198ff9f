"""
Read what ``edgetpu_compiler`` left inside an ``edgetpu-custom-op``.

Its custom options are a flexbuffer map; key ``4`` holds a flatbuffer ``Package`` with the file
identifier ``DWN1``, whose schema is public (``executable/executable.fbs`` in
google-coral/libedgetpu). Only the fields named here are read, straight from their offsets.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

from flatbuffers import flexbuffers

from training.tflite_file import Operation

_IDENTIFIER = b'DWN1'
_KINDS = ('stand-alone', 'parameter-caching', 'execution-only')
_OUTPUT, _INPUT, _PARAMETER, _SCRATCH = range(4)
_DMA_HINT = 1  # of the union AnyHint
_INFEED = 0


class PackageError(ValueError):
    """The compiler's output cannot be read."""


@dataclasses.dataclass(frozen=True)
class Executable:
    """
    One program for the chip; sizes in bytes, memory per tile.

    ``transfers`` sums what its DMA hints move in one inference: input, output, parameters, scratch
    written and scratch read.
    """

    kind: str
    chip: str
    instructions: int
    parameters: int
    scratch: int
    narrow_memory_per_tile: int
    transfers: Transfers


@dataclasses.dataclass(frozen=True)
class Transfers:
    """Bytes that cross the link in one run of an executable."""

    input: int = 0
    output: int = 0
    parameters: int = 0
    scratch_written: int = 0
    scratch_read: int = 0


@dataclasses.dataclass(frozen=True)
class Package:
    """What one custom operator holds."""

    min_runtime_version: int
    compiler_version: str
    executables: tuple[Executable, ...]

    def _of(self, kind: str) -> Iterator[Executable]:
        return (executable for executable in self.executables if executable.kind == kind)

    @property
    def cached_parameters(self) -> int:
        """Return the bytes that stay on the chip after the first inference."""
        return sum(executable.parameters for executable in self._of('parameter-caching'))

    @property
    def streamed_parameters(self) -> int:
        """Return the bytes of parameters that cross the link in every inference."""
        return sum(executable.parameters for executable in self.executables
                   if executable.kind != 'parameter-caching')

    @property
    def execution(self) -> Executable:
        """Return the program of every inference."""
        return next(executable for executable in self.executables
                    if executable.kind != 'parameter-caching')


class _Table:
    """A flatbuffer table, read by field number."""

    def __init__(self, buffer: bytes, position: int) -> None:
        self._buffer, self._position = buffer, position

    @classmethod
    def root(cls, buffer: bytes) -> _Table:
        return cls(buffer, struct.unpack_from('<I', buffer)[0])

    def _field(self, number: int) -> int:
        """Return the position of a field; 0 if it is absent."""
        vtable = self._position - struct.unpack_from('<i', self._buffer, self._position)[0]
        if vtable < 0:
            raise PackageError(f'a table at byte {self._position} points outside the package.')
        size = struct.unpack_from('<H', self._buffer, vtable)[0]
        entry = 4 + 2 * number
        if entry >= size:
            return 0
        offset = struct.unpack_from('<H', self._buffer, vtable + entry)[0]
        return self._position + offset if offset else 0

    def scalar(self, number: int, code: str) -> int:
        if not (at := self._field(number)):
            return 0
        value: int = struct.unpack_from(f'<{code}', self._buffer, at)[0]
        return value

    def _target(self, at: int) -> int:
        target: int = at + struct.unpack_from('<I', self._buffer, at)[0]
        return target

    def content(self, number: int) -> bytes:
        """Return a vector of bytes, or a string."""
        return self._content(self._target(at)) if (at := self._field(number)) else b''

    def _content(self, at: int) -> bytes:
        size = struct.unpack_from('<I', self._buffer, at)[0]
        found = self._buffer[at + 4:at + 4 + size]
        if len(found) != size:
            raise PackageError(f'a vector of {size} bytes ends behind the package.')
        return found

    def table(self, number: int) -> _Table | None:
        return _Table(self._buffer, self._target(at)) if (at := self._field(number)) else None

    def _elements(self, number: int) -> Iterator[int]:
        if not (at := self._field(number)):
            return
        start = self._target(at)
        for index in range(struct.unpack_from('<I', self._buffer, start)[0]):
            yield self._target(start + 4 + 4 * index)

    def tables(self, number: int) -> Iterator[_Table]:
        return (_Table(self._buffer, at) for at in self._elements(number))

    def contents(self, number: int) -> Iterator[bytes]:
        return (self._content(at) for at in self._elements(number))


def read_package(operation: Operation) -> Package:
    """
    Read an ``edgetpu-custom-op``.

    Raises
    ------
    PackageError
        If its options are not the compiler's, or damaged.

    """
    try:
        options = flexbuffers.GetRoot(operation.custom_options).AsMap
        content = options['4'].AsStringBytes
        if content[4:8] != _IDENTIFIER:
            raise PackageError(
                f'operator {operation.index}: found {content[4:8]!r} in its package, expected '
                f'{_IDENTIFIER!r}; not made by a compiler for this chip.')
        return _package(_Table.root(content))
    except (IndexError, KeyError, OverflowError, StopIteration, TypeError, UnicodeDecodeError,
            ValueError, struct.error) as error:
        if isinstance(error, PackageError):
            raise
        raise PackageError(
            f'operator {operation.index}: its package is damaged ({type(error).__name__}: '
            f'{error}); compile the model again.') from error


def _package(package: _Table) -> Package:
    programs = _Table.root(package.content(1))
    executables = tuple(_executable(_Table.root(content)) for content in programs.contents(0))
    if all(executable.kind == 'parameter-caching' for executable in executables):
        raise PackageError('the package holds no program to run; compile the model again.')
    return Package(package.scalar(0, 'i'), package.content(4).decode(), executables)


def _executable(table: _Table) -> Executable:
    kind = table.scalar(13, 'h')
    return Executable(
        kind=_KINDS[kind],
        chip=table.content(10).decode(),
        instructions=sum(len(stream.content(0)) for stream in table.tables(5)),
        parameters=len(table.content(6)),
        scratch=table.scalar(4, 'i'),
        narrow_memory_per_tile=table.scalar(12, 'i'),
        transfers=_transfers(table.table(7)))


def _transfers(hints: _Table | None) -> Transfers:
    sums = dict.fromkeys(
        ((base, way) for base in range(4) for way in range(2)), 0)
    for hint in hints.tables(0) if hints else ():
        descriptor = hint.table(1)
        if hint.scalar(0, 'B') != _DMA_HINT or descriptor is None:
            continue
        meta = descriptor.table(0)
        base = meta.scalar(0, 'h') if meta else _OUTPUT
        sums[base, hint.scalar(2, 'h')] += descriptor.scalar(2, 'i')
    return Transfers(
        input=sums[_INPUT, _INFEED], output=sums[_OUTPUT, 1 - _INFEED],
        parameters=sums[_PARAMETER, _INFEED],
        scratch_written=sums[_SCRATCH, 1 - _INFEED], scratch_read=sums[_SCRATCH, _INFEED])
