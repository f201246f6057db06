"""Several clients at once: against a server of one process and of two, and against as many bare loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.lab import SMALL_COUNT, SMALL_SIZE, Lab, Worker, Workers, pids
from bench.measure import Comparison, Curve, Measured, Row, TimedSide
from bench.rows_small import put_small, small_keys
from s4raw.local import LocalRing

BARE, ONE, TWO = "bare loops", "server --workers 1", "server --workers 2"
CLIENTS = 4
PASSES = 2
CORES = 32


def workers(lab: Lab) -> Row:
    """Small gets from several client processes."""
    row = _row(lab, "workers", CLIENTS, lab.samples(9, 3))
    row.remarks = _many_cores
    return row


def clients(lab: Lab) -> Curve:
    """The same for other numbers of clients."""

    def point(count: int) -> Callable[[], Row]:
        return lambda: _row(lab, "clients", count, lab.samples(5, 1))

    counts = (1, 2, 4) if lab.quick else (1, 2, 4, 8)
    title = "small gets (4 KiB, one after the other) from several client processes, each with one connection"
    return Curve("clients", title, "client processes", {count: point(count) for count in counts})


def _row(lab: Lab, name: str, count: int, samples: int) -> Row:
    one, two = (lab.fresh_ring(1, "--workers", str(number)) for number in (1, 2))
    keys = small_keys(put_small(lab, "clients", one))
    put_small(lab, "clients", two)
    sides = [_bare(lab, lab.stored(keys[0], one), count), _ours(lab, ONE, one, keys, count)]
    sides.append(_ours(lab, TWO, two, keys, count))
    comparisons = [Comparison(TWO, ONE, "speed"), Comparison(TWO, BARE, "speed")]
    title = f"small gets, one after the other, from {count} client processes at once"
    return Row(name, title, sides, comparisons, samples, count * PASSES * SMALL_COUNT, "gets")


def _ours(lab: Lab, name: str, ring: LocalRing, keys: Sequence[str], count: int) -> TimedSide:
    def client() -> Worker:
        return lab.worker("bench.library:get_each", conf=ring.conf, keys=keys, passes=PASSES)

    return TimedSide(name, Workers([client() for _ in range(count)]), pids(ring))


def _bare(lab: Lab, path: str, count: int) -> TimedSide:
    senders = [lab.worker("bench.bare:sender", path=path) for _ in range(count)]
    options = {"size": SMALL_SIZE, "requests": PASSES * SMALL_COUNT, "depth": 1}
    getters = [lab.worker("bench.bare:many_getter", port=sender.run()["port"], **options) for sender in senders]
    return TimedSide(BARE, Workers(getters), [sender.pid for sender in senders])


def _many_cores(measured: Measured) -> Sequence[str]:
    """What follows from the CPU seconds of a request for a machine with more cores."""
    amount = measured.row.amount
    server, client = (1e6 * measured.mean(TWO, what) / amount for what in ("server_cpu", "client_cpu"))
    rate = CORES * 1e6 / server
    left = 100 * server / (server + client)
    return [
        f"With --workers 2 a get costs the server {server:.0f} us of CPU and its client {client:.0f} us, on the same"
        f" two cores here, which leaves the server {left:.0f} % of them. Workers are processes: no interpreter lock and"
        " no queue is shared, only the file system, whose page cache and names many processors read at once, and, once"
        " a connection, the listening socket and a number each. So the server's part grows with the cores:"
        f" {CORES} of them, with as many workers and the clients on other machines, have the CPU for {rate:,.0f}"
        f" gets/s, with keys of 4 KiB {rate * SMALL_SIZE * 8 / 1e9:.0f} Gbit/s. That is reckoned, not measured."
    ]
