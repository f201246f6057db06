"""The error tree: its codes are on the wire and in scripts, so they stay what they are."""

import pytest

from s4raw import errors
from s4raw.errors import BY_CODE, KeyExists, S4Error, from_code

# class: wire code, exit code, HTTP status
TREE = {
    "S4Error": (1, 1, 500),
    "UsageError": (2, 2, 400),
    "ConfError": (3, 2, 500),
    "BadKey": (4, 2, 400),
    "NoSuchKey": (5, 1, 404),
    "KeyExists": (6, 1, 409),
    "WrongServer": (7, 1, 421),
    "RingMismatch": (8, 2, 421),
    "AuthFailed": (9, 2, 403),
    "CommandFailed": (10, 1, 500),
    "CommandTimeout": (11, 1, 500),
    "Busy": (12, 1, 503),
    "DiskFull": (13, 1, 507),
    "StoreError": (14, 1, 500),
    "InternalError": (15, 1, 500),
    "Unreachable": (16, 1, 502),
    "ConnectionLost": (17, 1, 502),
    "PeerTimeout": (18, 1, 504),
    "ProtocolError": (19, 1, 400),
    "VersionMismatch": (20, 1, 400),
    "Cancelled": (21, 130, 499),
    "Corrupt": (22, 1, 500),
    "LocalFileError": (23, 1, 500),
    "BadRange": (24, 2, 416),
    "KeyChanged": (25, 1, 412),
    "NoSuchUpload": (26, 1, 404),
    "NoSuchCall": (27, 1, 404),
    "CallFailed": (28, 1, 500),
    "Interrupted": (29, 130, 499),
    "NoSuchBucket": (30, 1, 404),
    "BucketNotEmpty": (31, 1, 409),
    "PreconditionFailed": (32, 1, 412),
    "NotModified": (33, 1, 304),
    "InvalidPart": (34, 1, 400),
    "QueueFull": (35, 1, 503),
    "Refused": (36, 1, 502),
}


def classes(root: type[S4Error] = S4Error) -> list[type[S4Error]]:
    return [root, *(found for child in root.__subclasses__() for found in classes(child))]


def test_codes_are_what_they_always_were():
    ours = [found for found in classes() if found.__module__ == errors.__name__]
    assert {found.__name__: (found.code, found.exit_code, found.http_status) for found in ours} == TREE


def test_no_two_classes_share_a_code():
    assert sorted(BY_CODE) == list(range(1, len(TREE) + 1))
    assert {found.__name__ for found in BY_CODE.values()} == set(TREE)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_an_error_is_rebuilt_from_its_code(code):
    error = from_code(code, "why", server="1.2.3.4:5", key="s4://b/k", detail=b"\xff", status=7)
    assert type(error) is BY_CODE[code]
    assert (error.message, error.server, error.key, error.detail, error.status) == (
        *("why", "1.2.3.4:5", "s4://b/k"),
        *(b"\xff", 7),
    )


def test_an_unknown_code_keeps_the_words():
    error = from_code(9999, "from the future", server="s:1", key="", detail=b"", status=0)
    assert type(error) is S4Error
    assert str(error) == "from the future (server s:1)"


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({}, "no"),
        ({"key": "s4://b/k"}, "no (key s4://b/k)"),
        ({"server": "a:1"}, "no (server a:1)"),
        ({"key": "s4://b/k", "server": "a:1"}, "no (key s4://b/k, server a:1)"),
    ],
)
def test_an_error_says_where_it_happened(where, text):
    assert str(KeyExists("no", **where)) == text


def test_at_fills_in_only_what_is_unknown():
    error = KeyExists("no", key="s4://b/first")
    assert error.at(server="a:1", key="s4://b/second") is error
    assert error.at(server="b:2") is error
    assert (error.key, error.server) == ("s4://b/first", "a:1")


def test_the_documented_tree_names_every_class():
    assert set(TREE) <= set((errors.__doc__ or "").split())
