"""The uploader's parts by themselves: roots, aliases, the log of transfers, Unix sockets, and what systemd is told."""

import os
import socket
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from conftest import wait_for

from s4raw import unix
from s4raw.errors import ConfError, LocalFileError, QueueFull, S4Error, Unreachable
from s4raw.keys import Key
from s4raw.objects.base import Attributes, Info
from s4raw.objects.sources import FileSource
from s4raw.push.aliases import Aliases, Place, parse_alias, read_places
from s4raw.push.deliveries import Deliveries, Delivery
from s4raw.push.protocol import List, parse
from s4raw.push.roots import Roots
from s4raw.push.spread import spread
from s4raw.push.systemd import Notifier
from s4raw.push.transfers import Transfers
from s4raw.push.uploader import Uploader
from s4raw.queue.asking import Flush
from s4raw.queue.backlog import AWAY_AFTER
from s4raw.queue.entries import DELETE, TAG, Limits, Order
from s4raw.queue.queue import Queue
from s4raw.remote.bodies import FileSending
from s4raw.s3.connection import FileBody


@pytest.fixture
def trees(tmp_path):
    """A root, and what lies outside."""
    for name in ("root", "root/dir", "rootless", "outside"):
        (tmp_path / name).mkdir()
    for name in ("root/dir/file", "rootless/file", "outside/file"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def read(roots: Roots, path: Path) -> bytes:
    fd = roots.open(os.fsencode(path))
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def test_a_file_below_a_root_is_read_however_it_is_named(trees):
    (trees / "outside/in").symlink_to(trees / "root/dir")
    (trees / "root-link").symlink_to(trees / "root")
    for root in ("root", "root/", "root/../root", "root-link"):
        roots = Roots([f"{trees}/{root}"])
        for name in ("root/dir/file", "root-link/dir/file", "outside/in/file", "outside/../root//dir/./file"):
            assert read(roots, trees / name) == b"root/dir/file"


@pytest.mark.parametrize(
    "name",
    [
        *("outside/file", "rootless/file", "root/../outside/file", "root/link", "root/way/file"),
        *("outside", "outside/none", "root/way/none", "root/dangling", "outside/file/none", "outside/private/none"),
    ],
)
def test_a_file_that_lies_outside_is_refused_however_it_is_named(trees, name):
    (trees / "root/link").symlink_to(trees / "outside/file")
    (trees / "root/way").symlink_to(trees / "outside")
    (trees / "root/dangling").symlink_to(trees / "outside/none")
    (trees / "outside/private").mkdir(mode=0)
    with pytest.raises(LocalFileError, match="allow-root"):
        read(Roots([str(trees / "root")]), trees / name)


def test_a_deleted_file_is_refused_and_a_name_that_only_looks_like_one_is_not(trees):
    odd = trees / "root/x (deleted)"
    odd.write_bytes(b"odd")
    assert read(Roots([str(trees / "root")]), odd) == b"odd"
    fd = os.open(trees / "root/dir/file", os.O_RDONLY)
    try:
        (trees / "root/dir/file").unlink()
        with pytest.raises(LocalFileError, match="deleted"):
            read(Roots([str(trees / "root")]), Path(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def test_what_is_no_regular_file_is_refused_and_keeps_nobody_waiting(trees, device):
    os.mkfifo(trees / "root/fifo")
    for path in (trees / "root/fifo", trees / "root/dir", trees / "root/none", device):
        with pytest.raises(LocalFileError):
            read(Roots(), path)
    with pytest.raises(LocalFileError, match="No such file"):
        read(Roots([str(trees / "root")]), trees / "root/none")


def test_a_root_that_is_no_directory_is_a_mistake_in_the_configuration(trees):
    for name in ("none", "outside/file"):
        with pytest.raises(ConfError, match=name):
            Roots([str(trees / name)])


def test_aliases_come_from_options_and_from_a_file_and_options_win(tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", "key")
    monkeypatch.setenv("THE_SECRET", "secret")
    (tmp_path / "push.toml").write_text(
        '[alias.far]\nendpoint = "https://far"\nregion = "r"\naccess_key_env = "THE_KEY"\n'
        'secret_key_env = "THE_SECRET"\n[alias.near]\nring = "/etc/s4.conf"\n[alias.both]\nprofile = "p"\n'
    )
    assert read_places(str(tmp_path / "push.toml"), ["both=http://both", "own=ring:/my.conf"]) == {
        "far": Place(remote={"endpoint": "https://far", "region": "r", "access_key": "key", "secret_key": "secret"}),
        "near": Place(ring="/etc/s4.conf"),
        "both": Place(remote={"endpoint": "http://both"}),
        "own": Place(ring="/my.conf"),
    }


def test_what_was_queued_for_an_alias_that_is_gone_goes_nowhere_else(tmp_path):
    places = {"": Place(ring=str(conf(tmp_path))), "near": Place(ring=str(conf(tmp_path)))}
    aliases = Aliases(places)
    assert aliases.backend(aliases.name("near")) is not aliases.backend(aliases.name("unknown"))
    with pytest.raises(ConfError, match="gone"):
        aliases.backend("gone")
    aliases.close()


@pytest.mark.parametrize("text", ["far", "=http://x", "a/b=http://x", "far=", "far=ftp://x", "a b=http://x"])
def test_an_alias_that_leads_nowhere_is_refused(text):
    with pytest.raises(ConfError):
        parse_alias(text)


@pytest.mark.parametrize(
    "text",
    [
        "alias = 1",
        "[other]",
        "[alias.x]\nendpoit = 'http://x'",
        "[alias.x]\nring = 'c'\nregion = 'r'",
        "[alias.x]\nendpoint = 1",
        "[alias.x]\naccess_key_env = 'NOT_SET_ANYWHERE'",
        "[alias.'a/b']\nring = 'c'",
        "[alias",
    ],
)
def test_a_configuration_that_is_wrong_is_named(tmp_path, text):
    path = tmp_path / "push.toml"
    path.write_text(text)
    with pytest.raises(ConfError, match=r"push\.toml|alias"):
        read_places(str(path), [])
    with pytest.raises(ConfError, match=r"none\.toml"):
        read_places(str(tmp_path / "none.toml"), [])


def test_what_is_spread_is_done_at_once_and_told_in_its_order_until_it_is_enough():
    together = threading.Barrier(4, timeout=20)
    assert spread(lambda _: together.wait() >= 0, range(16), lambda _: 1, 100) == [True] * 16

    def work(number):
        if number == 2:
            raise S4Error("two")
        return number

    done = spread(work, range(9), lambda _: 1, 100)
    assert str(done.pop(2)) == "two"
    assert done == [0, 1, 3, 4, 5, 6, 7, 8]
    assert spread(work, range(2), lambda _: 50, 50) == [0]
    assert spread(work, [], lambda _: 1, 1) == []


def test_who_waits_is_told_of_attempts_of_drops_and_of_the_end():
    woken = threading.Event()
    deliveries = Deliveries()
    first = deliveries.watch(1, woken.set)
    deliveries.attempted(2, None)
    assert not woken.is_set()
    deliveries.attempted(1, S4Error("no"))
    assert (woken.is_set(), first.done, first.failed, str(first.error)) == (True, False, True, "no")
    deliveries.attempted(1, None)
    assert (first.done, first.failed, first.error) == (True, False, None)
    for tell in (lambda: deliveries.dropped([3, 1]), deliveries.stop):
        woken.clear()
        tell()
        assert woken.is_set()
    woken.clear()
    deliveries.forget(first)
    deliveries.attempted(1, None)
    deliveries.stop()
    assert not woken.is_set()


def test_who_watches_an_entry_after_it_was_stored_is_told_its_etag(tmp_path):
    queue = Queue(str(tmp_path / "queue"))
    try:
        uploader = Uploader(queue, Aliases({"": Place(ring=str(conf(tmp_path)))}), Roots())
        (tmp_path / "file").write_bytes(b"data")
        [entry] = uploader.accept([parse(b"%b a/b/k" % os.fsencode(tmp_path / "file"))], lambda: True)
        assert queue.take(lambda: False) == entry
        uploader.stored(entry, Info(4, 0, Attributes(etag="abc")))
        queue.delivered(entry.id)
        delivery = uploader.deliveries.watch(entry.id, lambda: None)
        uploader.look(delivery)
        assert (delivery.done, delivery.etag) == (True, "abc")
    finally:
        queue.close()


def test_a_snapshot_that_waits_for_room_is_kept_and_the_one_that_is_not_let_in_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr("s4raw.queue.room.PATIENCE_SECONDS", 0.01)
    queue = Queue(str(tmp_path / "queue"), Limits(files=1))
    try:
        uploader = Uploader(queue, Aliases({"": Place(ring=str(conf(tmp_path)))}), Roots())
        (tmp_path / "file").write_bytes(b"data")
        ask = b'{"file": "%b", "to": "a/b/%d", "snapshot": true}'
        pushes = [parse(ask % (os.fsencode(tmp_path / "file"), number)) for number in range(3)]
        calls = []

        def patience():
            calls.append(None)
            if len(calls) == 3:
                assert queue.drop([queue.entries()[0].id]) == 1
            return len(calls) < 6

        first, second, third = uploader.accept(pushes, patience)
        assert (first.order.key.name, second.order.key.name) == ("0", "1")
        assert isinstance(third, QueueFull)
        assert [os.path.join(queue.spool.path, name) for name in queue.spool.names()] == [second.order.path]
    finally:
        queue.close()


def test_an_attempt_that_failed_before_anybody_watched_is_seen(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    queue = Queue(str(tmp_path / "queue"))
    try:
        uploader = Uploader(queue, Aliases({"": Place(ring=str(conf(tmp_path)))}), Roots())
        push = parse(b"%b a/b/k" % os.fsencode(tmp_path / "file"))
        [entry] = uploader.accept([push], lambda: True)
        delivery = uploader.deliveries.watch(entry.id, lambda: None)
        uploader.look(delivery)
        assert (delivery.done, delivery.failed) == (False, False)
        assert queue.take(lambda: False) == entry
        queue.failed(entry.id, S4Error("no"), 60.0)
        uploader.look(delivery)
        assert (delivery.done, delivery.failed, str(delivery.error)) == (False, True, "no")
        assert uploader.give_up(entry.id, S4Error("told"))
        uploader.look(delivery)
        assert (delivery.done, str(delivery.error)) == (True, "told")
    finally:
        queue.close()


def test_a_large_file_that_waits_for_room_is_not_overtaken_by_small_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("s4raw.queue.room.PATIENCE_SECONDS", 0.001)
    asked = threading.Semaphore(0)
    queue = Queue(str(tmp_path / "queue"), Limits(size=100))
    uploader = Uploader(queue, Aliases({"": Place(ring=str(conf(tmp_path)))}), Roots())

    def accept(size: int) -> None:
        (tmp_path / str(size)).write_bytes(b"x" * size)
        push = parse(b"%b a/b/k%d" % (os.fsencode(tmp_path / str(size)), size))
        list(uploader.accept([push], lambda: asked.release() is None))

    accept(60)
    threads = []
    try:
        for number, size in enumerate((90, 20), 1):
            threads.append(threading.Thread(target=accept, args=(size,)))
            threads[-1].start()
            wait_for(lambda number=number: len(queue.room._waiting) == number or len(queue.entries()) > 1)
        for _ in range(20):
            assert asked.acquire(timeout=20)
        assert [entry.order.size for entry in queue.entries()] == [60]
        for sizes in ([90], [20]):
            queue.delivered(queue.take(lambda: False).id)
            wait_for(queue.entries)
            assert [entry.order.size for entry in queue.entries()] == sizes
    finally:
        queue.close()
        for thread in threads:
            thread.join()


def test_who_waits_for_room_hears_at_once_that_the_uploader_stops(tmp_path, monkeypatch):
    monkeypatch.setattr("s4raw.queue.room.PATIENCE_SECONDS", 3600.0)
    (tmp_path / "file").write_bytes(b"data")
    queue = Queue(str(tmp_path / "queue"), Limits(files=1))
    uploader = Uploader(queue, Aliases({"": Place(ring=str(conf(tmp_path)))}), Roots())
    pushes = [parse(b"%b a/b/k%d" % (os.fsencode(tmp_path / "file"), number)) for number in range(2)]
    outcomes = []
    waiting = threading.Thread(target=lambda: outcomes.extend(uploader.accept(pushes, lambda: True)))
    waiting.start()
    try:
        wait_for(lambda: queue.room._waiting)
        uploader.stop()
        waiting.join(20)
        assert [str(each) for each in outcomes[1:]] == ["the uploader is stopping"]
        assert [str(each) for each in uploader.accept(pushes, lambda: True)] == ["the uploader is stopping"] * 2
    finally:
        queue.close()
        waiting.join()


def test_what_waits_behind_a_parked_file_says_so(tmp_path):
    queue = Queue(str(tmp_path / "queue"))
    try:
        uploader = Uploader(queue, Aliases({"": Place(ring=str(conf(tmp_path)))}), Roots())
        for kind in (DELETE, TAG):
            queue.add(Order("", Key("b", "k"), kind))
        shown = uploader.control(List(), lambda: True)["entries"]
        assert [(each["state"], each["error"]) for each in shown] == [("queued", ""), ("queued", "")]
        first = queue.take(lambda: False)
        queue.park(first.id, S4Error("no"))
        shown = uploader.control(List(), lambda: True)["entries"]
        assert [(each["state"], each["error"]) for each in shown] == [
            ("parked", "no"),
            ("queued", f"it waits for entry {first.id} of the same key, which is parked"),
        ]
        last = queue.add(Order("", Key("b", "k"), DELETE))
        delivery = Delivery(last.id, lambda: None)
        uploader.look(delivery, True)
        assert not delivery.failed, "what is parked does not hold it up"
        assert queue.take(lambda: False) == last
        queue.failed(last.id, S4Error("later"), 1000.0)
        delivery = Delivery(queue.add(Order("", Key("b", "k"), DELETE)).id, lambda: None)
        uploader.look(delivery)
        assert not delivery.failed
        uploader.look(delivery, True)
        assert f"must wait for entry {last.id} of the same key, which failed: later" in str(delivery.error)
    finally:
        queue.close()


def test_flush_tries_a_remote_that_is_away_at_once(tmp_path):
    queue = Queue(str(tmp_path / "queue"))
    try:
        uploader = Uploader(queue, Aliases({"": Place(ring=str(conf(tmp_path)))}), Roots())
        for number in range(AWAY_AFTER):
            queue.add(Order("", Key("b", str(number)), DELETE))
        flying = [queue.take(lambda: False) for _ in range(AWAY_AFTER)]
        for entry in flying:
            queue.failed(entry.id, Unreachable("away"), 0.0)
        assert queue._backlog._away[""].due > 0
        assert uploader.control(Flush(0.0), lambda: True) == {"empty": False}
        assert queue._backlog._away[""].due == 0
    finally:
        queue.close()


def conf(directory: Path) -> Path:
    """The conf of a ring that is not there."""
    path = directory / "s4.conf"
    path.write_text("127.0.0.1:1\n")
    return path


def test_every_byte_that_a_remote_is_sent_asks_for_its_turn(tmp_path):
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        source = FileSource(fd)
        asked = []
        source.throttle = asked.append
        sent = [
            piece.size if isinstance(piece, FileBody) else len(piece) for piece in FileSending(source, 100, 2_500_000)
        ]
        assert sent == asked
        assert sum(sent) == 2_500_000
        assert max(sent) <= 1 << 20
    finally:
        os.close(fd)


def test_a_line_of_the_log_stays_one_line(tmp_path):
    transfers = Transfers(str(tmp_path / "log"))
    transfers.stored("a\nb\x1b[1m\u2028", 1767323045.123456, 0.456789)
    transfers.failed("key", 1.0, 2.0, "two\nlines")
    transfers.close()
    first, second = (tmp_path / "log").read_text().split("\n")[:-1]
    assert first.endswith(r" __main__ - 1767323045.123456 0.456789 sec - a\nb\x1b[1m\u2028")
    assert second.endswith(r" __main__ - 1.000000 2.000000 sec - key: two\nlines")
    with pytest.raises(ConfError, match="nowhere"):
        Transfers(str(tmp_path / "nowhere/log"))


def test_a_unix_socket_has_its_mode_and_replaces_only_what_is_dead(tmp_path):
    path = str(tmp_path / "socket")
    listener = unix.listen(path, 0o640)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    with pytest.raises(ConfError, match="somebody"):
        unix.listen(path)
    listener.close()
    unix.listen(path).close()
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ConfError, match="no socket"):
        unix.listen(str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"mine"
    with pytest.raises(ConfError, match="107"):
        unix.listen(str(tmp_path / ("x" * 200)))


def test_a_unix_socket_that_is_anothers_by_now_stays(tmp_path):
    path = str(tmp_path / "s")
    with closing(unix.listen(path)):
        ours = unix.identity(path)
        os.unlink(path)
        unix.remove(path, ours)
        with closing(unix.listen(path)):
            unix.remove(path, ours)
            assert unix.identity(path)
            unix.remove(path, unix.identity(path))
            assert not unix.identity(path)


def test_the_kernel_says_who_is_at_the_other_end(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as client:
        listener = unix.listen(path)
        client.connect(path)
        fd, _ = listener._accept()
        stream = unix.UnixStream(socket.socket(fileno=fd), "unix")
        assert stream.uid == os.geteuid()
        assert f"pid {os.getpid()}" in stream.peer
        stream.close()
        listener.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_of_the_start_of_life_and_of_the_end(tmp_path, monkeypatch, abstract):
    name = f"s4raw-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(30)
        systemd.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        notifier = Notifier()
        notifier.ready()
        assert [systemd.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        notifier.stopping()
        while (said := systemd.recv(100)) == b"WATCHDOG=1":
            pass
        assert said == b"STOPPING=1"
        notifier.close()
        notifier.close()


def test_without_systemd_or_with_anothers_watchdog_nothing_is_told(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        Notifier().ready()
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000")
        monkeypatch.setenv("WATCHDOG_PID", "1")
        before = threading.active_count()
        notifier = Notifier()
        notifier.ready()
        assert threading.active_count() == before
        assert systemd.recv(100) == b"READY=1"
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
        Notifier().ready()
