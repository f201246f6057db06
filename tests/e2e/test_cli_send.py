"""``send.py`` as a command, against a daemon of these tests that says what they want, and breaks off where they do."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import CLI, wait_for

from s4raw import send

SCRIPT = [sys.executable, send.__file__]
CLOSE = object()
STORED = b'{"ok":true,"id":1,"state":"stored"}\n'


class Daemon:
    """Answers lines by what ``reply`` gives for them: bytes, CLOSE, or None to say nothing. Notes them in ``lines``."""

    def __init__(self, reply, address=("127.0.0.1", 0)):
        self.lines = []
        self.connections = 0
        self._reply = reply
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self._listener = socket.socket(family)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(address)
        self._listener.listen(64)
        self.address = self._listener.getsockname()
        self._open = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def environment(self):
        where = {"SOCKET": self.address} if isinstance(self.address, str) else {}
        where = where or {"SOCKET": "", "HOST": self.address[0], "PORT": str(self.address[1])}
        return {**os.environ, **{f"S3DAEMON_{name}": value for name, value in where.items()}}

    def _accept(self):
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as lines:
            try:
                for line in lines:
                    self.lines.append(line)
                    answer = self._reply(line)
                    if answer is CLOSE:
                        return
                    for piece in answer if isinstance(answer, list) else [answer or b""]:
                        connection.sendall(piece)
            except OSError:
                pass  # the client has left

    def stop(self):
        for each in self._open:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        for thread in self._threads:
            thread.join(20)


@contextmanager
def daemon(reply, *address):
    found = Daemon(reply, *address)
    try:
        yield found
    finally:
        found.stop()


def call(found, *words, input=b"", code=0, command=SCRIPT, **options):
    """Run the command against a daemon; its stderr."""
    environment = found.environment if isinstance(found, Daemon) else {**os.environ, **found}
    done = subprocess.run(
        [*command, *words], input=input, capture_output=True, env=environment, timeout=60, check=False, **options
    )
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    assert b"Traceback" not in done.stderr
    assert bool(done.stderr) == bool(code)
    return done.stderr.decode()


@pytest.fixture
def nobody(tmp_path):
    """An environment in which no daemon is running."""
    return {"S3DAEMON_SOCKET": str(tmp_path / "nobody")}


@pytest.mark.parametrize("command", [SCRIPT, [*CLI, "send"]], ids=["send.py", "s4raw send"])
def test_a_file_is_asked_for_in_words_that_the_old_daemon_knows(tmp_path, command):
    with daemon(lambda line: [b"Suc", b"cess"]) as found:
        call(found, "dir/x.fits", "alias/bucket/a/key", command=command, cwd=tmp_path)
    assert found.lines == [f"{tmp_path}/dir/x.fits alias/bucket/a/key\n".encode()]


def test_the_old_daemons_error_is_shown_although_it_has_no_end():
    with daemon(lambda line: [b"FileNotFoundError(2, ", "'nö such file')".encode()]) as found:
        shown = call(found, "/x", "a/b/c", code=1)
    assert shown == "s4raw-send: /x a/b/c: FileNotFoundError(2, 'nö such file')\n"


def test_an_old_daemon_that_dies_is_not_success():
    for said in (b"", b"Succes"):
        with daemon(lambda line, said=said: said or CLOSE) as found:
            process = subprocess.Popen([*SCRIPT, "/x", "a/b/c"], env=found.environment, stderr=subprocess.PIPE)
            wait_for(lambda found=found: found.lines)
            if said:
                found.stop()
            shown = process.communicate(timeout=30)[1].decode()
        assert process.returncode == 1
        assert "lost the connection to the push daemon at 127.0.0.1:" in shown


@pytest.mark.parametrize("command", [SCRIPT, [*CLI, "send"]], ids=["send.py", "s4raw send"])
def test_options_go_to_the_daemon(command):
    words = ["--queued", "--snapshot", "--wait", "20", "--type", "image/fits", "--metadata", "a=b=c", "--metadata=d="]
    with daemon(lambda line: b'{"ok": true, "id": 7, "state": "queued"}\n') as found:
        call(found, *words, "/x", "a/b/c", command=command)
    asked = json.loads(found.lines[0])
    assert 15 < asked.pop("wait") <= 20
    assert asked == {
        "file": "/x",
        "to": "a/b/c",
        "ack": "queued",
        "snapshot": True,
        "type": "image/fits",
        "metadata": {"a": "b=c", "d": ""},
    }


@pytest.mark.parametrize(
    "name", ["with space", "new\nline", "nö", "tab\tand no-break\u00a0space", os.fsdecode(b"\xff\xfe")]
)
def test_any_name_arrives(name):
    with daemon(lambda line: STORED if line.startswith(b"{") else b"Success") as found:
        call(found, f"/d/{name}", f"a/b/{name}")
        call(found, "-0", "-", input=os.fsencode(f"/d/{name}\0a/b/{name}\0"))
    for line in found.lines:
        asked = (
            json.loads(line) if line.startswith(b"{") else dict(zip(("file", "to"), line.decode().split(), strict=True))
        )
        assert os.fsencode(asked["file"]) == b"/d/" + os.fsencode(name)
        assert os.fsencode(asked["to"]) == b"a/b/" + os.fsencode(name)


def test_a_daemon_that_is_not_there_is_named_at_once(nobody):
    for words in (["/x", "a/b/c"], ["--queued", "/x", "a/b/c"]):
        shown = call(nobody, *words, code=1)
        assert shown == f"s4raw-send: /x a/b/c: cannot reach the push daemon at {nobody['S3DAEMON_SOCKET']}: " + (
            "No such file or directory\n"
        )
    shown = call({"S3DAEMON_SOCKET": "", "S3DAEMON_HOST": "127.0.0.1", "S3DAEMON_PORT": "1"}, "/x", "a/b/c", code=1)
    assert "at 127.0.0.1:1: Connection refused" in shown
    assert "is no port: 'x'" in call({"S3DAEMON_SOCKET": "", "S3DAEMON_PORT": "x"}, "/x", "a/b/c", code=2)


def test_with_a_wait_a_daemon_is_waited_for_while_it_starts_again(tmp_path):
    path = str(tmp_path / "socket")
    with daemon(lambda line: None, path) as found:
        process = subprocess.Popen(
            [*SCRIPT, "--wait", "60", "/x", "a/b/c"], env=found.environment, stderr=subprocess.PIPE
        )
        wait_for(lambda: found.lines)
    assert process.poll() is None
    os.unlink(path)
    with daemon(lambda line: STORED, path) as again:
        assert process.communicate(timeout=50) == (None, b"")
    assert process.returncode == 0
    [line] = again.lines
    assert json.loads(line)["wait"] < json.loads(found.lines[0])["wait"] <= 60


def test_when_the_wait_is_over_a_queued_file_is_said_to_be_queued(tmp_path):
    late = b'{"ok":false,"error":"not stored in time; it stays queued","id":12,"state":"queued"}\n'
    with daemon(lambda line: late, str(tmp_path / "socket")) as found:
        shown = call(found, "--wait", "1", "/x", "a/b/c", code=1)
        with pytest.raises(send.SendError) as caught:
            send.send("/x", "a/b/c", path=found.address, wait=1)
    assert shown.endswith("not stored in time; it stays queued (as 12, and will be delivered)\n")
    assert (caught.value.queued, caught.value.id) == (True, 12)


def test_a_daemon_that_says_nothing_is_given_up_after_the_wait():
    with daemon(lambda line: None) as found:
        shown = call(found, "--wait", "0.2", "/x", "a/b/c", code=1)
    assert "no answer from the push daemon at 127.0.0.1:" in shown
    assert shown.endswith("it may be queued\n")


def test_what_was_on_a_lost_connection_is_sent_once_more():
    with daemon(lambda line: STORED if len(found.lines) > 1 else CLOSE) as found:
        call(found, "--queued", "/x", "a/b/c")
    assert len(found.lines) == found.connections == 2
    with daemon(lambda line: CLOSE) as found:
        shown = call(found, "--queued", "/x", "a/b/c", code=1)
    assert len(found.lines) == 2
    assert shown.endswith("it was closed; it may be queued\n")


@pytest.mark.parametrize(
    "answer", [b"too many connections\n", b"[]\n", b'{"ok":false}\n', b'{"ok":"true"}\n', b"{}\n", 2 * STORED]
)
def test_no_other_answer_is_success(answer):
    with daemon(lambda line: answer) as found:
        call(found, "--queued", "/x", "a/b/c", code=1)


def lines_of(count):
    return b"".join(b"/d/%d a/b/%d\n" % (number, number) for number in range(count))


def files(found):
    return [json.loads(line)["file"] for line in found.lines]


@pytest.mark.parametrize("command", [SCRIPT, [*CLI, "send"]], ids=["send.py", "s4raw send"])
def test_many_pairs_go_in_order_over_one_connection_and_each_failure_is_named(command):
    def reply(line):
        number = int(json.loads(line)["file"].rpartition("/")[2])
        return b'{"ok":false,"error":"the number is round"}\n' if number % 100 == 0 else STORED

    with daemon(reply) as found:
        shown = call(found, "--queued", "-", input=lines_of(1000), code=1, command=command)
    assert files(found) == [f"/d/{number}" for number in range(1000)]
    assert found.connections == 1
    assert [line.partition(": ")[2] for line in shown.splitlines()] == [
        f"/d/{number} a/b/{number}: the number is round" for number in range(0, 1000, 100)
    ]


def test_of_many_pairs_a_bounded_number_is_unanswered():
    beyond = []

    def reply(line):
        if len(found.lines) % send.WINDOW:
            return None
        beyond.append(bool(select.select([found._open[1]], [], [], 0.2)[0]))
        return STORED * send.WINDOW

    with daemon(reply) as found:
        call(found, "-", input=lines_of(2 * send.WINDOW))
    assert beyond == [False, False]


def test_neither_end_waits_for_the_other_to_read_first(tmp_path):
    long = b"x" * 30_000
    answer = b'{"ok":false,"error":"%s"}\n' % (b"y" * 60_000)
    pairs = b"".join(b"/%s/%d a/b/c\n" % (long, number) for number in range(200))
    with daemon(lambda line: answer, str(tmp_path / "socket")) as found:  # whose buffers are small
        shown = call(found, "-", input=pairs, code=1)
    assert len(shown.splitlines()) == len(found.lines) == 200


def test_after_a_lost_connection_many_pairs_go_on_where_they_were():
    def reply(line):
        return CLOSE if len(found.lines) in (10, 500) else STORED

    with daemon(reply) as found:
        call(found, "--queued", "-", input=lines_of(700))
    assert found.connections == 3
    assert list(dict.fromkeys(files(found))) == [f"/d/{number}" for number in range(700)]
    assert files(found).count("/d/9") == 2


def test_pairs_are_sent_as_they_come_and_failures_are_told_at_once():
    with daemon(lambda line: b'{"ok":false,"error":"no"}\n') as found:
        process = subprocess.Popen(
            [*SCRIPT, "-"], env=found.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        for number in range(3):
            process.stdin.write(b"/d/%d a/b/c\n" % number)
            assert process.stderr.readline().decode() == f"s4raw-send: /d/{number} a/b/c: no\n"
        process.communicate(timeout=20)
        assert process.returncode == 1
    assert found.connections == 1


def test_a_connection_that_ends_while_there_is_nothing_to_send_is_no_failure():
    with daemon(lambda line: STORED) as found:
        process = subprocess.Popen([*SCRIPT, "-"], env=found.environment, stdin=subprocess.PIPE, bufsize=0)
        process.stdin.write(b"/d/1 a/b/c\n")
        wait_for(lambda: found.lines)
        found._open[1].shutdown(socket.SHUT_RDWR)
        process.stdin.write(b"/d/2 a/b/c\n")
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert list(dict.fromkeys(files(found))) == ["/d/1", "/d/2"]


def test_no_pairs_are_no_failure_and_need_no_daemon(nobody):
    call(nobody, "-", input=b"\n \n")


def test_every_pair_is_named_when_there_is_no_daemon(nobody):
    shown = call(nobody, "-", input=lines_of(300), code=1)
    assert len(shown.splitlines()) == 300


def test_names_that_are_too_long_for_a_line_are_refused_here():
    with daemon(lambda line: STORED) as found:
        shown = call(found, "-0", "-", input=b"/%s\0a/b/c\0/ok\0a/b/c\0" % (b"x" * 66_000), code=1)
    assert "its names are too long: a request has at most 65536 bytes" in shown
    assert files(found) == ["/ok"]


@pytest.mark.parametrize("kind", ["unix", "--socket", "ipv6", "name"])
def test_the_daemon_may_be_on_any_kind_of_socket(tmp_path, kind):
    address = str(tmp_path / "s") if kind in ("unix", "--socket") else ("::1" if kind == "ipv6" else "127.0.0.1", 0)
    try:
        found = Daemon(lambda line: b"Success", address)
    except OSError:
        pytest.skip("no IPv6 here")
    try:
        if kind == "--socket":
            call({"S3DAEMON_SOCKET": "/none"}, "--socket", address, "/x", "a/b/c")
        elif kind == "name":
            call({**found.environment, "S3DAEMON_HOST": "localhost"}, "/x", "a/b/c")
        else:
            call(found, "/x", "a/b/c")
    finally:
        found.stop()
    assert found.lines == [b"/x a/b/c\n"]


def test_an_interrupt_is_no_traceback():
    with daemon(lambda line: None) as found:
        process = subprocess.Popen([*SCRIPT, "/x", "a/b/c"], env=found.environment, stderr=subprocess.PIPE)
        wait_for(lambda: found.lines)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1] == b"s4raw-send: interrupted\n"
        assert process.returncode == 130


@pytest.fixture
def library(monkeypatch):
    """A daemon that refuses what is called bad, where the library looks for it."""
    with daemon(lambda line: b'{"ok":false,"error":"bad it is","id":3}\n' if b"bad" in line else STORED) as found:
        for name in ("SOCKET", "HOST", "PORT"):
            monkeypatch.setenv(f"S3DAEMON_{name}", found.environment.get(f"S3DAEMON_{name}", ""))
        yield found


def test_the_library_raises_what_the_command_shows(library, nobody):
    send.send(Path("/good one"), "a/b/c", queued=True, metadata={"a": "b"})
    with pytest.raises(send.SendError, match=r"^bad it is$") as caught:
        send.send(b"/bad", "a/b/c", queued=True)
    assert (caught.value.queued, caught.value.id) == (False, 3)
    failures = []
    send.send_many(
        ((f"/{name}", "a/b/c") for name in ("one", "bad", "two")),
        lambda *failure: failures.append(failure),
        queued=True,
    )
    assert [(file, dest, str(error)) for file, dest, error in failures] == [("/bad", "a/b/c", "bad it is")]
    with pytest.raises(ConnectionError, match="cannot reach the push daemon at"):
        send.send("/x", "a/b/c", path=nobody["S3DAEMON_SOCKET"])


def test_a_connection_takes_many_requests(library):
    with send.Connection() as connection:
        assert connection.request({"do": "status"}) == json.loads(STORED)
        assert connection.request({"do": "bad"}, timeout=20)["error"] == "bad it is"
    assert library.connections == 1
