"""The progress line: on a terminal, and only there, and gone in the end."""

import os
import pty
import re
import subprocess
import time
from contextlib import ExitStack

from conftest import CLI, wait_for

GONE = b"\r\x1b[K"
CHUNK = bytes(64 << 10)


class Terminal:
    """A verb that runs with a terminal for its stderr."""

    def __init__(self, ring, *arguments, stdin=subprocess.DEVNULL):
        self._fd, slave = pty.openpty()
        os.set_blocking(self._fd, False)
        self._shown = b""
        command = [*CLI, *arguments, "-c", ring.conf]
        self.process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=slave)
        os.close(slave)

    def shown(self):
        """What the terminal has shown so far."""
        try:
            while data := os.read(self._fd, 1 << 16):
                self._shown += data
        except OSError:  # nothing more for now, or at all
            pass
        return self._shown

    def end(self):
        """What the terminal has shown in all, once the verb has ended well."""
        assert self.process.wait(60) == 0, self.shown()
        return self.shown()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        os.close(self._fd)


def feed_until(condition, *pipes):
    """Write to pipes until ``condition()`` is true."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        for pipe in pipes:
            pipe.write(CHUNK)


def test_cp_shows_progress_on_a_terminal_only_and_not_when_told_to_be_quiet(ring, client):
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ExitStack() as stack:
        loud = stack.enter_context(Terminal(ring, "cp", "-", "s4://b/loud", stdin=subprocess.PIPE))
        quiet = stack.enter_context(Terminal(ring, "cp", "-q", "-", "s4://b/quiet", stdin=subprocess.PIPE))
        pipe = stack.enter_context(subprocess.Popen([*CLI, "cp", "-", "s4://b/pipe", "-c", ring.conf], **piped))
        stack.callback(pipe.kill)
        pipes = [process.stdin for process in (loud.process, quiet.process, pipe)]
        feed_until(lambda: loud.shown().count(GONE) > 8, *pipes)  # time enough for the others to show something
        assert re.search(rb"cp to s4://b/loud: [\d.]+ [KMG]iB, [\d.]+ [KMG]?i?B/s", loud.shown())
        for stdin in pipes:
            stdin.close()
        assert loud.end().endswith(GONE)
        assert quiet.end() == b""
        assert (pipe.wait(60), pipe.stdout.read(), pipe.stderr.read()) == (0, b"", b"")
    assert {client.stat(f"s4://b/{name}").size for name in ("quiet", "pipe")} == {client.stat("s4://b/loud").size}


def test_a_download_shows_how_much_there_is_in_all(ring, client, tmp_path):
    client.put("s4://b/key", bytes(64 << 20))
    os.mkfifo(tmp_path / "pipe")
    with (
        Terminal(ring, "cp", "s4://b/key", str(tmp_path / "pipe")) as terminal,
        open(tmp_path / "pipe", "rb", 0) as pipe,
    ):
        wait_for(lambda: pipe.read(4096) and b"B/s" in terminal.shown(), "the progress line to show")
        assert b" of 64.0 MiB" in terminal.shown()
        while pipe.read(1 << 20):
            pass
        assert terminal.end().endswith(GONE)


def test_map_shows_how_many_keys_of_how_many_are_done(ring, client, tmp_path):
    for number in range(4):
        client.put(f"s4://b/in/{number}", b"")
    go = tmp_path / "go"
    command = f"for i in {{1..6000}}; do [[ $filename = 0 || -e {go} ]] && exit; sleep 0.01; done; exit 1"
    with (
        Terminal(ring, "map", "s4://b/in/", "s4://b/loud/", command) as loud,
        Terminal(ring, "map", "-q", "s4://b/in/", "s4://b/quiet/", command) as quiet,
    ):
        wait_for(lambda: re.search(rb"map: 1 keys of 4 keys 25%, [\d.]+ keys/s", loud.shown()), "progress to show")
        seen = loud.shown().count(GONE)
        wait_for(lambda: loud.shown().count(GONE) > seen + 3, "time enough for the other to show something")
        go.touch()
        assert loud.end().endswith(GONE)
        assert quiet.end() == b""
