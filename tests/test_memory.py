"""Freed memory stays with the process where the C library is glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from zdce import memory, paths

MEGABYTES = """
import sys, threading
from pathlib import Path
import numpy as np
from zdce import memory

def megabytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e3

if sys.argv[1] == "keep":
    assert memory.keep_freed()
"""


def told(code: str, how: str) -> float:
    """What the code prints in a process without settings of the allocator."""
    environment = {"PATH": "", "PYTHONPATH": str(paths.PACKAGE.parent)}
    words = [sys.executable, "-c", MEGABYTES + code, how]
    run = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout)


KEPT = """
before = megabytes("VmRSS")
arrays = [np.ones(10**7) for _ in range(4)]  # 80 MB each, 320 MB
assert megabytes("VmRSS") - before > 250
del arrays
print(megabytes("VmRSS") - before)
"""
SHARED = """
def take():
    [np.ones(10**6) for _ in range(20)]  # 8 MB each, 160 MB

for _ in range(4):
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
before = megabytes("VmHWM")
take()
print(megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_stays_and_serves_every_thread():
    assert told(KEPT, "plain") < 50
    assert told(KEPT, "keep") > 250
    assert told(SHARED, "keep") < 40


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert memory.keep_freed() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_freed() is False
