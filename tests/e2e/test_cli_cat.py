"""``cat``: keys to stdout, in order."""

from pathlib import Path


def put(client, **contents):
    for name, content in contents.items():
        client.put(f"s4://b/dir/{name}", content)


def test_keys_come_in_the_order_of_the_arguments_and_globs_in_that_of_the_names(s4raw, client):
    large = bytes(range(256)) * 8192
    put(client, a_1=b"one\n", b_1=large, c_2=b"\0two", d_1=b"")
    done = s4raw("cat", "s4://b/dir/c_2", "s4://b/dir/*_1", "s4://b/dir/c_2", "s4://b/dir/b_1")
    assert done.stdout == b"\0twoone\n" + large + b"\0two" + large


def test_a_missing_key_ends_it_after_those_before(s4raw, client):
    put(client, a=b"a", b=b"b")
    failed = s4raw("cat", "s4://b/dir/a", "s4://b/dir/none", "s4://b/dir/b", code=1)
    assert failed.stdout == b"a"
    assert b"no such key (key s4://b/dir/none" in failed.stderr
    assert b"no key matches s4://b/dir/x*" in s4raw("cat", "s4://b/dir/x*", code=1).stderr


def test_a_damaged_key_is_an_error_and_a_small_one_from_a_glob_is_not_written_at_all(s4raw, client):
    put(client, a=b"aaa", b=b"bbb")
    path = Path(client.stat("s4://b/dir/b").path)
    path.chmod(0o644)
    path.write_bytes(b"bXb")
    failed = s4raw("cat", "s4://b/dir/?", code=1)
    assert failed.stdout == b"aaa"
    assert b"s4://b/dir/b" in failed.stderr
    assert b"s4://b/dir/b" in s4raw("cat", "s4://b/dir/b", code=1).stderr
