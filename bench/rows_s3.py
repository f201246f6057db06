"""S3: objects of all sizes, one by one, over HTTP; beside nginx, rclone's S3 server and moto."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import s3client
from bench.lab import SMALL_SIZE, Lab, Workers
from bench.measure import Comparison, Measured, Row, Runner, Side, TimedSide
from bench.s3servers import BUCKET, MOTO, NGINX, OURS, RCLONE, TWO, Server, start_all

MIB, GIB = 1 << 20, 1 << 30
LARGE_SIZES = {"1g": GIB, "64m": 64 * MIB, "1m": MIB}
RUN_BYTES = 256 * MIB  # of one run, or one object
SMALL_GETS, SMALL_PUTS = 2000, 1000  # objects; more than a server might remember signatures of
ONE_AIM, MANY_AIM = 6_000, 12_000  # small gets a second
MANY, CLIENTS = 16, 2  # connections, and processes that share them
GET_AIM, PUT_AIM = 0.9, 2.0
PART = 16 * MIB
PART_CONNECTIONS = 4
MOTO_AMOUNT = 10  # moto is given so much less of the small requests


def large_rows() -> dict[str, Callable[[Lab], Row]]:
    """The rows of large objects, by name."""
    gets = {f"s3-get-{name}": _large(_get, name, size) for name, size in LARGE_SIZES.items()}
    return gets | {f"s3-put-{name}": _large(_put, name, size) for name, size in LARGE_SIZES.items()}


def _large(row: Callable[[Lab, str, int], Row], name: str, size: int) -> Callable[[Lab], Row]:
    return lambda lab: row(lab, name, min(size, 128 * MIB) if lab.quick else size)


def put_file(server: Server, name: str, path: str, size: int) -> None:
    """Put a file to an object, to prepare."""
    client = s3client.Client(server.port)
    with open(path, "rb") as file:
        client.put(s3client.presigned(server.port, "PUT", f"/{BUCKET}/{name}", size), file.fileno(), 0, size)
    client.sock.close()


def create_bucket(server: Server, bucket: str = BUCKET) -> None:
    """Make a bucket, to prepare."""
    client = s3client.Client(server.port)
    client.sock.sendall(s3client.presigned(server.port, "PUT", f"/{bucket}", 0))
    client.head()
    client.sock.close()


def source(lab: Lab, size: int) -> str:
    """A file of random bytes, made once for each size."""
    path = lab.path(f"s3-source-{size}")
    if not os.path.exists(path):
        lab.random_file(path, size)
    return path


def _rivals(size: int) -> list[str]:
    """The other S3 servers that objects of a size are put to: moto holds them in memory, for good."""
    return [RCLONE, MOTO] if size <= 64 * MIB else [RCLONE]


def _get(lab: Lab, name: str, size: int) -> Row:
    """An object to nowhere, over one connection."""
    servers, notes = start_all(lab, OURS, NGINX, *_rivals(size))
    path, passes = source(lab, size), max(1, RUN_BYTES // size)
    sides: list[Side] = []
    for server in servers:
        if server.name != NGINX:  # which has the files of the first
            create_bucket(server)
            put_file(server, "large", path, size)
        options = {"path": f"/{BUCKET}/large", "size": size, "passes": passes, "signed": server.signed}
        worker = lab.worker("bench.s3client:get", port=server.port, **options)
        sides.append(TimedSide(server.name, worker, server.pids()))
    comparisons = _against(servers, {NGINX: GET_AIM if size > MIB else None, RCLONE: None, MOTO: None})
    title = f"GET of objects of {size >> 20} MiB, one after the other, on one connection"
    amount, samples = passes * size, lab.samples(5, 2)
    return Row(f"s3-get-{name}", title, sides, comparisons, samples, amount, "B", notes=notes, remarks=cpu_per_gib)


def _put(lab: Lab, name: str, size: int) -> Row:
    """Objects out of a file, over one connection."""
    servers, notes = start_all(lab, OURS, *_rivals(size))
    path, passes = source(lab, size), max(1, RUN_BYTES // size)
    sides: list[Side] = []
    for server in servers:
        create_bucket(server)
        place = "again" if server.name == MOTO else "{turn}"
        options = {"path": f"/{BUCKET}/{place}/{{number}}", "file": path, "size": size, "passes": passes}
        worker = lab.worker("bench.s3client:put", port=server.port, **options)
        sides.append(TimedSide(server.name, worker, server.pids(), turn_of, dropping(server, passes * size)))
    comparisons = _against(servers, {RCLONE: PUT_AIM if size > MIB else None, MOTO: None})
    title = f"PUT of objects of {size >> 20} MiB, one after the other, on one connection"
    amount, samples = passes * size, lab.samples(5, 2)
    return Row(
        *(f"s3-put-{name}", title, sides, comparisons, samples, amount, "B"),
        touched=amount,
        notes=notes,
        remarks=cpu_per_gib,
    )


def multipart(lab: Lab) -> Row:
    """One object in parts, over several connections at once."""
    size = 128 * MIB if lab.quick else GIB
    servers, notes = start_all(lab, OURS, TWO, RCLONE)
    path = source(lab, size)
    sides: list[Side] = []
    for server in servers:
        create_bucket(server)
        options = {"path": f"/{BUCKET}/{{turn}}/parts", "file": path, "size": size, "part": PART}
        worker = lab.worker("bench.s3client:multipart", port=server.port, connections=PART_CONNECTIONS, **options)
        sides.append(TimedSide(server.name, worker, server.pids(), turn_of, dropping(server, size)))
    comparisons = [*_against(servers, {RCLONE: PUT_AIM}), *_against(servers, {RCLONE: None}, TWO)]
    title = f"multipart upload of {size >> 20} MiB, in parts of {PART >> 20} MiB on {PART_CONNECTIONS} connections"
    samples = lab.samples(5, 2)
    return Row(
        *("s3-multipart", title, sides, comparisons, samples, size, "B"),
        touched=size,
        notes=notes,
        remarks=cpu_per_gib,
    )


def dropping(server: Server, size: int) -> Callable[[int], None]:
    """A check that a run has stored so many bytes below ``turn/``, which are thrown away behind the server's back."""

    def drop(turn: int) -> None:
        directory = os.path.join(server.data, BUCKET, str(turn))
        if server.name == MOTO:  # holds them in memory, and overwrites them in the next run
            return
        found = sum(
            os.path.getsize(os.path.join(above, name)) for above, _, names in os.walk(directory) for name in names
        )
        if found != size:
            raise RuntimeError(f"{server.name}: {found} bytes below {directory} instead of {size}")
        shutil.rmtree(directory)

    return drop


def turn_of(turn: int) -> Mapping[str, object]:
    """The argument of a run that differs by turn."""
    return {"turn": turn}


def _against(servers: Sequence[Server], aims: Mapping[str, float | None], side: str = OURS) -> list[Comparison]:
    """A side against those that are there."""
    names = {server.name for server in servers}
    return [Comparison(side, name, "speed", aim) for name, aim in aims.items() if name in names]


def cpu_per_gib(measured: Measured) -> Sequence[str]:
    """What a GiB costs the servers."""
    gib = measured.row.amount / GIB
    costs = [f"{side} {measured.mean(side, 'server_cpu') / gib:.2f}" for side in measured.samples]
    return [f"CPU seconds of the server per GiB: {', '.join(costs)}."]


def gets_one(lab: Lab) -> Row:
    """Small gets on one connection."""
    return _small_gets(lab, "s3-gets", 1, ONE_AIM, [OURS, NGINX, RCLONE, MOTO])


def gets_many(lab: Lab) -> Row:
    """Small gets on many connections."""
    return _small_gets(lab, "s3-gets-16", MANY, MANY_AIM, [TWO, OURS, NGINX, RCLONE, MOTO])


def puts_one(lab: Lab) -> Row:
    """Small puts on one connection."""
    return _small_puts(lab, "s3-puts", 1, [OURS, RCLONE, MOTO])


def puts_many(lab: Lab) -> Row:
    """Small puts on many connections; rclone answers some of so many at once with InternalError."""
    return _small_puts(lab, "s3-puts-16", MANY, [TWO, OURS, MOTO])


class Prepared:
    """A runner whose requests are signed before the clock starts."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def run(self, turn: int) -> Mapping[str, Any]:
        """Sign, then send."""
        self._runner.run(turn=turn, prepare=True)
        return self._runner.run(turn=turn)


def _clients(lab: Lab, server: Server, connections: int, count: int, **options: object) -> Prepared:
    """Client processes that share the connections and the paths."""
    processes = min(connections, CLIENTS)
    share = count // processes
    workers = [
        lab.worker(
            "bench.s3client:small",
            port=server.port,
            connections=connections // processes,
            numbers=[number * share, (number + 1) * share],
            signed=server.signed,
            **options,
        )
        for number in range(processes)
    ]
    return Prepared(workers[0] if processes == 1 else Workers(workers))


def fill_small(lab: Lab, server: Server, count: int) -> None:
    """Objects of 4 KiB, by number, to prepare."""
    if server.signed:
        path = f"/{BUCKET}/small/{{number}}"
        worker = lab.worker(
            *("bench.s3client:small",), port=server.port, method="PUT", path=path, numbers=[0, count], size=SMALL_SIZE
        )
        worker.run()


def _small_gets(lab: Lab, name: str, connections: int, aim: int, names: Sequence[str]) -> Row:
    servers, notes = start_all(lab, *names)
    sides: list[Side] = []
    amounts = {}
    for server in servers:
        count = SMALL_GETS // (MOTO_AMOUNT if server.name == MOTO else 1)
        passes = 1 if server.name == MOTO or lab.quick else 3
        if server.name != NGINX:
            create_bucket(server)
            fill_small(lab, server, count)
        path = f"/{BUCKET}/small/{{number}}"
        clients = _clients(lab, server, connections, count, method="GET", path=path, passes=passes)
        sides.append(TimedSide(server.name, clients, server.pids(), turn_of))
        amounts[server.name] = float(count * passes)
    title = f"GET of objects of 4 KiB, one after the other, on {connections} connection{'s' * (connections > 1)}"
    return _small(lab, name, title, sides, servers, amounts, aim, notes)


def _small_puts(lab: Lab, name: str, connections: int, names: Sequence[str]) -> Row:
    servers, notes = start_all(lab, *names)
    sides: list[Side] = []
    amounts = {}
    for server in servers:
        count = SMALL_PUTS // (MOTO_AMOUNT if server.name == MOTO else 1)
        create_bucket(server)
        path = f"/{BUCKET}/{{turn}}/{{number}}"
        clients = _clients(lab, server, connections, count, method="PUT", path=path, size=SMALL_SIZE)
        sides.append(TimedSide(server.name, clients, server.pids(), turn_of))
        amounts[server.name] = float(count)
    title = f"PUT of objects of 4 KiB, one after the other, on {connections} connection{'s' * (connections > 1)}"
    return _small(lab, name, title, sides, servers, amounts, None, notes)


def _small(
    lab: Lab,
    name: str,
    title: str,
    sides: Sequence[Side],
    servers: Sequence[Server],
    amounts: Mapping[str, float],
    aim: int | None,
    notes: Sequence[str],
) -> Row:
    first = sides[0].name
    comparisons = _against(servers, {RCLONE: None, NGINX: None, MOTO: None}, first)
    comparisons.insert(0, Comparison(first, measure="speed", aim=aim))
    if first != OURS:
        comparisons += [Comparison(first, OURS, "speed"), *_against(servers, {RCLONE: None}, OURS)]

    def costs(measured: Measured) -> Sequence[str]:
        each = [f"{s} {1e6 * measured.mean(s, 'server_cpu') / amounts[s]:.0f}" for s in measured.samples]
        return [f"CPU of the server for one request, in us: {', '.join(each)}."]

    return Row(
        *(name, title, sides, comparisons, lab.samples(7, 3), amounts[first], "requests"),
        notes=notes,
        amounts=amounts,
        remarks=costs,
    )
