"""Memory that convolutions free and ask for again, kept with the process."""

from __future__ import annotations

import ctypes
import sys

# malloc.h; each takes an int
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed() -> bool:
    """Let the C library keep freed memory instead of returning it to the kernel; whether it could
    be asked to.

    A training step or a photograph frees and takes hundreds of megabytes; fetched from the kernel
    page by page that costs more than a tenth of a training step, and half of the time where several
    threads wait for it (``benchmarks/training_speed.py``). The process then stays as large as its
    largest moment. All threads share what is kept: apart, the one that reads a photograph of 200
    megapixels and the one that writes it would hold a gigabyte more. glibc alone (Linux); nothing
    happens elsewhere. Source: ours.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28), (_ARENA_MAX, 1))
    return all([mallopt(parameter, value) for parameter, value in settings])
