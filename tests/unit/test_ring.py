"""The ring: confs are read and keys are placed as s4 did it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import timeless

from s4raw.errors import ConfError
from s4raw.keys import Key, parse_key
from s4raw.ring import CONF_VARIABLE, MAX_SERVERS, Topology, split_address, stable_hash

THREE = Topology.parse("10.0.0.1:8080\n10.0.0.2:8080\n10.0.0.3:8080\n", "three.conf")
A, B, C = THREE.servers
EXISTING = "\n0.0.0.0:8000\n\n0.0.0.0:8001\n   \n0.0.0.0:8002\n\n"  # what s4's own tests run on


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("asdf", 8348297608100219689),
        ("123", 10211175311721367273),
        ("hello", 7921424674728911129),
        ("é", 10165466761592623070),
    ],
)
def test_the_hash_is_the_one_of_s4(text, number):
    assert stable_hash(text) == number


@pytest.mark.parametrize(
    ("key", "server"),
    [
        ("s4://bucket/a.txt", A),
        ("s4://bucket/d.txt", C),
        ("s4://bucket/f.txt", B),
        ("s4://other/dir/f.txt", B),
        ("s4://b/0", A),
        ("s4://b/1", B),
        ("s4://b/00002_x", C),
        ("s4://b/3_x", A),
        ("s4://b/dir/00004_x_y", B),
        ("s4://b/" + "9" * 1000 + "8", C),
    ],
)
def test_keys_are_placed_where_s4_placed_them(key, server):
    assert THREE.place(parse_key(key)) == server


@timeless
@given(st.integers(0, 10**30), st.integers(0, 20), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_a_numeric_prefix_places_by_its_value(number, zeros, suffix):
    name = "0" * zeros + f"{number}_{suffix}".replace("/", "")
    assert THREE.place(Key("b", "dir/" + name)) == THREE.servers[number % 3]


@timeless
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/0123456789"), min_size=1))
def test_any_other_name_is_placed_by_its_hash_whatever_lies_before(name):
    assert THREE.place(Key("b", f"x/{name}")) == THREE.place(Key("c", name)) == THREE.servers[stable_hash(name) % 3]


def test_the_conf_of_an_existing_s4_cluster_works():
    ring = Topology.parse(EXISTING)
    assert ring.servers == ("0.0.0.0:8000", "0.0.0.0:8001", "0.0.0.0:8002")
    assert split_address(ring.servers[2]) == ("0.0.0.0", 8002)


@pytest.mark.parametrize(
    "text", ["10.0.0.1:80", "10.0.0.1:80\r\n", "  10.0.0.1:80\t\n", "\n\n10.0.0.1:80\n\n", "10.0.0.1:00080"]
)
def test_white_space_in_a_conf_does_not_matter(text):
    assert Topology.parse(text).servers == ("10.0.0.1:80",)


@pytest.mark.parametrize(
    "line",
    [
        *("10.0.0.1", "10.0.0.1:", ":80", "10.0.0:80", "10.0.0.1.2:80", "host:80", "::1:80", "[::1]:80"),
        *("256.0.0.1:80", "10.0.0.999:80", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:99999", "10.0.0.1:-1"),
        *("10.0.0.1:80 10.0.0.2:80", "10.0.0.1:80,", "# a comment", "10.0.0.1:8²", "../../etc:80", "10.0.0.1:80\0"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line):
    with pytest.raises(ConfError, match=r"^my\.conf, line 3: .*ipv4:port"):
        Topology.parse(f"10.0.0.8:80\n\n{line}\n10.0.0.9:80\n", "my.conf")


def test_a_server_that_is_named_twice_is_refused_with_both_lines():
    with pytest.raises(ConfError, match=r"line 4: 10\.0\.0\.1:80 .* line 1"):
        Topology.parse("10.0.0.1:80\n10.0.0.2:80\n\n10.0.0.1:80\n")


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"])
def test_a_conf_without_servers_is_refused(text):
    with pytest.raises(ConfError, match="no server"):
        Topology.parse(text)


def test_a_conf_has_a_limit_of_servers():
    lines = [f"10.0.{index >> 8}.{index & 255}:80" for index in range(MAX_SERVERS + 1)]
    assert len(Topology.parse("\n".join(lines[:-1])).servers) == MAX_SERVERS
    with pytest.raises(ConfError, match="at most"):
        Topology.parse("\n".join(lines))


def test_the_conf_is_the_one_named_or_that_of_the_environment_or_that_of_the_user(tmp_path, monkeypatch):
    for name, port in ((".s4.conf", 1), ("variable.conf", 2), ("named.conf", 3)):
        (tmp_path / name).write_text(f"10.0.0.1:{port}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(CONF_VARIABLE, raising=False)
    assert Topology.read().servers == ("10.0.0.1:1",)
    monkeypatch.setenv(CONF_VARIABLE, str(tmp_path / "variable.conf"))
    assert Topology.read().servers == ("10.0.0.1:2",)
    named = Topology.read(str(tmp_path / "named.conf"))
    assert (named.servers, named.source) == (("10.0.0.1:3",), str(tmp_path / "named.conf"))


@pytest.mark.parametrize("content", [None, b"\xff\xfe1", b""])
def test_a_conf_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "my.conf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfError, match=r"my\.conf"):
        Topology.read(str(path))
    with pytest.raises(ConfError, match=r"cannot read the conf"):
        Topology.read(str(tmp_path))


def test_the_digest_tells_rings_apart_by_their_lines_and_nothing_else():
    assert Topology.parse(EXISTING, "x").digest == Topology.parse(EXISTING.strip().replace("\n\n", "\n"), "y").digest
    others = ["0.0.0.0:8000", "0.0.0.0:8001\n0.0.0.0:8000\n0.0.0.0:8002", "0.0.0.0:8000\n0.0.0.0:8001\n0.0.0.0:8003"]
    assert len({Topology.parse(text).digest for text in [EXISTING, *others]}) == 4


def test_the_digest_is_what_it_always_was():
    assert THREE.digest.hex() == "f0211a0c6f22c3decaa024a086cbb432"


def test_a_ring_is_described_in_one_line():
    assert Topology.parse("10.0.0.1:80").describe() == "1 server [10.0.0.1:80]"
    assert THREE.describe() == f"3 servers [{A}, {B}, {C}]"
    many = Topology.parse("\n".join(f"10.0.0.{index}:80" for index in range(1, 100)))
    assert many.describe().endswith(", ...]")
