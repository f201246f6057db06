"""posix_spawn(3) by way of ctypes.

Python's own keeps the interpreter's lock until the program has begun, which takes up to 2 ms on busy processors, and no
other thread does anything meanwhile; and it cannot change the directory.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Mapping, Sequence

_SETPGROUP, _SETSIGDEF = 0x02, 0x04  # spawn.h: flags, the same in glibc and musl
_ROOM = 1024  # bytes for a structure of spawn.h or signal.h, whose size is the C library's own affair (up to 336)
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python, which is not to be inherited

_libc = ctypes.CDLL(None)  # its calls release the lock
AVAILABLE = hasattr(_libc, "posix_spawn_file_actions_addchdir_np")  # glibc 2.29, musl 1.1.24


def _attributes() -> ctypes.Array[ctypes.c_char]:
    """What all programs are started with: a process group of their own, and no signal ignored."""
    attributes, signals = ctypes.create_string_buffer(_ROOM), ctypes.create_string_buffer(_ROOM)
    _libc.sigemptyset(signals)
    for number in _IGNORED:
        _libc.sigaddset(signals, number)
    _libc.posix_spawnattr_init(attributes)
    _libc.posix_spawnattr_setpgroup(attributes, 0)
    _libc.posix_spawnattr_setsigdefault(attributes, signals)
    _libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETPGROUP | _SETSIGDEF))
    return attributes


_ATTRIBUTES = _attributes()


def spawn(
    arguments: Sequence[bytes], environment: Mapping[bytes, bytes], directory: bytes, descriptors: Iterable[int]
) -> int:
    """Start a program, ``arguments[0]``, in a process group of its own; its process id.

    ``descriptors`` become its first ones; all others of ours are close-on-exec. Each has to be larger than its place.
    Raises OSError, and ValueError for text with a NUL.
    """
    variables = [name + b"=" + value for name, value in environment.items()]
    pid, actions = ctypes.c_int(), ctypes.create_string_buffer(_ROOM)
    program, words, settings = arguments[0], _strings(arguments), _strings(variables)
    _strings([directory])
    _check(_libc.posix_spawn_file_actions_init(actions))
    try:
        for place, fd in enumerate(descriptors):
            _check(_libc.posix_spawn_file_actions_adddup2(actions, fd, place))
        _check(_libc.posix_spawn_file_actions_addchdir_np(actions, directory))
        _check(_libc.posix_spawn(ctypes.byref(pid), program, actions, _ATTRIBUTES, words, settings))
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)
    return pid.value


def _strings(words: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    """A C array of strings, with NULL at its end."""
    if b"\0" in b"".join(words):
        raise ValueError("embedded null byte")
    return (ctypes.c_char_p * (len(words) + 1))(*words)


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))
