"""Event files are what TensorFlow writes and TensorBoard reads."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from training.events import EventFile, masked_crc32c


def records(path: Path) -> list[bytes]:
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        length, check = struct.unpack_from('<QI', data, at)
        assert check == masked_crc32c(data[at:at + 8])
        found.append(data[at + 12:at + 12 + length])
        assert struct.unpack_from('<I', data, at + 12 + length)[0] == masked_crc32c(found[-1])
        at += 16 + length
    return found


def test_checksum_is_castagnoli() -> None:
    # RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 0x8a9136aa.
    plain = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_file_holds_version_and_scalars(tmp_path: Path) -> None:
    events = EventFile(tmp_path / 'events')
    events.scalars(300, {'loss': 0.5, 'iou/camvid:val': 0.9})
    events.scalars(301, {'loss': 0.25})
    [path] = (tmp_path / 'events').iterdir()
    assert 'tfevents' in path.name  # what TensorBoard looks for
    first, second, third = records(path)
    assert b'brain.Event:2' in first
    assert b'iou/camvid:val' in second and struct.pack('<f', 0.5) in second
    assert b'iou' not in third


def test_tensorflow_reads_it(tmp_path: Path) -> None:
    tf = pytest.importorskip('tensorflow', reason='tensorflow is not installed')
    from tensorflow.core.util import event_pb2
    EventFile(tmp_path).scalars(300, {'loss': 0.5, 'iou/x': float('nan')})
    [path] = tmp_path.iterdir()
    events = [event_pb2.Event.FromString(record.numpy())
              for record in tf.data.TFRecordDataset(str(path))]  # it checks the sums
    assert events[0].file_version == 'brain.Event:2'
    assert events[0].wall_time > 1.6e9
    assert events[1].step == 300
    loss, iou = events[1].summary.value
    assert (loss.tag, loss.simple_value) == ('loss', 0.5)
    assert iou.tag == 'iou/x' and iou.simple_value != iou.simple_value
