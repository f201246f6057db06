"""The client's part of a map call: the same request to every server, one start, one end."""

from __future__ import annotations

import threading

from s4raw import wire
from s4raw.connection import Connection, Pool, Progress, milliseconds
from s4raw.fanout import everywhere
from s4raw.keys import parse_directory, parse_glob
from s4raw.wire import Frame


def run(pool: Pool, opcode: int, inputs: str, outputs: str, command: str, timeout: float, progress: Progress) -> int:
    """Make a map call (MAP, MAP_TO_N or MAP_FROM_N) at all servers; returns how many commands were run.

    Raises what ``Ring.map`` does.
    """
    source, glob = parse_glob(inputs)
    target = parse_directory(outputs)
    fields = {"bucket": source.bucket, "key": source.name, "glob": glob, "command": command}
    fields |= {"out_bucket": target.bucket, "out_key": target.name}
    time_limit = milliseconds(timeout)
    planned = threading.Barrier(len(pool.topology.servers))

    def action(connection: Connection, report: Progress) -> Frame:
        request = connection.send(opcode, timeout=time_limit, **fields)
        plan = connection.expect(connection.receive_any(request), wire.PROGRESS)
        report(0, plan.uint("total"))
        planned.wait()  # no server starts before every one has listed its inputs: none sees another's outputs
        connection.channel.send(wire.encode(wire.START, request))
        return connection.receive_ok(request, report)

    return everywhere(pool, progress, action, planned.abort)
