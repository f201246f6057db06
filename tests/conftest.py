"""Rings of real server processes, the real command line, and a leak check around every test."""

import gc
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from s4raw.client import Ring
from s4raw.local import LocalRing
from s4raw.serving import SPARE_SECONDS

pytest.register_assert_rewrite("objects_conformance", "objects_conformance_uploads", "objects_model", "objects_support")

CLI = [sys.executable, "-m", "s4raw"]
SETTLE_SECONDS = 20.0
TIME_WAIT = "06"  # in /proc/net/tcp: of such sockets, which no process has, there are thousands


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait a good deal, for processes and for times to pass."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that take long come first, so that none of them goes on alone when all the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """What was imported and collected stays, and is left out when garbage is looked for."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Say how the tests ended, beside pytest's own list of those that failed: 1 if all have run, and some failed."""
    cache = getattr(session.config, "cache", None)
    if cache and not hasattr(session.config, "workerinput"):
        cache.set("s4raw/exit", int(exitstatus))


def wait_for(condition: Callable[[], object], what: str = "", seconds: float = SETTLE_SECONDS) -> None:
    """Wait until ``condition()`` is true; fail when it is not after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {seconds} s: {what or condition}")
        time.sleep(0.01)


def names(directory: str) -> list[str]:
    """What lies in a directory of /proc; nothing when the process has gone."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, ProcessLookupError):
        return []


def descriptors(pid: int) -> dict[str, str]:
    """The open descriptors of a process and what they are."""
    found = {}
    for name in names(f"/proc/{pid}/fd"):
        try:
            found[name] = os.readlink(f"/proc/{pid}/fd/{name}")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def thread_count(pid: int) -> int:
    """The threads of a process."""
    return len(names(f"/proc/{pid}/task"))


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    found = []
    for task in names(f"/proc/{pid}/task"):
        try:
            found += [int(child) for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def tcp_ends() -> dict[str, tuple[int, int]]:
    """The local and the remote port of every TCP socket of this machine that a process may have, by inode."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] != TIME_WAIT:
            found[words[9]] = (int(words[1].split(":")[1], 16), int(words[2].split(":")[1], 16))
    return found


def socket_inodes(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    return inodes_of(descriptors(pid))


def inodes_of(files: dict[str, str]) -> set[str]:
    """The inodes of the sockets among open descriptors."""
    return {what[len("socket:[") : -1] for what in files.values() if what.startswith("socket:[")}


def rss(pid: int) -> int:
    """The resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


Held = tuple[int, dict[str, str], list[int]]  # the threads of a process, its descriptors, its children


class TestRing(LocalRing):
    """A ring that can tell whether it is at rest, with nothing left over from what went before."""

    __test__ = False

    def start(self) -> None:
        super().start()
        wait_for(lambda: all(thread_count(process.pid) == 1 for process in self.processes), "health checks to end")
        self.at_rest = {process.pid: len(descriptors(process.pid)) for process in self.processes}
        self._rested: dict[int, Held] = {}

    def tmp_names(self) -> list[str]:
        """What lies in the servers' temporary directories."""
        return [str(path) for index in range(self.count) for path in Path(self.data, str(index), "_tmp").iterdir()]

    def _held(self) -> dict[int, Held]:
        """What the servers that still run hold."""
        running = [process.pid for process in self.processes if process.poll() is None and process.pid in self.at_rest]
        return {pid: (thread_count(pid), descriptors(pid), children(pid)) for pid in running}

    def _rests(self, held: dict[int, Held]) -> bool:
        """Whether they hold no more than when they started, or what they held when it was found to be no leak."""
        return held == self._rested or all(
            threads <= 1 and len(files) <= self.at_rest[pid] and not jobs
            for pid, (threads, files, jobs) in held.items()
        )

    def leaks(self) -> list[str]:
        """What the servers that still run hold beyond what they held when they started, and what they may keep."""
        held = self._held()
        found = [] if self._rests(held) else self._beyond(held)
        if not found:
            self._rested = held
        return found + [f"temporary {name}" for name in self.tmp_names()]

    def _beyond(self, held: dict[int, Held]) -> list[str]:
        """What they hold too much. Sockets between servers are none of it: they are kept for the next shuffle."""
        found = []
        ends = tcp_ends()
        sockets = {pid: inodes_of(files) & ends.keys() for pid, (_, files, _) in held.items()}
        pairs = {ends[inode] for inodes in sockets.values() for inode in inodes}
        ports = {int(server.rpartition(":")[2]) for server in self.servers}
        for pid, (threads, files, jobs) in held.items():
            kept = {inode for inode in sockets[pid] if ends[inode][::-1] in pairs}
            accepted = sum(1 for inode in kept if ends[inode][0] in ports)
            if threads > 1 + accepted:
                found.append(f"server {pid} has {threads} threads, {accepted} for kept connections")
            if len(files) > self.at_rest[pid] + len(kept):
                found.append(f"server {pid} has descriptors {files}")
            if jobs:
                found.append(f"server {pid} has children {jobs}")
        return found

    def check_leaks(self) -> None:
        """Fail unless the servers come to rest."""
        try:
            with suppress(AssertionError):  # mostly they do at once: to find out what they may keep takes long
                wait_for(lambda: self._rests(self._held()), seconds=2 * SPARE_SECONDS)
            wait_for(lambda: not self.leaks())
        except AssertionError:
            raise AssertionError(f"leaked: {self.leaks()}") from None

    def log(self, index: int) -> str:
        """What a server has logged."""
        return Path(self._log(index)).read_text()


@pytest.fixture
def new_ring(tmp_path: Path) -> Iterator[Callable[..., TestRing]]:
    """Starts rings of the test's own: ``new_ring(count=3, options=["--max-cpu-jobs", "1"])``."""
    rings: list[TestRing] = []

    def start(count: int = 3, options: tuple[str, ...] | list[str] = (), name: str = "ring") -> TestRing:
        ring = TestRing(count, str(tmp_path / f"{name}{len(rings)}"), options)
        rings.append(ring)
        ring.start()
        return ring

    try:
        yield start
        for ring in rings:
            if ring.processes:
                ring.check_leaks()
    finally:
        for ring in rings:
            ring.stop()


@pytest.fixture(scope="session", autouse=True)
def _remove_deep_trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keys may be nested more deeply than pytest's own cleaning up of old directories can follow."""
    yield
    subprocess.run(["rm", "-rf", str(tmp_path_factory.getbasetemp())], check=False)


@pytest.fixture(scope="session")
def _session_ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRing]:
    with TestRing(3, str(tmp_path_factory.mktemp("ring"))) as ring:
        yield ring


@pytest.fixture
def ring(_session_ring: TestRing) -> Iterator[TestRing]:
    """Three servers, shared by the tests of this process; empty at the start of each."""
    with _session_ring.client() as client:
        for bucket in list(client.list("s4://")):
            client.remove_all(f"s4://{bucket.name}")
    yield _session_ring
    _session_ring.check_leaks()


@pytest.fixture
def client(ring: TestRing) -> Iterator[Ring]:
    """A client of the shared ring."""
    with ring.client() as found:
        yield found


@pytest.fixture
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device like /dev/null; not /dev/null itself, which a defect could replace, unless only root could."""
    path = tmp_path_factory.mktemp("device") / "null"
    if os.geteuid():
        return Path(os.devnull)
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    try:
        path.write_bytes(b"")
    except PermissionError:
        pytest.skip("devices do not work on this file system")
    return path


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def s4raw(ring: TestRing, tmp_path: Path) -> Run:
    """Runs the command line against the shared ring, in the test's own directory; fails unless it exits as expected."""
    return cli_runner(ring, tmp_path)


def cli_runner(ring: TestRing, cwd: Path) -> Run:
    """A function that runs ``s4raw ARGUMENTS`` against a ring: ``run("ls", "-r", "s4://b", code=1)``."""

    def run(
        *arguments: str, input: bytes = b"", code: int = 0, env: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        environment = {**os.environ, "S4_CONF_PATH": ring.conf, **(env or {})}
        done = subprocess.run(
            [*CLI, *arguments], input=input, capture_output=True, cwd=cwd, env=environment, timeout=100, check=False
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        if code and done.returncode != 130 and not (arguments[0] == "ls" and code == 1):
            assert done.stderr, "a failure without a word"
        return done

    return run


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a thread, a descriptor or a child process behind in its own process."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    if "_session_ring" in request.fixturenames or parameters.get("place") == "ring":
        request.getfixturevalue("_session_ring")  # what the session keeps is no leak
    before = (threading.active_count(), len(descriptors(os.getpid())), set(children(os.getpid())))
    yield
    now = (threading.active_count(), len(descriptors(os.getpid())), set(children(os.getpid())))
    assert now[0] <= before[0], f"threads leaked: {threading.enumerate()}"
    assert now[1] <= before[1], f"descriptors leaked: {descriptors(os.getpid())}"
    assert now[2] <= before[2], f"processes leaked: {now[2] - before[2]}"
