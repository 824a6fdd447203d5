"""A lock on a folder, so that two processes never write into it at once.

The system frees the lock when the process that holds it ends, however that happens: nothing is left behind that a later
start would have to clear. The file `.lock` says who holds it; left behind by a kill, it means nothing by itself. So the
lock is also what tells whether somebody still works in a folder (`is_held`). Where a file system knows no locks, the
folder is used without one, and that is said.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import time
import weakref
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from stilnovo.errors import InputError
from stilnovo.runlog import disk_errors

FILE = ".lock"
_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
_ASKED = 0.05  # seconds after which `is_held` has let go again
_FAR = 2**30  # the byte that Windows locks: it must not be one that others read
log = logging.getLogger(__name__)


class FolderLock:
    """The lock on one folder, held from its making until `release` or the end of the process.

    Args:
        folder: Made where it does not exist; removed again with the lock where nothing was written into it.
        what: Who works there, for the message to others: `a training`.

    Raises:
        InputError: when another process, or another part of this one, holds it.
    """

    def __init__(self, folder: Path, what: str) -> None:
        made = [part for part in (folder, *folder.parents) if not part.exists()]
        handle = _held(folder)
        self._free: weakref.finalize[..., FolderLock] | None = None
        if handle is None:
            return
        self._free = weakref.finalize(self, _free, handle, folder, made, os.getpid())
        os.ftruncate(handle, 0)
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            since = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
            os.write(handle, f"{what}, process {os.getpid()} on {platform.node()}, since {since}\n".encode())

    def release(self) -> None:
        """Free the folder; a second call does nothing."""
        if self._free is not None:
            self._free()


def _held(folder: Path) -> int | None:
    """Open the folder's lock file and lock it; None where the file system knows no locks."""
    path = folder / FILE
    while True:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # another process freed the folder and removed it just now
                continue
        try:
            _lock(handle)
        except OSError as error:
            noted = _noted(handle)
            os.close(handle)
            if error.errno not in _HELD:
                log.warning("%s cannot be locked (%s): start nothing else in it.", folder, error.strerror)
                return None
            raise InputError(
                f"{folder} is in use by another process.", f"It is {noted}." if noted else "",
                "Wait until it ends, or choose another folder (--out).",
            ) from None  # fmt: skip
        # The file may have been removed, and made anew by a third, between opening and locking it.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)


def _free(handle: int, folder: Path, made: list[Path], owner: int) -> None:
    if os.getpid() == owner:  # a forked child has the handle too, but not the lock
        with contextlib.suppress(OSError):  # Windows removes no open file
            os.unlink(folder / FILE)
            for part in (folder, *made[1:]):
                part.rmdir()  # only an empty one
    os.close(handle)


def is_held(folder: Path) -> bool | None:
    """Whether somebody holds the lock on a folder; None where that cannot be known: of another machine, or without locks."""
    try:
        handle = os.open(folder / FILE, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        noted = _noted(handle)
        _lock(handle)
    except OSError as error:
        return True if error.errno in _HELD else None
    finally:
        os.close(handle)
    # A lock of another machine is not always seen here.
    return False if not noted or f" on {platform.node()}, since " in noted else None


def _noted(handle: int) -> str:
    return os.read(handle, 400).decode("utf-8", "replace").strip()


def _lock(handle: int) -> None:
    """Lock an open file for this process; where it is locked, once more after as long as somebody needs who only asks."""
    try:
        _lock_now(handle)
    except OSError as error:
        if error.errno not in _HELD:
            raise
        time.sleep(_ASKED)
        _lock_now(handle)


def _lock_now(handle: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(handle, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Context manager that holds the lock on a folder; see `FolderLock`."""
    lock = FolderLock(folder, what)
    try:
        yield
    finally:
        lock.release()
