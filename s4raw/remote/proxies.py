"""Which proxy leads to a server: what the environment says to every SDK ($HTTP_PROXY, $HTTPS_PROXY, $NO_PROXY)."""

from __future__ import annotations

import os
from base64 import b64encode
from urllib.parse import unquote_to_bytes, urlsplit

from s4raw.errors import ConfError
from s4raw.s3.outgoing import Place, Proxy


def proxy_of(place: Place) -> Proxy | None:
    """The proxy for requests to a server, None without one. Raises ConfError for one that cannot be used.

    Names of variables count in either case; $NO_PROXY names hosts and domains, as ``urllib.request`` reads it.
    """
    variable = f"{place.scheme}_proxy"
    if not any(name.lower() == variable for name in os.environ):
        return None  # what knows the rest takes as long to import as a small command takes in all
    from urllib.request import getproxies, proxy_bypass

    text = getproxies().get(place.scheme, "")
    if not text or proxy_bypass(place.host):
        return None
    try:
        url = urlsplit(text if "//" in text else f"http://{text}")
        name, port = url.hostname, url.port or 80
    except ValueError:
        name = None
    if not name or url.scheme != "http":
        raise ConfError(f"the proxy that ${variable.upper()} names: need http://HOST:PORT")  # it may hold a password
    user, _, rest = url.netloc.rpartition("@")[0].partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(rest)
    return Proxy(name, port, {"proxy-authorization": f"Basic {b64encode(pair).decode()}"} if user else {})
