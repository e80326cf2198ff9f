"""Frame after frame in the same memory: the system has no pages to fill with zeros."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FRAME_BYTES = 1280 * 720 * 3
PAGES = FRAME_BYTES // 4096
FRAMES = 100

#: A frame is in memory three times: as the middleware has it, as the message, and in work.
PROGRAM = f'''
import resource, sys
from bisenet_ros import memory

kept = '--default' not in sys.argv and memory.keep_freed_memory()
frame = bytes({FRAME_BYTES})
for number in range({FRAMES} + 10):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    copies = [bytearray(frame) for _ in range(3)]
    del copies
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
'''


def faults(*arguments):
    result = subprocess.run([sys.executable, '-c', PROGRAM, *arguments], cwd=ROOT,
                            capture_output=True, text=True, check=True)
    kept, count = result.stdout.split()
    return kept == 'True', int(count)


def test_frames_need_no_fresh_pages():
    kept, count = faults()
    if not kept:
        pytest.skip('no GNU C library: its memory is not ours to keep')

    assert count < FRAMES * PAGES // 100
    # Left alone, the C library gives them back every time.
    assert faults('--default')[1] > FRAMES * PAGES
