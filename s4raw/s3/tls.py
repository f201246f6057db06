"""TLS over a Stream: same sockets, same time-outs in the kernel; OpenSSL only turns bytes into other bytes."""

from __future__ import annotations

import os
import ssl
import time

from s4raw.errors import ConfError, ConnectionLost, PeerTimeout
from s4raw.net import FileSlice, Socket, Stream

RECORDS = 64 << 10  # bytes received at once; a record has up to 16 KiB
SLICE = 256 << 10  # bytes encrypted before they are sent


def server_context(certificate: str, key: str | None = None) -> ssl.SSLContext:
    """What a server needs for TLS: files in PEM, the key perhaps in the certificate's. Raises ConfError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # or a write could have to wait for a read
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfError(f"cannot use the certificate {certificate}: {error.strerror or error}") from None
    return context


def client_context(authorities: str | None = None) -> ssl.SSLContext:
    """What a client needs for TLS: the system's authorities, or those of a file in PEM. Raises ConfError."""
    try:
        return ssl.create_default_context(cafile=authorities)
    except (OSError, ssl.SSLError) as error:
        raise ConfError(f"cannot use the certificates in {authorities}: {error.strerror or error}") from None


class TlsStream(Stream):
    """A connection through TLS, as its server. ``handshake`` comes first, in the connection's own thread."""

    def __init__(self, context: ssl.SSLContext, sock: Socket, peer: str) -> None:
        super().__init__(sock, peer)
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    def handshake(self, seconds: float) -> None:
        """Agree on keys within ``seconds``. Raises ConnectionLost and PeerTimeout."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._tls.do_handshake()
                return self._pass_on()
            except ssl.SSLWantReadError:
                self._pass_on()
            except ssl.SSLError as error:
                self._pass_on()  # it says why
                raise ConnectionLost(f"no TLS: {error.reason}", server=self.peer) from None
            left = deadline - time.monotonic()
            if left <= 0:
                raise PeerTimeout("the TLS handshake was not complete in time", server=self.peer)
            self.receive_timeout(left)
            if not self._feed():
                raise ConnectionLost("the connection ended inside the TLS handshake", server=self.peer)

    def _pass_on(self) -> None:
        """Send what OpenSSL has made."""
        if self._out.pending:
            super().send(self._out.read())

    def _feed(self) -> bool:
        """Let OpenSSL have what comes next; False at the end, of which it need not know."""
        raw = super().receive(RECORDS)
        self._in.write(raw)
        return bool(raw)

    def look_out(self) -> float:
        """Not over TLS: the beginning may have come with the end of what was before it."""
        return 0.0

    def came(self, since: float) -> None:
        """Nobody has looked out for it."""

    def receive_into(self, view: memoryview, *, whole: bool = False) -> int:
        """As Stream's; an end without a word is an end as well, since HTTP says how long everything is."""
        if self._queue:
            self.flush()
        done = 0
        deadline = 0.0
        while done < len(view):
            try:
                count = self._tls.read(len(view) - done, view[done:])
            except ssl.SSLWantReadError:
                if done and not whole:
                    break
                self._pass_on()
                now = time.monotonic()
                deadline = deadline or now + self._receive_seconds
                if now > deadline:  # bytes come, but no record does
                    raise PeerTimeout(
                        "the peer was silent for too long while waiting for bytes", server=self.peer
                    ) from None
                try:
                    if self._feed():
                        continue
                    break
                except PeerTimeout:
                    if done:
                        break
                    raise
            except ssl.SSLZeroReturnError:
                break
            except ssl.SSLError as error:
                raise ConnectionLost(f"broken TLS: {error.reason}", server=self.peer) from None
            if not count:
                break
            done += int(count)
            deadline = 0.0
        return done

    def receive(self, count: int, *, whole: bool = False) -> bytes:
        """As Stream's."""
        room = memoryview(bytearray(count))
        return bytes(room[: self.receive_into(room, whole=whole)])

    def send(self, *buffers: bytes | memoryview) -> None:
        """As Stream's."""
        buffers = (*self._queue, *buffers)
        self._queue.clear()
        self._queued = 0
        try:
            for buffer in buffers:
                view = memoryview(buffer)
                for start in range(0, len(view), SLICE):
                    self._tls.write(view[start : start + SLICE])
                    if self._out.pending >= SLICE:
                        self._pass_on()
        except ssl.SSLError as error:
            raise ConnectionLost(f"broken TLS: {error.reason}", server=self.peer) from None
        self._pass_on()

    def send_body(self, head: bytes, source: FileSlice) -> None:
        """As Stream's, but the bytes are read and encrypted here."""
        fd, offset, length = source
        self.queue(head)
        end = offset + length
        while offset < end:
            chunk = os.pread(fd, min(end - offset, SLICE), offset)
            if not chunk:
                raise ConnectionLost(f"the file ended {end - offset} bytes early while being sent")
            self.send(chunk)
            offset += len(chunk)
        self.flush()

    def stop_writing(self) -> None:
        """As Stream's, and say that this is the end."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the peer's own word is not waited for
        self._pass_on()
        super().stop_writing()
