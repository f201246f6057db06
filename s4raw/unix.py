"""Unix sockets: listening on a path, who is at the other end, and telling systemd how we are (sd_notify)."""

from __future__ import annotations

import _socket as socket
import errno
import os
import stat
import struct

from s4raw.errors import ConfError
from s4raw.net import Socket, Stream

FAMILY = socket.AF_UNIX
MAX_PATH = 107  # bytes, unix(7)
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


def listen(path: str, mode: int = 0o600, backlog: int = 1024) -> Socket:
    """A listening socket with this name and mode. What a process that has died left there is replaced.

    Raises ConfError, also when somebody listens there, or something else lies there.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfError(f"the path of a Unix socket has at most {MAX_PATH} bytes: {path}")
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)  # from its first moment on it has no other mode
    try:
        sock.bind(path)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise ConfError(f"cannot listen on {path}: {error.strerror}") from None
    finally:
        os.umask(before)
    return sock


def _clear(path: str) -> None:
    """Remove a socket that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfError(f"cannot listen on {path}: it is there, and no socket")
    except OSError:
        return
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            os.unlink(path)
            return
    finally:
        sock.close()
    raise ConfError(f"cannot listen on {path}: somebody does already")


class UnixStream(Stream):
    """A connection by way of a Unix socket. ``uid`` is the user at the other end, as the kernel says."""

    def __init__(self, sock: Socket, peer: str) -> None:
        super().__init__(sock, peer)
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, self.uid, _ = _CREDENTIALS.unpack(raw)
        self.peer = f"{peer}:pid {pid}, uid {self.uid}"


def notify(path: str, message: str) -> None:
    """Send a datagram to a Unix socket, ``@`` first for an abstract name (sd_notify(3)). Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)
    finally:
        sock.close()
