"""What the unit tests share: a store in a directory, child processes with a task, file systems of their own."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from s4raw.blocks import Record
from s4raw.digest import Digest
from s4raw.disk import DataDirectory
from s4raw.keys import Entry, Key
from s4raw.store import Store

TASKS = Path(__file__).with_name("tasks.py")

# Property tests measure no time, not even hypothesis's own.
timeless = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@contextmanager
def opened(path: Path | str) -> Iterator[Store]:
    """The store in a data directory, which is made if it is not there."""
    data = DataDirectory(str(path))
    try:
        yield Store(data)
    finally:
        data.close()


def record_of(content: bytes) -> Record:
    """The record of a key with this content."""
    state = Digest()
    state.update(content)
    return Record.of(state)


def put(store: Store, key: Key, content: bytes, publish: Callable[[int, Key, Record], None] | None = None) -> None:
    """Store bytes under a key, with ``store.publish`` or, if that is given, with ``store.replace``."""
    with store.draft() as fd:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        (publish or store.publish)(fd, key, record_of(content))


def get(store: Store, key: Key) -> bytes:
    """A key's bytes, verified."""
    stored = store.open(key)
    with open(stored.fd, "rb") as file:
        content = file.read()
    assert stored.record == record_of(content)
    return content


def names(store: Store, bucket: str = "b", prefix: str = "", recursive: bool = True) -> list[str]:
    """The names in a listing, in its order."""
    return [entry.name for entry in store.list(Key(bucket, prefix), recursive)]


def entries(store: Store, prefix: str = "", recursive: bool = False) -> list[Entry]:
    """A listing of the bucket b."""
    return list(store.list(Key("b", prefix), recursive))


@contextmanager
def restless() -> Iterator[None]:
    """Let threads take turns after a few instructions, so that what can go wrong between them does."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def at_once(*actions: Callable[[], object]) -> None:
    """Do things in threads that start together; raise what the first of them to fail raised."""
    start, errors = threading.Barrier(len(actions)), []

    def run(action: Callable[[], object]) -> None:
        start.wait()
        try:
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[action]) for action in actions]
    with restless():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def left_over(root: Path | str) -> list[str]:
    """What lies in a data directory's place for temporary files."""
    return os.listdir(os.path.join(root, "_tmp"))


def start_task(name: str, *arguments: object, **options: object) -> "subprocess.Popen[bytes]":
    """Start a child that runs a function of ``tasks.py``; the caller waits for it."""
    return subprocess.Popen(
        [sys.executable, str(TASKS), name, *map(str, arguments)], **{"stdout": subprocess.PIPE, **options}
    )


def run_task(name: str, *arguments: object, **options: object) -> str:
    """Run a function of ``tasks.py`` in a child; what it printed. It must succeed."""
    with start_task(name, *arguments, **options) as child:
        output, _ = child.communicate(timeout=100)
        assert child.returncode == 0, output
        return output.decode()


def run_task_on(kind: str, options: str, name: str, mount: Path, tasks: Path = TASKS) -> str:
    """Run a function of a file of tasks in a mount namespace of its own, with a fresh file system at ``mount``."""
    mount.mkdir()
    apart = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.getuid() else []), "bash", "-c"]
    script = 'mount -t "$1" -o "$2" none "$3" || exit 77; exec "${@:4}"'
    task = [sys.executable, str(tasks), name, str(mount)]
    command = [*apart, script, "bash", kind, options, str(mount), *task]
    done = subprocess.run(command, capture_output=True, timeout=100, check=False)
    if done.returncode == 77 or b"unshare" in done.stderr:
        pytest.skip(f"cannot mount {kind}: {done.stderr.decode().strip()}")
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()
