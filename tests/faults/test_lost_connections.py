"""A connection that is lost in mid-call: what is safe to repeat is repeated, and nothing is done twice or half."""

import random

import pytest
from conftest import cli_runner
from fault_ring import conversation, emptied, fault_ring, finish, hello_size, start_cli
from proxy import DOWN, UP, Cut

from s4raw.errors import ConnectionLost, KeyExists, NoSuchKey

SMALL = random.Random(3).randbytes(50_000)  # one frame
LARGE = random.Random(4).randbytes(20 << 20)  # several, of a file as of bytes
bodies = pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])


@pytest.fixture(scope="module")
def _proxied(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("lost"), proxied=True) as ring:
        yield ring


@pytest.fixture
def ring(_proxied):
    """One server behind a proxy, empty; at rest again at the end."""
    with emptied(_proxied) as ring:
        yield ring


@pytest.fixture
def proxy(ring):
    return ring.proxies[0]


@pytest.fixture
def client(ring):
    with ring.client() as client:
        yield client


@pytest.fixture
def run(ring, tmp_path):
    return cli_runner(ring, tmp_path)


@pytest.fixture
def answer_lost(ring):
    """Cuts a connection when its first answer comes: the request was served."""
    return [Cut(DOWN, hello_size(ring)[DOWN])]


IN_MID_BODY_UP, IN_MID_BODY_DOWN = [Cut(UP, 30_000)], [Cut(DOWN, 30_000)]


@bodies
def test_a_put_cut_in_the_middle_is_sent_again(ring, proxy, client, body):
    proxy.plan.extend([IN_MID_BODY_UP] * 2)
    client.put("s4://b/k", body)
    assert not proxy.plan and ring.published() == ["b/k"]
    assert client.get("s4://b/k") == body


@bodies
def test_a_put_of_a_file_cut_in_the_middle_is_sent_again(ring, proxy, run, tmp_path, body):
    (tmp_path / "file").write_bytes(body)
    proxy.plan.extend([IN_MID_BODY_UP] * 2)
    run("cp", "file", "s4://b/k")
    assert not proxy.plan and run("cp", "s4://b/k", "-").stdout == body


def test_many_gets_cut_in_the_middle_lose_nothing(ring, proxy, client):
    for number in range(200):
        client.put(f"s4://b/{number}", SMALL[:1000] + b"%d" % number)
    client.close()
    proxy.plan.extend([IN_MID_BODY_DOWN] * 2)
    got = client.get_many(f"s4://b/{number}" for number in range(200))
    assert [content[1000:] for _, content in got] == [b"%d" % number for number in range(200)]
    assert not proxy.plan


@bodies
def test_a_put_whose_answer_was_lost_is_done(ring, proxy, client, answer_lost, body):
    proxy.plan.append(answer_lost)
    client.put("s4://b/k", body)
    assert not proxy.plan and client.get("s4://b/k") == body


@bodies
def test_a_put_of_a_file_whose_answer_was_lost_is_done(proxy, run, tmp_path, answer_lost, body):
    (tmp_path / "file").write_bytes(body)
    proxy.plan.append(answer_lost)
    run("cp", "file", "s4://b/k")
    assert not proxy.plan and run("cp", "s4://b/k", "-").stdout == body


@bodies
@pytest.mark.parametrize("other", [b"other", SMALL[:-1] + b"!"])
def test_a_put_that_was_cut_does_not_take_another_content_for_its_own(proxy, client, body, other):
    client.put("s4://b/k", other)
    client.close()
    proxy.plan.append(IN_MID_BODY_UP)
    with pytest.raises(KeyExists):
        client.put("s4://b/k", body)
    assert client.get("s4://b/k") == other


def test_a_put_of_what_is_there_already_fails_when_nothing_was_lost(client):
    client.put("s4://b/k", SMALL)
    with pytest.raises(KeyExists):
        client.put("s4://b/k", SMALL)


def test_a_put_that_is_cut_each_time_fails_and_publishes_nothing(ring, proxy, run):
    proxy.always = IN_MID_BODY_UP
    error = run("cp", "-", "s4://b/k", input=SMALL, code=1).stderr.decode()
    assert "s4://b/k" in error and ring.servers[0] in error
    assert ring.published() == []


@bodies
def test_a_pipe_is_not_sent_a_second_time(ring, proxy, run, body):
    proxy.plan.append(IN_MID_BODY_UP)
    error = run("cp", "-", "s4://b/k", input=body, code=1).stderr.decode()
    assert "s4://b/k" in error and ring.servers[0] in error
    assert not proxy.plan and ring.published() == []


@bodies
def test_a_pipe_whose_answer_was_lost_is_recognised(proxy, run, answer_lost, body):
    proxy.plan.append(answer_lost)
    run("cp", "-", "s4://b/k", input=body)
    assert not proxy.plan and run("cp", "s4://b/k", "-").stdout == body


@bodies
def test_a_get_cut_in_the_middle_is_asked_again(proxy, client, run, tmp_path, body):
    client.put("s4://b/k", body)
    client.close()
    proxy.plan.extend([IN_MID_BODY_DOWN] * 2)
    assert client.get("s4://b/k") == body
    proxy.plan.extend([IN_MID_BODY_DOWN] * 2)
    run("cp", "s4://b/k", "here")
    assert not proxy.plan and (tmp_path / "here").read_bytes() == body


def test_a_get_that_is_cut_each_time_fails_and_leaves_no_file(ring, proxy, client, run, tmp_path):
    client.put("s4://b/k", SMALL)
    proxy.always = IN_MID_BODY_DOWN
    for arguments in (["s4://b/k", "here"], ["s4://b/k", "-"], ["-r", "s4://b/", "out/"]):
        error = run("cp", *arguments, code=1).stderr.decode()
        assert "s4://b/k" in error and ring.servers[0] in error
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_stream_is_not_asked_again(proxy, client):
    client.put("s4://b/k", SMALL)
    got = bytearray()
    proxy.plan.append(IN_MID_BODY_DOWN)
    with pytest.raises(ConnectionLost):
        client.get_stream("s4://b/k", got.extend)
    assert SMALL.startswith(got)


def test_a_delete_whose_answer_was_lost_is_done(proxy, client, answer_lost):
    client.put("s4://b/k", SMALL)
    client.close()
    proxy.plan.append(answer_lost)
    client.remove("s4://b/k")
    assert not proxy.plan
    with pytest.raises(NoSuchKey):
        client.get("s4://b/k")


def tree(path, sizes):
    """A directory of files of these sizes, in this order."""
    path.mkdir()
    for number, size in enumerate(sizes):
        (path / f"{number:03}").write_bytes(random.Random(number).randbytes(size))
    return {file.name: file.read_bytes() for file in path.iterdir()}


TREES = {
    "small": [20_000] * 80,
    "large": [300_000] * 3,
    "small-then-large": [1000, 300_000, 1000, 300_000],
}


@pytest.mark.parametrize("sizes", TREES.values(), ids=TREES)
@pytest.mark.parametrize("fault", ["body", "answer"])
def test_a_tree_goes_up_whole_over_connections_that_are_cut(proxy, run, tmp_path, answer_lost, sizes, fault):
    content = tree(tmp_path / "tree", sizes)
    proxy.plan.append(answer_lost if fault == "answer" else IN_MID_BODY_UP)
    run("cp", "-r", "tree", "s4://b/tree")
    assert not proxy.plan
    run("cp", "-r", "s4://b/tree/", "back/")
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == content


@pytest.mark.parametrize("sizes", TREES.values(), ids=TREES)
def test_a_tree_comes_down_whole_over_connections_that_are_cut(proxy, run, tmp_path, sizes):
    content = tree(tmp_path / "tree", sizes)
    run("cp", "-r", "tree", "s4://b/tree")
    proxy.plan.extend([IN_MID_BODY_DOWN] * 2)
    run("cp", "-r", "s4://b/tree/", "back/")
    assert not proxy.plan
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == content


@pytest.mark.parametrize(
    "arguments",
    [
        ["cp", "-r", "tree", "s4://b/tree"],
        ["cp", "tree/000", "s4://b/k"],
        ["cp", "s4://b/k", "here"],
        ["ls", "s4://b/"],
        ["rm", "s4://b/k"],
        ["rm", "-r", "s4://b/"],
        ["map", "s4://b/", "s4://out/", "cat"],
        ["eval", "s4://b/k", "cat"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("fault", ["hello", "answer"])
def test_a_server_that_hangs_up_each_time_is_named(ring, proxy, tmp_path, answer_lost, arguments, fault):
    tree(tmp_path / "tree", [10])
    proxy.always = answer_lost if fault == "answer" else [Cut(DOWN, 0)]
    assert ring.servers[0] in finish(start_cli(ring, tmp_path, *arguments), 1).decode()


CALLS = {
    "put": lambda client: client.put("s4://b/new", SMALL),
    "get": lambda client: client.get("s4://b/k"),
    "stat": lambda client: client.stat("s4://b/k"),
    "list": lambda client: list(client.list("s4://b/")),
    "remove": lambda client: client.remove("s4://b/k"),
    "remove_all": lambda client: client.remove_all("s4://b/"),
    "eval": lambda client: client.eval("s4://b/k", "cat", lambda _: None, lambda _: None),
    "map": lambda client: client.map("s4://b/", "s4://out/", "cat"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_kept_connection_that_was_closed_is_not_used(ring, proxy, client, call):
    client.put("s4://b/k", SMALL)
    for passage in proxy.passages:
        passage.close()
    call(client)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_kept_connection_that_died_unnoticed_does_no_harm(ring, proxy, client, call):
    client.put("s4://b/k", SMALL)
    client.close()
    client.stat("s4://b/k")
    client.close()
    proxy.plan.append([Cut(UP, conversation(ring)[UP])])
    client.stat("s4://b/k")  # its connection is kept, and dies at the next byte
    assert not proxy.plan
    call(client)


def test_a_move_whose_answer_was_lost_is_done(proxy, run, client, answer_lost):
    client.put("s4://b/k", SMALL)
    proxy.plan.append(answer_lost)
    run("mv", "s4://b/k", "s4://b/moved")
    assert not proxy.plan
    assert [entry.name for entry in client.list("s4://b")] == ["moved"]
