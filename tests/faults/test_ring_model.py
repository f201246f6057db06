"""A ring does what a dict would do, over all the ways in and out, while its servers are stopped, killed and started."""

import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from fault_ring import FaultRing, fault_ring
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from s4raw import download, upload
from s4raw.digest import LEAF
from s4raw.errors import BadRange, KeyExists, NoSuchKey
from s4raw.wire import WHOLE_BODY

NAMES = ["a", "a/b", "a/b/c", "a/d", "0_x", "1_x", "a/1_x", "é/" + "p" * 300]
SIZES = [0, 5, LEAF, LEAF + 1, 2 * LEAF + 5]
RESTARTS = 2  # in one example: each takes a third of a second

names = st.sampled_from(NAMES)
contents = st.builds(
    lambda seed, size: (b"%d " % seed * (size // 2 + 1))[:size], st.integers(0, 9), st.sampled_from(SIZES)
)
bounds = st.builds(lambda leaves, more: max(0, leaves * LEAF + more), st.integers(0, 2), st.integers(-2, 6))
connections = st.integers(1, 2)


class BrokeOff(Exception):
    """What ends a copy in the middle."""


class RingMachine(RuleBasedStateMachine):
    """Two servers and their model."""

    def __init__(self, ring: FaultRing, directory: Path) -> None:
        super().__init__()
        self.ring = ring
        self.directory = directory
        self.model: dict[str, bytes] = {}
        self.restarts = 0
        self.client = ring.client()
        self.client.remove_all("s4://b/")
        for index in range(ring.count):
            shutil.rmtree(ring.directory(index) / "_uploads", ignore_errors=True)
        (directory / "here .part").unlink(missing_ok=True)

    def teardown(self) -> None:
        self.client.close()

    def file(self, content: bytes) -> str:
        (self.directory / "file").write_bytes(content)
        return str(self.directory / "file")

    def check_put(self, name: str, content: bytes, put) -> None:
        try:
            put()
        except KeyExists:
            assert name in self.model
        else:
            assert name not in self.model
            self.model[name] = content

    @rule(name=names, content=contents)
    def put(self, name, content):
        self.check_put(name, content, lambda: self.client.put(f"s4://b/{name}", content))

    @rule(name=names, content=contents, connections=connections)
    def put_file(self, name, content, connections):
        path = self.file(content)
        self.check_put(name, content, lambda: self.client.put_file(f"s4://b/{name}", path, connections=connections))

    @rule(name=names, content=contents, connections=connections, broken=st.booleans())
    def put_with_resume(self, name, content, connections, broken):
        """May break off after the first part; a later one of the same content goes on from there, or is done."""

        def moved(_count: int) -> None:
            if broken and len(content) > WHOLE_BODY:  # a small key may be there as soon as it was sent
                raise BrokeOff

        path, key = self.file(content), f"s4://b/{name}"
        try:
            self.client.put_file(key, path, moved, connections, resume=True)
        except BrokeOff:
            return
        except KeyExists:
            assert self.model[name] != content
        else:
            assert self.model.setdefault(name, content) == content

    @rule(name=names)
    def get(self, name):
        if name in self.model:
            assert self.client.get(f"s4://b/{name}") == self.model[name]
            assert self.client.stat(f"s4://b/{name}").size == len(self.model[name])
        else:
            for read in (self.client.get, self.client.stat):
                with pytest.raises(NoSuchKey):
                    read(f"s4://b/{name}")

    @rule(name=names, connections=connections, broken=st.booleans())
    def get_file(self, name, connections, broken):
        """What broke off, of any key, lies in the way of the next."""

        def moved(_count: int) -> None:
            if broken:
                raise BrokeOff

        here = self.directory / "here"
        with suppress(BrokeOff):
            try:
                self.client.get_file(f"s4://b/{name}", str(here), moved, connections, resume=True)
            except NoSuchKey:
                assert name not in self.model
            else:
                assert here.read_bytes() == self.model[name]
                here.unlink()
        assert not here.exists()

    @rule(name=names, offset=bounds, length=bounds)
    def get_range(self, name, offset, length):
        found = self.model.get(name)
        try:
            data = self.client.get_range(f"s4://b/{name}", offset, length)
        except NoSuchKey:
            assert found is None and length
        except BadRange:
            assert not length or (found is not None and offset >= len(found))
        else:
            assert data == found[offset : offset + length]

    @rule(name=names)
    def remove(self, name):
        if name in self.model:
            self.client.remove(f"s4://b/{name}")
            del self.model[name]
        else:
            try:
                self.client.remove(f"s4://b/{name}")
            except NoSuchKey:
                return
            assert self.restarts, "only a connection that was lost makes a missing key one that was deleted"

    @rule(prefix=st.sampled_from(["a", "a/", "a/b", "é/p"]))
    def remove_all(self, prefix):
        gone = [name for name in self.model if name.startswith(prefix)]
        assert self.client.remove_all(f"s4://b/{prefix}") == len(gone)
        for name in gone:
            del self.model[name]

    @precondition(lambda self: self.restarts < RESTARTS)
    @rule(index=st.integers(0, 1), how=st.sampled_from([signal.SIGKILL, signal.SIGTERM]))
    def restart(self, index, how):
        self.restarts += 1
        process = self.ring.processes[index]
        process.send_signal(how)
        process.wait()
        self.ring.restart(index)

    @invariant()
    def everything_is_listed_in_order(self):
        found = [(entry.name, entry.size) for entry in self.client.list("s4://b/", recursive=True)]
        assert found == sorted(
            ((name, len(content)) for name, content in self.model.items()), key=lambda e: e[0].encode()
        )
        tops = {name.partition("/")[0] + "/" * ("/" in name) for name in self.model}
        assert [entry.name for entry in self.client.list("s4://b/")] == sorted(tops, key=str.encode)


def test_a_ring_behaves_like_a_dictionary_whatever_happens_to_its_servers(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PART", LEAF)
    monkeypatch.setattr(upload, "PART", LEAF)
    phases = [Phase.explicit, Phase.generate]  # no shrinking: each example takes a second
    quick = settings(max_examples=10, stateful_step_count=20, deadline=None, phases=phases)
    with fault_ring(tmp_path, count=2) as ring:
        run_state_machine_as_test(lambda: RingMachine(ring, tmp_path), settings=quick)
