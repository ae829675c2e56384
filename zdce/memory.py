"""Memory that convolutions free and ask for again, kept with the process."""

import ctypes
import sys

# malloc.h; each takes an int
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed() -> bool:
    """Let the C library keep freed memory for all threads, not return it; whether it will.

    A training step or a photograph takes hundreds of megabytes, which page by page from the kernel
    can double the time of a step (ours, measured with and without). The process then stays
    as large as its largest moment. Nothing happens but with glibc (Linux). Source: ours.
    """
    linux = sys.platform.startswith("linux")
    mallopt = linux and getattr(ctypes.CDLL(None), "mallopt", None)
    if not mallopt:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28), (_ARENA_MAX, 1))
    return all([mallopt(parameter, value) for parameter, value in settings])
