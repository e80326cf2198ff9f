"""
Check how a model would map to a Coral EdgeTPU, and compile it where the compiler is at hand.

    python -m training.edgetpu check model.tflite
    python -m training.edgetpu compile model.tflite [--image NAME]

``check`` predicts from public rules; it never says that a model compiled. On a compiled model it
reads what the compiler left. See ``docs/edgetpu_mapping.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bisenet_ros.core import console
from bisenet_ros.core.contract import contract_path, file_sha256, read_contract
from bisenet_ros.core.errors import ModelError
from training.edgetpu_log import CompilerLog, parse_log
from training.edgetpu_package import PackageError
from training.edgetpu_report import Report, check_model, compiled_path
from training.edgetpu_rules import Verdict
from training.tflite_file import Tensor, TfliteError, TfliteFile, read_tflite

__all__ = ['CompileResult', 'CompilerError', 'Report', 'check_model', 'compile_model']

PROGRAM = 'edgetpu_compiler'

#: Of the compiler's output, at the end of a message.
LINES = 20


class CompilerError(RuntimeError):
    """A model was not compiled; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class CompileResult:
    """
    What came of a compilation.

    Parameters
    ----------
    path : Path
        The compiled model, beside the CPU one.
    log : CompilerLog
    report : Report
        What the compiled file holds.
    disagreements : tuple of str
        Between the checker's prediction and the compiled file.

    """

    path: Path
    log: CompilerLog
    report: Report
    disagreements: tuple[str, ...]

    @property
    def fully_mapped(self) -> bool:
        """Tell whether a single custom operator is all that is left."""
        return len(self.report.operations) == len(self.report.packages) == 1

    def __str__(self) -> str:
        lines = [f'{self.path}: made by {PROGRAM} {self.log.version}']
        if self.log.rows:
            width = max(len(row.operator) for row in self.log.rows)
            lines += [f'  {row.operator:<{width}}  {row.count:>4}  {row.status}'
                      for row in self.log.rows]
        outside = len(self.report.operations) - len(self.report.packages)
        lines.append('every operation is mapped' if self.fully_mapped else
                     f'{len(self.report.packages)} subgraphs on the EdgeTPU, {outside} operations '
                     'left to the CPU')
        for package in self.report.packages:
            lines.append(
                f'minimum runtime {package.min_runtime_version}; parameters: '
                f'{package.cached_parameters} bytes cached, {package.streamed_parameters} '
                f'streamed; {package.execution.scratch} bytes of scratch')
        lines += [f'unlike predicted: {line}' for line in self.disagreements]
        return '\n'.join(lines)


def compile_model(
    path: Path, image: str | None = None, *, min_runtime: int | None = None,
    timeout_s: float = 900.0,
) -> CompileResult:
    """
    Compile a model with ``edgetpu_compiler`` and verify the result.

    Parameters
    ----------
    path : Path
        An int8 or uint8 ``.tflite``.
    image : str or None
        A container image with the compiler, run by docker; None runs the program on the ``PATH``.
    min_runtime : int or None
        Oldest runtime version to serve (the compiler's ``-m``).
    timeout_s : float
        For the compiler, in seconds.

    Returns
    -------
    CompileResult
        ``<model>_edgetpu.tflite`` then lies beside the model, and the model's contract, where
        there is one, holds its hash.

    Raises
    ------
    CompilerError
        If there is no compiler, it fails, maps nothing, or changed inputs or outputs. What lay
        there before is then untouched.

    """
    path = Path(path)
    try:
        model = read_tflite(path)
    except TfliteError as error:
        raise CompilerError(str(error)) from error
    if model.compiled:
        raise CompilerError(f'{path}: is compiled already; give the model it was made from.')
    target = compiled_path(path)
    options = ['-s', *(['-m', str(min_runtime)] if min_runtime is not None else [])]
    program = shutil.which('docker' if image else PROGRAM)
    if program is None:
        raise CompilerError(_absent(path, image, options))
    try:
        return _compiled(path, model, program, options, image, timeout_s)
    except OSError as error:
        raise CompilerError(
            f'{target}: cannot be written ({error.strerror}); compile a copy of the model in a '
            'folder with room that you may write to.') from error


def _compiled(
    path: Path, model: TfliteFile, program: str, options: list[str], image: str | None,
    timeout_s: float,
) -> CompileResult:
    target = compiled_path(path)
    # Beside the model: the result moves into place whole, and docker may share no other folder.
    with tempfile.TemporaryDirectory(prefix='.edgetpu_', dir=path.resolve().parent) as folder:
        work = Path(folder)
        shutil.copyfile(path, work / path.name)
        text, code = _run(path, work, program, options, image, timeout_s)
        log = parse_log(text)
        made = work / target.name
        if not made.is_file():
            raise CompilerError(
                f'{path}: {PROGRAM} {log.version} made nothing of it: '
                f'{log.failure or "it did not say why"}; '
                f'{log.remedy or "what it printed is below"}.'
                + _suspects(path) + ('' if log.failure and log.remedy else _output(text, code)))
        compiled = _verified(made, model, log)
        os.replace(made, target)
    _write_hash(path, target)
    result = check_model(target)
    predicted = check_model(path)
    return CompileResult(
        target, log, dataclasses.replace(result, model=dataclasses.replace(
            compiled, path=target)), predicted.disagreements)


def _run(
    path: Path, work: Path, program: str, options: list[str], image: str | None,
    timeout_s: float,
) -> tuple[str, int]:
    """
    Return what the compiler printed, and its exit code.

    Its own log file, if it wrote one, is behind what it printed.

    """
    command = [program, *options, '-o', str(work), str(work / path.name)]
    if image:
        command = [
            program, 'run', '--rm', '--network', 'none', '--user', f'{os.getuid()}:{os.getgid()}',
            '--volume', f'{work}:/model', '--workdir', '/model', '--entrypoint', PROGRAM, image,
            *options, '-o', '/model', path.name]
    try:
        run = subprocess.run(
            command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors='replace', timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise CompilerError(
            f'{path}: {PROGRAM} did not end within {timeout_s:g} s; give it longer with '
            '--timeout, or a smaller model.') from error
    except OSError as error:
        raise CompilerError(
            f'{program}: cannot be run: {error.strerror}; the compiler exists for x86-64 Linux '
            'only. ' + _absent(path, image, options)) from error
    if image and run.returncode in (125, 126, 127):
        raise CompilerError(
            f'docker could not run {PROGRAM} from the image {image!r}: {_last_line(run.stdout)}; '
            f'expected an image with {PROGRAM} on its PATH.')
    log_file = work / f'{path.stem}_edgetpu.log'
    return run.stdout + (
        log_file.read_text(errors='replace') if log_file.is_file() else ''), run.returncode


def _absent(path: Path, image: str | None, options: list[str]) -> str:
    folder = path.resolve().parent
    if image:
        return (f'docker: not found on this machine; install it, or compile {path.name} without '
                f'--image where {PROGRAM} is installed.')
    return (
        f'{PROGRAM}: not found on this machine. It is Google\'s, for x86-64 Debian or Ubuntu '
        '(package edgetpu-compiler, coral.ai/docs/edgetpu/compiler). Either\n'
        f'  install it here and run\n    python -m training.edgetpu compile {path}\n'
        '  or name a container image that holds it\n'
        f'    python -m training.edgetpu compile {path} --image NAME\n'
        f'  or copy {path.name} to a machine that has it, run there\n'
        f'    {PROGRAM} {" ".join(options)} {path.name}\n'
        f'  and copy {compiled_path(path).name} back to {folder}; then\n'
        f'    python -m training.edgetpu check {compiled_path(path)}')


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else 'it printed nothing'


def _output(text: str, code: int) -> str:
    """Return the end of what the compiler printed, and how it ended."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()][-LINES:]
    ended = f'by signal {-code}' if code < 0 else f'with exit code {code}'
    return '\n  '.join([f'\n{PROGRAM} ended {ended}:', *(lines or ['(it printed nothing)'])])


def _suspects(path: Path) -> str:
    """Return what the checker would have said beforehand."""
    report = check_model(path)
    found = [f'operation {judged.operation.index} {judged.operation.name}: {judged.reason}'
             for judged in report.operations if judged.verdict >= Verdict.UNKNOWN]
    found += [finding.reason for finding in report.findings
              if finding.verdict >= Verdict.UNKNOWN]
    return '\nSuspects (python -m training.edgetpu check):\n  ' + '\n  '.join(found) \
        if found else ''


def _verified(made: Path, model: TfliteFile, log: CompilerLog) -> TfliteFile:
    """Return the compiled model if it can stand in for the CPU one."""
    try:
        compiled = read_tflite(made)
        if not compiled.compiled:
            raise CompilerError(
                f'{model.path}: {PROGRAM} {log.version} mapped none of its '
                f'{len(model.operations)} operations'
                + (f' ({log.failure})' if log.failure else '') + '; nothing was written.'
                + _suspects(model.path))
        check_model(made)
    except (PackageError, TfliteError) as error:
        raise CompilerError(
            f'{model.path}: what {PROGRAM} {log.version} made cannot be read: {error}') from error
    for kind, ours, theirs in (('inputs', model.inputs, compiled.inputs),
                               ('outputs', model.outputs, compiled.outputs)):
        wanted, found = [_form(tensor) for tensor in ours], [_form(tensor) for tensor in theirs]
        if wanted != found:
            raise CompilerError(
                f'{model.path}: the compiled {kind} are {found}, expected those of the model, '
                f'{wanted}; nothing was written. Report it to whoever gave you this compiler.')
    return compiled


def _form(tensor: Tensor) -> str:
    return f'{tensor} scale {list(tensor.scales)} zero {list(tensor.zero_points)}'


def _write_hash(path: Path, target: Path) -> None:
    """Name the compiled model in the contract, where there is one."""
    contract = contract_path(path)
    if not contract.is_file():
        return
    try:
        content = dataclasses.replace(
            read_contract(contract), edgetpu_sha256=file_sha256(target)).to_json()
    except ModelError as error:
        raise CompilerError(
            f'{target} was compiled, but its hash could not be put into the contract: {error}'
        ) from error
    temporary = contract.with_suffix('.tmp')
    temporary.write_text(content, encoding='utf-8')
    os.replace(temporary, contract)


def _ratios(reports: list[Report]) -> str:
    """Return predicted times as shares of the first model's."""
    base = reports[0].latency_s()
    lines = [f'predicted time as a share of {reports[0].model.path.name}\'s:']
    for report in reports[1:]:
        times = report.latency_s()
        if base and times:
            shares = '  '.join(f'{link} {times[link] / base[link]:.2f}' for link in base)
            lines.append(f'  {report.model.path.name}: {shares}')
        else:
            lines.append(f'  {report.model.path.name}: no prediction')
    return '\n'.join(lines)


def _assumption(text: str) -> tuple[int, bool]:
    index, _, side = text.partition('=')
    if not index.isdecimal() or side not in ('edgetpu', 'cpu'):
        raise argparse.ArgumentTypeError(f'found {text!r}, expected INDEX=edgetpu or INDEX=cpu')
    return int(index), side == 'edgetpu'


@console.ends_with_its_reader
def main(argv: list[str] | None = None) -> int:
    """Check or compile from the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m training.edgetpu',
        description='Check how models would map to a Coral EdgeTPU, or compile them.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND', dest='command')
    checker = commands.add_parser(
        'check', help='predict the mapping of a .tflite, or read a compiled one')
    checker.add_argument('model', nargs='+', type=Path,
                         help='.tflite files; of several, times are compared with the first')
    checker.add_argument(
        '--assume', action='append', default=[], type=_assumption, metavar='INDEX=edgetpu|cpu',
        help='take an operation to be mapped or not, whatever its verdict')
    checker.add_argument('--all-subgraphs', action='store_true',
                         help="map every subgraph, as the compiler's -a does")
    checker.add_argument('--json', action='store_true', help='print reports for programs')
    compiler = commands.add_parser('compile', help='run edgetpu_compiler and verify what it made')
    compiler.add_argument('model', type=Path, help='an int8 .tflite')
    compiler.add_argument('--image', help='container image with edgetpu_compiler, run by docker')
    compiler.add_argument('--min-runtime', type=int, metavar='N',
                          help="oldest runtime to serve (default: the compiler's, 14 for 16.0)")
    compiler.add_argument('--timeout', type=float, default=900.0, metavar='SECONDS',
                          help='for the compiler (default: %(default)s)')
    args = parser.parse_args(argv)
    try:
        if args.command == 'compile':
            print(compile_model(args.model, args.image, min_runtime=args.min_runtime,
                                timeout_s=args.timeout))
            return 0
        reports = [check_model(path, assumed=dict(args.assume), all_subgraphs=args.all_subgraphs)
                   for path in args.model]
    except (CompilerError, PackageError, TfliteError) as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        joined = ',\n'.join(report.to_json().rstrip() for report in reports)
        print(f'[\n{joined}\n]' if len(reports) > 1 else joined)
        return 0
    print('\n\n'.join(map(str, reports)))
    if len(reports) > 1:
        print(f'\n{_ratios(reports)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
