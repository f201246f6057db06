"""Commands: how they end, what is kept of what they said, and that nothing of them stays."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from conftest import wait_for

from s4raw import spawning
from s4raw.errors import Cancelled, CommandFailed, ConnectionLost, KeyExists, S4Error, StoreError, UsageError
from s4raw.procs import STDERR_TAIL, Cancellation, Command, Outcome, Slots, run

LONG = 600.0  # seconds; no test waits for it
PATIENCE = (0.3, 3, 30)  # the time of a command that is to run out of it; a slow machine gets more, to get that far


@pytest.fixture
def cancellation() -> Iterator[Cancellation]:
    with closing(Cancellation()) as found:
        yield found


@pytest.fixture(params=["posix_spawn", "Popen"])
def bash(tmp_path: Path, cancellation: Cancellation, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Runs a command in the test's directory: ``bash("wc -c", stdin=b"...")``."""
    monkeypatch.setattr(spawning, "AVAILABLE", request.param == "posix_spawn")

    def start(text: str, stdin: bytes = b"", seconds: float = LONG, stdout: str | None = None, **options) -> Outcome:
        (tmp_path / "stdin").write_bytes(stdin)
        output = os.open(tmp_path / stdout, os.O_CREAT | os.O_WRONLY) if stdout else None
        source = os.open(tmp_path / "stdin", os.O_RDONLY)
        try:
            cwd = options.pop("cwd", str(tmp_path))
            environment = options.pop("environment", {b"PATH": os.environb[b"PATH"]})
            command = Command(text, cwd, environment, seconds, source, output)
            ending = options.pop("cancellation", cancellation)
            return run(command, ending, **options)
        finally:
            os.close(source)
            if output is not None:
                os.close(output)

    return start


class Heard(list):
    """What a sink was given."""

    @property
    def all(self) -> bytes:
        return b"".join(self)


def gone(pid: int) -> bool:
    """Whether a process has ended (its new parent may be slow to collect it)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def all_gone(path: Path, count: int) -> Iterator[None]:
    """The processes that wrote their numbers, one a line, to a file in the block have ended soon after it."""
    yield
    pids = [int(line) for line in path.read_text().split()]
    assert len(pids) == count
    for pid in pids:
        wait_for(lambda pid=pid: gone(pid), f"process {pid} to end")


# How it ends


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("true", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("false; true", 1),
        ("false | true", 1),
        ("(exit 4) | true | true", 4),
        ("test -n $nothing; true", 1),
        ("no-such-command", 127),
        ("if", 2),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
        ("kill -SEGV $$", 128 + 11),
        ("bash -c 'kill -KILL $$'", 128 + 9),
        ("yes | head -n 1", 128 + 13),
        ("exec >&- 2>&-; sleep 0.1; exit 5", 5),
        ("exec <&-; exit 6", 6),
        ("--version", 127),
        ("", 0),
    ],
)
def test_the_exit_code_is_the_commands(bash, text, status):
    outcome = bash(text, on_stdout=Heard().append)
    assert (outcome.status, outcome.timed_out) == (status, False)


def test_stdin_is_the_file_and_stdout_goes_straight_to_one(bash, tmp_path):
    assert bash("cat; readlink /proc/self/fd/0", stdin=b"\0\xff input\n", stdout="out").status == 0
    assert (tmp_path / "out").read_bytes() == b"\0\xff input\n" + f"{tmp_path}/stdin\n".encode()


def test_a_command_gets_the_directory_the_environment_and_the_descriptors_it_is_given(bash, tmp_path):
    out = Heard()
    os.mkdir(tmp_path / "cwd")
    with open(tmp_path / "secret", "w"), socket.socket() as sock:
        bash(
            "pwd; echo $filename; readlink /proc/$$/fd/*",
            cwd=str(tmp_path / "cwd"),
            environment={b"PATH": os.environb[b"PATH"], b"filename": b"a b*"},
            on_stdout=out.append,
        )
        hidden = {str(tmp_path / "secret"), os.readlink(f"/proc/self/fd/{sock.fileno()}")}
    directory, name, stdin, *others = out.all.decode().splitlines()
    assert (directory, name, stdin) == (str(tmp_path / "cwd"), "a b*", str(tmp_path / "stdin"))
    assert not hidden & set(others)


def test_the_process_stays_in_its_directory_whatever_its_threads_run(bash, tmp_path):
    before = os.getcwd()
    assert bash("pwd", stdout="out").status == 0
    assert (tmp_path / "out").read_text() == f"{tmp_path}\n"
    assert os.getcwd() == before


def test_a_command_does_not_ignore_what_python_ignores(bash, tmp_path):
    assert bash("grep SigIgn /proc/self/status", stdout="out").status == 0
    assert int((tmp_path / "out").read_text().split()[1], 16) & (1 << 12 | 1 << 24) == 0  # SIGPIPE, SIGXFSZ
    assert bash("yes | head -1").status == 128 + signal.SIGPIPE


def test_a_command_is_a_process_group_of_its_own(bash):
    out = Heard()
    bash("cut -d' ' -f5 /proc/$$/stat; echo $$", on_stdout=out.append)
    group, pid = map(int, out.all.split())
    assert group == pid != os.getpgrp()


# What it says


def test_output_of_any_size_is_passed_on_in_order(bash):
    out, err = Heard(), Heard()
    script = "seq 1 400000; seq 1 200000 >&2; seq 400001 800000"
    assert bash(script, on_stdout=out.append, on_stderr=err.append)[:3] == (0, b"", False)
    assert out.all == b"".join(b"%d\n" % number for number in range(1, 800001))
    assert err.all == b"".join(b"%d\n" % number for number in range(1, 200001))


def test_both_outputs_at_once_never_block_each_other(bash):
    out, err = Heard(), Heard()
    script = "head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2 & wait"
    bash(script, on_stdout=out.append, on_stderr=err.append)
    assert (len(out.all), len(err.all)) == (3_000_000, 3_000_000)


@pytest.mark.parametrize("size", [0, 1, STDERR_TAIL - 1, STDERR_TAIL, STDERR_TAIL + 1, 10 * STDERR_TAIL])
def test_the_end_of_stderr_is_kept(bash, size):
    outcome = bash(f"head -c {size} /dev/zero >&2; printf end >&2; exit 7", stdout="out")
    assert outcome[:3] == (7, (bytes(size) + b"end")[-STDERR_TAIL:], False)
    assert STDERR_TAIL == 64 << 10


def test_the_end_of_stderr_is_kept_when_the_time_is_up(bash):
    for seconds in PATIENCE:
        outcome = bash("printf before >&2; sleep 1000", seconds=seconds, stdout="out")
        if outcome.stderr:
            break
    assert outcome[:3] == (137, b"before", True)


def test_the_output_of_a_process_substitution_is_complete(bash, tmp_path):
    script = "seq 1 50000 > >(sleep 0.3; cat > copy); echo parent; seq 1 3 | tee >(sleep 0.2; sort -r >&2) > /dev/null"
    out = Heard()
    outcome = bash(script, on_stdout=out.append)
    assert outcome[:3] == (0, b"3\n2\n1\n", False)
    assert out.all == b"parent\n"
    assert (tmp_path / "copy").read_bytes() == b"".join(b"%d\n" % number for number in range(1, 50001))


# That nothing stays

SURVIVORS = {
    "a process in the background": "sleep 1000 & echo $! $$ >> pids; wait",
    "a grandchild": "bash -c 'sleep 1000 & echo $! $$ >> pids; wait' & wait",
    "one that ignores signals": "trap '' TERM INT HUP; echo $$ >> pids; sleep 1000 & echo $! >> pids; wait",
    "one that is stopped": "sleep 1000 & echo $! $$ >> pids; kill -STOP $$",
    "one that has stopped talking": "exec >&- 2>&-; sleep 1000 & echo $! $$ >> pids; wait",
    "one that never stops talking": "yes & echo $! $$ >> pids; wait",
    "a pipeline": "sleep 1000 | (echo $BASHPID $$ >> pids; cat)",
}


@pytest.mark.parametrize("text", SURVIVORS.values(), ids=SURVIVORS)
def test_when_the_time_is_up_the_whole_group_is_killed(bash, tmp_path, text):
    for seconds in PATIENCE:
        (tmp_path / "pids").unlink(missing_ok=True)
        outcome = bash(text, seconds=seconds, on_stdout=lambda _: None)
        assert (outcome.status, outcome.timed_out) == (137, True)
        if (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2:
            break
    with all_gone(tmp_path / "pids", 2):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "sleep 1000 >/dev/null 2>&1 & echo $! > pids",
        "nohup sleep 1000 >/dev/null 2>&1 & echo $! > pids",
        "(trap '' TERM HUP; sleep 1000 >/dev/null 2>&1 & echo $! > pids)",
        "sleep 1000 >/dev/null 2>&1 & echo $! > pids; exit 3",
    ],
)
def test_what_a_command_leaves_in_the_background_is_killed(bash, tmp_path, text):
    with all_gone(tmp_path / "pids", 1):
        outcome = bash(text, on_stdout=Heard().append)
        assert (outcome.status, outcome.timed_out) == (3 * text.endswith("exit 3"), False)


def test_a_call_that_has_ended_kills_its_commands(bash, cancellation, tmp_path):
    said = threading.Event()

    def end() -> None:
        said.wait(100)
        cancellation.set(KeyExists("another task failed"))

    thread = threading.Thread(target=end)
    thread.start()
    try:
        with all_gone(tmp_path / "pids", 2), pytest.raises(KeyExists, match="another task failed"):
            bash("sleep 1000 & echo $! $$ > pids; echo; wait", on_stdout=lambda _: said.set())
    finally:
        said.set()
        thread.join()


def test_a_call_that_has_ended_already_runs_nothing_to_its_end(bash, cancellation, tmp_path):
    cancellation.set(Cancelled("ended"))
    with pytest.raises(Cancelled):
        bash("sleep 1000; touch done", stdout="out")
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("sink", ["on_stdout", "on_stderr"])
def test_a_callback_that_raises_ends_the_command(bash, tmp_path, sink):
    def refuse(data: bytes) -> None:
        raise ConnectionLost(data.decode())

    sinks = {"on_stdout": Heard().append, "on_stderr": Heard().append, sink: refuse}
    to = ">&2" if sink == "on_stderr" else ""
    with all_gone(tmp_path / "pids", 2), pytest.raises(ConnectionLost, match="hello"):
        bash(f"sleep 1000 & echo $! $$ > pids; printf hello {to}; wait", **sinks)


def test_a_callback_that_raises_at_the_very_end_leaves_nothing(bash):
    def refuse(_: bytes) -> None:
        raise ConnectionLost("gone")

    for _ in range(20):
        with pytest.raises(ConnectionLost):
            bash("printf hello", on_stdout=refuse)


def test_a_caller_that_leaves_is_noticed_however_much_the_command_says(bash, tmp_path):
    ours, theirs = socket.socketpair()

    def tick() -> None:
        raise ConnectionLost("the client left")

    with ours, theirs, all_gone(tmp_path / "pids", 2), pytest.raises(ConnectionLost, match="the client left"):
        script = "sleep 1000 & echo $! $$ > pids; while sleep 0.1; do echo; done"
        bash(script, on_stdout=lambda _: theirs.close(), tick=tick, caller=ours.fileno())


def test_a_long_command_ticks(bash):
    ticks = []

    def tick() -> None:
        ticks.append(1)
        raise ConnectionLost("noticed in a tick")

    with pytest.raises(ConnectionLost):
        bash("sleep 1000", on_stdout=Heard().append, tick=tick)
    assert ticks == [1]


@pytest.mark.parametrize(
    ("text", "options", "error"),
    [
        ("true", {"cwd": "/no/such/directory"}, StoreError),
        ("true " + "x" * (1 << 20), {}, S4Error),
        ("true\0false", {}, UsageError),
        ("true\udcff\ud800", {}, UsageError),
    ],
    ids=["no directory", "too long", "NUL", "no UTF-8"],
)
def test_a_command_that_cannot_be_started_is_told(bash, text, options, error):
    with pytest.raises(error, match="cannot start"):
        bash(text, stdout="out", **options)


# Slots and cancellations


@pytest.fixture
def slots():
    """Makes slots that are closed at the end: ``slots(3)``."""
    with ExitStack() as stack:
        yield lambda count: stack.enter_context(closing(Slots(count)))


def test_no_more_than_so_many_hold_a_slot_at_once(slots):
    slots, holding, most, lock = slots(3), 0, [], threading.Lock()

    def work() -> None:
        nonlocal holding
        for _ in range(50):
            with slots.take(lambda: None):
                with lock:
                    holding += 1
                    most.append(holding)
                with lock:
                    holding -= 1

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 3
    assert len(most) == 500


def test_whoever_waits_for_a_slot_can_give_up_and_a_failure_gives_it_back(slots):
    slots = slots(1)

    def give_up() -> None:
        raise Cancelled("no longer wanted")

    with slots.take(lambda: None), pytest.raises(Cancelled), slots.take(give_up):
        pass
    with pytest.raises(CommandFailed), slots.take(lambda: None):
        raise CommandFailed("x")
    with slots.take(give_up):
        pass


def test_the_first_error_of_a_call_is_the_one_that_counts(cancellation):
    cancellation.check()
    for message in ("first", "second"):
        cancellation.set(Cancelled(message))
    with pytest.raises(Cancelled, match="first"):
        cancellation.check()
