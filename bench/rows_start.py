"""What there is to pay before any work: start-up of the command line, imports, memory of an idle connection."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from bench import proc
from bench.lab import BUCKET, CHECKOUT, SMALL_SIZE, Lab, pids, s4raw_command
from bench.measure import Comparison, Row, Sample, Side
from s4raw import bodies, wire
from s4raw.connection import Connection
from s4raw.keys import Key
from s4raw.local import LocalRing
from s4raw.ring import CONF_VARIABLE, Topology

START_AIM = 2.5
IDLE_KIB = 100.0
IDLE = 200  # connections
IMPORTS_LISTED = 12
PYTHON, HELP, LS = "python -c pass", "s4raw --help", "s4raw ls"


def start(lab: Lab) -> Row:
    """Start-up, against the bare interpreter of the same venv."""
    key, ring = f"s4://{BUCKET}/start", lab.ring(1)
    client = lab.client(ring)
    client.put(key, b"")
    lab.at_row_end(client.remove, key)
    sides: list[Side] = [
        lab.command(PYTHON, [sys.executable, "-c", "pass"]),
        lab.s4raw(HELP, ["--help"], ring),
        lab.s4raw(LS, ["ls"], ring),
    ]
    comparisons = [Comparison(HELP, PYTHON), Comparison(LS, PYTHON, "time", START_AIM)]
    return Row("start", "start-up", sides, comparisons, lab.samples(51, 15), 1, "starts")


class Imports:
    """What the imports of a command take, in ms, as ``python -X importtime`` has it; it makes them slower itself."""

    def __init__(self, name: str, argv: Sequence[str], conf: str = "") -> None:
        self.name = name
        self.own: dict[str, list[int]] = defaultdict(list)  # microseconds that a module took without those it imported
        self._argv = argv
        self._conf = conf

    def run(self, turn: int) -> Sample:
        """Start the command once."""
        argv = [sys.executable, "-X", "importtime", *self._argv]
        env = {**os.environ, CONF_VARIABLE: self._conf}
        done = subprocess.run(argv, env=env, cwd=CHECKOUT, capture_output=True, text=True, check=True)
        total = 0
        for line in done.stderr.splitlines():
            own, _, module = line.removeprefix("import time:").split("|")
            if own.strip().isdigit():
                total += int(own)
                self.own[module.strip()].append(int(own))
        return Sample(total / 1000)

    def most(self, count: int) -> Sequence[tuple[float, str]]:
        """The modules that take longest, each with its milliseconds."""
        return sorted(((median(own) / 1000, module) for module, own in self.own.items()), reverse=True)[:count]


def imports(lab: Lab) -> Row:
    """What the imports are of a start-up."""
    ring = lab.ring(1)
    lab.client(ring).put(f"s4://{BUCKET}/imports", b"")
    script = s4raw_command()
    ours = Imports(LS, [*(script if len(script) == 1 else script[1:]), "ls"], ring.conf)
    bare = Imports(PYTHON, ["-c", "pass"])

    def slowest(_: object) -> Sequence[str]:
        new = [(own, module) for own, module in ours.most(len(ours.own)) if module not in bare.own]
        listed = ", ".join(f"{module} {own:.1f}" for own, module in new[:IMPORTS_LISTED])
        whole = sum(own for own, _ in new)
        return [f"{len(new)} modules more than a bare start, {whole:.1f} ms without what each imports: {listed}"]

    title, samples = "imports of a start-up, by -X importtime, which makes them slower", lab.samples(21, 5)
    return Row("imports", title, [bare, ours], [Comparison(LS, PYTHON)], samples, unit="ms", remarks=slowest)


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
