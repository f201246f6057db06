"""A slow network: a TCP proxy on 127.0.0.1 that delivers every byte some time after it came, at full bandwidth.

``python -m bench.delay --listen PORT --to HOST:PORT --ms 100`` adds 100 ms each way. It says ``listening on PORT`` when
it does (port 0: any free one), and runs until it is killed.

As on a network, opening a connection takes a round trip before the first byte can leave, a close travels behind the
data, and each direction ends for itself. What is under way is kept in pipes: bytes go from socket to pipe to socket by
splice(2), and are never copied into this process. So a file that is sent with sendfile and changed within the delay
arrives changed.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from heapq import heappop, heappush
from time import monotonic

WINDOW = 32 << 20  # bytes under way in one direction of a connection, by default; whoever sends more has to wait
PIPE_SIZE = 1 << 20  # in pages of 4 KiB, each of which may hold a larger piece of a packet
CHUNK = 1 << 20
TICK = 0.001  # what comes within it is delivered together
SPARE_PIPES = 512
BACKLOG = 4096
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_SPLICE = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close says that the connection is broken


class Pipe:
    """A pipe, and how many bytes are in it."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.held = 0
        with suppress(OSError):  # a user's pipes may have so many pages together
            fcntl(self.into, F_SETPIPE_SZ, PIPE_SIZE)

    def close(self) -> None:
        """Close both ends, with what is in it."""
        os.close(self.out)
        os.close(self.into)


class Flow:
    """One direction of a connection: what has come from ``source`` is due at ``sink`` later."""

    def __init__(self, source: socket.socket, sink: socket.socket, earliest: float) -> None:
        self.source = source
        self.sink = sink
        self.earliest = earliest  # the time before which nothing can arrive
        self.readable = self.writable = False
        self.pipes: deque[Pipe] = deque()
        self.due: deque[list[float]] = deque()  # times, each with a number of bytes, of which there are none at the end
        self.held = 0
        self.ended = self.done = self.broken = False
        self.alarm = 0.0  # the time that was last asked for


class Link:
    """A connection: a client's socket, the one to the server, and both directions."""

    def __init__(self, client: socket.socket, server: socket.socket, now: float, delay: float) -> None:
        self.client = client
        self.server = server
        self.up = Flow(client, server, now + 3 * delay)  # a round trip until the client knows that it is connected
        self.down = Flow(server, client, now + 2 * delay)
        self.closed = False

    def flows(self) -> tuple[Flow, Flow]:
        """Both directions."""
        return self.up, self.down

    def other(self, flow: Flow) -> Flow:
        """The direction that is not this one."""
        return self.down if flow is self.up else self.up


class Delay:
    """The proxy. One thread, which ``serve`` takes."""

    def __init__(self, port: int, target: tuple[str, int], delay: float, window: int = WINDOW) -> None:
        """``delay`` is one way's, in seconds; ``window`` how many bytes may be under way in one direction.

        Raises OSError when the port cannot be had.
        """
        self._delay = delay
        self._window = window
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._links: dict[int, Link] = {}  # by descriptor
        self._timers: list[tuple[float, int, Link, Flow]] = []
        self._timer = 0
        self._spare: list[Pipe] = []

    def serve(self) -> None:
        """Run for ever."""
        while True:
            wait = max(0.0, self._timers[0][0] - monotonic()) if self._timers else -1
            events = self._poll.poll(math.ceil(wait * 1000) / 1000 if wait > 0 else wait)
            now = monotonic()
            for fd, what in events:
                if fd == self._listener.fileno():
                    self._accept(now)
                elif link := self._links.get(fd):  # else an earlier event of this round has closed it
                    self._happened(link, fd, what, now)
            while self._timers and self._timers[0][0] <= now:
                _, _, link, flow = heappop(self._timers)
                self._move(link, flow, now)

    def _accept(self, now: float) -> None:
        with suppress(BlockingIOError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket()
                for sock in (client, server):
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.connect_ex(self._target)  # a failure shows as an event
                link = Link(client, server, now, self._delay)
                for sock in (client, server):
                    self._links[sock.fileno()] = link
                    self._poll.register(sock, _EVENTS)

    def _happened(self, link: Link, fd: int, what: int, now: float) -> None:
        for flow in link.flows():
            if flow.source.fileno() == fd and what & _READABLE:
                flow.readable = True
            if flow.sink.fileno() == fd and what & _WRITABLE:
                flow.writable = True
            self._move(link, flow, now)

    def _move(self, link: Link, flow: Flow, now: float) -> None:
        """Deliver what is due, take in what there is, and end the connection when there is nothing left to come."""
        if link.closed:
            return
        try:
            self._deliver(flow, now)
        except OSError:  # nobody is there any more: whoever sends will learn it
            self._drop(flow)
            self._end(link.other(flow), now, broken=True)
        try:
            self._receive(flow, now)
        except OSError:
            self._end(flow, now, broken=True)
        if flow.due and flow.due[0][0] != flow.alarm and flow.due[0][0] > now:
            self._wake(link, flow)
        if flow.done and (flow.broken or link.other(flow).done):
            self._close(link, flow.broken)

    def _due(self, flow: Flow, now: float) -> float:
        """When what has come now is delivered."""
        return math.ceil(max(now + self._delay, flow.earliest) / TICK) * TICK

    def _receive(self, flow: Flow, now: float) -> None:
        due = self._due(flow, now)
        while flow.readable and not flow.ended and flow.held < self._window:
            count = self._fill(flow)
            if count < 0:
                flow.readable = False
            elif not count:
                self._end(flow, now)
            else:
                flow.held += count
                if flow.due and flow.due[-1][0] == due:
                    flow.due[-1][1] += count
                else:
                    flow.due.append([due, count])

    def _end(self, flow: Flow, now: float, broken: bool = False) -> None:
        if not flow.ended:
            flow.ended, flow.broken = True, broken
            flow.due.append([self._due(flow, now), 0])

    def _drop(self, flow: Flow) -> None:
        """Throw away what is under way, and let it be the end."""
        while flow.pipes:
            flow.pipes.pop().close()
        flow.due.clear()
        flow.ended = flow.done = True

    def _fill(self, flow: Flow) -> int:
        """Move bytes into the flow's last pipe, or a new one; how many, 0 at the end, -1 when there are none now."""
        source = flow.source.fileno()
        for pipe in self._room(flow):
            try:
                count = os.splice(source, pipe.into, CHUNK, flags=_SPLICE)
            except BlockingIOError:  # the pipe is full, or there is nothing to be had
                if not pipe.held:
                    self._put_back(pipe)
                continue
            if count and not pipe.held:
                flow.pipes.append(pipe)
            elif not pipe.held:
                self._put_back(pipe)
            pipe.held += count
            return count
        return -1

    def _room(self, flow: Flow) -> Iterator[Pipe]:
        if flow.pipes:
            yield flow.pipes[-1]
        yield self._spare.pop() if self._spare else Pipe()

    def _put_back(self, pipe: Pipe) -> None:
        if len(self._spare) < SPARE_PIPES:
            self._spare.append(pipe)
        else:
            pipe.close()

    def _deliver(self, flow: Flow, now: float) -> None:
        sink = flow.sink.fileno()
        while flow.due and flow.due[0][0] <= now and flow.writable:
            first = flow.due[0]
            if not first[1]:
                flow.due.clear()
                flow.done = True
                if not flow.broken:
                    flow.sink.shutdown(socket.SHUT_WR)
                return
            pipe = flow.pipes[0]
            flags = _SPLICE | (os.SPLICE_F_MORE if first[1] > pipe.held else 0)
            try:
                count = os.splice(pipe.out, sink, min(int(first[1]), pipe.held), flags=flags)
            except BlockingIOError:
                flow.writable = False
                return
            flow.held -= count
            pipe.held -= count
            first[1] -= count
            if not pipe.held:
                self._put_back(flow.pipes.popleft())
            if not first[1]:
                flow.due.popleft()

    def _wake(self, link: Link, flow: Flow) -> None:
        self._timer += 1
        flow.alarm = flow.due[0][0]
        heappush(self._timers, (flow.alarm, self._timer, link, flow))

    def _close(self, link: Link, broken: bool) -> None:
        link.closed = True
        for flow in link.flows():
            for pipe in flow.pipes:
                pipe.close()
        for sock in (link.client, link.server):
            del self._links[sock.fileno()]
            if broken:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m bench.delay", description=__doc__)
    parser.add_argument("--listen", type=int, default=0, metavar="PORT", help="0: any free one")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--ms", type=float, default=100.0, help="one way (default: 100)")
    parser.add_argument(
        "--window", type=int, default=WINDOW, metavar="BYTES", help="under way at once (default: 32 MiB)"
    )
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    proxy = Delay(options.listen, (host, int(port)), options.ms / 1000, options.window)
    sys.stdout.write(f"listening on {proxy.port}\n")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        proxy.serve()


if __name__ == "__main__":
    main()
