"""S3: listings of many keys, ``s5cmd cp`` both ways, and memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from bench import proc
from bench.lab import SMALL_COUNT, Lab, LeftOut, Worker, expect
from bench.measure import Comparison, Row, Sample, Side, TimedSide
from bench.rows_s3 import MIB, create_bucket, fill_small, put_file, source
from bench.rows_small import files_below
from bench.s3servers import BUCKET, KEYS, MOTO, NGINX, OURS, RCLONE, TWO, Server, program, start, start_all
from s4raw.blocks import Record
from s4raw.digest import Digest
from s4raw.disk import DataDirectory
from s4raw.keys import Key
from s4raw.objects.base import Attributes
from s4raw.objects.local import LocalBackend
from s4raw.objects.publishing import publish
from s4raw.store import Store

LISTED, PAGED = 100_000, 1_000_000
RIVAL_LISTED = 10_000
PAGE = 1000
PAGES = 20  # a run
PAGE_SECONDS = 0.010
FILES = 1000  # with names in turn, so that the keys of a page are as many files
CP_SIZE = 256 * MIB
HELD = 200  # connections
EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
S5CMD = "s5cmd"


def make_objects(data: str, bucket: str, count: int) -> None:
    """Make so many objects in a data directory that no server has: some of them as the store does, links for the rest.

    So a million takes seconds. To whoever lists them they are a million files.
    """
    directory = DataDirectory(data)
    try:
        store = Store(directory)
        LocalBackend(store).create_bucket(bucket)
        attributes = Attributes(EMPTY_MD5, checksums={"CRC64NVME": "AAAAAAAAAAA="}, checksum_type="FULL_OBJECT")
        record = Record.of(Digest())
        for number in range(FILES):
            with store.draft() as fd:
                publish(store, fd, Key(bucket, name_of(number)), record, attributes)
    finally:
        directory.close()
    link_names(os.path.join(data, bucket), count)


def name_of(number: int) -> str:
    """The name of a key."""
    return f"object-{number:08}.data"


def link_names(directory: str, count: int) -> None:
    """Give the first files more names, in turn."""
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(FILES, count):
            os.link(name_of(number % FILES), name_of(number), src_dir_fd=parent, dst_dir_fd=parent)
    finally:
        os.close(parent)


def whole_listing(lab: Lab) -> Row:
    """All of a bucket's keys, page by page."""
    count = LISTED // 10 if lab.quick else LISTED
    servers, notes = start_all(lab, RCLONE)  # moto would need a minute to be given as many
    data = lab.path(f"s3-listed-{lab.new_number()}")
    make_objects(data, BUCKET, count)
    counts = {OURS: count}
    for server in servers:
        counts[server.name] = min(count, RIVAL_LISTED)
        directory = os.path.join(server.data, BUCKET)
        os.mkdir(directory)
        for number in range(FILES):
            open(os.path.join(directory, name_of(number)), "wb").close()
        link_names(directory, counts[server.name])
        notes = [*notes, f"{server.name} reads all names for each page, so it is given {counts[server.name]:,}."]
    sides: list[Side] = []
    for server in (start(lab, OURS, data), *servers):
        options = {"bucket": BUCKET, "count": counts[server.name]}
        worker = lab.worker("bench.s3client:listing", port=server.port, **options)
        sides.append(TimedSide(server.name, worker, server.pids()))
    comparisons = [Comparison(OURS, server.name, "speed") for server in servers] or [Comparison(OURS, measure="speed")]
    title = f"list of {count:,} keys, in pages of {PAGE:,}"
    return Row(
        *("s3-list", title, sides, comparisons, lab.samples(3, 1), count, "keys"),
        notes=notes,
        amounts={name: float(amount) for name, amount in counts.items()},
    )


def pages(lab: Lab) -> Row:
    """A page at three places of a bucket with a million keys."""
    count = PAGED // 10 if lab.quick else PAGED
    data = lab.path(f"s3-paged-{lab.new_number()}")
    make_objects(data, BUCKET, count)
    server = start(lab, OURS, data)
    places = {"at the start": 0, "in the middle": count // 2, "at the end": count - PAGES * PAGE - 1}
    sides: list[Side] = []
    for place, first in places.items():
        after = [name_of(first + PAGE * number) for number in range(PAGES)]
        options = {"bucket": BUCKET, "after": after, "count": PAGE}
        worker = lab.worker("bench.s3client:pages", port=server.port, **options)
        sides.append(TimedSide(f"{OURS}, {place}", worker, server.pids()))
    comparisons = [Comparison(side.name, aim=PAGE_SECONDS) for side in sides]
    title = f"a page of {PAGE:,} keys, of {count:,} in one directory"
    notes = [
        f"CPU seconds are those of {PAGES} pages. The first page after a change reads the directory, which is slower."
    ]
    return Row("s3-pages", title, sides, comparisons, lab.samples(5, 2), 1, "pages", notes=notes)


def _s5cmd(lab: Lab, server: Server, argv: Callable[[int], Sequence[str]], after: Callable[[int], None]) -> TimedSide:
    command = [program(S5CMD) or S5CMD, "--endpoint-url", f"http://127.0.0.1:{server.port}", "--log", "error"]
    return lab.command(server.name, lambda turn: [*command, *argv(turn)], server.pids(), after, env=KEYS)


def copies() -> dict[str, Callable[[Lab], Row]]:
    """The rows of ``s5cmd cp``, by name."""
    return {"s3-cp-up": copy_up, "s3-cp-down": copy_down, "s3-cp-up-small": up_small, "s3-cp-down-small": down_small}


def _copy(
    lab: Lab,
    name: str,
    title: str,
    side: Callable[[Lab, Server], TimedSide],
    amount: tuple[int, str],
    aim: float | None,
) -> Row:
    if not program(S5CMD):
        raise LeftOut(f"there is no {S5CMD} here")
    servers, notes = start_all(lab, OURS, TWO, RCLONE, MOTO)
    for server in servers:
        create_bucket(server)
    sides: list[Side] = [side(lab, server) for server in servers]
    comparisons = []
    for ours, others in ((OURS, servers[2:]), (TWO, servers[2:3])):
        comparisons += [Comparison(ours, o.name, "speed", aim if o.name == RCLONE else None) for o in others]
    large = amount[1] == "B"
    samples, touched = lab.samples(5 if large else 11, 2), amount[0] if large else 32 * MIB
    return Row(name, title, sides, comparisons, samples, *amount, touched=touched, notes=notes)


def copy_up(lab: Lab) -> Row:
    """A file into a bucket."""
    path = source(lab, CP_SIZE)

    def side(lab: Lab, server: Server) -> TimedSide:
        def check(turn: int) -> None:
            if server.name != MOTO:
                stored = os.path.join(server.data, BUCKET, f"large{turn}")
                expect(os.path.getsize(stored), CP_SIZE, stored)
                os.unlink(stored)

        return _s5cmd(lab, server, lambda turn: ["cp", path, f"s3://{BUCKET}/large{turn}"], check)

    return _copy(lab, "s3-cp-up", "s5cmd cp of 256 MiB into a bucket", side, (CP_SIZE, "B"), None)


def copy_down(lab: Lab) -> Row:
    """An object out of a bucket."""
    path = source(lab, CP_SIZE)

    def side(lab: Lab, server: Server) -> TimedSide:
        put_file(server, "large", path, CP_SIZE)
        target = lab.path(f"s3-down-{lab.new_number()}")

        def check(_turn: int) -> None:
            expect(os.path.getsize(target), CP_SIZE, target)
            os.unlink(target)

        return _s5cmd(lab, server, lambda _: ["cp", f"s3://{BUCKET}/large", target], check)

    return _copy(lab, "s3-cp-down", "s5cmd cp of 256 MiB out of a bucket", side, (CP_SIZE, "B"), None)


def up_small(lab: Lab) -> Row:
    """A directory of small files into a bucket."""

    def side(lab: Lab, server: Server) -> TimedSide:
        def check(turn: int) -> None:
            if server.name != MOTO:
                files_below(lambda turn: os.path.join(server.data, BUCKET, f"up{turn}"), SMALL_COUNT)(turn)

        return _s5cmd(lab, server, lambda turn: ["cp", f"{lab.small}/", f"s3://{BUCKET}/up{turn}/"], check)

    title = f"s5cmd cp of {SMALL_COUNT:,} files of 4 KiB into a bucket"
    return _copy(lab, "s3-cp-up-small", title, side, (SMALL_COUNT, "files"), 1.0)


def down_small(lab: Lab) -> Row:
    """Small objects out of a bucket."""

    def side(lab: Lab, server: Server) -> TimedSide:
        fill_small(lab, server, SMALL_COUNT)
        target, prefix = lab.path(f"s3-down-{lab.new_number()}-"), f"s3://{BUCKET}/small/*"
        return _s5cmd(
            *(lab, server, lambda turn: ["cp", prefix, f"{target}{turn}/"]),
            files_below(lambda turn: f"{target}{turn}", SMALL_COUNT),
        )

    title = f"s5cmd cp of {SMALL_COUNT:,} objects of 4 KiB out of a bucket"
    return _copy(lab, "s3-cp-down-small", title, side, (SMALL_COUNT, "files"), 1.0)


class Memory:
    """What a server's processes hold together: proportional set size, which counts a page that two share as a half."""

    def __init__(self, lab: Lab, server: Server, client: Worker | None) -> None:
        self.name = f"{server.name}, {f'{HELD} connections' if client else 'at rest'}"
        self._server = server
        self._client = client

    def run(self, turn: int) -> Sample:
        """Look once, with connections that have each done a get."""
        if self._client is not None and turn == 0:
            self._client.run()
        kib = sum(proc.memory_kib(f"{pid}", "Pss", "smaps_rollup") for pid in self._server.pids())
        return Sample(kib / 1024)


def memory(lab: Lab) -> Row:
    """Memory at rest and under many connections."""
    servers, notes = start_all(lab, OURS, TWO, NGINX, RCLONE, MOTO)
    sides: list[Side] = []
    held: list[Side] = []
    for server in servers:
        if server.name != NGINX:
            create_bucket(server)
            fill_small(lab, server, 1)
        options = {"path": f"/{BUCKET}/small/0", "connections": HELD, "signed": server.signed}
        sides.append(Memory(lab, server, None))
        held.append(Memory(lab, server, lab.worker("bench.s3client:hold", port=server.port, **options)))
    title = f"memory of the S3 servers, at rest and with {HELD} connections that have each done a get"
    comparisons = [Comparison(f"{OURS}, {HELD} connections", f"{OURS}, at rest")]
    comparisons += [Comparison(f"{OURS}, at rest", f"{server.name}, at rest") for server in servers[2:]]
    return Row("s3-memory", title, [*sides, *held], comparisons, 1, unit="MiB", notes=notes, warm_up=False)
