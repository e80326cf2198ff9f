"""Judge a whole model for the EdgeTPU, or read what the compiler made of it."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.edgetpu_cost import (
    CACHE_BYTES, KNOWN_ERROR, LINKS, Cost, Memory, cost, memory,
)
from training.edgetpu_package import Package, PackageError, read_package
from training.edgetpu_rules import TILE_MEMORY_BYTES, Finding, Verdict, judge, judge_model
from training.tflite_file import Operation, Tensor, TfliteError, TfliteFile, read_tflite

_PREDICTED = 'predicted from public rules, not compiled'
_LEFT_OUT = Finding(Verdict.CPU, 'left outside by the compiler')
_INSIDE = Finding(Verdict.SEEN, 'compiled for the EdgeTPU')
#: The runtime that compiler 16 asks for unless told otherwise.
COMPILER_RUNTIME = 14


@dataclasses.dataclass(frozen=True)
class JudgedOperation:
    """An operation, what to expect of it, and where it ends up in the simulated split."""

    operation: Operation
    findings: tuple[Finding, ...]
    on_edgetpu: bool

    @property
    def verdict(self) -> Verdict:
        return self.findings[0].verdict

    @property
    def reason(self) -> str:
        """Return why the verdict is what it is."""
        return '; '.join(finding.reason for finding in self.findings
                         if finding.verdict == self.verdict)


@dataclasses.dataclass(frozen=True)
class Report:
    """
    What is to be expected of a model, or what a compiled one holds.

    Parameters
    ----------
    model : TfliteFile
    operations : tuple of JudgedOperation
    findings : tuple of Finding
        About the model as a whole.
    segments : tuple of (bool, int)
        Simulated split in data-flow order: on the EdgeTPU or not, number of operations. Without
        the compiler's ``-a`` only the first EdgeTPU segment is mapped.
    cautious : int
        Operations mapped if every unknown one stays on the CPU.
    cost : Cost or None
        Of the mapped part; None if nothing is mapped or the model is compiled.
    memory : Memory or None
    packages : tuple of Package
        Of a compiled model, one a custom operator.
    disagreements : tuple of str
        Between the prediction and the compiled model beside it, where there is one.

    """

    model: TfliteFile
    operations: tuple[JudgedOperation, ...]
    findings: tuple[Finding, ...]
    segments: tuple[tuple[bool, int], ...] = ()
    cautious: int = 0
    cost: Cost | None = None
    memory: Memory | None = None
    packages: tuple[Package, ...] = ()
    compared_with: Path | None = None
    disagreements: tuple[str, ...] = ()

    @property
    def compiled(self) -> bool:
        return bool(self.packages)

    @property
    def verdict(self) -> Verdict:
        """Return the worst verdict in the report."""
        return max((finding.verdict for finding in self._all_findings()), default=Verdict.UNKNOWN)

    def _all_findings(self) -> Iterator[Finding]:
        yield from self.findings
        for judged in self.operations:
            yield judged.findings[0]

    @property
    def counts(self) -> dict[Verdict, int]:
        """Return the number of operations by verdict."""
        found = Counter(judged.verdict for judged in self.operations)
        return {verdict: found[verdict] for verdict in Verdict}

    @property
    def mapped(self) -> int:
        return sum(judged.on_edgetpu for judged in self.operations)

    @property
    def subgraphs(self) -> int:
        """Return the EdgeTPU subgraphs: of a compiled model, or those ``-a`` would make."""
        if self.compiled:
            return len(self.packages)
        return sum(on_edgetpu for on_edgetpu, _ in self.segments)

    def latency_s(self) -> dict[str, float]:
        """Return predicted seconds by link; empty where there is no prediction."""
        return {link: self.cost.latency_s(link) for link in LINKS} if self.cost else {}

    def to_json(self) -> str:
        """Return the report for programs."""
        content: dict[str, Any] = {
            'file': str(self.model.path), 'bytes': self.model.size, 'compiled': self.compiled,
            'basis': 'compiled file' if self.compiled else _PREDICTED,
            'verdict': str(self.verdict),
            'counts': {str(verdict): count for verdict, count in self.counts.items()},
            'operations': [{
                'index': judged.operation.index, 'operator': judged.operation.name,
                'version': judged.operation.version,
                'inputs': [str(tensor) for tensor in judged.operation.inputs],
                'outputs': [str(tensor) for tensor in judged.operation.outputs],
                'verdict': str(judged.verdict), 'reason': judged.reason,
                'on_edgetpu': judged.on_edgetpu} for judged in self.operations],
            'findings': [{'verdict': str(finding.verdict), 'reason': finding.reason}
                         for finding in self.findings],
            'mapped_operations': self.mapped, 'subgraphs': self.subgraphs,
        }
        if self.compiled:
            content['packages'] = [_package_facts(package) for package in self.packages]
        else:
            content |= {
                'mapped_operations_if_unknown_are_not': self.cautious,
                'segments': [{'on_edgetpu': on_edgetpu, 'operations': count}
                             for on_edgetpu, count in self.segments],
                'cost': dataclasses.asdict(self.cost) if self.cost else None,
                'memory_per_tile': dataclasses.asdict(self.memory) if self.memory else None,
                'predicted_latency_s': self.latency_s(), 'known_error': KNOWN_ERROR}
        if self.compared_with:
            content['compared_with'] = str(self.compared_with)
            content['disagreements'] = list(self.disagreements)
        return json.dumps(content, indent=2, allow_nan=False) + '\n'

    def __str__(self) -> str:
        lines = [f'{self.model.path}: {self.model.size / 1e6:.2f} MB, '
                 + ('compiled for the EdgeTPU' if self.compiled else _PREDICTED), '']
        lines += _table(self.operations)
        lines += ['', ', '.join(f'{count} {verdict}' for verdict, count in self.counts.items()
                                if count)]
        lines += [f'{finding.verdict}: {finding.reason}' for finding in self.findings]
        lines += self._compiled_lines() if self.compiled else self._predicted_lines()
        if self.compared_with:
            lines += ['', f'compared with {self.compared_with.name}: '
                      + ('no disagreement' if not self.disagreements else '')]
            lines += [f'  {line}' for line in self.disagreements]
        return '\n'.join(lines)

    def _compiled_lines(self) -> list[str]:
        lines = [f'{len(self.packages)} custom operators, '
                 f'{len(self.operations) - len(self.packages)} operations outside']
        for package in self.packages:
            facts = _package_facts(package)
            lines += [f'  {name.replace("_", " ")}: {value}' for name, value in facts.items()]
        return lines

    def _predicted_lines(self) -> list[str]:
        if self.verdict == Verdict.FAIL:
            return ['no split and no time predicted: the compilation is expected to fail']
        total = len(self.operations)
        lines = [f'simulated split: {self.mapped} of {total} operations on the EdgeTPU, '
                 f'{total - self.mapped} on the CPU; subgraphs with -a: {self.subgraphs}']
        if self.cautious != self.mapped:
            lines.append(f'if every unknown one stays on the CPU: {self.cautious} of {total}')
        if self.cost is None or self.memory is None:
            return lines
        found = self.cost
        streamed = (f', {_mib(found.streamed_bytes)} streamed every time'
                    if found.streamed_bytes else '')
        lines.append(f'parameters: {_mib(found.parameter_bytes)} of {_mib(CACHE_BYTES)} on the '
                     f'chip{streamed}')
        lines.append(
            f'activations: up to {self.memory.peak} of {TILE_MEMORY_BYTES} bytes a tile at once, '
            f'at {self.memory.peak_at}')
        if not self.memory.fits:
            lines.append('  more than fits: the compiler works in slices or goes through the host')
        if self.memory.waiting:
            lines.append(
                f'  {self.memory.waiting} bytes a tile have to wait at {self.memory.waiting_at}: '
                'they may go through the host')
        if found.scratch_bytes:
            lines.append(f'  {found.scratch_bytes} bytes are expected to go through the host')
        lines.append(
            f'moved per frame: input {found.input_bytes}, output {found.output_bytes}, '
            f'instructions {found.instruction_bytes} (guessed) bytes')
        lines += [f'predicted on {link:<5}  {seconds * 1e3:6.1f} ms '
                  f'(computing {found.compute_s * 1e3:.1f})'
                  for link, seconds in self.latency_s().items()]
        return [*lines, f'known error: {KNOWN_ERROR}']


def _mib(count: int) -> str:
    return f'{count / 2 ** 20:.2f} MiB'


def _package_facts(package: Package) -> dict[str, Any]:
    run = package.execution
    return {
        'minimum_runtime': package.min_runtime_version,
        'compiler': package.compiler_version.removeprefix('cl/') or 'not recorded',
        'cached_parameter_bytes': package.cached_parameters,
        'streamed_parameter_bytes': package.streamed_parameters,
        'instruction_bytes': run.instructions,
        'scratch_bytes': run.scratch,
        'scratch_bytes_moved': run.transfers.scratch_written + run.transfers.scratch_read,
        'input_bytes': run.transfers.input, 'output_bytes': run.transfers.output,
        'activation_bytes_per_tile': run.narrow_memory_per_tile,
    }


def _table(operations: Sequence[JudgedOperation]) -> list[str]:
    rows = [('#', 'operation', 'version', 'inputs > outputs', 'runs on', 'verdict', 'why')]
    for judged in operations:
        operation = judged.operation
        shapes = (' '.join(str(tensor) for tensor in operation.activations) + ' > '
                  + ' '.join(str(tensor) for tensor in operation.outputs[:2])
                  + (' ...' if len(operation.outputs) > 2 else ''))
        rows.append((
            str(operation.index), operation.name, str(operation.version), shapes,
            'EdgeTPU' if judged.on_edgetpu else 'CPU', str(judged.verdict), judged.reason))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return ['  '.join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)),
                       row[-1]]) for row in rows]


def split(
    operations: Sequence[Operation], on_edgetpu: set[int],
) -> list[tuple[bool, list[Operation]]]:
    """
    Cut a graph into pieces that run on one side each, the way TFLite delegates do.

    Parameters
    ----------
    operations : sequence of Operation
        In execution order.
    on_edgetpu : set of int
        Indices of those that can be mapped.

    Returns
    -------
    list of (bool, list of Operation)
        In order of execution. Every piece takes all operations of its side that need nothing
        from a later piece.

    """
    produced = {tensor.index: operation.index for operation in operations
                for tensor in operation.outputs}
    waiting, done = list(operations), set()
    pieces: list[tuple[bool, list[Operation]]] = []
    while waiting:
        side = waiting[0].index in on_edgetpu
        piece, rest = [], []
        for operation in waiting:
            ready = all(produced.get(tensor.index, operation.index) in done
                        or tensor.index not in produced for tensor in operation.activations)
            if ready and (operation.index in on_edgetpu) == side:
                piece.append(operation)
                done.add(operation.index)
            else:
                rest.append(operation)
        pieces.append((side, piece))
        waiting = rest
    return pieces


def crossing(
    piece: Sequence[Operation], model: TfliteFile,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the activations that enter a piece of a model, and those that leave it."""
    inside = {operation.index for operation in piece}
    produced = {tensor.index: tensor for operation in piece for tensor in operation.outputs}
    entering = {tensor.index: tensor for operation in piece for tensor in operation.activations
                if tensor.index not in produced}
    wanted = {tensor.index for tensor in model.outputs} | {
        tensor.index for operation in model.operations if operation.index not in inside
        for tensor in operation.activations}
    return list(entering.values()), [
        tensor for index, tensor in produced.items() if index in wanted]


def check_model(
    path: Path, *, assumed: Mapping[int, bool] | None = None, all_subgraphs: bool = False,
) -> Report:
    """
    Check a model for the EdgeTPU, or read a compiled one.

    Parameters
    ----------
    path : Path
        A ``.tflite``. If it is not compiled and ``<name>_edgetpu.tflite`` lies beside it, the two
        are compared; a twin that cannot be read counts as a disagreement.
    assumed : mapping of int to bool
        Operations, by index, that are taken to be mapped or not, whatever their verdict.
    all_subgraphs : bool
        Map every subgraph, as the compiler's ``-a`` does, not the first alone.

    Returns
    -------
    Report

    Raises
    ------
    TfliteError
        If the file cannot be read, or an assumed operation is not in it.
    PackageError
        If the compiled part of the model cannot be read.

    """
    path, assumed = Path(path), assumed or {}
    model = read_tflite(path)
    if missing := [index for index in assumed if not 0 <= index < len(model.operations)]:
        raise TfliteError(
            f'{path}: has {len(model.operations)} operations, none with the index {missing[0]}.')
    if model.compiled:
        return _compiled_report(model)
    report = _predicted_report(model, assumed, all_subgraphs=all_subgraphs)
    twin = compiled_path(path)
    if twin.is_file():
        try:
            found = disagreements(report, check_model(twin))
        except (PackageError, TfliteError) as error:
            found = (str(error),)
        report = dataclasses.replace(report, compared_with=twin, disagreements=found)
    return report


def compiled_path(path: Path) -> Path:
    """Return where the compiled twin of a model lies."""
    return path.with_name(f'{path.stem}_edgetpu{path.suffix}')


def _compiled_report(model: TfliteFile) -> Report:
    inside = {operation.index for operation in model.compiled}
    judged = tuple(
        JudgedOperation(operation, (_INSIDE if operation.index in inside else _LEFT_OUT,),
                        operation.index in inside) for operation in model.operations)
    packages = tuple(read_package(operation) for operation in model.compiled)
    findings = []
    for package in packages:
        if package.min_runtime_version > COMPILER_RUNTIME:
            findings.append(Finding(
                Verdict.UNKNOWN, f'needs runtime {package.min_runtime_version}; the latest known '
                                 f'is {COMPILER_RUNTIME}'))
    return Report(model, judged, tuple(findings), packages=packages)


def _predicted_report(
    model: TfliteFile, assumed: Mapping[int, bool], *, all_subgraphs: bool,
) -> Report:
    producers = {tensor.index: operation for operation in model.operations
                 for tensor in operation.outputs}
    findings = {operation.index: judge(operation, producers) for operation in model.operations}
    whole = judge_model(model)
    fails = Verdict.FAIL in {finding.verdict for finding in (
        *whole, *(found[0] for found in findings.values()))}

    def pieces(worst: Verdict) -> list[tuple[bool, list[Operation]]]:
        able = {index for index, found in findings.items()
                if assumed.get(index, found[0].verdict <= worst)}
        return split(model.operations, able)

    def mapped(found: list[tuple[bool, list[Operation]]]) -> list[list[Operation]]:
        subgraphs = [piece for on_edgetpu, piece in found if on_edgetpu]
        return subgraphs if all_subgraphs else subgraphs[:1]

    found = [] if fails else pieces(Verdict.UNKNOWN)
    subgraphs = mapped(found)
    inside = {operation.index for piece in subgraphs for operation in piece}
    judged = tuple(
        JudgedOperation(operation, findings[operation.index], operation.index in inside)
        for operation in model.operations)
    costs = [cost(piece, *crossing(piece, model)) for piece in subgraphs]
    return Report(
        model, judged, whole, tuple((side, len(piece)) for side, piece in found),
        0 if fails else sum(map(len, mapped(pieces(Verdict.LIKELY)))),
        functools.reduce(operator.add, costs) if costs else None,
        max((memory(piece) for piece in subgraphs), key=lambda needed: needed.peak, default=None))


def disagreements(predicted: Report, compiled: Report) -> tuple[str, ...]:
    """
    Compare a prediction with what the compiler did.

    Parameters
    ----------
    predicted : Report
        Of the CPU model.
    compiled : Report
        Of its compiled twin.

    Returns
    -------
    tuple of str
        One line each; bytes count as different from a tenth on.

    """
    if not compiled.packages:
        return (f'{compiled.model.path.name} holds nothing compiled',)
    lines = []

    def outside(report: Report) -> Counter[str]:
        return Counter(
            f'{judged.operation.name} to {judged.operation.outputs[0]}'
            for judged in report.operations if not judged.on_edgetpu)

    expected, found = outside(predicted), outside(compiled)
    for label, difference in (('expected on the CPU, but mapped', expected - found),
                              ('expected to be mapped, but on the CPU', found - expected)):
        lines += [f'{label}: {count} x {name}' for name, count in sorted(difference.items())]
    if len(compiled.packages) != 1:
        lines.append(f'expected one subgraph, found {len(compiled.packages)}')
    if predicted.cost is None:
        return (*lines, 'expected no operation to be mapped')
    runs = [package.execution for package in compiled.packages]
    for name, guess, real in (
            ('parameter bytes', predicted.cost.parameter_bytes, sum(
                package.cached_parameters + package.streamed_parameters
                for package in compiled.packages)),
            ('streamed parameter bytes', predicted.cost.streamed_bytes, sum(
                package.streamed_parameters for package in compiled.packages)),
            ('input bytes', predicted.cost.input_bytes, sum(run.transfers.input for run in runs)),
            ('output bytes', predicted.cost.output_bytes,
             sum(run.transfers.output for run in runs)),
            ('instruction bytes', predicted.cost.instruction_bytes,
             sum(run.instructions for run in runs)),
            ('bytes through the host', predicted.cost.scratch_bytes, sum(
                run.transfers.scratch_written + run.transfers.scratch_read for run in runs))):
        if abs(guess - real) > 0.1 * max(guess, real):
            lines.append(f'{name}: expected {guess}, found {real}')
    return tuple(lines)
