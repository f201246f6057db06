#!/usr/bin/env python3
"""Hand files over to ``s4raw push``: a command, and a library, in one file that needs Python 3.8 and nothing else.

It may be copied to machines that have nothing of s4raw, so it must not know the rest of the package. It is started for
every file, so it imports what it needs when it needs it, and of ``socket`` only what lies below it (that saves 5 ms).
"""

from __future__ import annotations

import os
import sys
import time

try:
    import _socket as socket
except ImportError:
    import socket  # type: ignore[no-redef]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Union

    Name = Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]  # noqa: UP007
    Pair = tuple[Name, str]
    Failed = Callable[[str, str, Exception], None]

USAGE = """\
Hand a file over to the push daemon, which stores it as DEST: ALIAS/BUCKET/KEY. Says nothing unless it fails.

Usage: s4raw-send [options] [--metadata KV]... [--] FILE [DEST]

If FILE is - and there is no DEST, many pairs are read from stdin, FILE DEST a line. All go over one connection; each
that fails is named, and the others are done. The daemon is at $S3DAEMON_HOST:$S3DAEMON_PORT (default: localhost:15555),
or on the Unix socket $S3DAEMON_SOCKET. Exit codes: 0 stored (with --queued: queued), 1 it failed, 2 wrong usage. If the
daemon cannot store a file you are told, and it is given up; with --wait it tries again in that time, and afterwards;
with --queued it tries until it can.

Options:
  --queued           be content when it is queued: on the daemon's disk, safe from a crash and a loss of power
  --snapshot         the daemon keeps the file as it is now; it may be deleted or replaced at once
  --wait SECONDS     take so long at most, and try again meanwhile, to reach the daemon as to store the file. A file
                     that is queued by then will be delivered, but the exit code is 1 (default: try to reach it once,
                     and then wait until the file is stored, or could not be)
  --type TYPE        the object's content type
  --metadata KV      K=V to keep with the object
  -0, --null         each name on stdin, FILE or DEST, ends with a NUL: for names with white space
  --socket PATH      the daemon's Unix socket
  -h, --help         show this text
"""
WINDOW = 128  # requests without an answer
MAX_LINE = 64 << 10
CONNECT_SECONDS = 10.0
GRACE_SECONDS = 2.0  # for an answer to arrive that was given in time
FIRST_PAUSE = 0.02  # seconds until a connection is tried again; then twice as long, up to a second


class SendError(Exception):
    """What the daemon answered instead of doing it. ``queued``: it will be done later, as the order ``id``."""

    def __init__(self, message: str, queued: bool = False, id: int | None = None) -> None:
        super().__init__(message)
        self.queued = queued
        self.id = id


class Connection:
    """A connection to the daemon. Raises ConnectionError when there is none in ``timeout`` seconds; it tries once.

    All errors name the daemon's address. A bad port in the environment is a ValueError.
    """

    def __init__(self, path: str | None = None, timeout: float = CONNECT_SECONDS) -> None:
        target, self.where = _address(path)
        self.received = b""
        try:
            self.socket = _connect(target, timeout)
        except OSError as error:
            reason = error.strerror or error
            raise ConnectionError(f"cannot reach the push daemon at {self.where}: {reason}") from None

    def request(self, what: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Ask for something and wait for the answer. Raises SendError for one that is no JSON object; OSError."""
        import json

        self.socket.settimeout(timeout)
        try:
            line = json.dumps(what).encode() + b"\n"
            while line:
                line = line[self.send(line) :]
            while b"\n" not in self.received:
                self.receive()
        except socket.timeout:  # noqa: UP041 - since Python 3.10
            self.close()  # an answer that comes now is not the next one's
            raise TimeoutError(f"no answer from the push daemon at {self.where} after {timeout:g} s") from None
        return _parse(self.lines()[0], self.where)

    def receive(self) -> None:
        """Wait for more of the answers. Raises ConnectionError at their end."""
        try:
            data = self.socket.recv(1 << 16)
        except socket.timeout:  # noqa: UP041
            raise
        except OSError as error:
            raise self._lost(error.strerror) from None
        if not data:
            said = self.received[:1000].decode("utf-8", "replace").strip()
            raise self._lost(f"it was closed{', after' if said else ''} {said}".rstrip())
        self.received += data

    def send(self, data: bytes | bytearray, flags: int = 0) -> int:
        """Send as much as there is room for, and say how much that was. Raises ConnectionError."""
        try:
            return self.socket.send(data, flags)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost(error.strerror) from None

    def _lost(self, reason: str | None) -> OSError:
        return ConnectionResetError(f"lost the connection to the push daemon at {self.where}: {reason}")

    def lines(self) -> list[bytes]:
        """The answers that have arrived."""
        *lines, self.received = self.received.split(b"\n")
        return lines

    def close(self) -> None:
        """Close the connection. Twice is fine."""
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _address(path: str | None) -> tuple[str | tuple[str, int], str]:
    """Where the daemon is, and that in words. Raises ValueError."""
    path = path or os.environ.get("S3DAEMON_SOCKET")
    if path:
        return path, path
    host = (os.environ.get("S3DAEMON_HOST") or "localhost").strip("[]")
    port = os.environ.get("S3DAEMON_PORT") or "15555"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ValueError(f"$S3DAEMON_PORT is no port: {port!r}")
    return (host, int(port)), f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _connect(target: str | tuple[str, int], seconds: float) -> socket.socket:
    """A connection to the first of the target's addresses that takes one. Raises OSError."""
    if isinstance(target, str):
        found: list[Any] = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", target)]
    else:
        host = target[0].encode() if target[0].isascii() else target[0]  # bytes: a str takes 4 ms for importing idna
        found = socket.getaddrinfo(host, target[1], 0, socket.SOCK_STREAM)
    failure = OSError("it has no address")
    for family, kind, protocol, _, address in found:
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(seconds)
            made.connect(address)
            made.settimeout(None)
            if family != socket.AF_UNIX:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        except OSError as error:
            made.close()
            failure = error
    raise failure


class Options:
    """How files are sent, as the command's options of the same names say. ``wait``: seconds; ``path``: the socket's."""

    def __init__(
        self,
        queued: bool = False,
        snapshot: bool = False,
        wait: float | None = None,
        type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        path: str | None = None,
    ) -> None:
        self.wait = wait
        self.path = path
        self.plain = wait is None and not (queued or snapshot or type or metadata)
        self._rest = ', "ack": "queued"' if queued else ', "ack": "stored"'
        self._rest += ', "snapshot": true' if snapshot else ""
        self._rest += f', "type": {_quoted(type)}' if type else ""
        if metadata:
            pairs = (f"{_quoted(name)}: {_quoted(value)}" for name, value in metadata.items())
            self._rest += f', "metadata": {{{", ".join(pairs)}}}'

    def line(self, file: str, dest: str, wait: float | None) -> bytes:
        """The request for a file, ``wait`` seconds before its deadline."""
        limit = "" if wait is None else f', "wait": {max(wait, 0.001):.3f}'
        return f'{{"file": {_quoted(file)}, "to": {_quoted(dest)}{self._rest}{limit}}}\n'.encode()


def _quoted(text: str) -> str:
    """A string as JSON, in ASCII."""
    try:
        from _json import encode_basestring_ascii as quote  # json itself takes 4 ms
    except ImportError:
        from json import dumps as quote
    return str(quote(text))


def _parse(line: bytes, where: str) -> dict[str, Any]:
    import json

    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise SendError(f"the push daemon at {where} answered {line[:1000].decode('utf-8', 'replace').strip()!r}")
    return answer


def _absolute(file: Name) -> str:
    """A path from the root, bytes that are no UTF-8 as lone surrogates. What ``..`` means is left to the kernel."""
    name = os.fsencode(file)
    path = os.path.join(os.getcwdb(), name) if b".." in name.split(b"/") else os.path.abspath(name)
    return path.decode("utf-8", "surrogateescape")


def send(file: Name, dest: str, **options: Any) -> None:
    """Have a file stored as ``dest``, ALIAS/BUCKET/KEY. The options are those of ``Options``.

    Raises SendError when the daemon does not do it, OSError when it cannot be asked or does not answer in time.
    """
    _send(file, dest, Options(**options))


def send_many(pairs: Iterable[Pair], failed: Failed, **options: Any) -> None:
    """As ``send``, for pairs of a file and its destination, over one connection; ``failed`` is told of each failure."""
    with _Pump(iter(pairs), -1, Options(**options), failed) as pump:
        pump.run()


def _send(file: Name, dest: str, options: Options) -> None:
    def failed(_file: str, _dest: str, error: Exception) -> None:
        raise error

    path = _absolute(file)
    names = path + dest
    if options.plain and dest and names.isprintable() and " " not in names and len(names) < MAX_LINE // 4:
        return _send_plain(path, dest, options.path)
    with _Pump(iter([(file, dest)]), -1, options, failed) as pump:
        pump.run()


def _send_plain(path: str, dest: str, socket_path: str | None) -> None:
    """In s3daemon's own protocol, whose answer has no end: any daemon of its kind understands it."""
    with Connection(socket_path) as connection:
        connection.send(f"{path} {dest}\n".encode())
        while b"Success".startswith(connection.received):
            if connection.received == b"Success":
                return
            connection.receive()
        connection.socket.settimeout(0.2)
        try:
            while len(connection.received) < MAX_LINE and not connection.received.startswith(b"Success"):
                connection.receive()
        except OSError:
            pass  # that was all of it
        if not connection.received.startswith(b"Success"):
            raise SendError(connection.received.decode("utf-8", "replace").strip())


class _Order:
    """A file on its way. ``deadline`` is on the clock of ``time.monotonic``."""

    def __init__(self, file: str, dest: str, wait: float | None) -> None:
        self.file = file
        self.dest = dest
        self.deadline = None if wait is None else time.monotonic() + wait
        self.sent = 0

    def left(self) -> float | None:
        """The seconds until its deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()


class _Pump:
    """Sends orders and takes answers as either is possible, and gets new ones as there is room.

    What is on a connection that is lost is sent again, once, or with a deadline until then. No harm can come of that:
    it puts the same file under the same key, and the order stays.
    """

    def __init__(self, pairs: Iterator[Pair | None], fd: int, options: Options, failed: Failed) -> None:
        self._pairs = pairs  # gives None when it would have to wait for fd
        self._fd = fd
        self._options = options
        self._failed = failed
        self._ready = True
        self._ended = False
        self._unanswered: list[_Order] = []
        self._out = bytearray()
        self._pause = FIRST_PAUSE
        self._connection: Connection | None = None

    def __enter__(self) -> _Pump:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def run(self) -> None:
        """Go on until there are no more pairs and all have been answered."""
        while True:
            self._fill()
            if self._ended and not self._unanswered:
                return
            try:
                if self._connection is None and self._unanswered:
                    self._open()
                self._turn()
            except OSError as error:
                self._lost(error, connected=self._connection is not None)

    def _fill(self) -> None:
        while self._ready and not self._ended and len(self._unanswered) < WINDOW:
            pair = next(self._pairs, ())
            if pair is None:
                self._ready = False
            elif pair:
                self._add(*pair)
            else:
                self._ended = True

    def _add(self, file: Name, dest: str) -> None:
        order = _Order(_absolute(file), dest, self._options.wait)
        if len(self._options.line(order.file, dest, 1e9)) > MAX_LINE:
            self._failed(order.file, dest, SendError(f"its names are too long: a request has at most {MAX_LINE} bytes"))
            return
        self._unanswered.append(order)
        if self._connection is not None:
            self._put(order)

    def _open(self) -> None:
        left = self._unanswered[0].left()
        seconds = CONNECT_SECONDS if left is None else min(max(left, 0.1), CONNECT_SECONDS)
        self._connection = Connection(self._options.path, seconds)
        for order in self._unanswered:
            self._put(order)

    def _put(self, order: _Order) -> None:
        order.sent += 1
        self._out += self._options.line(order.file, order.dest, order.left())

    def _turn(self) -> None:
        """Wait until something can be done, and do it. Raises OSError when the connection is of no more use."""
        import select

        poll, connection = select.poll(), self._connection
        if connection is not None:
            poll.register(connection.socket.fileno(), select.POLLIN | (select.POLLOUT if self._out else 0))
        if not (self._ready or self._ended) and len(self._unanswered) < WINDOW:
            poll.register(self._fd, select.POLLIN)
        left = self._unanswered[0].left() if self._unanswered else None
        events = dict(poll.poll(None if left is None else int(1000 * max(left + GRACE_SECONDS, 0)) + 1))
        self._ready = self._ready or self._fd in events
        if connection is None:
            return
        if not events:
            raise TimeoutError(f"no answer from the push daemon at {connection.where} in {self._options.wait:g} s")
        happened = events.get(connection.socket.fileno(), 0)
        if happened & ~select.POLLOUT:
            connection.receive()
            lines = connection.lines()
            if len(lines) > len(self._unanswered) or len(connection.received) > 4 * MAX_LINE:
                raise ConnectionAbortedError(f"the push daemon at {connection.where} answered what was not asked")
            for line in lines:
                self._judge(self._unanswered.pop(0), line, connection.where)
                self._pause = FIRST_PAUSE
        elif happened:
            del self._out[: connection.send(self._out, socket.MSG_DONTWAIT)]

    def _judge(self, order: _Order, line: bytes, where: str) -> None:
        if line.startswith((b'{"ok":true', b'{"ok": true')):
            return  # and json is not imported
        try:
            answer = _parse(line, where)
        except SendError as error:
            return self._failed(order.file, order.dest, error)
        if answer.get("ok") is not True:
            queued, id = answer.get("state") == "queued", answer.get("id")
            text = str(answer.get("error") or "it did not say why it failed")
            text += f" (as {id}, and will be delivered)" if queued else ""
            self._failed(order.file, order.dest, SendError(text, queued, id))

    def _lost(self, error: OSError, connected: bool) -> None:
        """The connection is lost, or could not be made: keep what may be sent again."""
        self.__exit__()
        orders, self._unanswered = self._unanswered, []
        self._out.clear()
        for order in orders:
            left = order.left()
            if left > 0 if left is not None else connected and order.sent < 2:
                self._unanswered.append(order)
            else:
                text = f"{_said(error)}; it may be queued" if order.sent else _said(error)
                self._failed(order.file, order.dest, type(error)(text))
        if self._unanswered:
            time.sleep(min(self._pause, max(self._unanswered[0].left() or 0.0, FIRST_PAUSE)))
            self._pause = min(2 * self._pause, 1.0)


def _said(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _names(fd: int, end: bytes) -> Iterator[bytes | None]:
    """What stands before each ``end`` in a file, None where the next step may wait. Raises SendError, OSError."""
    data, rest = end, b""
    while data:
        yield None
        data = os.read(fd, 1 << 16)
        *found, rest = (rest + data).split(end)
        yield from found
        if len(rest) > 2 * MAX_LINE:
            raise SendError(f"a name of more than {2 * MAX_LINE} bytes; what follows it was not read")
    if rest:
        yield rest


def read_pairs(fd: int, null: bool, failed: Failed) -> Iterator[Pair | None]:
    """Pairs as they stand in a file, None where the next step may wait for ``fd``. ``failed`` is told of all errors."""
    names: list[bytes] = []
    lines = 0
    try:
        for name in _names(fd, b"\0" if null else b"\n"):
            if name is None:
                yield None
                continue
            lines += 1
            names = [*names, name] if null else name.split()
            if len(names) == 2:
                yield names[0], names[1].decode("utf-8", "surrogateescape")
                names = []
            elif names and not null:
                reason = f"need FILE DEST, got {len(names)} words (-0 is for names with white space)"
                failed(f"line {lines} of stdin", "", SendError(reason))
        if names and null:
            failed(names[0].decode("utf-8", "surrogateescape"), "", SendError("stdin ended before its destination"))
    except (SendError, OSError) as error:
        failed("stdin", "", error)


def run(file: str, dest: str | None, options: Options, null: bool = False, name: str = "s4raw-send") -> int:
    """Do what the command does, ``dest`` None for pairs from stdin, with errors on stderr. Returns the exit code."""
    code = 0

    def failed(file: str, dest: str, error: Exception) -> None:
        nonlocal code
        code = 1
        where = " ".join(each if each.isprintable() else repr(each) for each in (file, dest) if each)
        said = "".join(each if each.isprintable() else repr(each)[1:-1] for each in _said(error))
        sys.stderr.write(f"{name}: {where}{where and ': '}{said}\n")
        sys.stderr.flush()

    try:
        if dest is not None:
            _send(file, dest, options)
        else:
            with _Pump(read_pairs(0, null, failed), 0, options, failed) as pump:
                pump.run()
    except (SendError, OSError) as error:
        failed(file if dest else "", dest or "", error)
    except ValueError as error:  # $S3DAEMON_PORT
        sys.stderr.write(f"{name}: {error}\n")
        return 2
    return code


def options_of(words: Iterable[str]) -> tuple[list[str], bool, dict[str, Any]]:
    """The names among a command's words, whether there is -0, and what ``Options`` needs. Raises ValueError."""
    names: list[str] = []
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if word == "--":
            names += rest
        elif word in ("-0", "--null", "--queued", "--snapshot"):
            found["null" if word == "-0" else word[2:]] = True
        elif option in ("--wait", "--type", "--metadata", "--socket"):
            value = value if equals else next(rest, "")
            name, _, kept = value.partition("=")
            if option == "--metadata" and name and "=" in value:
                found.setdefault("metadata", {})[name] = kept
            elif option == "--metadata" or not value:
                raise ValueError(f"{option} needs {'K=V' if option == '--metadata' else 'a value'}, got {value!r}")
            else:
                found["path" if option == "--socket" else option[2:]] = _seconds(value) if option == "--wait" else value
        elif word.startswith("-") and word != "-":
            raise ValueError(f"there is no option {option}")
        else:
            names.append(word)
    return names, found.pop("null", False), found


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise ValueError(f"--wait needs a positive number of seconds, got {text!r}")
    return number


def main(argv: list[str] | None = None, name: str = "s4raw-send") -> int:
    """The command, called ``name``; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(words[: words.index("--")] if "--" in words else words):
        sys.stdout.write(USAGE.replace("s4raw-send", name))
        return 0
    try:
        names, null, found = options_of(words)
        many = names == ["-"]
        if null and not many:
            raise ValueError("-0 is for pairs from stdin: - stands in the place of FILE DEST")
        if not many and (len(names) != 2 or not all(names) or "-" in names):
            raise ValueError("need FILE DEST, or - for pairs from stdin")
        dest = None if many else os.fsencode(names[1]).decode("utf-8", "surrogateescape")
        return run(names[0], dest, Options(**found), null, name)
    except ValueError as error:
        usage = USAGE[USAGE.index("Usage") :].partition("\n\n")[0].replace("s4raw-send", name)
        sys.stderr.write(f"{name}: {error}; see {name} --help\n{usage}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
