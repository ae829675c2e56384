"""Files that appear whole or not at all, and folders in which one process works at a time."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # no such locks there (Windows)
    fcntl = None


def opened(path: str | os.PathLike) -> BinaryIO:
    """The file ``path``, open for reading.

    Raises OSError that names it for what is no file: a folder, or a pipe or device, whose reading
    may never end.
    """
    # No wait at a pipe.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return open(handle, "rb")
    os.close(handle)
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
    raise OSError(errno.EINVAL, f"{kind}, not a file", str(path))


def content(path: str | os.PathLike, most: int) -> bytes:
    """What the file ``path`` holds; OSError that names it for what :func:`opened` refuses, and
    above ``most`` bytes.
    """
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size <= most and len(data := file.read(most + 1)) <= most:
            return data
    raise OSError(errno.EFBIG, f"larger than {most / 1e6:,.0f} MB", str(path))


def escape_control_characters(text: str) -> str:
    """``text`` in one line, for a terminal: control characters, as a file's name may hold them, are
    written out.
    """
    escaped = (c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return "".join(c if c.isprintable() else e for c, e in zip(text, escaped, strict=True))


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A place beside ``path`` to write to, which takes its name at the end of the block, flushed to
    the disk before.

    The folder is created if need be. Whatever goes wrong leaves ``path`` as it was and nothing
    beside it. What a killed process left there is overwritten by the next one that writes the same
    file; two that write it at once take turns. Raises OSError that names ``path``.
    """
    path, handle = Path(path), None
    digest = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()
    partial = path.with_name(f".{digest[:16]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _taken(partial)
        try:
            yield partial
            os.fsync(handle)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        ours = not error.filename or Path(os.fsdecode(error.filename)) == partial
        if error.errno is None or not ours:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if handle is not None:
            os.close(handle)


def _taken(partial: Path) -> int:
    """``partial``, empty, open and locked: nobody else's before or meanwhile."""
    while True:
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _flock(handle)
            if os.path.samestat(os.stat(partial), os.fstat(handle)):
                os.ftruncate(handle, 0)
                return handle
        except FileNotFoundError:
            pass  # the one before took it to its own name: begin with another
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _flock(handle: int, wait: bool = True) -> bool:
    """Whether ``handle`` is locked now; where a disk has no locks, as if nobody else were there."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@contextmanager
def _held(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Whether no other process is in such a block of ``folder`` meanwhile."""
    handle = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    try:
        yield handle is None or _flock(handle, wait)
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def lock(folder: Path, does: str = "works") -> Iterator[None]:
    """No other process is in such a block of ``folder`` meanwhile; the lock goes with the process,
    however that ends.

    does: what is said of the other one while this one waits for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder, wait=False) as free:
        if free:
            yield
            return
    print(f"{folder}: another process {does} here; waiting for it", flush=True)
    with _held(folder):
        yield


@contextmanager
def scratch(parent: Path, prefix: str = ".partial-") -> Iterator[Path]:
    """An empty folder below ``parent``, gone after the block; those that killed processes left are
    removed first.
    """
    with ExitStack() as stack:
        with lock(parent):
            for left in parent.glob(f"{prefix}*"):
                with suppress(OSError), _held(left, wait=False) as unused:
                    if unused and fcntl is not None:
                        shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            stack.enter_context(_held(folder))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder
