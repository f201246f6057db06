"""The only place that touches sockets: sendmsg, sendfile, recv_into, kernel timeouts.

Sockets are blocking, with SO_RCVTIMEO and SO_SNDTIMEO, so an operation is one system call. (``settimeout`` would make
the descriptor non-blocking: two calls an operation, and ``os.sendfile`` would raise BlockingIOError.) They are those of
``_socket``, which ``socket`` wraps: importing the wrapping would take 2 to 5 ms of a command line call.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import select
import struct
import time

from s4raw.errors import ConfError, ConnectionLost, PeerTimeout, S4Error, Unreachable
from s4raw.record import NamedTuple
from s4raw.spinning import Spin

Socket = socket.socket

STALL_SECONDS = 60.0  # without a single byte from a peer that owes some
SEND_SECONDS = 300.0  # without a single byte taken by a peer, who may be waiting for a slow reader of its own
SENDFILE_CHUNK = 1 << 30
MAX_QUEUED = 256 << 10  # bytes of answers that wait for more to go with them
MAX_BUFFERS = 512  # in one sendmsg, which takes 1024
GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR
_DISK = (errno.EIO, errno.EUCLEAN, errno.EBADMSG)  # what only a file can fail with
_TIMEVAL = struct.Struct("@ll")
_RESET = struct.pack("ii", 1, 0)


class FileSlice(NamedTuple):
    """A body that lies in a file: ``length`` bytes of ``fd`` from ``offset``."""

    fd: int
    offset: int
    length: int


def listen(address: str, port: int, backlog: int = 1024) -> Socket:
    """A listening TCP socket; port 0 picks a free one. Raises ConfError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise ConfError(f"cannot listen on {address}:{port}: {error.strerror}") from None
    return sock


def prepare(sock: Socket) -> None:
    """Give a socket the options of a Stream; connections that a listener accepts inherit them from it (Linux, TCP)."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set_timeout(sock, socket.SO_SNDTIMEO, SEND_SECONDS)
    _set_timeout(sock, socket.SO_RCVTIMEO, STALL_SECONDS)


def adopt(fd: int) -> Socket:
    """A listening socket that a parent process handed down."""
    return socket.socket(fileno=fd)


def is_local(address: str) -> bool:
    """Whether an address belongs to this machine: whether a socket can bind to it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind((address, 0))
    except OSError:
        return False
    finally:
        sock.close()
    return True


def accept(listener: Socket) -> tuple[Socket, str]:
    """The next connection, blocking, and its other end as ``address:port``. Raises what accept(2) does."""
    fd, peer = listener._accept()  # type: ignore[attr-defined]  # typeshed does not know it
    name = f"{peer[0]}:{peer[1]}" if listener.family == socket.AF_INET else "unix"
    return socket.socket(listener.family, socket.SOCK_STREAM, 0, fd), name


def dial(address: str, port: int, seconds: float) -> Socket:
    """A socket that is connected to a server within ``seconds``. Raises Unreachable."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        _set_timeout(sock, socket.SO_SNDTIMEO, seconds)  # Linux: bounds connect(2) as well
        sock.connect((address, port))
    except OSError as error:
        sock.close()
        late = error.errno in (errno.EINPROGRESS, errno.EAGAIN, errno.ETIMEDOUT)
        reason = f"no answer within {seconds:g} s" if late else error.strerror
        raise Unreachable(f"cannot connect: {reason}", server=f"{address}:{port}") from None
    return sock


def _set_timeout(sock: Socket, option: int, seconds: float) -> None:
    whole, part = divmod(max(1, int(seconds * 1e6)), 1_000_000)  # 0 would be no limit at all
    sock.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(whole, part))


class Stream:
    """One connection's bytes, in and out.

    Any method may raise ConnectionLost or PeerTimeout; a stream that raised must be closed.
    ``peer`` is the other end as ``address:port``.
    """

    def __init__(self, sock: Socket, peer: str, *, inherits: bool = False) -> None:
        """``inherits``: it was accepted from a listener that was given to ``prepare``. Raises OSError."""
        self.peer = peer
        self._sock = sock
        self._receive_seconds = STALL_SECONDS
        self._queue: list[bytes | memoryview] = []
        self._queued = 0
        self._spin = Spin()
        if not inherits or sock.family != socket.AF_INET:
            prepare(sock)

    def handshake(self, seconds: float) -> None:
        """Do what comes before the first byte, within ``seconds``: nothing, on plain TCP."""

    def fileno(self) -> int:
        """The socket's descriptor, for poll."""
        return self._sock.fileno()

    def receive_timeout(self, seconds: float) -> None:
        """Wait at most this long for the next bytes."""
        if seconds != self._receive_seconds:  # a system call saved
            self._receive_seconds = seconds
            _set_timeout(self._sock, socket.SO_RCVTIMEO, seconds)

    def send(self, *buffers: bytes | memoryview) -> None:
        """Send all buffers, and what was queued before them, in one system call where the socket takes them."""
        if self._queue:
            buffers = (*self._queue, *buffers)
            self._queue.clear()
            self._queued = 0
        total = sum(map(len, buffers))
        try:
            sent = self._sock.sendmsg(buffers)
            if sent < total:
                self._sock.sendall(memoryview(b"".join(buffers))[sent:])
        except OSError as error:
            raise self._failure(error, "sending") from None

    def queue(self, *buffers: bytes | memoryview) -> None:
        """Send together with what comes next, at the latest before this channel waits for bytes."""
        self._queue += buffers
        self._queued += sum(map(len, buffers))
        if self._queued >= MAX_QUEUED or len(self._queue) >= MAX_BUFFERS:
            self.flush()

    def flush(self) -> None:
        """Send what was queued."""
        if self._queue:
            self.send()

    def send_body(self, head: bytes, source: FileSlice) -> None:
        """Send a head and then a slice of a file, which never enters this process.

        Raises ConnectionLost too when the file ends before ``length`` bytes: a body that is short must not look whole.
        OSError when the file cannot be read. After either the peer has a part of a body, and only closing helps.
        """
        fd, offset, length = source
        end = offset + length
        self.flush()
        try:
            self._sock.sendall(head, socket.MSG_MORE if length else 0)
            while offset < end:
                sent = os.sendfile(self._sock.fileno(), fd, offset, min(end - offset, SENDFILE_CHUNK))
                if not sent:
                    raise ConnectionLost(f"the file ended {end - offset} bytes early while being sent")
                offset += sent
        except OSError as error:
            if error.errno in _DISK:
                raise
            raise self._failure(error, "sending") from None

    def look_out(self) -> float:
        """Before a wait for the beginning of a message: be awake when it comes soon. Returns what ``came`` is given."""
        if self._queue:
            self.flush()
        return self._spin.begin(self._sock.fileno())

    def came(self, since: float) -> None:
        """The beginning of a message has come."""
        self._spin.end(since)

    def receive_into(self, view: memoryview, *, whole: bool = False) -> int:
        """Receive some bytes, 0 at the end. ``whole``: as many as ``view`` takes, unless the peer makes a pause."""
        if self._queue:
            self.flush()
        try:
            return self._sock.recv_into(view, 0, socket.MSG_WAITALL if whole else 0)
        except OSError as error:
            raise self._failure(error, "waiting for bytes") from None

    def receive(self, count: int, *, whole: bool = False) -> bytes:
        """Receive at most ``count`` bytes, none at the end. ``whole``: all of them, unless the peer makes a pause."""
        if self._queue:
            self.flush()
        try:
            return self._sock.recv(count, socket.MSG_WAITALL if whole else 0)
        except OSError as error:
            raise self._failure(error, "waiting for bytes") from None

    def _failure(self, error: OSError, doing: str) -> S4Error:
        if error.errno in (errno.EAGAIN, errno.ETIMEDOUT):
            return PeerTimeout(f"the peer was silent for too long while {doing}", server=self.peer)
        return ConnectionLost(f"the connection was lost while {doing}: {error.strerror}", server=self.peer)

    def readable(self, seconds: float = 0.0) -> bool:
        """Whether bytes, or the end, come within ``seconds``."""
        return _poll(self._sock.fileno(), select.POLLIN, seconds)

    def gone(self) -> bool:
        """Whether the peer closed its end."""
        return _poll(self._sock.fileno(), GONE, 0.0)

    def hang_up(self) -> None:
        """End the connection from another thread: its reads and writes return at once.

        Once it is closed the peer gets a reset, or one that is in the middle of sending would wait for us to read on.
        """
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def abort(self) -> None:
        """Close the connection by a reset, so that what was sent cannot look whole."""
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass
        self.close()

    def stop_reading(self) -> None:
        """Let what has arrived be read, and then the end, from another thread."""
        try:
            self._sock.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def stop_writing(self) -> None:
        """Let the peer read what was sent, and then the end."""
        self._sock.shutdown(socket.SHUT_WR)

    def linger(self, seconds: float = 1.0) -> None:
        """Close our direction and read on for a moment: closing with unread bytes would destroy what was sent last."""
        self.stop_writing()
        scratch = memoryview(bytearray(64 << 10))
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.receive_timeout(left)
            if not Stream.receive_into(self, scratch):  # nobody looks at them, so nobody need decrypt them
                return

    def close(self) -> None:
        """Close the connection; twice is fine."""
        self._sock.close()


def readable(fd: int) -> bool:
    """Whether a socket has bytes, or has ended: of a connection on which nothing is due, that it is of no use."""
    return _poll(fd, select.POLLIN, 0.0)


def keep_alive(sock: Socket, idle_seconds: int) -> None:
    """Send small requests at once, and let the kernel ask an idle peer whether it is still there."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, idle_seconds // 3))


def _poll(fd: int, events: int, seconds: float) -> bool:
    if fd < 0:
        return True
    poller = select.poll()
    poller.register(fd, events)
    return bool(poller.poll(seconds * 1000))
