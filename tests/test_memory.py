"""Freed memory stays with the process where the C library is glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from zdce import memory, paths

KEPT = """
import sys
import torch
from zdce import memory

def megabytes():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 1e6

if sys.argv[1] == "keep":
    assert memory.keep_freed()
torch.ones(20)  # wakes torch, and leaves nothing that later tensors could use
before = megabytes()
tensors = [torch.ones(20_000_000) for _ in range(4)]  # 80 MB each, 320 MB
assert megabytes() - before > 250
del tensors
print(megabytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_stays():
    def left(how: str) -> float:
        environment = {
            "PATH": "",
            "PYTHONPATH": str(paths.PACKAGE.parent),
        }  # none of the allocator's own settings
        words = [sys.executable, "-c", KEPT, how]
        return float(
            subprocess.run(
                words, env=environment, capture_output=True, text=True, check=True
            ).stdout
        )

    assert left("plain") < 50
    assert left("keep") > 250


SHARED = """
import threading
from zdce import memory
from zdce.study import timing as speed
import numpy as np

assert memory.keep_freed()

def take():
    [np.ones(10**6) for _ in range(20)]  # 8 MB each, 160 MB

for _ in range(4):
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
print(speed._memory("VmHWM") / 1e6)
before = speed._memory("VmHWM")
take()
print((speed._memory("VmHWM") - before) / 1e6)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_one_thread_freed_another_uses():
    environment = {"PATH": "", "PYTHONPATH": str(paths.PACKAGE.parent)}
    words = [sys.executable, "-c", SHARED]
    told = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert float(told[1]) < 40


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert memory.keep_freed() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_freed() is False
