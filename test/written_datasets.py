"""Tiny data sets written by the tests themselves."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def write_image(
    path: Path, hw: tuple[int, int], rgb: tuple[int, int, int] = (200, 90, 30),
) -> Path:
    """Write a picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = np.full((*hw, 3), rgb[::-1], np.uint8)
    cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, 100])
    return path


def write_ids(path: Path, ids: npt.ArrayLike) -> Path:
    """Write a mask of class ids, of 8 bits unless it is an array of another type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = ids if isinstance(ids, np.ndarray) else np.array(ids, np.uint8)
    cv2.imwrite(str(path), array)
    return path


def write_colours(path: Path, rgb: npt.ArrayLike) -> Path:
    """Write a mask of RGB colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.array(rgb, np.uint8)[..., ::-1])
    return path


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_pair(
    root: Path, stem: str, ids: npt.ArrayLike, image_hw: tuple[int, int] | None = None,
) -> None:
    """Write ``images/<stem>.jpg`` and ``labels/<stem>.png``."""
    array = np.array(ids, np.uint8)
    write_image(root / 'images' / f'{stem}.jpg', image_hw or array.shape[:2])
    write_ids(root / 'labels' / f'{stem}.png', array)


def write_split(root: Path, split: str, stems: list[str]) -> None:
    path = root / 'splits' / f'{split}.txt'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(stems) + '\n')


def turn_by_exif(path: Path, orientation: int = 6) -> None:
    """Let a JPEG file say that it is to be turned (6: by 90 degrees, 3: by 180)."""
    content = path.read_bytes()
    entry = struct.pack('<HHIHH', 0x0112, 3, 1, orientation, 0)
    exif = b'Exif\0\0II*\0' + struct.pack('<IH', 8, 1) + entry + bytes(4)
    path.write_bytes(
        content[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + content[2:])
