"""Key names that a file system, a listing's order or a careless join would get wrong."""

from hypothesis import strategies as st

from s4raw.keys import MAX_KEY_BYTES

PARTS = [
    *("a", "b", "a.b", "a!", "a0", "A", "-rf", "~", "*", "$x", "\\", "'", '"', "\n", " ", "\t", "\x01", "\x7f"),
    *("", ".", "..", "...", "%", "%=", "%+", "%-", "%%", "%.", "%..", "%+a", "%-a", "_tmp", "_lock"),
    *("é", "e\u0301", "😀", "\u2028", "\ufeff", "\uffff", "\U0010ffff"),
    *("p" * 239, "p" * 240, "p" * 241, "p" * 254, "p" * 255, "p" * 256, "p" * 257, "p" * 300, "p" * 1024),
    *("%" + "p" * 253, "%" + "p" * 254, "%" + "p" * 255, "p" * 240 + "%", "p" * 240 + "/%=", "%=" * 200),
    *(
        "é" * 120,
        "é" * 127,
        "é" * 128,
        "é" * 512,
        "p" + "é" * 127,
        "😀" * 60,
        "😀" * 63,
        "😀" * 64,
        "p" * 239 + "é" * 10,
    ),
]

# Names that get into each other's way.
NAMES = [
    *(
        "a",
        "a/",
        "a//",
        "a/b",
        "a//b",
        "a/b/c",
        "a.b",
        "a!",
        "a0",
        "a/.",
        "a/..",
        "a/%",
        "a/%=",
        "a/b/%=/c",
        "/a",
        "//a",
    ),
    *("/", "//", "///", ".", "..", "../..", "../a", "./a", "%", "%=", "%=/%=", "\n", "😀/é", "\uffff", "\U0010ffff"),
    *(
        "p" * 255,
        "p" * 256,
        "p" * 256 + "/q",
        "p" * 255 + "/q",
        "p" * 240,
        "p" * 240 + "/q",
        "p" * 240 + "q" * 240 + "/",
    ),
    *("p" * 240 + "!" * 16, "p" * 300, "p" * 300 + "/" + "q" * 300, "p" * 1024, "q" * 512 + "/" + "q" * 511, "é" * 512),
]


def is_key_name(name: str) -> bool:
    """Whether the store takes it."""
    return 0 < len(name.encode()) <= MAX_KEY_BYTES and "\0" not in name


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
key_names = st.lists(st.sampled_from(PARTS) | text, min_size=1, max_size=6).map("/".join).filter(is_key_name)
