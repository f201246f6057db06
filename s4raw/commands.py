"""The half of a client that runs commands: eval, map calls, and what there is to know of those."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from s4raw import bodies, wire
from s4raw.connection import DEFAULT_TIMEOUT, Pool, Progress, milliseconds
from s4raw.errors import S4Error
from s4raw.keys import Key, parse_key
from s4raw.ring import Topology

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from s4raw.mapping import Options, Summary

Sink = Callable[[memoryview], object]


class Commands:
    """Runs commands on the servers of a pool."""

    pool: Pool

    def eval(self, key: str | Key, command: str, stdout: Sink, stderr: Sink, timeout: float = DEFAULT_TIMEOUT) -> int:
        """Run a command on the key's server with the key as stdin; its output comes as it is written.

        Returns the command's exit code. Raises NoSuchKey, CommandTimeout.
        """
        key = parse_key(key) if isinstance(key, str) else key
        with located(self.pool.topology, key) as server, self.pool.lease(server, fresh=True) as connection:
            fields = {"bucket": key.bucket, "key": key.name, "command": command}
            request = connection.send(wire.EVAL, timeout=milliseconds(timeout), **fields)
            status = 0
            for frame, data in bodies.receive_stream(connection, request):
                if frame.opcode == wire.END:
                    status = frame.uint("status")
                elif data:
                    (stderr if frame.flags & wire.STDERR else stdout)(data)
            return status

    def map(
        self,
        inputs: str,
        outputs: str,
        command: str,
        timeout: float | None = None,
        progress: Progress | None = None,
        options: Options | None = None,
    ) -> int:
        """1:1. Every key below ``inputs`` (which may end in a glob) becomes one at the same path below ``outputs``.

        ``mapping.Options`` says what else can be asked for; ``timeout`` and ``progress`` are short for two of them.
        Returns how many commands were run. Raises CommandFailed, KeyExists, DiskFull, BadKey, Cancelled; what had
        finished by then stays. With ``keep_going`` it raises CallFailed at the end instead.
        """
        return self.call("map", inputs, outputs, command, timeout, progress, options).commands

    def map_to_n(
        self,
        inputs: str,
        outputs: str,
        command: str,
        timeout: float | None = None,
        progress: Progress | None = None,
        options: Options | None = None,
    ) -> int:
        """1:n. The files whose paths the command prints become ``OUTPUTS/<input's basename>/<file's basename>``."""
        return self.call("map-to-n", inputs, outputs, command, timeout, progress, options).commands

    def map_from_n(
        self,
        inputs: str,
        outputs: str,
        command: str,
        timeout: float | None = None,
        progress: Progress | None = None,
        options: Options | None = None,
    ) -> int:
        """n:1. The keys that share a numeric prefix, or a name, are merged: the command reads their paths."""
        return self.call("map-from-n", inputs, outputs, command, timeout, progress, options).commands

    def call(
        self,
        verb: str,
        inputs: str,
        outputs: str,
        command: str,
        timeout: float | None = None,
        progress: Progress | None = None,
        options: Options | None = None,
    ) -> Summary:
        """Make a map call by its verb (``map``, ``map-to-n``, ``map-from-n``); its id and what it did."""
        from s4raw import mapping

        options = options or mapping.Options()
        if timeout is not None:
            options = options._replace(timeout=timeout)
        if progress is not None:
            options = options._replace(progress=progress)
        return mapping.run(self.pool, verb, inputs, outputs, command, options)

    def jobs(self) -> Iterator[tuple[str, Sequence[dict[str, Any]] | S4Error]]:
        """What each server knows of map calls, running and recent; or the error why it does not say."""
        from s4raw import mapping

        return mapping.jobs(self.pool)

    def cancel(self, name: str, by: str = "") -> None:
        """End the map call of this id on every server; ``by`` is what its caller is told. Raises NoSuchCall."""
        from s4raw import mapping

        mapping.cancel(self.pool, name, by)


@contextmanager
def located(topology: Topology, key: Key) -> Iterator[str]:
    """The server of a key, which an error of the block names, and the key too."""
    server = topology.place(key)
    try:
        yield server
    except S4Error as error:
        error.at(server=server, key=str(key))
        raise
