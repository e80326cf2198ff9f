"""``python -m training.datasets``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bisenet_ros.core import console
from training.datasets import sheet
from training.datasets.base import ENVIRONMENT, DatasetError, located
from training.datasets.check import SHOWN, CheckReport, check, leaks
from training.datasets.guess import guess
from training.datasets.opening import KINDS, open_frames
from training.datasets.progress import Progress
from training.datasets.taxonomy import TAXONOMIES, load_taxonomy

EPILOG = f"""\
SPEC is one of
{chr(10).join(f'  {kind.usage}' for kind in KINDS.values())}
with ,KEY=VALUE behind it; a PATH is taken for what its layout says. See docs/datasets.md.
"""


def specs_of(name: str, root: Path | None) -> tuple[str, ...]:
    """Return the data sets that a specification or a path names."""
    kind, colon, _ = name.partition(':')
    if colon and kind in KINDS:
        return (name,)
    try:
        path = located(name, root)
    except DatasetError:
        if colon and kind.replace('-', '_').isidentifier():
            return (name,)  # a misspelt kind: opening says which there are
        raise
    found = guess(path)
    print(f'{name}: taken for {" ".join(found.specs)} ({found.reason})')
    return found.specs


def checked(args: argparse.Namespace) -> list[CheckReport]:
    """Check every data set and print what is found, one after the other."""
    taxonomy = load_taxonomy(args.taxonomy)
    if args.sheet is not None:
        sheet.check_path(args.sheet)
    reports = []
    for spec in [spec for name in args.dataset for spec in specs_of(name, args.data)]:
        dataset = open_frames(spec, args.data, taxonomy, 'skip')
        reports.append(check(
            dataset, spec, taxonomy, args.mark, Progress(spec, len(dataset))))
        print(reports[-1].text(None if args.all else SHOWN), flush=True)
    for leak in leaks(reports):
        print(leak)
    if args.sheet is not None:
        parts = [(report.name, report.tiles) for report in reports]
        sheet.save(sheet.contact_sheet(parts, taxonomy), args.sheet)
        print(f'contact sheet: {args.sheet}')
    return reports


@console.ends_with_its_reader
def main(argv: list[str] | None = None) -> int:
    """Check data sets from the command line; exit code 1 if a file cannot be used."""
    parser = argparse.ArgumentParser(
        prog='python -m training.datasets', description='Read whole data sets and report on them.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    checker = commands.add_parser(
        'check', help='read every frame; report faults, class shares, duplicates and leaks',
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    checker.add_argument('dataset', nargs='+', metavar='SPEC|PATH',
                         help='such as camvid:train, labelme:my_photos or my_photos')
    checker.add_argument('--data', type=Path, help=f'data folder (default: ${ENVIRONMENT})')
    checker.add_argument(
        '--taxonomy', default='road', metavar='NAME|FILE',
        help=f'classes to read labels into: {", ".join(TAXONOMIES)} or a JSON file')
    checker.add_argument('--mark', action='append', default=[], metavar='CLASS',
                         help='a class that frames should show (default: road)')
    checker.add_argument('--all', action='store_true',
                         help=f'list every fault and unknown class, not {SHOWN} of each')
    checker.add_argument('--sheet', type=Path, metavar='FILE.png',
                         help='write a contact sheet: frames with their labels over them')
    args = parser.parse_args(argv)
    console.print_any_name()
    try:
        reports = checked(args)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    return 1 if any(report.faults for report in reports) else 0


if __name__ == '__main__':
    sys.exit(main())
