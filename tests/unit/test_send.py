"""``send.py``: what it says of names, and how it reads them; it runs where there is nothing but an old Python."""

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4raw import send

SCRIPT = Path(send.__file__)
NAMES = st.text(min_size=1).filter(lambda text: "\0" not in text)


def python_38():
    """An old interpreter that works, if there is one."""
    found = os.environ.get("PYTHON38") or shutil.which("python3.8")
    if found and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
        return found
    pytest.skip("no python3.8 (or $PYTHON38)")


def test_it_is_python_3_8_and_imports_only_the_standard_library():
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 8))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_a_copy_of_it_runs_under_python_3_8(tmp_path):
    copy = shutil.copy(SCRIPT, tmp_path / "send.py")
    environment = {"S3DAEMON_SOCKET": str(tmp_path / "none"), "PATH": os.environ["PATH"]}
    for words in (["--queued", "x", "a/b/c"], ["-"]):
        command = [python_38(), copy, *words]
        done = subprocess.run(command, input=b"x a/b/c", capture_output=True, env=environment, check=False)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"cannot reach the push daemon at" in done.stderr
        assert b"Traceback" not in done.stderr


def test_its_start_imports_nothing_that_is_slow():
    code = "import sys; from s4raw import send; print(send.main(['--queued', 'x', 'a/b/c']), *sys.modules)"
    environment = {**os.environ, "S3DAEMON_SOCKET": "", "S3DAEMON_HOST": "localhost", "S3DAEMON_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    code, *modules = done.stdout.split()
    assert code == "1"
    assert not {"json", "re", "typing", "socket", "argparse", "collections", "enum", "encodings.idna"} & set(modules)


@given(NAMES, NAMES, st.none() | NAMES, st.none() | st.dictionaries(NAMES, NAMES), st.booleans(), st.booleans())
def test_every_name_arrives_as_it_is(file, dest, kind, metadata, queued, snapshot):
    line = send.Options(queued, snapshot, 2.5, kind, metadata).line(file, dest, 2.5)
    assert line.endswith(b"\n")
    assert line.startswith(b'{"')
    assert b"\n" not in line[:-1]
    wanted = {"file": file, "to": dest, "ack": "queued" if queued else "stored", "wait": 2.5}
    wanted |= {"snapshot": True} if snapshot else {}
    wanted |= {"type": kind} if kind else {}
    wanted |= {"metadata": metadata} if metadata else {}
    assert json.loads(line) == wanted


@given(st.binary(min_size=1, max_size=50).filter(lambda name: b"\0" not in name))
def test_a_path_of_any_bytes_arrives_as_it_is(name):
    path = send._absolute(b"/d/" + name)
    line = send.Options().line(path, "a/b/c", None)
    arrived = json.loads(line)["file"].encode(errors="surrogateescape")
    assert os.path.normpath(arrived) == os.path.normpath(b"/d/" + name)


def test_a_path_is_made_absolute_without_following_links(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert send._absolute("link//x") == f"{tmp_path}/link/x"
    assert send._absolute("./x") == f"{tmp_path}/x"
    assert send._absolute("link/../x") == f"{tmp_path}/link/../x", "only the kernel knows what .. of a link is"


def pairs_of(data, null=False, step=None):
    """What stands in ``data``, arriving in pieces of ``step`` bytes, and what is wrong with it."""
    reader, writer = os.pipe()
    failures = []
    found = []
    pairs = send.read_pairs(reader, null, lambda file, dest, error: failures.append((file, dest, str(error))))
    pieces = [data[at : at + step] for at in range(0, len(data), step)] if step else [data]
    for pair in pairs:
        if pair is not None:
            found.append(pair)
        elif pieces and (piece := pieces.pop(0)):
            os.write(writer, piece)
        elif writer >= 0:
            os.close(writer)
            writer = -1
    os.close(reader)
    if writer >= 0:
        os.close(writer)
    return found, failures


@pytest.mark.parametrize("step", [None, 1, 3])
def test_pairs_are_read_by_line_or_by_nul_however_they_arrive(step):
    assert pairs_of(b"a b/c/d\n\n  e   f/g/h \n\xffx i/j/k", step=step) == (
        [(b"a", "b/c/d"), (b"e", "f/g/h"), (b"\xffx", "i/j/k")],
        [],
    )
    assert pairs_of(b"a b\nc\0d/e/f g\0h\0i/j/k", null=True, step=step) == (
        [(b"a b\nc", "d/e/f g"), (b"h", "i/j/k")],
        [],
    )


def test_a_line_that_is_no_pair_is_named_and_the_others_are_read():
    found, [(where, _, error)] = pairs_of(b"a b/c/d\none two three\ne f/g/h\n")
    assert found == [(b"a", "b/c/d"), (b"e", "f/g/h")]
    assert where == "line 2 of stdin"
    assert "got 3 words" in error


def test_a_file_without_its_destination_is_named():
    found, [(where, _, error)] = pairs_of(b"a\0b/c/d\0lonely\0", null=True)
    assert found == [(b"a", "b/c/d")]
    assert (where, error) == ("lonely", "stdin ended before its destination")


def test_a_name_without_end_does_not_fill_the_memory():
    found, [(where, _, error)] = pairs_of(b"a b/c/d\n" + b"x" * (send.MAX_LINE * 3), step=1 << 15)
    assert found == [(b"a", "b/c/d")]
    assert where == "stdin"
    assert "a name of more than" in error


@pytest.mark.parametrize(
    ("host", "port", "where"),
    [
        (None, None, "localhost:15555"),
        ("", "", "localhost:15555"),
        ("::1", "99", "[::1]:99"),
        ("[::1]", "99", "[::1]:99"),
        ("10.0.0.1", "65535", "10.0.0.1:65535"),
    ],
)
def test_the_environment_says_where_the_daemon_is(monkeypatch, host, port, where):
    for name, value in {"HOST": host, "PORT": port, "SOCKET": None}.items():
        monkeypatch.delenv(f"S3DAEMON_{name}", raising=False)
        if value is not None:
            monkeypatch.setenv(f"S3DAEMON_{name}", value)
    assert send._address(None)[1] == where
    monkeypatch.setenv("S3DAEMON_SOCKET", "/run/x")
    assert send._address(None)[1] == "/run/x"
    assert send._address("/run/y")[1] == "/run/y"


def test_each_address_of_a_name_is_tried(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in (1, listener.getsockname()[1])
        ]
        monkeypatch.setattr(send.socket, "getaddrinfo", lambda *_: found)
        send._connect(("two-addresses", 1), 5.0).close()


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "\uff11"])
def test_a_port_that_is_none_is_named(monkeypatch, port):
    monkeypatch.setenv("S3DAEMON_PORT", port)
    monkeypatch.delenv("S3DAEMON_SOCKET", raising=False)
    with pytest.raises(ValueError, match="S3DAEMON_PORT is no port"):
        send._address(None)


@pytest.mark.parametrize(
    "words",
    [
        ["one"],
        [],
        ["one", "a/b/c", "more"],
        ["-", "a/b/c"],
        ["", "a/b/c"],
        ["one", ""],
        ["-0", "one", "a/b/c"],
        ["--wait", "0", "one", "a/b/c"],
        ["--wait", "soon", "one", "a/b/c"],
        ["--wait=inf", "one", "a/b/c"],
        ["one", "a/b/c", "--wait"],
        ["--metadata", "k", "one", "a/b/c"],
        ["--metadata", "=v", "one", "a/b/c"],
        ["--type=", "one", "a/b/c"],
        ["--loud", "one", "a/b/c"],
        ["-q", "one", "a/b/c"],
    ],
)
def test_wrong_usage_is_exit_code_2(capsys, words):
    assert send.main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "see s4raw-send --help\nUsage: s4raw-send" in shown.err


def test_options_may_stand_anywhere_before_two_dashes():
    words = ["f", "--queued", "--wait=3", "--metadata", "k=v=w", "--metadata=l=", "--type", "a/b", "--", "--snapshot"]
    names, null, found = send.options_of(words)
    assert (names, null) == (["f", "--snapshot"], False)
    assert found == {"queued": True, "wait": 3.0, "metadata": {"k": "v=w", "l": ""}, "type": "a/b"}
