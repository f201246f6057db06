"""What the unit tests do in child processes: ``python tasks.py NAME ARGUMENTS``."""

import os
import random
import resource
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from objects_support import Body, etag_of, read
from objects_support import put as put_object
from support import get, left_over, names, opened, put, record_of

from s4raw.digest import LEAF, digest
from s4raw.disk import disk_errors
from s4raw.errors import (
    BucketNotEmpty,
    ConfError,
    DiskFull,
    KeyExists,
    NoSuchBucket,
    NoSuchKey,
    PreconditionFailed,
    StoreError,
)
from s4raw.keys import Key
from s4raw.objects.base import Attributes, Conditions
from s4raw.objects.local import LocalBackend, open_local
from s4raw.objects.publishing import publish as publish_object
from s4raw.progress import QUIET_SECONDS, ProgressLine
from s4raw.store import Store
from s4raw.uploads import Uploads

NOBODY = 65534


def content_of(name: str) -> bytes:
    """A content made from a key's name, of many sizes."""
    return name.encode() * (len(name) ** 4 % 4001)


def publish_forever(root: str, run: str) -> None:
    """Put keys, make way for directories and remove keys, until killed; say so before and after each step."""

    def step(verb: str, name: str) -> None:
        os.write(1, f"{verb} {name}\n".encode())
        if verb == "put":
            put(store, Key("b", name), content_of(name))
        else:
            store.remove(Key("b", name))
        os.write(1, f"done {name}\n".encode())

    with opened(root) as store:
        for number in range(1_000_000):
            for below in ("", "/" + "x" * (1 + number % 300), "/y/z"):
                step("put", f"{run}/{number}{below}")
            step("remove", f"{run}/{number}/y/z")


def move_forever(root: str) -> None:
    """Move the ten keys of a store to ever other names, until killed; say so after each step."""
    with opened(root) as store:
        where = {name.split("/")[0]: name for name in names(store)}
        for turn in range(1_000_000):
            for key, name in where.items():
                where[key] = f"{key}/{turn}/x" if name == key else key
                store.move(Key("b", name), Key("b", where[key]))
                os.write(1, b"moved\n")


def put_again_between_link_and_unlink(root: str) -> None:
    """Delete a key and put it again in the middle of its move: the move has failed, and the new key is there."""
    with opened(root) as store:
        key, target = Key("b", "k"), Key("b", "moved")
        put(store, key, b"old")
        link = store._link

        def link_late(fd: int, path: list[str], name: Key) -> None:
            link(fd, path, name)
            if name == target:
                store.remove(key)
                put(store, key, b"new")

        store._link = link_late
        try:
            store.move(key, target)
        except NoSuchKey:
            assert names(store) == ["k"], names(store)
            assert get(store, key) == b"new"
        else:
            raise AssertionError("moved what was deleted")


def put_objects_forever(root: str) -> None:
    """Replace, tag and delete objects with short and with long attributes, until killed; say so after each step."""
    with opened_objects(root) as backend:
        backend.create_bucket("b")
        for number in range(1_000_000):
            for name in ("k", "k/below", "other"):
                key, content = Key("b", name), content_of(f"{name} {number}")
                put_object(
                    backend, key, content, metadata={"etag": etag_of(content), "long": "x" * (number % 3 * 1000)}
                )
                backend.tag(key, {"number": f"{number}"})
                os.write(1, b"put\n")
            backend.delete(Key("b", "k/below"))


def count_together(root: str, workers: str, steps: str) -> None:
    """Count in an object, in several processes: each put only replaces what its process has read."""
    with opened_objects(root) as backend:
        key, each = Key("b", "dir/count"), int(steps)
        backend.create_bucket("b")
        put_object(backend, key, b"0")

        def count() -> None:
            for _ in range(each):
                while True:
                    before = read(backend, key)
                    given = Conditions(if_match=[etag_of(before)])
                    try:
                        put_object(backend, key, b"%d" % (int(before) + 1), given)
                    except PreconditionFailed:
                        continue
                    break

        together(*[count] * int(workers))
        assert read(backend, key) == b"%d" % (int(workers) * each)


def delete_bucket_and_put(root: str, steps: str) -> None:
    """Make and delete a bucket while another process puts: what was put is there, or there was no bucket."""
    with opened_objects(root) as backend:
        backend.create_bucket("b")

        def come_and_go() -> None:
            for _ in range(int(steps)):
                backend.create_bucket("b")
                with suppress(BucketNotEmpty):
                    backend.delete_bucket("b")

        def fill() -> None:
            for step in range(int(steps)):
                key = Key("b", f"dir{step}/k")
                try:
                    put_object(backend, key, b"x")
                except NoSuchBucket:
                    assert not backend.store.exists(key)
                    continue
                assert os.path.exists(os.path.join(root, "_s3", "buckets", "b"))
                assert read(backend, key) == b"x"
                assert backend.delete(key)

        together(come_and_go, fill, lambda: None)


def become_nobody() -> None:
    """Go on as an ordinary user; nothing for those who are one already."""
    with suppress(PermissionError):
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def do_it_all_as_nobody(top: str) -> None:
    """Put, replace, tag and copy as an ordinary user, whom the mode of a file binds."""
    become_nobody()
    with opened_objects(os.path.join(top, "data")) as backend:
        key, ring = Key("b", "k"), Key("b", "ring")
        backend.create_bucket("b")
        put(backend.store, ring, b"ring")
        for metadata in ({"a": "b"}, {"a": "x" * 3000}):
            put_object(backend, key, b"x", metadata=metadata)
            for tagged in (key, ring):
                backend.tag(tagged, metadata)
                assert backend.head(tagged).attributes.tags == metadata
                assert stat.S_IMODE(os.stat(backend.store.path(tagged)).st_mode) == 0o444
        with backend.store.draft() as fd:
            os.fchmod(fd, 0o444)  # as an attempt that failed may leave it
            publish_object(backend.store, fd, key, record_of(b""), Attributes(etag_of(b"")))
        backend.copy(key, ring)
        assert backend.head(ring).size == 0
        assert backend.delete(key)


def fill_with_objects(root: str) -> None:
    """Replace objects with larger ones until the disk is full: what was there before is still there."""
    with opened_objects(root) as backend:
        backend.create_bucket("b")
        sizes = {}
        for turn in range(1, 100):
            key, size = Key("b", f"dir/{turn % 5}"), turn * 10_000
            try:
                put_object(backend, key, bytes(size), metadata={"a": "x" * 3000})
            except DiskFull:
                break
            sizes[key] = size
        else:
            raise AssertionError("the disk never was full")
        assert {key: backend.head(key).size for key in sizes} == sizes
        assert not left_over(root)
        assert len(os.listdir(os.path.join(root, "_s3", "attributes"))) == len(sizes)


@contextmanager
def opened_objects(root: str) -> Iterator[LocalBackend]:
    """The objects in a data directory."""
    backend = open_local(root)
    try:
        yield backend
    finally:
        backend.close()


def replace_forever(root: str) -> None:
    """Replace keys again and again, some of which become directories in between, until killed; say so after each."""
    with opened(root) as store:
        for number in range(1_000_000):
            for name in ("k", "k/below", f"new/{number % 7}"):
                put(store, Key("b", name), content_of(f"{name} {number}"), store.replace)
                os.write(1, f"{name} {number}\n".encode())
            if number % 3 == 0:
                store.remove(Key("b", "k/below"))


def replace_together(root: str, steps: str) -> None:
    """Replace a key in one process, while others replace, put, remove and prune what lies beside and below it.

    Whoever reads it finds one of its contents, at every moment, and what a process has put it finds again.
    """
    with opened(root) as store:
        key, count = Key("b", "a/k"), int(steps)
        put(store, key, b"0" * 5000, store.replace)

        def replace(digit: bytes) -> None:
            for _ in range(count):
                put(store, key, digit * 5000, store.replace)

        def read() -> None:
            for _ in range(3 * count):
                content = get(store, key)
                assert content == content[:1] * 5000, content[:9]

        def churn_below(name: str) -> None:
            for step in range(count):
                below = key.join(f"{name}/{step % 3}")
                put(store, below, b"below")
                put(store, below, b"replaced", store.replace)
                assert get(store, below) == b"replaced"
                store.remove(below)

        def come_and_go() -> None:
            mine = Key("b", "other/dir/k")
            for step in range(count):
                put(store, mine, b"%d" % step, store.replace)
                assert get(store, mine) == b"%d" % step
                store.remove(mine)

        together(lambda: replace(b"1"), lambda: replace(b"2"), read, lambda: churn_below("x"), come_and_go)
        assert not left_over(root)
        assert names(store) == [key.name]


def together(*actions: Callable[[], object]) -> None:
    """Do things in processes of their own, all at once; none may fail."""
    children = []
    for action in actions:
        child = os.fork()
        if not child:
            status = 1
            try:
                action()
                status = 0
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        children.append(child)
    assert not [child for child in children if os.waitpid(child, 0)[1]]


def churn_together(root: str, workers: str, steps: str) -> None:
    """Let processes put and remove keys in the same directories, all at once."""
    with opened(root) as store:
        together(*[lambda seed=seed: churn(store, seed, int(steps)) for seed in range(int(workers))])
        assert not left_over(root)
        for name in names(store):
            store.remove(Key("b", name))
        assert sorted(os.listdir(root)) == ["_drafts", "_format", "_lock", "_removals", "_tmp"]


def churn(store: Store, seed: int, steps: int) -> None:
    """Put, see and remove keys of one's own between those of others, and fight over common ones."""
    dice = random.Random(seed)
    fought_over = [Key("b", name) for name in ("a", "a/b", "a/b/c", "a/b/c/d")]
    for step in range(steps):
        mine = [Key("b", f"{directory}/{seed}") for directory in ("a", "a/b", "a/b/c", f"d{step % 3}/e")]
        for key in mine:
            put(store, key, content_of(str(key)))
        for key in mine:
            assert get(store, key) == content_of(str(key)), key
            assert key.name in names(store, "b", key.name), key
        for _ in range(4):
            try:
                key = dice.choice(fought_over)
                dice.choice([lambda key: put(store, key, b"common"), lambda key: get(store, key), store.remove])(key)
            except (KeyExists, NoSuchKey):
                continue
        for key in dice.sample(mine, len(mine)):
            store.remove(key)
            assert not store.exists(key), key


def fill(root: str) -> None:
    """Put keys until the disk is full, twice; whatever is there then is whole."""
    with opened(root) as store:
        for _ in range(2):
            held = put_until_full(store)
            assert held > 10
            assert len(names(store)) == held
            for name in names(store):
                assert get(store, Key("b", name)) == bytes(20_000)
            assert not left_over(root)
            assert store.remove_prefix(Key("b", "")) == held


def put_until_full(store: Store) -> int:
    """Put keys of 20,000 bytes until the disk is full; how many it took."""
    for number in range(100_000):
        key = Key("b", f"{number % 7}/{number}")
        try:
            with disk_errors(key):
                put(store, key, bytes(20_000))
        except DiskFull as error:
            assert "full" in error.message
            assert error.key == str(key)
            assert not store.exists(key)
            return number
    raise AssertionError("the disk is never full")


def run_out_of_inodes(root: str) -> None:
    """Use up all inodes with puts of all kinds, then free them again."""
    with opened(root) as store:
        held: list[str] = []
        refused = 0
        for name in (f"{number}{below}" for number in range(1000) for below in ("", "/x", "/y/z")):
            try:
                put(store, Key("b", name), b"content")
                held.append(name)
            except DiskFull:
                refused += 1
            assert names(store) == sorted(held)
            if refused == 10:
                break
        assert not left_over(root), left_over(root)
        for name in held:
            assert get(store, Key("b", name)) == b"content"
            store.remove(Key("b", name))
        assert not list(store.buckets())


def run_out_of_inodes_in_mid_path(root: str) -> None:
    """Fail to make the third of a key's directories."""
    with opened(root) as store:
        spare = 0
        try:
            while True:
                Path(root, "_tmp", str(spare)).touch()
                spare += 1
        except OSError:
            for number in range(spare - 3, spare):
                Path(root, "_tmp", str(number)).unlink()
        try:
            put(store, Key("b", "x/y/z"), b"")
            raise AssertionError("it fits")
        except DiskFull:
            assert sorted(os.listdir(root)) == ["_drafts", "_format", "_lock", "_removals", "_tmp"]


def outgrow_the_file_size_limit(root: str) -> None:
    """Put a key that is larger than the process may write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with opened(root) as store:
        try:
            with disk_errors():
                put(store, Key("b", "large"), bytes(100_001))
            raise AssertionError("it fits")
        except DiskFull:
            put(store, Key("b", "fits"), bytes(100_000))
        assert names(store) == ["fits"]


def open_unfit(root: str) -> None:
    """Print why the data directory is refused."""
    try:
        with opened(root):
            print("opened")
    except ConfError as error:
        print(error)


def list_with_few_descriptors(root: str) -> None:
    """List a directory that holds many directories, one of them with a name that is cut into pieces."""
    with opened(root) as store:
        keys = [f"{number:03}/x" for number in range(200)] + ["p" * 300]
        for name in keys:
            put(store, Key("b", name), b"")
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        assert names(store) == keys
        assert len(names(store, recursive=False)) == len(keys)


def run_out_of_descriptors(root: str) -> None:
    """Do everything with ever fewer descriptors; what fails must say so, and keep none."""
    with opened(root) as store:
        key, above = Key("b", "a/" + "p" * 300 + "/c/d"), Key("b", "a")
        uses = {
            "put": lambda: put(store, Key("b", "a/new/dir/k"), b"content"),
            "make way": lambda: put(store, above.join("x"), b"content"),
            "get": lambda: get(store, key),
            "path": lambda: store.path(key),
            "exists": lambda: store.exists(key),
            "list": lambda: names(store),
            "list directories": lambda: names(store, recursive=False),
            "buckets": lambda: list(store.buckets()),
            "remove": lambda: store.remove(key),
        }
        for what, use in uses.items():
            for spare in range(12):
                store.remove_prefix(Key("b", ""))
                put(store, above, b"above") if what == "make way" else put(store, key, b"content")
                held = len(os.listdir("/proc/self/fd"))
                try:
                    with at_most_descriptors(spare):
                        use()
                except StoreError as error:
                    assert "Too many open files" in error.message, error
                assert len(os.listdir("/proc/self/fd")) == held, (what, spare)
                assert not left_over(root), (what, spare)


@contextmanager
def at_most_descriptors(spare: int) -> Iterator[None]:
    """Leave the process this many descriptors more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def leave_a_trap(top: str) -> None:
    """As an ordinary user, leave a temp dir with an unwritable directory that holds a symlink to a file outside."""
    become_nobody()
    outside = Path(top, "outside")
    outside.write_text("mine")
    outside.chmod(0o400)
    root = os.path.join(top, "data")
    with opened(root) as store, store.data.scratch() as scratch:
        trap = Path(scratch.path, "trap")
        trap.mkdir()
        (trap / "link").symlink_to(outside)
        trap.chmod(0o500)
    assert not left_over(root), left_over(root)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o400, oct(outside.stat().st_mode)


def show_progress(unit: str, total: str, state: str = "") -> None:
    """Show progress on stderr until a line should have been drawn, and end it."""
    line = ProgressLine("cp", unit, enabled=state != "disabled")
    line.update(0, int(total))
    pauses = 0 if state == "over at once" else 30
    for _ in range(pauses):
        time.sleep(1.5 * QUIET_SECONDS / pauses)
        line.add(1000)
    line.close()


def share_an_upload(root: str) -> None:
    """Processes put the leaves of one upload, some of them twice; it becomes the key."""
    size, upload = 7 * LEAF + 3, bytes(16)
    content = random.Random(1).randbytes(size)

    def send(*indexes: int) -> None:
        for index in indexes:
            leaf = content[index * LEAF : (index + 1) * LEAF]
            with uploads.open(upload, size) as found:
                found.write(index * LEAF)(memoryview(leaf))
                found.record(index * LEAF, digest(leaf))

    with opened(root) as store:
        uploads = Uploads(store)
        with uploads.open(upload, size, make=True):
            pass
        together(lambda: send(0, 1, 2, 3), lambda: send(7, 3, 4), lambda: send(4, 5, 6))
        uploads.commit(upload, size, Key("b", "k"), digest(content))
        assert get(store, Key("b", "k")) == content


PART = 2 * LEAF


def part_of(upload: str, number: int) -> bytes:
    """The content of an upload's part: of one size but for the last, the fifth."""
    return random.Random(f"{upload} {number}").randbytes(PART if number < 5 else PART // 3)


def upload_forever(root: str, pause: str) -> None:
    """Put parts, some of them twice, and complete uploads of them, until killed; say so before and after each."""
    key = Key("bucket", "key")
    with opened_objects(root) as backend:
        backend.create_bucket(key.bucket)
        while True:
            upload = backend.create_upload(key, Attributes())
            print("begun", upload, flush=True)
            parts = {}
            for number in (2, 1, 3, 1, 5, 4, 3):
                content = part_of(upload, number)
                body = Body(content, sized=number != 3, piece=1 << 17, between=lambda: time.sleep(float(pause)))
                parts[number] = backend.put_part(key, upload, number, body)
                print("part", number, flush=True)
            print("completing", upload, flush=True)
            backend.complete(key, upload, [parts[number] for number in sorted(parts)], Attributes(upload))
            print("done", upload, flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
