"""Files that a command writes at its end: refused at its start, written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path

import pytest

from bisenet_ros.core.output_files import (
    OutputError, check_apart, check_writable, write_bytes, write_text,
)


def test_what_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(OutputError, match=r'a\.json: cannot be written \('):
        check_writable(tmp_path / 'file' / 'a.json')
    check_writable(tmp_path / 'new' / 'a.json')
    assert not any((tmp_path / 'new').iterdir())


def test_a_file_is_not_written_over_another_one_of_the_same_command(tmp_path: Path) -> None:
    model, link = tmp_path / 'a.tflite', tmp_path / 'link.json'
    link.symlink_to(tmp_path / 'a.json')
    check_apart({'--html': tmp_path / 'b.html', '--json': tmp_path / 'b.json', '--csv': None},
                [model])
    check_apart({'--html': Path(os.devnull), '--json': Path(os.devnull)})
    for read, message in ((link, 'a file that this command reads'), (model, 'the file of --html')):
        with pytest.raises(OutputError, match=(
                f"^--json: found '.*a.json', which is {message} as well, expected a file of its")):
            check_apart({'--html': link, '--json': tmp_path / 'new' / '..' / 'a.json'}
                        if read == model else {'--json': tmp_path / 'a.json'}, [read])


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    ring = tmp_path / 'ring'
    ring.symlink_to(ring)
    for path, reason in ((tmp_path / ('x' * 300), 'File name too long'), (ring / 'a', '.*')):
        with pytest.raises(OutputError, match=rf'cannot be written \({reason}'):
            check_apart({'--json': path})


def test_a_file_is_replaced_whole_and_its_link_stays(tmp_path: Path) -> None:
    path, link = tmp_path / 'a.json', tmp_path / 'link.json'
    path.write_text('old')
    link.symlink_to(path)
    write_text(link, 'new \udcff')
    assert path.read_bytes() == b'new \\udcff'
    assert link.is_symlink()
    assert sorted(file.name for file in tmp_path.iterdir()) == ['a.json', 'link.json']


def test_on_a_full_disk_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / 'a.tflite'
    path.write_bytes(b'old')

    def half(file: Path, content: bytes) -> int:
        with file.open('wb') as out:
            out.write(content[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, 'write_bytes', half)
    with pytest.raises(OutputError, match=(
            f'^{re.escape(str(path))}: cannot be written \\(No space left on device\\)')):
        write_bytes(path, b'new content')
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_pipes_are_written_to(tmp_path: Path) -> None:
    path, read = tmp_path / 'pipe', []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    write_bytes(path, b'content')
    reader.join(10)
    assert read == [b'content']
