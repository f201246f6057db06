"""What there is to pay before any work: start-up of the command line, memory of an idle connection."""

from __future__ import annotations

import sys

from bench import proc
from bench.lab import BUCKET, SMALL_SIZE, Lab, pids
from bench.measure import Comparison, Row, Sample, Side
from s4raw import bodies, wire
from s4raw.connection import Connection
from s4raw.keys import Key
from s4raw.local import LocalRing
from s4raw.ring import Topology

START_AIM = 2.5
IDLE_KIB = 100.0
IDLE = 200  # connections
PYTHON, HELP, LS = "python -c pass", "s4raw --help", "s4raw ls"


def start(lab: Lab) -> Row:
    """Start-up, against the bare interpreter of the same venv."""
    key, client = f"s4://{BUCKET}/start", lab.client(1)
    client.put(key, b"")
    lab.at_row_end(client.remove, key)
    sides: list[Side] = [
        lab.command(PYTHON, [sys.executable, "-c", "pass"]),
        lab.s4raw(HELP, ["--help"], 1),
        lab.s4raw(LS, ["ls"], 1),
    ]
    comparisons = [Comparison(HELP, PYTHON), Comparison(LS, PYTHON, "time", START_AIM)]
    return Row("start", "start-up", sides, comparisons, lab.samples(51, 15), 1, "starts")


class IdleConnections:
    """A server's resident memory and page tables for each connection that has worked and is idle now."""

    name = "s4raw server"

    def run(self, turn: int) -> Sample:
        """Count at a server of its own, so that nothing is left over from another sample."""
        with LocalRing(1) as ring:
            topology, pid = Topology.read(ring.conf), pids(ring)[0]
            connections: list[Connection] = []
            try:
                _work(ring, topology, connections, 1)  # what is loaded and allocated once is no connection's
                before = _memory(pid)
                _work(ring, topology, connections, IDLE)
                each = (_memory(pid) - before) / IDLE
            finally:
                for connection in connections:
                    connection.close()
            return Sample(each, server_peak=proc.memory_kib(pid, "VmHWM"))


def _memory(pid: int) -> int:
    return proc.memory_kib(pid, "VmRSS") + proc.memory_kib(pid, "VmPTE")


def _work(ring: LocalRing, topology: Topology, connections: list[Connection], count: int) -> None:
    """Open connections, and do a put, a get and a delete over each."""
    key = Key(BUCKET, "idle")
    for _ in range(count):
        connection = Connection.open(ring.servers[0], topology, b"")
        connections.append(connection)
        connection.receive_ok(bodies.send_bytes(connection, key, b"x" * SMALL_SIZE).request)
        bodies.receive_bytes(connection, connection.call(wire.GET, bucket=key.bucket, key=key.name), key)
        connection.call(wire.REMOVE, bucket=key.bucket, key=key.name)


def idle(lab: Lab) -> Row:
    """Memory of an idle connection."""
    comparisons = [Comparison(IdleConnections.name, aim=IDLE_KIB)]
    title = f"memory of an idle connection, of {IDLE} (resident and page tables of the server)"
    return Row("idle", title, [IdleConnections()], comparisons, lab.samples(5, 2), unit="KiB")
