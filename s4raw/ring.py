"""The ring: from the conf file to its servers, and from a key to its server.

The conf is s4's: one ``ipv4:port`` a line, blank lines ignored. The order of the lines is the ring. Placement is s4's
too: ``int(prefix) % N`` for a numeric key prefix, else ``hash(basename) % N``, where hash is the first 8 bytes of
blake2s, little-endian.
"""

from __future__ import annotations

import os

from s4raw.digest import digest
from s4raw.errors import ConfError
from s4raw.keys import Key, key_prefix
from s4raw.record import NamedTuple

CONF_VARIABLE = "S4_CONF_PATH"
DEFAULT_CONF = "~/.s4.conf"
MAX_SERVERS = 4096


def stable_hash(text: str) -> int:
    """The first 8 bytes of blake2s of the UTF-8 text, as a little-endian unsigned integer."""
    try:
        from _blake2 import blake2s  # CPython's own module: saves the 10 ms that hashlib spends on loading OpenSSL
    except ImportError:
        from hashlib import blake2s
    return int.from_bytes(blake2s(text.encode()).digest()[:8], "little")


class Topology(NamedTuple):
    """The servers of a ring, in the conf's order, each as ``address:port``."""

    servers: tuple[str, ...]
    source: str = ""

    @classmethod
    def read(cls, path: str | None = None) -> Topology:
        """Read a conf file: ``path``, else ``$S4_CONF_PATH``, else ``~/.s4.conf``. Raises ConfError."""
        path = path or os.environ.get(CONF_VARIABLE) or os.path.expanduser(DEFAULT_CONF)
        try:
            with open(path, encoding="utf-8") as file:
                return cls.parse(file.read(), path)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ConfError(
                f"cannot read the conf {path}: {reason}; "
                f"it holds one ipv4:port a line (see --conf and ${CONF_VARIABLE})"
            ) from None

    @classmethod
    def parse(cls, text: str, source: str = "the conf") -> Topology:
        """Parse a conf's text. Raises ConfError with the number of the line at fault."""
        servers: dict[str, int] = {}
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if not line:
                continue
            server = _parse_line(line)
            if not server:
                raise ConfError(f"{source}, line {number}: need ipv4:port, got {line[:80]!r}")
            if server in servers:
                raise ConfError(f"{source}, line {number}: {server} stands on line {servers[server]} already")
            servers[server] = number
        if not servers:
            raise ConfError(f"{source} names no server; it needs one ipv4:port a line")
        if len(servers) > MAX_SERVERS:
            raise ConfError(f"{source} names {len(servers)} servers, at most {MAX_SERVERS} are supported")
        return cls(tuple(servers), source)

    def place(self, key: Key) -> str:
        """The server that keeps a key."""
        if len(self.servers) == 1:
            return self.servers[0]
        return self.place_basename(key.basename)

    def place_basename(self, basename: str) -> str:
        """The server that keeps the keys with this basename."""
        prefix = key_prefix(basename)
        if prefix.isascii() and prefix.isdigit():
            return self.servers[int(prefix) % len(self.servers)]
        return self.servers[stable_hash(basename) % len(self.servers)]

    @property
    def digest(self) -> bytes:
        """A digest of the conf's lines: two ends that differ in it believe in different rings."""
        return digest("\n".join(self.servers).encode())

    def describe(self) -> str:
        """The ring in one line, for error messages."""
        shown = ", ".join(self.servers[:8]) + (", ..." if len(self.servers) > 8 else "")
        return f"{len(self.servers)} server{'s' * (len(self.servers) > 1)} [{shown}]"


def _parse_line(line: str) -> str:
    """A server from a line of the conf, its numbers without leading zeros; empty if the line is none."""
    address, _, port = line.rpartition(":")
    numbers = [*address.split("."), port]
    limits = [255, 255, 255, 255, 65535]
    if len(numbers) != len(limits) or not all(number.isascii() and number.isdigit() for number in numbers):
        return ""
    if any(len(number) > len(str(limit)) or int(number) > limit for number, limit in zip(numbers, limits, strict=True)):
        return ""
    return f"{'.'.join(str(int(number)) for number in numbers[:4])}:{int(port)}" if int(port) else ""


def split_address(server: str) -> tuple[str, int]:
    """``address:port`` to an address and a port number."""
    address, _, port = server.rpartition(":")
    return address, int(port)
