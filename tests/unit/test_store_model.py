"""The store does what a dict would do, whatever the keys are called."""

import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from nasty import NAMES, is_key_name, key_names
from support import get, left_over, opened, put, timeless

from s4raw.errors import KeyExists, NoSuchKey
from s4raw.keys import Key

BUCKETS = ["b", "a.b", "é"]
names = st.sampled_from(NAMES) | key_names
keys = st.builds(Key, st.sampled_from(BUCKETS), names)
prefixes = st.builds(lambda name, end: name[:end], names, st.integers(0, 300)) | names.filter(is_key_name)


def listing(model: dict[Key, bytes], bucket: str, prefix: str, recursive: bool) -> list[tuple[str, int, bool]]:
    """What a listing must hold, in the order of its names' UTF-8 bytes."""
    found = set()
    for key, content in model.items():
        if key.bucket == bucket and key.name.startswith(prefix):
            head, slash, _ = key.name[len(prefix) :].partition("/")
            if slash and not recursive:
                found.add((prefix + head + "/", 0, True))
            else:
                found.add((key.name, len(content), False))
    return sorted(found, key=lambda entry: entry[0].encode())


class StoreMachine(RuleBasedStateMachine):
    """A store and its model."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[Key, bytes] = {}
        self.directory = tempfile.TemporaryDirectory()
        self.open()

    def open(self) -> None:
        self.opening = opened(self.directory.name)
        self.store = self.opening.__enter__()

    def close(self) -> None:
        self.opening.__exit__(None, None, None)

    def teardown(self) -> None:
        self.close()
        self.directory.cleanup()

    @rule(key=keys, content=st.binary(max_size=20))
    def put(self, key, content):
        try:
            put(self.store, key, content)
        except KeyExists:
            assert key in self.model
        else:
            assert key not in self.model
            self.model[key] = content

    @rule(data=st.data(), change=st.sampled_from(["{}/", "{}/b", "{}//b", "{}!", "{}/%=", "/{}", "%{}"]))
    def put_beside_one_that_is_there(self, data, change):
        if self.model:
            bucket, name = data.draw(st.sampled_from(sorted(self.model)))
            beside = data.draw(st.sampled_from([change.format(name), name.rpartition("/")[0]]))
            if is_key_name(beside):
                self.put(Key(bucket, beside), b"beside")

    @rule(key=keys)
    def get(self, key):
        try:
            content = get(self.store, key)
        except NoSuchKey:
            content = None
        assert content == self.model.get(key)
        assert self.store.exists(key) == (key in self.model)

    @rule(data=st.data())
    def get_one_that_is_there(self, data):
        if self.model:
            key = data.draw(st.sampled_from(sorted(self.model)))
            self.get(key)
            with open(self.store.path(key), "rb") as file:
                assert file.read() == self.model[key]

    @rule(key=keys)
    def remove(self, key):
        try:
            self.store.remove(key)
        except NoSuchKey:
            assert key not in self.model
        else:
            del self.model[key]

    @rule(data=st.data())
    def remove_one_that_is_there(self, data):
        if self.model:
            self.remove(data.draw(st.sampled_from(sorted(self.model))))

    @rule(bucket=st.sampled_from(BUCKETS), prefix=prefixes, recursive=st.booleans())
    def list(self, bucket, prefix, recursive):
        found = [(entry.name, entry.size, entry.is_prefix) for entry in self.store.list(Key(bucket, prefix), recursive)]
        assert found == listing(self.model, bucket, prefix, recursive)

    @rule(bucket=st.sampled_from(BUCKETS), prefix=prefixes)
    def remove_prefix(self, bucket, prefix):
        gone = [key for key in self.model if key.bucket == bucket and key.name.startswith(prefix)]
        assert self.store.remove_prefix(Key(bucket, prefix)) == len(gone)
        for key in gone:
            del self.model[key]

    @rule()
    def reopen(self):
        self.close()
        self.open()

    @invariant()
    def buckets_are_those_that_hold_a_key(self):
        assert [entry.name for entry in self.store.buckets()] == sorted({key.bucket for key in self.model})

    @invariant()
    def everything_is_listed_in_order(self):
        for bucket in BUCKETS:
            for recursive in (True, False):
                self.list(bucket, "", recursive)

    @invariant()
    def nothing_is_left_over(self):
        assert not left_over(self.directory.name)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(timeless, max_examples=60, stateful_step_count=40)
