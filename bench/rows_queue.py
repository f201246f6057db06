"""The durable queue: how fast it accepts and opens, what it costs to hand a file over, and S3 in front of it."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from bench import proc, pushing
from bench.afar import DELAY, Afar, Network
from bench.lab import CHECKOUT, SMALL_COUNT, SMALL_SIZE, Lab, Workers
from bench.measure import Comparison, Row, Sample, Side, TimedSide
from bench.pushd import Pushd
from bench.rows_push import percentile
from bench.rows_s3 import MIB, Prepared, source, turn_of
from bench.s3servers import BUCKET, Process

QUEUED_CLIENTS, CLIENT_PROCESSES = 8, 2
QUEUED_COUNT = 8000
QUEUED_AIM, QUEUED_P99 = 2000, 0.020
START_AIM = 1.5
OPENED, OPEN_AIM = 100_000, 2.0
ADDERS = 64
FAR_AWAY = 3600.0  # seconds to a remote from which no answer comes in time
PUTS, PUT_CONNECTIONS, DIRECT_SHARE = 2000, 16, 20
LARGE = 64 * MIB
PAUSED, RUNNING, SNAPSHOTS = "uploads stand still", "uploads run", "snapshots, uploads stand still"
PYTHON, SEND = "python -c 'import socket'", "python s4raw/send.py"
DIRECT, QUEUE = "direct", "s4raw s3 run --remote --write-queue"
_FIGURES = {"p50": "", "p99": "", "max": "time from an order to its answer, of one client, in s"}


def rows() -> dict[str, Callable[[Lab], Row]]:
    """The rows, by name."""
    return {
        "send-queued": queued,
        "send-start": start,
        "queue-open": opening,
        "s3-queued-puts": queued_puts,
        "s3-queued-64m": queued_large,
    }


class Accepting:
    """A side: clients that hand files over, each on a connection, and wait for each answer."""

    def __init__(self, lab: Lab, name: str, daemon: Pushd, count: int, snapshot: bool) -> None:
        self.name = name
        self._daemon = daemon
        self._count = count
        self._workers = [
            lab.worker(
                *("bench.pushing:queued",),
                port=daemon.port,
                connections=QUEUED_CLIENTS // CLIENT_PROCESSES,
                count=count // CLIENT_PROCESSES,
                directory=lab.small,
                files=SMALL_COUNT,
                bucket=BUCKET,
                share=share,
                snapshot=snapshot,
            )
            for share in range(CLIENT_PROCESSES)
        ]

    def run(self, turn: int) -> Sample:
        """Have them all accepted, then throw away what has not been uploaded."""
        pid = self._daemon.pid
        proc.reset_peak(pid)
        cpu = proc.cpu_seconds(pid)
        found = Workers(self._workers).run(turn=turn)
        cpu = proc.cpu_seconds(pid) - cpu
        peak = proc.memory_kib(pid, "VmHWM")
        each = sorted(seconds for one in found["each"] for seconds in one["latencies"])
        pushing.ask(self._daemon.port, do="drop", all=True)
        pushing.ask(self._daemon.port, do="flush", wait=1.0 if self.name != RUNNING else pushing.SECONDS)
        figures = {"p50": percentile(each, 50), "p99": percentile(each, 99), "max": each[-1]}
        return Sample(found["seconds"], found["cpu"], cpu, found["peak"], peak, figures)


def queued(lab: Lab) -> Row:
    """Orders that are to be queued."""
    count = QUEUED_COUNT // (8 if lab.quick else 1)
    afar = Afar(lab, DELAY)
    nowhere = Network(afar.server.port, FAR_AWAY)
    lab.at_row_end(nowhere.stop)
    sides: list[Side] = [
        Accepting(lab, PAUSED, Pushd(lab, f"http://127.0.0.1:{nowhere.port}"), count, False),
        Accepting(lab, RUNNING, Pushd(lab, afar.endpoint), count, False),
        Accepting(lab, SNAPSHOTS, Pushd(lab, f"http://127.0.0.1:{nowhere.port}"), count, True),
    ]
    comparisons = [
        Comparison(PAUSED, measure="speed", aim=QUEUED_AIM),
        Comparison(PAUSED, measure="p99", aim=QUEUED_P99),
    ]
    comparisons += [Comparison(RUNNING, measure="speed"), Comparison(SNAPSHOTS, measure="speed")]
    title = f"files of 4 KiB handed over until they are durably queued, by {QUEUED_CLIENTS} clients that wait for each"
    notes = [
        f"The clients are {CLIENT_PROCESSES} processes on the daemon's cores. Uploads that run go to a remote "
        f"{round(1000 * DELAY)} ms away, on the same cores."
    ]
    return Row(
        *("send-queued", title, sides, comparisons, lab.samples(5, 2), count, "files"), notes=notes, figures=_FIGURES
    )


def start(lab: Lab) -> Row:
    """What a file costs that is handed over by a command: its start-up, mostly."""
    path = lab.path("send-start")
    lab.random_file(path, SMALL_SIZE)
    lab.at_row_end(os.unlink, path)
    env = {"S3DAEMON_HOST": "127.0.0.1", "S3DAEMON_PORT": str(_always_fine(lab))}
    command = [sys.executable, str(CHECKOUT / "s4raw" / "send.py"), path, f"remote/{BUCKET}/key"]
    sides: list[Side] = [
        lab.command(PYTHON, [sys.executable, "-c", "import socket"]),
        lab.command(SEND, command, env=env),
    ]
    comparisons = [Comparison(SEND, PYTHON, "time", START_AIM)]
    title = "a file handed over by send.py, to a daemon that says at once that all is well"
    return Row("send-start", title, sides, comparisons, lab.samples(51, 15), 1, "starts")


def _always_fine(lab: Lab) -> int:
    """A server that answers every line with success; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # the listener is shut down at the end
            while True:
                sock, _ = listener.accept()
                with sock, suppress(OSError):
                    while line := sock.recv(64 << 10):
                        answer = b'{"ok": true, "id": 1, "state": "stored"}\n' if line.startswith(b"{") else b"Success"
                        sock.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def stop() -> None:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()

    lab.at_row_end(stop)
    return int(listener.getsockname()[1])


def opening(lab: Lab) -> Row:
    """A queue with many entries, opened."""
    from s4raw.keys import Key
    from s4raw.objects.sources import Identity
    from s4raw.queue.entries import Order
    from s4raw.queue.queue import Queue

    count = OPENED // (10 if lab.quick else 1)
    directory, path = lab.path("queue-open"), os.path.join(lab.small, "0000")
    fd = os.open(path, os.O_RDONLY)
    try:
        identity = Identity.of(fd)
        queue = Queue(directory)

        def add(number: int) -> None:
            key = Key(BUCKET, f"node{number % 9}/file{number:08}.fits")
            queue.add(Order("", key, path=os.fsencode(path), identity=identity), fd=fd)

        with ThreadPoolExecutor(ADDERS) as pool:
            list(pool.map(add, range(count)))
        queue.close()
    finally:
        os.close(fd)
    worker = lab.worker("bench.pushing:opening", directory=directory, count=count)
    sides: list[Side] = [TimedSide("s4raw queue", worker)]
    title = f"a queue with {count:,} entries, opened"
    comparisons = [Comparison("s4raw queue", aim=OPEN_AIM)]
    return Row("queue-open", title, sides, comparisons, lab.samples(5, 2), count, "entries")


class Gateway(Process):
    """Our S3 daemon with a write queue, in front of a remote that is far away."""

    def __init__(self, lab: Lab, afar: Afar) -> None:
        directory = lab.path(f"gateway-{lab.new_number()}")
        os.mkdir(directory)

        def argv(data: str, _port: int, listener: int) -> list[str]:
            options = ["--remote", afar.endpoint, "--write-queue", "--queue", data, "--listen-fd", str(listener)]
            return [sys.executable, "-m", "s4raw", "s3", "run", *options]

        super().__init__(QUEUE, argv, os.path.join(directory, "queue"), os.path.join(directory, "log"))
        lab.at_row_end(self.stop)


def _in_front(lab: Lab) -> tuple[Afar, Gateway]:
    afar = Afar(lab)
    return afar, Gateway(lab, afar)


def queued_puts(lab: Lab) -> Row:
    """Small puts on many connections, into the queue and to the remote itself."""
    afar, gateway = _in_front(lab)
    amounts = {DIRECT: float(PUTS // DIRECT_SHARE), QUEUE: float(PUTS // (4 if lab.quick else 1))}
    sides: list[Side] = []
    for name, port in ((DIRECT, afar.network.port), (QUEUE, gateway.port)):
        worker = lab.worker(
            *("bench.s3client:small",),
            port=port,
            method="PUT",
            path=f"/{BUCKET}/{'direct' if name == DIRECT else 'queued'}{{turn}}/{{number}}",
            numbers=[0, int(amounts[name])],
            connections=PUT_CONNECTIONS,
            size=SMALL_SIZE,
        )
        pids = gateway.pids() if name == QUEUE else ()
        sides.append(
            TimedSide(name, Prepared(worker), pids, turn_of, partial(_settled, afar, name, int(amounts[name])))
        )
    title = f"PUT of objects of 4 KiB on {PUT_CONNECTIONS} connections, through a write queue and to the remote itself"
    comparisons = [Comparison(QUEUE, measure="speed"), Comparison(QUEUE, DIRECT, "speed")]
    return Row(
        *("s3-queued-puts", title, sides, comparisons, lab.samples(3, 2), amounts[QUEUE], "requests"),
        amounts=amounts,
        notes=["The uploads run meanwhile, on the same cores."],
    )


def _settled(afar: Afar, name: str, count: int, turn: int) -> None:
    """Wait until what was queued is at the remote, and throw it away."""
    prefix = f"{'direct' if name == DIRECT else 'queued'}{turn}"
    afar.wait(prefix, count)
    afar.drop(prefix, count, SMALL_SIZE)


def queued_large(lab: Lab) -> Row:
    """A large put, into the queue and to the remote itself."""
    afar, gateway = _in_front(lab)
    path = source(lab, LARGE)
    sides: list[Side] = []
    for name, port in ((DIRECT, afar.network.port), (QUEUE, gateway.port)):
        place = "direct" if name == DIRECT else "queued"
        options = {"path": f"/{BUCKET}/{place}{{turn}}/large", "file": path, "size": LARGE}
        worker = lab.worker("bench.s3client:put", port=port, **options)

        def after(turn: int, place: str = place) -> None:
            afar.wait(f"{place}{turn}", 1)
            afar.drop(f"{place}{turn}", 1, LARGE)

        sides.append(TimedSide(name, worker, gateway.pids() if name == QUEUE else (), turn_of, after))
    title = f"PUT of an object of {LARGE // MIB} MiB, through a write queue and to the remote itself"
    comparisons = [Comparison(QUEUE, DIRECT, "speed")]
    return Row("s3-queued-64m", title, sides, comparisons, lab.samples(5, 2), LARGE, "B", touched=LARGE)
