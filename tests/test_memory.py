"""Freed memory stays with the process where the C library is glibc."""

import platform
import subprocess
import sys

import pytest

from zdce import memory, paths

CODE = """
import threading
from pathlib import Path
import numpy as np
from zdce import memory

def megabytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e3

def take():
    [np.ones(10**6) for _ in range(40)]  # 8 MB each, 320 MB

assert memory.keep_freed()
before = megabytes("VmRSS")
take()
kept, before = megabytes("VmRSS") - before, megabytes("VmHWM")
thread = threading.Thread(target=take)
thread.start()
thread.join()
print(kept, megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_stays_and_serves_every_thread():
    environment = {"PATH": "", "PYTHONPATH": str(paths.PACKAGE.parent)}
    said = subprocess.check_output([sys.executable, "-c", CODE], env=environment)
    kept, more = map(float, said.split())
    assert kept > 250 and more < 40


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert memory.keep_freed() is False
