"""``map-from-n``, the merge: keys of one numeric prefix, or one name, become one key where they lie."""

import re
from pathlib import Path

import pytest

from s4raw.keys import Key


def put(client, files, directory="in"):
    for name, content in files.items():
        client.put(f"s4://b/{directory}/{name}", content)


def below(client, directory="out"):
    """The keys below a directory of bucket b with their content, by relative path."""
    start = len(directory) + 1
    return {
        entry.name[start:]: client.get(Key("b", entry.name))
        for entry in client.list(f"s4://b/{directory}/", recursive=True)
    }


def from_n(s4raw, command="xargs cat", places=("s4://b/in/", "s4://b/out/"), **options):
    return s4raw("map-from-n", *places, command, **options)


def test_keys_of_one_number_are_merged(s4raw, client):
    put(client, {f"{piece:05}/{part:05}": b"%d of %d\n" % (piece, part) for piece in range(5) for part in range(4)})
    done = from_n(s4raw)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert below(client) == {
        f"{part:05}": b"".join(b"%d of %d\n" % (piece, part) for piece in range(5)) for part in range(4)
    }


def test_keys_of_one_name_are_merged(s4raw, client):
    names = ["ada", "bob.txt", "c_1", "1x", "_"]
    put(client, {f"{piece}/{name}": piece.encode() for piece in "xyz" for name in names})
    from_n(s4raw)
    assert below(client) == dict.fromkeys(names, b"xyz")


@pytest.mark.parametrize(
    ("names", "output"),
    [
        (["a/000_bucket0", "b/000_bucket0"], "000_bucket0"),
        (["a/000_x", "b/000_y"], "000"),
        (["a/000_x", "b/000"], "000"),
        (["a/000", "b/000"], "000"),
        (["000_x_y.csv"], "000_x_y.csv"),
        (["a/12_", "b/12_"], "12_"),
    ],
)
def test_the_suffix_that_all_inputs_share_is_kept(s4raw, client, names, output):
    put(client, dict.fromkeys(names, b"x"))
    from_n(s4raw)
    assert below(client) == {output: b"x" * len(names)}


def test_equal_numbers_that_are_written_differently_are_different_names(s4raw, client):
    put(client, {"a/1": b"1", "a/01": b"2", "b/1_x": b"3"})
    from_n(s4raw)
    assert below(client) == {"1": b"13", "01": b"2"}


def test_inputs_and_output_lie_on_one_server(s4raw, ring, client):
    put(client, {f"{piece}/{part}": b"" for piece in "ab" for part in ("00004_x", "00005_x", "name", "d.txt")})
    from_n(s4raw, "cat")
    for name, text in below(client).items():
        [data] = [f"{ring.data}/{i}" for i in range(ring.count) if Path(ring.data, str(i), "b/out", name).exists()]
        assert text.decode().splitlines() == [f"{data}/b/in/{piece}/{name}" for piece in "ab"]


def test_deep_directories_can_be_picked_by_path(s4raw, client):
    months = {"may": (1, 2), "jun": (3, 4), "jul": (5, 6)}
    for month, numbers in months.items():
        put(client, {f"{month}/00{key}_key{key}/000_bucket0": b"%d\n" % n for key, n in enumerate(numbers)})
    from_n(s4raw, "grep -e may -e jun | xargs cat | sort -n")
    assert s4raw("eval", "s4://b/out/000_bucket0", "cat").stdout == b"1\n2\n3\n4\n"


def test_a_glob_picks_the_inputs(s4raw, client):
    put(client, {"a/0_x": b"1", "a/0_y": b"2", "b/0_x": b"3"})
    from_n(s4raw, places=("s4://b/in/*_x", "s4://b/out/"))
    assert below(client) == {"0_x": b"13"}


def test_the_paths_are_those_of_the_stored_files(s4raw, client):
    put(client, {f"{piece}/0": piece.encode() for piece in "abc"})
    from_n(s4raw, "while read -r path; do [[ -f $path && ! -w $path ]] || [[ $EUID = 0 ]]; stat -c %a $path; done")
    assert below(client) == {"0": b"444\n" * 3}


def test_a_merge_of_many_keys(s4raw, client, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(2000):
        (tmp_path / f"in/0_{number}").write_text(f"{number}\n")
    s4raw("cp", "-r", "in", "s4://b/in")
    from_n(s4raw, "xargs cat | awk '{ sum += $1 } END { print NR, sum }'")
    assert below(client) == {"0": b"2000 %d\n" % sum(range(2000))}


def test_an_output_below_the_input_is_no_input_of_the_same_call(s4raw, client):
    put(client, {f"{piece}/{part}": b"x" for piece in "ab" for part in range(6)})
    from_n(s4raw, places=("s4://b/in/", "s4://b/in/out/"))
    assert below(client, "in/out") == {f"{part}": b"xx" for part in range(6)}


def test_filename_is_the_name_of_the_output(s4raw, client):
    put(client, {"a/0_x": b"", "b/0_x": b"", "name": b""})
    from_n(s4raw, "echo $filename")
    assert below(client) == {"0_x": b"0_x\n", "name": b"name\n"}


def test_a_failure_names_the_output_and_the_server(s4raw, client):
    put(client, {f"{piece}/{part}": b"" for piece in "ab" for part in range(6)})
    failed = from_n(s4raw, "if [[ $filename = 4 ]]; then echo oops >&2; exit 3; fi", code=1).stderr.decode()
    server = client.topology.place_basename("4")
    said = f"oops\ns4raw: the command exited with 3 (key s4://b/out/4, server {server}, call ID)\n"
    assert re.sub(r"call \w{9}\b", "call ID", failed) == said
    assert "4" not in below(client)
