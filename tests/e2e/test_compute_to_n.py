"""``map-to-n``, the shuffle: the files that a command prints go to the servers that their names ask for."""

import hashlib
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import CLI, wait_for

from s4raw.keys import Key

WORDS = [f"word{number * number % 997}" for number in range(600)]
# Writes every line of stdin to one of three files, by its length and last letter, and prints the files' names.
PARTITION = """awk '{ name = sprintf("%05d", (length($0) + substr($0, length($0))) % 3); print > name; seen[name] }
    END { for (name in seen) print name }'"""


def bucket_of(word):
    return (len(word) + int(word[-1])) % 3


def put(client, files, directory="in"):
    for name, content in files.items():
        client.put(f"s4://b/{directory}/{name}", content)


def below(client, directory):
    """The keys below a directory of bucket b with their content, by relative path."""
    start = len(directory) + 1
    return {
        entry.name[start:]: client.get(Key("b", entry.name))
        for entry in client.list(f"s4://b/{directory}/", recursive=True)
    }


def to_n(s4raw, command, **options):
    return s4raw("map-to-n", "s4://b/in/", "s4://b/out/", command, **options)


def test_a_shuffle_brings_each_part_to_one_server(s4raw, client):
    pieces = {f"{number:05}": WORDS[number::6] for number in range(6)}
    put(client, {name: "".join(f"{word}\n" for word in words).encode() for name, words in pieces.items()})
    done = to_n(s4raw, PARTITION)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert below(client, "out") == {
        f"{name}/{part:05}": "".join(f"{word}\n" for word in words if bucket_of(word) == part).encode()
        for name, words in pieces.items()
        for part in range(3)
    }
    servers = {name[-1]: client.stat(f"s4://b/out/{name}").server for name in below(client, "out")}
    assert [servers[part] for part in "012"] == list(client.topology.servers)


def test_map_and_map_from_n_go_on_from_its_output(s4raw, client):
    put(client, {f"{number:05}": "".join(f"{word}\n" for word in WORDS[number::6]).encode() for number in range(6)})
    to_n(s4raw, PARTITION)
    s4raw("map", "s4://b/out/", "s4://b/mapped/", "tr a-z A-Z")
    assert sorted(below(client, "mapped")) == sorted(below(client, "out"))
    s4raw("map-from-n", "s4://b/mapped/", "s4://b/merged/", "xargs cat")
    expected = {f"{part:05}": sorted(word.upper() for word in WORDS if bucket_of(word) == part) for part in range(3)}
    assert {name: sorted(text.decode().split()) for name, text in below(client, "merged").items()} == expected


def test_outputs_are_named_after_the_input_and_the_file(s4raw, client):
    put(client, {"deep/00001_a": b"1", "name": b"2"})
    to_n(s4raw, "cat > 00002_x.csv; echo $filename > other; echo ./00002_x.csv; echo $PWD/other")
    assert below(client, "out") == {
        "00001_a/00002_x.csv": b"1",
        "00001_a/other": b"00001_a\n",
        "name/00002_x.csv": b"2",
        "name/other": b"name\n",
    }


def test_a_glob_picks_the_inputs(s4raw, client):
    put(client, {"00001_a": b"1", "00001_b": b"2"})
    s4raw("map-to-n", "s4://b/in/*_b", "s4://b/out/", "cat > x; echo x")
    assert below(client, "out") == {"00001_b/x": b"2"}


@pytest.mark.parametrize("command", ["true", "echo", "echo; echo", "touch file"])
def test_zero_files_and_blank_lines_are_fine(s4raw, client, command):
    put(client, {f"{number}": b"" for number in range(4)})
    to_n(s4raw, command)
    assert below(client, "out") == {}


def test_blank_lines_between_paths_and_a_missing_last_newline_are_fine(s4raw, client):
    put(client, {"1": b""})
    to_n(s4raw, r"touch a b; printf '\na\n\n\nb'")
    assert below(client, "out") == {"1/a": b"", "1/b": b""}


def test_files_in_subdirectories_give_their_basename(s4raw, client):
    put(client, {"1": b"x"})
    to_n(s4raw, "mkdir -p d/e; cat > d/e/file; cp d/e/file d/2; find d -type f")
    assert below(client, "out") == {"1/file": b"x", "1/2": b"x"}


def test_hard_and_symbolic_links_are_files_of_their_own(s4raw, client):
    put(client, {"0": b"content"})
    names = [f"{kind}{number}" for number in range(6) for kind in ("hard", "soft")]
    to_n(
        s4raw, f"cat > 0; for i in {{0..5}}; do ln 0 hard$i; ln -s 0 soft$i; done; echo {' '.join(names)} 0 | xargs -n1"
    )
    assert below(client, "out") == {f"0/{name}": b"content" for name in ["0", *names]}
    client.remove("s4://b/out/0/0")
    assert set(below(client, "out").values()) == {b"content"}


def test_a_hard_link_to_a_key_becomes_a_key_of_its_own(s4raw, ring, client):
    put(client, {"0": b"content"})
    to_n(s4raw, 'ln "$(readlink /proc/self/fd/0)" 3; echo 3')
    paths = [Path(ring.data, "0/b/in/0"), Path(ring.data, "0/b/out/0/3")]
    assert len({path.stat().st_ino for path in paths}) == 2
    assert below(client, "out") == {"0/3": b"content"}
    assert below(client, "in") == {"0": b"content"}


def test_files_of_all_sizes_arrive_whole_here_and_elsewhere(s4raw, client):
    put(client, {"0": b""})
    sizes = [0, 1, 256 << 10, (256 << 10) + 1, 9 << 20]
    commands = [
        f"head -c {size} /dev/urandom > {3 * i + server}; " for i, size in enumerate(sizes) for server in range(3)
    ]
    to_n(s4raw, "".join(commands) + "ls; sha256sum * > sums; echo sums")
    out = below(client, "out")
    sums = dict(reversed(line.split()) for line in out.pop("0/sums").decode().splitlines())
    assert [len(out[f"0/{number}"]) for number in range(15)] == [size for size in sizes for _ in range(3)]
    assert {name[2:]: hashlib.sha256(content).hexdigest() for name, content in out.items()} == sums


def test_many_small_files(s4raw, client):
    put(client, {"0": b"", "1": b""})
    to_n(s4raw, "for i in {1..300}; do echo $i > $i; echo $i; done")
    assert below(client, "out") == {f"{n}/{i}": b"%d\n" % i for n in "01" for i in range(1, 301)}


def test_an_output_below_the_input_is_no_input_of_the_same_call(s4raw, client, ring, tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(2, 6000, 3):  # enough to look through for server 2 that shipped files arrive meanwhile
        (tmp_path / f"a/{number:05}").touch()
    s4raw("cp", "-r", "a", "s4://b/in/a")
    put(client, {f"z/{number:05}_x": b"" for number in range(6)})
    late = ring.processes[2]
    late.send_signal(signal.SIGSTOP)
    command = "touch 00001_x 00002_x; echo 00001_x; echo 00002_x"
    try:
        with subprocess.Popen(
            [*CLI, "map-to-n", "-c", ring.conf, "s4://b/in/*_x", "s4://b/in/z/out/", command]
        ) as call:
            with suppress(AssertionError):  # a call that waits for the late one ships nothing yet
                wait_for(lambda: len(list(Path(ring.data).glob("1/b/in/z/out/*/*"))) >= 2, seconds=1)
            late.send_signal(signal.SIGCONT)
            assert call.wait(60) == 0
    finally:
        late.send_signal(signal.SIGCONT)
    assert sorted(below(client, "in/z/out")) == [f"{n:05}_x/0000{part}_x" for n in range(6) for part in (1, 2)]


# Failures


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo nosuch", "nosuch"),
        ("mkdir dir; echo dir", "dir"),
        ("echo .", "."),
        ("echo /etc/hostname", "/etc/hostname"),
        ("echo ../file", "../file"),
        ("ln -s /etc/hostname link; echo link", "link"),
        ("ln -s nowhere link; echo link", "link"),
        ("mkfifo pipe; echo pipe", "pipe"),
        ("touch 'a b'; echo 'a b'", "a b"),
        ("touch ok; echo 'ok '", "ok "),
    ],
)
def test_a_path_that_cannot_be_an_output_fails_at_once_and_names_the_input(s4raw, client, command, message):
    put(client, {"1": b""})
    failed = to_n(s4raw, command, code=1).stderr.decode()
    assert message in failed
    assert f"(key s4://b/in/1, server {client.stat('s4://b/in/1').server}, call " in failed
    assert below(client, "out") == {}


def test_of_two_files_of_one_name_neither_is_lost_without_a_word(s4raw, client):
    put(client, {"1": b""})
    failed = to_n(s4raw, "mkdir a b; echo 1 > a/x; echo 2 > b/x; echo a/x; echo b/x", code=1).stderr.decode()
    server = client.topology.place_basename("1")
    assert f"two paths for one key, 'x' (key s4://b/in/1, server {server}, call " in failed
    assert below(client, "out") == {}


def test_inputs_of_one_name_in_two_directories_cannot_give_one_output(s4raw, client):
    put(client, {"a/1": b"", "b/1": b""})
    assert b"s4://b/out/1/x" in to_n(s4raw, "touch x; echo x", code=1).stderr


def test_a_failing_command_ships_nothing(s4raw, client):
    put(client, {f"{number}": b"" for number in range(3)})
    failed = to_n(s4raw, "for i in 0 1 2; do touch $i; echo $i; done; echo oops >&2; exit 5", code=1).stderr.decode()
    assert failed.startswith("oops\n")
    assert "the command exited with 5 (key s4://b/in/" in failed
    assert below(client, "out") == {}
