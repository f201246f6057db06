"""Any backend does what the one in memory does, whatever is asked of it and in which order."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from nasty import NAMES, key_names
from objects_support import Body, etag_of, lines, plain, whole

from s4raw.errors import ConnectionLost, S4Error
from s4raw.keys import Key
from s4raw.objects.base import ALWAYS, Attributes, Backend, Conditions, Part, Query, Range
from s4raw.objects.memory import MemoryBackend

Place = Callable[[], AbstractContextManager[Callable[[], Backend]]]

BUCKETS = ["b", "bucket.two"]
KEY_NAMES = [
    *("a", "a/b", "a/b/c", "a//b", "a//", "trail/", "/lead", "/", "//", ".", "..", "./x", "../x", "a/../b", "a/."),
    *("%", "%=", "a%", "a/%=", "😀", "😀/x", "\n", "a\nb", "a b", "é", "e\u0301", "\uffff", "\U0010ffff", "a.b", "a!"),
    *("p" * 255, "p" * 256, "p" * 256 + "/q", "p" * 1024, "q" * 512 + "/" + "q" * 511, "é" * 512, "_x", "~", "*"),
]

FAMILIES = [  # names that get into each other's way
    *(["a", "a/", "a/b"], ["a/b", "a/b/c", "a//b"], ["a", "a/b", "a/b/c"], [".", "./x", ".."], ["%", "%=", "%=/x"]),
    *(["p" * 255, "p" * 256, "p" * 256 + "/q"], ["/", "//", "/lead"], ["a", "A", "a!"], ["é", "e\u0301", "😀"]),
]


@st.composite
def names(draw: st.DrawFn) -> str:
    """A key's name: of a few, so that what is done to one meets what is done to another; now and then of any."""
    kind = draw(st.integers(0, 7))
    if kind < 5:
        return draw(st.sampled_from(KEY_NAMES[: 8 if kind < 4 else None]))
    return draw(st.sampled_from(NAMES) if kind < 7 else key_names)


@st.composite
def located(draw: st.DrawFn) -> Key:
    """A key, mostly in the first bucket."""
    return Key(draw(st.sampled_from([BUCKETS[0], BUCKETS[0], *BUCKETS])), draw(names()))


def of_the_pool(machine: "Differential") -> st.SearchStrategy[Key]:
    """One of the few keys of this run."""
    return st.sampled_from(machine.pool)


def that_exists(machine: "Differential") -> st.SearchStrategy[Key]:
    """One of the keys of this run that have an object, if any has."""
    found = [key for key in machine.pool if not isinstance(outcome(partial(machine.model.head, key)), type)]
    return st.sampled_from(found or machine.pool)


keys = st.runner().flatmap(of_the_pool)
there = st.runner().flatmap(that_exists) | keys


class Long(bytes):
    """Bytes that do not fill the report of a failure."""

    def __repr__(self) -> str:
        return f"Long(b'long' * {len(self) // 4})"


contents = st.sampled_from([b"", b"x", b"other", Long(b"long" * 70_000)]) | st.binary(max_size=40)
text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
mappings = st.just({}) | st.dictionaries(text, text, max_size=3)
checksums = st.just({}) | st.dictionaries(st.sampled_from(["CRC32", "SHA256", "CRC64NVME"]), st.just("AAAA"))
etags = st.lists(st.sampled_from(["*", "none", etag_of(b""), etag_of(b"x"), etag_of(b"other")]), min_size=1, max_size=2)
some_conditions = st.builds(
    Conditions,
    if_match=st.none() | etags,
    if_none_match=st.none() | etags,
    if_modified_since=st.sampled_from([None, 0, 2**40]),
    if_unmodified_since=st.sampled_from([None, 0, 2**40]),
    if_size=st.sampled_from([None, None, 1]),
)
conditions = st.integers(0, 3).flatmap(lambda at: st.just(ALWAYS) if at else some_conditions)
positions = st.none() | st.integers(0, 4) | st.integers(0, 300_000)
ranges = (
    st.none() | st.builds(Range, positions, positions) | st.builds(lambda end: Range(suffix=end), st.integers(0, 9))
)
ranges |= st.builds(lambda part: Range(part=part), st.integers(0, 4))


@st.composite
def beginnings(draw: st.DrawFn) -> str:
    """A key's name, or what it begins with."""
    name = draw(keys).name
    return name[: draw(st.sampled_from([None, 0, 1, 2, name.find("/") + 1]))]


queries = st.builds(
    Query,
    prefix=st.just("") | beginnings(),
    delimiter=st.sampled_from(["", "/", "/", "//", "b", "p/", "😀"]),
    after=st.just("") | beginnings() | names(),
    limit=st.sampled_from([0, 1, 2, 3, 4, 1000]),
)


def outcome(action: Callable[[], Any]) -> Any:
    """What an action gives, or the class of its error."""
    try:
        return action()
    except S4Error as error:
        return type(error)


class Differential(RuleBasedStateMachine):
    """A backend beside the one in memory. Subclasses say ``place``, and whether it can be opened again."""

    place: Place
    restarts = True

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.open = self.stack.enter_context(type(self).place())
        self.ours, self.model = self.open(), MemoryBackend()
        self.uploads: list[tuple[Key, str, str]] = []  # with our id and the model's
        self.readings: list[tuple[Any, Any]] = []
        self.pool: list[Key] = []
        self.create_bucket(BUCKETS[0])

    @initialize(family=st.sampled_from(FAMILIES), others=st.lists(located(), max_size=4, unique=True))
    def choose(self, family: list[str], others: list[Key]) -> None:
        self.pool = [*(Key(BUCKETS[0], name) for name in family), *others]

    def both(self, action: Callable[[Backend], Any]) -> Any:
        """Do the same to both, and compare; what it gave."""
        ours, model = outcome(lambda: action(self.ours)), outcome(lambda: action(self.model))
        assert ours == model
        return model

    def both_uploads(self, at: int, action: Callable[[Backend, Key, str], Any]) -> Any:
        """Do the same to an upload in both, also to one that is no more."""
        key, our, models = self.uploads[at % len(self.uploads)]
        ours, model = outcome(lambda: action(self.ours, key, our)), outcome(lambda: action(self.model, key, models))
        assert ours == model
        return model

    def info(self, key: Key, given: Conditions = ALWAYS) -> Callable[[Backend], Any]:
        def action(backend: Backend) -> Any:
            info = backend.head(key, given)
            return info.size, plain(info.attributes)

        return action

    @rule(name=st.sampled_from(BUCKETS))
    def create_bucket(self, name: str) -> None:
        self.both(lambda backend: backend.create_bucket(name))

    @rule(name=st.sampled_from(BUCKETS))
    def delete_bucket(self, name: str) -> None:
        self.both(lambda backend: backend.delete_bucket(name))
        if name == BUCKETS[0]:  # or little would happen from then on
            self.create_bucket(name)

    @rule(name=st.sampled_from(BUCKETS), tags=mappings)
    def tag_bucket(self, name: str, tags: dict[str, str]) -> None:
        self.both(lambda backend: backend.tag_bucket(name, tags))
        self.both(lambda backend: [(bucket.name, dict(bucket.tags)) for bucket in backend.buckets()])

    @rule(key=keys, content=contents, given=conditions, metadata=mappings, sums=checksums, sized=st.booleans())
    def put(self, key, content, given, metadata, sums, sized) -> None:
        attributes = Attributes(
            etag_of(content), {"content-type": "x"}, metadata, {}, sums, "FULL_OBJECT" if sums else ""
        )
        self.both(lambda backend: backend.put(key, Body(content, attributes, sized=sized, piece=7919), given).size)
        self.both(self.info(key))

    @rule(key=keys, content=contents)
    def put_plain(self, key: Key, content: bytes) -> None:
        self.both(lambda backend: backend.put(key, Body(content)).size)

    @rule(key=keys, content=contents)
    def put_that_breaks_off(self, key: Key, content: bytes) -> None:
        broken = ConnectionLost("broken")
        self.both(lambda backend: backend.put(key, Body(content, breaks=broken, breaks_at=50_000, piece=7919)))
        self.both(self.info(key))

    @rule(
        source=there,
        to=keys,
        other=st.booleans(),
        metadata=mappings,
        from_=conditions,
        given=conditions,
    )
    def copy(self, source, to, other, metadata, from_, given) -> None:
        attributes = Attributes("given", {}, metadata) if other else None
        self.both(lambda backend: backend.copy(source, to, attributes, from_, given).size)
        self.both(self.info(to))
        self.list_objects(to.bucket, Query())

    @rule(key=there, given=conditions)
    def delete(self, key: Key, given: Conditions) -> None:
        self.both(lambda backend: backend.delete(key, given))
        self.list_objects(key.bucket, Query())

    @rule(key=there, tags=mappings)
    def tag(self, key: Key, tags: dict[str, str]) -> None:
        self.both(lambda backend: backend.tag(key, tags))
        self.both(self.info(key))

    @rule(key=there, given=some_conditions)
    def head(self, key: Key, given: Conditions) -> None:
        self.both(self.info(key, given))

    @rule(key=there, wanted=ranges, given=conditions)
    def get(self, key: Key, wanted: Range | None, given: Conditions) -> None:
        def action(backend: Backend) -> Any:
            with backend.get(key, wanted, given) as reading:
                return reading.start, reading.end, plain(reading.info.attributes), taken(reading)

        self.both(action)

    @rule(key=there, wanted=ranges)
    def get_a_range(self, key: Key, wanted: Range | None) -> None:
        self.get(key, wanted, ALWAYS)

    @precondition(lambda self: len(self.readings) < 3)
    @rule(key=there)
    def open_reading(self, key: Key) -> None:
        ours, model = outcome(lambda: self.ours.get(key)), outcome(lambda: self.model.get(key))
        assert isinstance(ours, type) == isinstance(model, type)
        if not isinstance(model, type):
            self.readings.append((ours, model))

    @precondition(lambda self: self.readings)
    @rule()
    def finish_reading(self) -> None:
        ours, model = self.readings.pop()
        with ours:
            assert taken(ours) == taken(model)

    @rule(name=st.sampled_from(BUCKETS), query=queries)
    def list_objects(self, name: str, query: Query) -> None:
        self.both(lambda backend: lines(backend.list(name, query)))

    @precondition(lambda self: len(self.uploads) < 6)
    @rule(key=keys, metadata=mappings, algorithm=st.sampled_from(["", "CRC32"]), parts=st.lists(contents, max_size=2))
    def create_upload(self, key: Key, metadata: dict[str, str], algorithm: str, parts: list[bytes]) -> None:
        attributes = Attributes(metadata=metadata)
        ours = outcome(lambda: self.ours.create_upload(key, attributes, algorithm))
        model = outcome(lambda: self.model.create_upload(key, attributes, algorithm))
        if isinstance(model, type):
            assert ours == model
        else:
            self.uploads.append((key, ours, model))
            for number, content in enumerate(parts, 1):
                self.put_part(len(self.uploads) - 1, number, content, {})

    @precondition(lambda self: self.uploads)
    @rule(at=st.integers(0, 5), number=st.integers(1, 4) | st.just(10_000), content=contents, sums=checksums)
    def put_part(self, at: int, number: int, content: bytes, sums: dict[str, str]) -> None:
        def action(backend: Backend, key: Key, upload: str) -> Any:
            return timeless_part(backend.put_part(key, upload, number, Body(content, sealed)))

        sealed = Attributes(etag_of(content), checksums=sums)
        self.both_uploads(at, action)

    @precondition(lambda self: self.uploads)
    @rule(at=st.integers(0, 5), after=st.integers(0, 4), limit=st.sampled_from([0, 1, 2, 1000]))
    def parts(self, at: int, after: int, limit: int) -> None:
        def action(backend: Backend, key: Key, upload: str) -> Any:
            known = backend.upload(key, upload)
            parts = [timeless_part(part) for part in backend.parts(key, upload, after, limit)]
            return known.key, plain(known.attributes), known.checksum_algorithm, parts

        self.both_uploads(at, action)

    @precondition(lambda self: self.uploads)
    @rule(at=st.integers(0, 5), left_out=st.integers(0, 9), wrong=st.integers(0, 9), given=conditions, tags=mappings)
    def complete(self, at: int, left_out: int, wrong: int, given: Conditions, tags: dict[str, str]) -> None:
        key, _, model = self.uploads[at % len(self.uploads)]
        named = outcome(lambda: self.model.parts(key, model))
        parts = [] if isinstance(named, type) else [part for part in named if part.number != left_out]
        if wrong == 0:
            parts.append(Part(3, 1, etag_of(b"never sent")))
        elif not parts and not isinstance(named, type):
            return
        attributes = whole(parts, tags=tags)
        self.both_uploads(at, lambda backend, key, upload: backend.complete(key, upload, parts, attributes, given).size)
        self.both(self.info(key))

    @precondition(lambda self: self.uploads)
    @rule(at=st.integers(0, 5))
    def abort(self, at: int) -> None:
        self.both_uploads(at, lambda backend, key, upload: backend.abort(key, upload))
        del self.uploads[at % len(self.uploads)]

    @rule(name=st.sampled_from(BUCKETS), query=queries)
    def list_uploads(self, name: str, query: Query) -> None:
        def action(backend: Backend) -> Any:
            page = backend.uploads(name, query)
            return [upload.key for upload in page.uploads], [*page.prefixes], page.truncated

        self.both(action)

    @precondition(lambda self: self.restarts)
    @rule()
    def restart(self) -> None:
        while self.readings:
            self.finish_reading()
        self.ours.close()
        self.ours = self.open()

    def teardown(self) -> None:
        try:
            while self.readings:
                self.finish_reading()
            for bucket in BUCKETS:
                self.list_objects(bucket, Query())
                page = outcome(lambda bucket=bucket: self.model.list(bucket, Query()))
                for entry in () if isinstance(page, type) else page.entries:
                    self.get(Key(bucket, entry.name), None, ALWAYS)
        finally:
            for ours, _ in self.readings:
                ours.__exit__(None, None, None)
            self.ours.close()
            self.stack.close()


def taken(reading: Any) -> bytes:
    """All that a reading gives."""
    return b"".join(bytes(piece) for piece in reading.pieces())


def timeless_part(part: Part) -> Part:
    """A part that compares by value, without its time."""
    return part._replace(mtime_ns=0, checksums=dict(part.checksums))
