"""The grammar of keys, and the only place that validates them.

Two grammars meet here. The *store* takes any valid S3 key: 1 to 1024 bytes of UTF-8 in a bucket. The ``s4://`` verbs
take less: no white space, no control characters, no empty, ``.`` or ``..`` parts (repeated slashes collapse, as they
did in s4, where a key was a path), and no bucket that begins with ``_``.

``key_prefix``, placement's raw material: the basename up to the first ``_`` if that is all digits, else the whole
basename. The rule and its golden values come from s4.
"""

from __future__ import annotations

import re

from s4raw.errors import BadKey, UsageError
from s4raw.record import NamedTuple

SCHEME = "s4://"
MAX_KEY_BYTES = 1024
MAX_NAME_BYTES = 255  # of a file's or directory's name, here and on the servers
MAX_BUCKET_BYTES = MAX_NAME_BYTES  # a bucket is a directory
GLOB_CHARACTERS = "*?["

_UNSPEAKABLE = re.compile(r"[\s\x00-\x1f\x7f]")
_ORDINARY_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_ORDINARY_NAME = re.compile(r"[!-~]{1,1024}")
_ORDINARY = re.compile(
    r"s4://([A-Za-z0-9][A-Za-z0-9._-]{0,254})/((?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*)"
)


class Key(NamedTuple):
    """A bucket and a key name. As a prefix (of a listing, say) the name may be empty or end in ``/``."""

    bucket: str
    name: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.name}"

    @property
    def basename(self) -> str:
        """The last path part of the name."""
        return self.name.rpartition("/")[2]

    def join(self, relative: str) -> Key:
        """The key ``relative`` below this directory."""
        directory = self.name if not self.name or self.name.endswith("/") else self.name + "/"
        return Key(self.bucket, directory + relative)


class Entry(NamedTuple):
    """One line of a listing: a key with its size in bytes and its mtime in nanoseconds, or a common prefix."""

    name: str
    size: int
    mtime_ns: int
    is_prefix: bool = False


def parse_key(text: str) -> Key:
    """Parse ``s4://bucket/key`` into a Key. Raises BadKey."""
    if (match := _ORDINARY.fullmatch(text)) and len(
        match[2]
    ) <= MAX_KEY_BYTES:  # no rule can be broken: four times as fast
        return Key(match[1], match[2])
    key = parse_prefix(text)
    if not key.bucket or not key.name or key.name.endswith("/"):
        raise BadKey(f"need a key, as in s4://bucket/dir/name, got a directory: {text!r}")
    return check_key(key)


def parse_directory(text: str) -> Key:
    """Parse ``s4://bucket/dir/`` into a Key whose name is empty or ends in ``/``. Raises BadKey."""
    prefix = parse_prefix(text)
    if not prefix.bucket:
        raise BadKey(f"need a bucket, as in s4://bucket/dir/, got {text!r}")
    return prefix if not prefix.name or prefix.name.endswith("/") else Key(prefix.bucket, prefix.name + "/")


def parse_prefix(text: str) -> Key:
    """Parse ``s4://bucket/pre`` into a Key whose name is any prefix, also an empty one. Raises BadKey."""
    if not text.startswith(SCHEME):
        raise BadKey(f"need a path that begins with s4://, got {text!r}")
    check_speakable(text)
    path = text[len(SCHEME) :]
    while "//" in path:
        path = path.replace("//", "/")
    bucket, _, name = path.partition("/")
    if bucket.startswith("_"):
        raise BadKey(f"buckets cannot begin with an underscore: {text!r}")
    if {".", ".."} & {bucket, *name.split("/")}:
        raise BadKey(f"'.' and '..' are not allowed as parts of s4:// paths: {text!r}")
    if name and not bucket:
        raise BadKey(f"need a bucket, as in s4://bucket/key, got {text!r}")
    check_prefix(Key(bucket, name))
    return Key(bucket, name)


def is_glob(text: str) -> bool:
    """Whether a text holds a character that makes it a glob."""
    return any(character in text for character in GLOB_CHARACTERS)


def parse_glob(text: str) -> tuple[Key, str]:
    """Split ``s4://bucket/dir/*_1`` into its directory and its glob (empty if none). Raises BadKey, UsageError.

    The directory ends before the first part that holds a glob character. The glob is matched with ``fnmatch`` against
    the path below the directory, so ``*`` also matches ``/``.
    """
    prefix = parse_prefix(text)
    parts = prefix.name.split("/")
    for index, part in enumerate(parts):
        if is_glob(part):
            return Key(prefix.bucket, "".join(f"{part}/" for part in parts[:index])), "/".join(parts[index:])
    if is_glob(prefix.bucket):
        raise UsageError(f"a glob cannot stand in the bucket: {text!r}")
    return parse_directory(text), ""


def check_speakable(text: str) -> str:
    """Check that a path can be said as ``s4://...``: no white space, no control characters. Raises BadKey."""
    if (" " in text or not text.isprintable()) and re.search(_UNSPEAKABLE, text):  # what is printable has no other
        raise BadKey(f"white space and control characters are not allowed in s4:// paths: {text!r}")
    return text


def check_key(key: Key) -> Key:
    """Check what the store takes: a bucket, and a name of 1 to 1024 bytes of UTF-8 without NUL. Raises BadKey."""
    if _ORDINARY_BUCKET.fullmatch(key.bucket) and _ORDINARY_NAME.fullmatch(key.name):
        return key  # no rule can be broken
    if not key.name:
        raise BadKey("a key needs a name after the bucket", key=str(key))
    if not key.bucket:
        raise BadKey("a key needs a bucket", key=str(key))
    check_prefix(key)
    return key


def check_prefix(prefix: Key) -> None:
    """Check a prefix of keys: like ``check_key``, but bucket and name may be empty. Raises BadKey."""
    bucket = prefix.bucket
    if bucket.startswith("_") or bucket in (".", "..") or "/" in bucket or "\0" in bucket:
        raise BadKey(f"not a bucket: {bucket!r} (no '/', no NUL, no leading '_', not '.' or '..')")
    if len(_utf8(bucket)) > MAX_BUCKET_BYTES:
        raise BadKey(f"a bucket's name has at most {MAX_BUCKET_BYTES} bytes: {bucket[:80]!r}...")
    if "\0" in prefix.name:
        raise BadKey(f"NUL is not allowed in keys: {prefix.name!r}")
    if len(_utf8(prefix.name)) > MAX_KEY_BYTES:
        raise BadKey(f"a key has at most {MAX_KEY_BYTES} bytes: {prefix.name[:80]!r}...")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadKey(f"keys are UTF-8, this is not: {text!r}") from None


def key_prefix(basename: str) -> str:
    """What places a key: the digits before the first ``_`` of its basename if it begins so, else all of it.

    Only ASCII digits count: ``12_a`` gives ``12``, ``12a`` gives ``12a``, ``name_1`` gives ``name_1``.
    """
    digits, _, _ = basename.partition("_")
    return digits if digits.isascii() and digits.isdigit() else basename


def key_suffix(basename: str) -> str:
    """What follows a numeric prefix, with its ``_``: ``12_a`` gives ``_a``; empty if there is none."""
    prefix = key_prefix(basename)
    return basename[len(prefix) :]


def common_suffix(basenames: list[str]) -> str:
    """The ``_suffix`` that all names share, or an empty string."""
    suffixes = {key_suffix(basename) for basename in basenames}
    return suffixes.pop() if len(suffixes) == 1 else ""
