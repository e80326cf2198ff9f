"""
Event files for TensorBoard, written without it.

Keras' own callback needs TensorFlow whatever the backend. A file is a row of records (TensorFlow's
``record_writer.cc``): length, masked CRC-32C of the length, an ``Event`` message
(``event.proto``), masked CRC-32C of the message.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path


def _crc_table() -> list[int]:
    table = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)  # Castagnoli, reflected
        table.append(value)
    return table


_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """Return CRC-32C, rotated and shifted as in a record file."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    value ^= 0xFFFFFFFF
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _message(field: int, payload: bytes) -> bytes:
    """Return a length-delimited field of a protocol buffer."""
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload


class EventFile:
    """
    One event file; TensorBoard joins all those of a folder.

    Parameters
    ----------
    folder : Path
        Created if it is not there; ``tensorboard --logdir FOLDER`` shows it.

    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f'events.out.tfevents.{int(time.time())}.{os.getpid()}'
        self._append(_message(3, b'brain.Event:2'))  # file_version

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add one value for each tag."""
        summary = b''.join(
            _message(1, _message(1, tag.encode())  # Summary.Value: tag, simple_value
                     + bytes([2 << 3 | 5]) + struct.pack('<f', value))
            for tag, value in values.items())
        self._append(bytes([2 << 3]) + _varint(step) + _message(5, summary))

    def _append(self, event: bytes) -> None:
        event = bytes([1 << 3 | 1]) + struct.pack('<d', time.time()) + event  # wall_time
        length = struct.pack('<Q', len(event))
        with self._path.open('ab') as file:
            file.write(length + struct.pack('<I', masked_crc32c(length))
                       + event + struct.pack('<I', masked_crc32c(event)))
