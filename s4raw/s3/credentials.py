"""The key pairs that clients of the S3 daemon may sign with, from files and the environment.

A file holds one ``ACCESS_KEY SECRET_KEY`` a line (``#`` begins a comment), or is an INI file as AWS's tools keep it: in
each section ``aws_access_key_id`` and ``aws_secret_access_key``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from s4raw.errors import ConfError

# The first pair of variables that is set counts; ours before those that also name the keys of a remote S3.
VARIABLES = (("S3D_ACCESS_KEY", "S3D_SECRET_KEY"), ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
MAX_FILE_BYTES = 1 << 20


class Credentials:
    """Key pairs: which secret goes with an access key. Never changes, so threads share it."""

    __slots__ = ("_secrets",)

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = dict(secrets)

    def __len__(self) -> int:
        return len(self._secrets)

    def __repr__(self) -> str:
        return f"Credentials({', '.join(self._secrets)})"  # no secrets in logs and tracebacks

    def pairs(self) -> dict[str, str]:
        """The secret of each access key."""
        return dict(self._secrets)

    def secret(self, access_key: str) -> str | None:
        """The secret of an access key; None if the key is not known."""
        return self._secrets.get(access_key)

    def first(self) -> tuple[str, str]:
        """The first access key with its secret, which our own client signs with. Raises ConfError if there is none."""
        for pair in self._secrets.items():
            return pair
        raise ConfError("no S3 keys: name a file of them, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


def from_file(path: str) -> Credentials:
    """Read a file of key pairs. Raises ConfError, which names the file and the line."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfError(f"cannot read the S3 keys in {path}: {reason}") from None
    if len(text) > MAX_FILE_BYTES:
        raise ConfError(f"the S3 keys in {path} have more than {MAX_FILE_BYTES} bytes")
    return parse(text, path)


def parse(text: str, source: str = "the S3 keys") -> Credentials:
    """Parse the text of a file of key pairs. Raises ConfError."""
    lines = [(number, line) for number, raw in enumerate(text.splitlines(), 1) if (line := _content(raw))]
    if lines and lines[0][1].startswith("["):
        found = list(_ini(lines, source))
    else:
        found = list(_plain(lines, source))
    secrets: dict[str, str] = {}
    for number, access_key, secret in found:
        _check(f"{source}, line {number}", access_key, secret)
        if secrets.setdefault(access_key, secret) != secret:
            raise ConfError(f"{source}, line {number}: a second secret for the access key {access_key}")
    if not secrets:
        raise ConfError(f"{source} holds no key pair; it needs one ACCESS_KEY SECRET_KEY a line")
    return Credentials(secrets)


def from_environment(environment: Mapping[str, str] | None = None) -> Credentials | None:
    """The key pair in the environment; None if there is none. Raises ConfError if there is half of one."""
    variables = os.environ if environment is None else environment
    for key_name, secret_name in VARIABLES:
        access_key, secret = variables.get(key_name, ""), variables.get(secret_name, "")
        if access_key and secret:
            _check(f"${key_name}", access_key, secret)
            return Credentials({access_key: secret})
        if access_key or secret:
            there, missing = (key_name, secret_name) if access_key else (secret_name, key_name)
            raise ConfError(f"${there} is set, ${missing} is not: S3 keys come in pairs")
    return None


def mode_warning(path: str) -> str:
    """What is to be said about a file of secrets that others may read; empty if it is their owner's alone."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return ""
    if not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return ""
    return f"the S3 keys in {path} are open to others (mode {mode:04o}); chmod 600 makes them yours alone"


def _content(line: str) -> str:
    """A line without its comment, which begins at its start or after white space: a secret may hold a ``#``."""
    line = line.strip()
    if line.startswith(("#", ";")):
        return ""
    words = line.split()
    end = next((index for index, word in enumerate(words) if word.startswith("#")), len(words))
    return " ".join(words[:end])


def _plain(lines: list[tuple[int, str]], source: str) -> Iterator[tuple[int, str, str]]:
    for number, line in lines:
        words = line.split()
        if len(words) != 2:  # what it says may be a secret, so it is not shown
            raise ConfError(f"{source}, line {number}: need ACCESS_KEY SECRET_KEY, got {len(words)} words")
        yield number, words[0], words[1]


def _ini(lines: list[tuple[int, str]], source: str) -> Iterator[tuple[int, str, str]]:
    section, started, pair = "", 0, {"aws_access_key_id": "", "aws_secret_access_key": ""}

    def complete() -> bool:
        if any(pair.values()) and not all(pair.values()):
            raise ConfError(f"{source}, line {started}: the section {section} needs {' and '.join(pair)}")
        return all(pair.values())

    for number, line in [*lines, (0, "[]")]:
        if line.startswith("["):
            if not line.endswith("]"):
                raise ConfError(f"{source}, line {number}: a section's name ends with ]")
            if complete():
                yield started, pair["aws_access_key_id"], pair["aws_secret_access_key"]
            section, started, pair = line, number, dict.fromkeys(pair, "")
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise ConfError(f"{source}, line {number}: need NAME = VALUE")
        if name.lower() in pair:  # others, as the region, are for clients
            pair[name.lower()] = value


def _check(where: str, access_key: str, secret: str) -> None:
    if not access_key.isascii() or not access_key.isprintable() or set(access_key) & set("/,: "):
        raise ConfError(f"{where}: an access key is ASCII without white space, '/', ',' and ':'")
    if not secret.isascii() or not secret.isprintable():
        raise ConfError(f"{where}: the secret of {access_key} is not printable ASCII")
