"""Requests through a proxy: which one the environment names, what it is asked, and what it says no with."""

from contextlib import contextmanager

import pytest
from objects_support import KEY, Body
from scripted import Scripted, Visit, head_of
from test_remote_faults import says

from s4raw.errors import ConfError, Unreachable
from s4raw.objects.remote import RemoteOptions, open_remote
from s4raw.remote.proxies import proxy_of
from s4raw.s3.outgoing import Place, Proxy

STORE = "storage.test:1234"
GIVEN = {"region": "us-east-1", "access_key": "AK", "secret_key": "SK", "max_attempts": 1}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """What the environment of the tests says of proxies does not count."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@contextmanager
def through(monkeypatch, act, scheme, user=""):
    """A proxy, and the backend of a server that nothing else leads to."""
    with Scripted(act) as proxy:
        act.server = proxy
        monkeypatch.setenv(f"{scheme}_proxy", proxy.endpoint.replace("//", f"//{user}"))
        backend = open_remote(RemoteOptions(f"{scheme}://{STORE}", **GIVEN))
        try:
            yield proxy, backend
        finally:
            backend.close()


def test_a_proxy_is_told_the_whole_address_and_who_asks(monkeypatch):
    with through(monkeypatch, says(), "http", "me:p%40ss@") as (server, backend):
        backend.put(KEY, Body(b"body"))
        backend.delete(KEY)
    assert [asked.target for asked in server.asked] == [
        *(f"http://{STORE}/bucket", f"http://{STORE}/bucket/dir/key", f"http://{STORE}/bucket/dir/key")
    ]
    assert {asked.headers["host"] for asked in server.asked} == {STORE}
    assert {asked.headers["proxy-authorization"] for asked in server.asked} == {"Basic bWU6cEBzcw=="}
    assert server.connections == 1


@pytest.mark.parametrize("free", ["*", "storage.test", ".test", "other,storage.test:1234"])
def test_hosts_that_need_none_are_asked_themselves(monkeypatch, free):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:8080")
    assert proxy_of(Place.of(f"http://{STORE}")) == Proxy("proxy.test", 8080)
    assert proxy_of(Place.of(f"https://{STORE}")) is None
    monkeypatch.setenv("NO_PROXY", free)
    assert proxy_of(Place.of(f"http://{STORE}")) is None


@pytest.mark.parametrize("wrong", ["https://u:secret@p:1", "socks5://u:secret@p:1", "http://u:secret@", "u:secret@p:x"])
def test_a_proxy_that_cannot_be_used_is_told_of_without_its_password(monkeypatch, wrong):
    monkeypatch.setenv("https_proxy", wrong)
    with pytest.raises(ConfError, match="HTTPS_PROXY") as caught:
        proxy_of(Place.of("https://storage.test"))
    assert "secret" not in str(caught.value)


def test_a_proxy_that_says_no_is_named(monkeypatch):
    def act(visit: Visit) -> bool:
        server.remember(visit, b"")
        visit.sock.sendall(head_of(407, 0))
        return False

    words = r"through the proxy 127\.0\.0\.1:[0-9]+: .*407"
    with through(monkeypatch, act, "https") as (server, backend), pytest.raises(Unreachable, match=words):
        backend.head(KEY)
    assert [(asked.method, asked.target) for asked in server.asked] == [("CONNECT", STORE)]
