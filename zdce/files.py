"""Files that appear whole or not at all, and folders in which one process works at a time."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks there (Windows)
    fcntl = None


def content(path: str | os.PathLike, most: int) -> bytes:
    """What the file ``path`` holds; OSError that names it for what :func:`check_is_file` refuses,
    and above ``most`` bytes.
    """
    check_is_file(path)
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size <= most and len(data := file.read(most + 1)) <= most:
            return data
    raise OSError(errno.EFBIG, f"larger than {most / 1e6:,.0f} MB", str(path))


def check_is_file(path: str | os.PathLike) -> None:
    """Raise OSError that names ``path`` where it is a folder, or a pipe or device, whose reading
    may never end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "a folder, a pipe or a device, not a file", str(path))


def escape_control_characters(text: str) -> str:
    """``text`` in one line, for a terminal: control characters, as a file's name may hold them, are
    written out.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A place beside ``path`` to write to, which takes its name at the end of the block, flushed to
    the disk before.

    The folder is created if need be. Whatever goes wrong leaves ``path`` as it was and nothing
    beside it. What a killed process left there is overwritten by the next one that writes the same
    file; two that write it at once take turns. Raises OSError that names ``path``.
    """
    path = Path(path)
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
        finally:
            os.close(handle)
    except OSError as error:
        ours = not error.filename or Path(os.fsdecode(error.filename)) == partial
        if error.errno is None or not ours:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _taken(partial: Path) -> int:
    """``partial``, empty, open and locked: nobody else's before or meanwhile."""
    while True:
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        _flock(handle)
        try:
            if os.path.samestat(os.stat(partial), os.fstat(handle)):
                os.ftruncate(handle, 0)
                return handle
        except FileNotFoundError:
            pass  # the one before took it to its own name: begin with another
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
def lock(folder: Path, does: str) -> Iterator[None]:
    """No other process is in such a block of ``folder`` meanwhile; the lock goes with the process,
    however that ends.

    does: what is said of the other one while this one waits for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder if fcntl is not None else os.devnull, os.O_RDONLY)
    try:
        if not _flock(handle, wait=False):
            print(f"{folder}: another process {does} here; waiting for it", flush=True)
            _flock(handle)
        yield
    finally:
        os.close(handle)
