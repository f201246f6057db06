"""Uploads to a remote that is far away: the push daemon beside aws, boto3, s5cmd and rclone, on the same files."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from bench import proc
from bench.afar import Afar, Footprint, descendants
from bench.lab import Lab
from bench.measure import Comparison, Measured, Row, Sample, Side
from bench.pushd import Pushd
from bench.s3servers import BUCKET, KEYS, program

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
NODES, EACH = 9, 20
SMALL, LARGE, QUICK_LARGE = 64 * KIB, 16 * MIB, 2 * MIB
AT_ONCE = 25
DEFAULT_CONNECTIONS = 192  # the daemon's; s5cmd has 256 workers unless it is told otherwise
OURS, OURS_NARROW = "s4raw push", f"s4raw push, {AT_ONCE} connections"
AWS, AWS_TREE, BOTO3 = f"aws s3 cp, {AT_ONCE} at a time", "aws s3 cp --recursive", f"boto3, {AT_ONCE} threads"
S5CMD, S5CMD_NARROW, RCLONE = "s5cmd", f"s5cmd, {AT_ONCE} workers", f"rclone copy, {AT_ONCE} transfers"
SMALL_TOTAL, SMALL_P99, SMALL_SPEED = 1.5, 1.0, 2.0
FIGURES = {
    "p50": "",
    "p99": "",
    "max": "the time of a file, from when the side's first client process was started (all files are there then) until "
    "the remote's answer that it is stored has come back: the time in the remote's log, and one way",
    "total": "until the last of the side's client processes has ended",
    "CPU s/GiB": "of the client's processes, for ours with the daemon",
}
NOTES = [
    "The remote (s4raw s3 run --workers 2) and the network (bench/delay.py) run on the same cores as the clients.",
    "The daemon and boto3 have used each of their connections a moment before; the others are commands that start.",
    "Peak memory of the client: what all its processes held at once, without what they share.",
]

Action = Callable[[int, str], Mapping[str, Any]]  # of a turn and a prefix; the seconds and CPU seconds


class Upload:
    """A side: all files to a prefix of their own."""

    def __init__(
        self,
        name: str,
        afar: Afar,
        files: Mapping[str, str],
        action: Action,
        processes: Callable[[], Sequence[int]],
        daemon: int = 0,
        every: int = 1,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        """``processes`` are the client's; the CPU seconds of the ``daemon`` are counted with those of the action.

        It runs in every so many turns, and not to warm up unless that is 1. ``prepare`` comes before the start.
        """
        self.name = name
        self._afar = afar
        self._files = files
        self._action = action
        self._processes = processes
        self._daemon = daemon
        self._every = every
        self._prepare = prepare
        self._size = os.path.getsize(next(iter(files.values())))
        self._prefix = "".join(filter(str.isalnum, name))

    def run(self, turn: int) -> Sample | None:
        """Upload them once, and throw them away."""
        if turn % self._every:
            return None
        self._prepare()
        servers, prefix = self._afar.server.pids(), f"{self._prefix}{turn}"
        for pid in servers:
            proc.reset_peak(pid)
        mark, cpu, daemon_cpu = self._afar.mark(), sum(map(proc.cpu_seconds, servers)), self._daemon_cpu()
        with Footprint(self._processes) as footprint:
            started = time.time()
            found = self._action(turn, prefix)
        cpu = sum(map(proc.cpu_seconds, servers)) - cpu
        client_cpu = found["cpu"] + self._daemon_cpu() - daemon_cpu
        times = self._times(mark, prefix, started)
        self._afar.drop(prefix, len(self._files), self._size)
        return Sample(
            found["seconds"],
            client_cpu,
            cpu,
            footprint.peak,
            max(proc.memory_kib(pid, "VmHWM") for pid in servers),
            {
                "p50": percentile(times, 50),
                "p99": percentile(times, 99),
                "max": times[-1],
                "total": found["seconds"],
                "CPU s/GiB": client_cpu / (len(self._files) * self._size / GIB),
            },
        )

    def _daemon_cpu(self) -> float:
        return proc.cpu_seconds(self._daemon) if self._daemon else 0.0

    def _times(self, mark: int, prefix: str, started: float) -> list[float]:
        """When each file was known to be stored, in seconds since the start, in order."""
        stored = self._afar.stored(mark, prefix)
        if missing := self._files.keys() - stored.keys():
            raise RuntimeError(f"{self.name}: the remote's log lacks {len(missing)} of {len(self._files)} files")
        return sorted(at - started + self._afar.delay for at in stored.values())


def percentile(times: Sequence[float], percent: float) -> float:
    """The nearest rank in times that are in order."""
    return times[math.ceil(len(times) * percent / 100) - 1]


class Scene:
    """A row's remote, its files, and its sides one after the other."""

    def __init__(self, lab: Lab, nodes: int, size: int) -> None:
        self.lab = lab
        self.afar = Afar(lab)
        self.size = size
        self._aws_each = not lab.quick and nodes * EACH * size < GIB  # which takes a minute for the starts alone
        self.directory = lab.path(f"push-{lab.new_number()}")
        block = os.urandom(size)
        self.nodes: list[dict[str, str]] = []
        for node in range(nodes):
            os.makedirs(os.path.join(self.directory, f"node{node}"))
            names = [f"node{node}/file{number:02}" for number in range(EACH)]
            self.nodes.append({name: os.path.join(self.directory, name) for name in names})
            for name, path in self.nodes[-1].items():
                with open(path, "wb") as file:
                    file.write(f"{name:16}".encode() + block[16:])
        lab.at_row_end(shutil.rmtree, self.directory)
        self.files = {name: path for files in self.nodes for name, path in files.items()}
        os.sync()  # the files of a camera would be on disk soon, too

    def sides(self) -> tuple[list[Side], list[str]]:
        """Those that are installed, and notes on the others."""
        sides: list[Side] = []
        notes = []
        builds = {OURS: self.ours, "aws": self.aws, "boto3": self.boto3, "s5cmd": self.s5cmd, "rclone": self.rclone}
        for name, build in builds.items():
            try:
                sides += build()
            except (OSError, RuntimeError) as error:
                notes.append(f"{name} is left out: {str(error).strip().splitlines()[-1]}")
        return sides, notes

    def ours(self) -> list[Side]:
        """The daemon, and a ``send.py`` for each node."""
        narrow = self._ours(OURS_NARROW, AT_ONCE, "--connections", str(AT_ONCE))
        return [self._ours(OURS, DEFAULT_CONNECTIONS), narrow]

    def _ours(self, name: str, connections: int, *arguments: str) -> Side:
        daemon = Pushd(self.lab, self.afar.endpoint, arguments)
        options = {"bucket": BUCKET, "env": daemon.environment(), "options": []}
        worker = self.lab.worker("bench.pushing:senders", nodes=self.nodes, **options)
        warmer = self.lab.worker("bench.pushing:senders", nodes=[self._warming(connections)], **options)
        return Upload(
            name,
            self.afar,
            self.files,
            lambda _, prefix: worker.run(prefix=prefix),
            lambda: [daemon.pid, *descendants(daemon.pid), *descendants(worker.pid)],
            daemon.pid,
            prepare=partial(warmer.run, prefix="warm"),
        )

    def _warming(self, count: int) -> Mapping[str, str]:
        """So many files of a few bytes."""
        directory = os.path.join(self.directory, "warm")
        os.makedirs(directory, exist_ok=True)
        paths = {str(number): os.path.join(directory, str(number)) for number in range(count)}
        for path in paths.values():
            with open(path, "wb") as file:
                file.write(b"warm")
        return paths

    def _command(self, name: str, argv: Callable[[str], Sequence[str]], lines: str = "", every: int = 1) -> Side:
        """A side that is a command, given a prefix; ``lines`` is its stdin, for each file."""
        program_name = argv("")[0]
        if not os.path.isabs(program_name):
            raise OSError(f"there is no {program_name} here")
        worker = self.lab.worker("bench.worker:commands")
        stdin = os.path.join(self.directory, "stdin")
        env = {**self.afar.environment(), "AWS_EC2_METADATA_DISABLED": "true"}

        def run(_turn: int, prefix: str) -> Mapping[str, Any]:
            with open(stdin, "w", encoding="utf-8") as file:
                for key, path in self.files.items():
                    file.write(lines.format(path=path, to=f"s3://{BUCKET}/{prefix}/{key}"))
            return worker.run(argv=list(argv(prefix)), env=env, stdin=stdin)

        return Upload(name, self.afar, self.files, run, partial(descendants, worker.pid), every=every)

    def aws(self) -> list[Side]:
        """The AWS CLI: a process for each file, and one for each node."""
        aws = program("aws") or "aws"
        self.lab.commands.run(argv=[aws, "--version"])
        copy = [aws, "s3", "cp", "--only-show-errors"]
        each = ["/usr/bin/xargs", "-P", str(AT_ONCE), "-n", "2", *copy]
        trees = [
            "/bin/sh",
            "-c",
            'for n in "$1"/node*; do "$2" s3 cp --only-show-errors --recursive "$n" "$3/${n##*/}" & done; wait',
        ]
        return [
            self._command(AWS_TREE, lambda prefix: [*trees, "sh", self.directory, aws, f"s3://{BUCKET}/{prefix}"]),
            *([self._command(AWS, lambda _: each, "{path} {to}\n", every=1000)] if self._aws_each else []),
        ]

    def boto3(self) -> list[Side]:
        """Threads that share a client with warm connections."""
        worker = self.lab.worker(
            *("bench.pushing:boto",),
            endpoint=self.afar.endpoint,
            bucket=BUCKET,
            files=self.files,
            threads=AT_ONCE,
            keys=KEYS,
        )

        def run(_turn: int, prefix: str) -> Mapping[str, Any]:
            return worker.run(prefix=prefix)

        warm = partial(worker.run, prefix="", warming=True)
        return [Upload(BOTO3, self.afar, self.files, run, lambda: [worker.pid], prepare=warm)]

    def s5cmd(self) -> list[Side]:
        """One process with a list of commands."""
        command = [program("s5cmd") or "s5cmd", "--log", "error"]
        return [
            self._command(S5CMD, lambda _: [*command, "run"], "cp {path} {to}\n"),
            self._command(S5CMD_NARROW, lambda _: [*command, "--numworkers", str(AT_ONCE), "run"], "cp {path} {to}\n"),
        ]

    def rclone(self) -> list[Side]:
        """One process for the whole tree, spared all looks at what is there already."""
        options = ["--config=", "--s3-provider", "Other", "--s3-env-auth", "--s3-endpoint", self.afar.endpoint]
        spared = ["--s3-no-check-bucket", "--s3-no-head", "--no-check-dest"]
        command = [program("rclone") or "rclone", "copy", self.directory, "--include", "/node*/**"]
        every = [*options, "--s3-region", KEYS["AWS_REGION"], *spared, "--transfers", str(AT_ONCE)]
        return [self._command(RCLONE, lambda prefix: [*command, f":s3:{BUCKET}/{prefix}", *every])]


def rows() -> dict[str, Callable[[Lab], Row]]:
    """The rows, by name."""
    return {"push-small": small, "push-large": large, "push-twenty": twenty}


def small(lab: Lab) -> Row:
    """All nodes, files of 64 KiB."""
    return _row(lab, "push-small", NODES, SMALL, lab.samples(5, 2))


def large(lab: Lab) -> Row:
    """All nodes, files of 16 MiB."""
    return _row(lab, "push-large", NODES, QUICK_LARGE if lab.quick else LARGE, lab.samples(2, 1))


def twenty(lab: Lab) -> Row:
    """One node, files of 16 MiB."""
    return _row(lab, "push-twenty", 1, LARGE, lab.samples(3, 2))


def _row(lab: Lab, name: str, nodes: int, size: int, samples: int) -> Row:
    scene = Scene(lab, nodes, size)
    sides, notes = scene.sides()
    ours = [side.name for side in sides if side.name.startswith(OURS)]
    few = size < MIB
    comparisons = []
    for side in ours:
        if few:
            aimed = side != OURS_NARROW  # which needs eight round trips
            comparisons.append(Comparison(side, measure="p99", aim=SMALL_P99 if aimed else None))
            comparisons.append(Comparison(side, aim=SMALL_TOTAL if aimed else None))
        aim = SMALL_SPEED if few else 1.0
        comparisons += [Comparison(side, other.name, "speed", aim) for other in sides if other.name not in ours]
    comparisons = comparisons or [Comparison(sides[0].name)]
    count = nodes * EACH
    sizes = f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"
    way = round(1000 * scene.afar.delay)
    title = f"{count} files of {sizes} to an S3 server {way} ms away (each way), {nodes} senders at once"
    return Row(
        *(name, title, sides, comparisons, samples, count, "files"),
        touched=count * size,
        notes=[*notes, *NOTES],
        remarks=_cpu,
        figures=FIGURES,
    )


def _cpu(measured: Measured) -> Sequence[str]:
    each = [f"{side} {len(samples)}" for side, samples in measured.samples.items()]
    return [f"Samples: {', '.join(each)}."]
