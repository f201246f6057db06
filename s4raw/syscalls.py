"""System calls that Python's ``os`` does not offer (openat2, renameat2, prctl), by way of ctypes."""

from __future__ import annotations

import ctypes
import os

_RENAME_EXCHANGE = 2
_OPENAT2 = 437  # the same on all architectures
_NO_SYMLINKS, _BENEATH = 0x04, 0x08
_FUTEX_HASH, _SET_SLOTS = 78, 1  # linux/prctl.h, since Linux 6.16

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_call = _libc.syscall
_call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_call.restype = ctypes.c_long
_HOW_SIZE = ctypes.sizeof(_OpenHow)
_hows: dict[int, tuple[object, _OpenHow]] = {}  # by flags; the structure is kept alive by its place here


def open_beneath(root: int, path: str, flags: int) -> int:
    """Open ``path`` below the directory ``root``; no symlink on the way is followed. One call for any number of parts.

    Raises OSError: ENOENT, ENOTDIR, ELOOP for a symlink, ENOSYS before Linux 5.6.
    """
    how = _hows.get(flags)
    if how is None:
        structure = _OpenHow(flags, 0, _NO_SYMLINKS | _BENEATH)
        how = _hows[flags] = (ctypes.byref(structure), structure)
    fd: int = _call(_OPENAT2, root, path.encode(), how[0], _HOW_SIZE)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


def exchange(first_parent: int, first: str, second_parent: int, second: str) -> None:
    """Let two names change places, atomically."""
    if _libc.renameat2(first_parent, os.fsencode(first), second_parent, os.fsencode(second), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), first)


def spread_waiters(slots: int) -> None:
    """Let the kernel keep what this process's threads wait for in a table of so many slots, a power of two.

    Linux has given each process a table of its own since 6.16, of 4 slots for each processor: where thousands of
    threads wait for the interpreter's lock in the slot that another of its words falls into, each step walks past all
    of them. A kernel without such tables keeps its large one for all processes.
    """
    _libc.prctl(_FUTEX_HASH, ctypes.c_ulong(_SET_SLOTS), ctypes.c_ulong(slots), ctypes.c_ulong(0), ctypes.c_ulong(0))
