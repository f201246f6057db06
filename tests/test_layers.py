"""The package's shape: which module may import which, who may touch what lies outside, and how long things may be.

Reads the source and imports nothing. An import counts wherever it stands: in a function, or under `if TYPE_CHECKING`.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "s4raw"

# module -> the package's modules it may import. `__init__` is the package itself.
MAY_IMPORT: dict[str, set[str]] = {
    # what everything stands on
    "errors": set(),
    "log": set(),
    "record": set(),
    "keys": {"record", "errors"},
    "digest": {"errors"},
    "ring": {"record", "errors", "keys", "digest"},
    "blocks": {"record", "errors", "digest"},
    "buffers": {"digest"},
    # the protocol and its connections
    "wire": {"record", "errors", "keys", "digest"},
    "spinning": {"processors"},
    "net": {"record", "errors", "spinning"},
    "channel": {"errors", "wire", "net"},
    "handshake": {"errors", "wire", "channel", "ring"},
    "serving": {"log", "net"},
    "processors": set(),
    # the disk
    "layout": {"keys"},
    "syscalls": set(),
    "spawning": set(),
    "tree": {"layout", "syscalls"},
    "children": {"record", "layout", "tree"},
    "walking": {"keys", "layout", "tree", "children"},
    "places": set(),
    "disk": {"errors", "keys", "places", "syscalls"},
    "placing": {"layout", "tree"},
    "store": {"errors", "keys", "digest", "blocks", "layout", "tree", "placing", "walking", "disk"},
    "uploads": {"errors", "record", "keys", "digest", "blocks", "disk", "store"},
    # the client
    "connection": {"record", "errors", "wire", "net", "channel", "handshake", "ring"},
    "bodies": {"record", "errors", "keys", "digest", "blocks", "wire", "net", "connection"},
    "reader": {"keys", "digest", "connection", "bodies"},
    "files": {"errors", "keys", "digest"},
    "fanout": {"errors", "channel", "connection"},
    "pipeline": {"errors", "keys", "wire", "connection", "bodies"},
    "listing": {"keys", "wire", "connection", "bodies"},
    "download": {*("record", "errors", "keys", "digest", "blocks"), *("wire", "connection", "bodies", "fanout")},
    "upload": {"errors", "keys", "digest", "wire", "connection", "bodies", "fanout"},
    "events": {"record", "errors"},
    "mapping": {"record", "errors", "keys", "digest", "events", "wire", "connection", "fanout"},
    "commands": {"errors", "keys", "ring", "wire", "connection", "bodies", "mapping"},
    "client": {
        *("errors", "keys", "digest", "ring", "wire", "handshake", "connection", "bodies", "files", "fanout"),
        *("listing", "pipeline", "reader", "upload", "download", "commands"),
    },
    "bulk": {"record", "errors", "keys", "wire", "connection", "bodies", "files", "fanout", "client", "pipeline"},
    "scrub": {"keys", "wire", "connection", "fanout"},
    "moving": {"errors", "keys", "digest", "wire", "connection", "bodies", "client"},
    # the server
    "procs": {"errors", "spawning"},
    "jobs": {"errors", "disk"},
    "node": {
        *("errors", "log", "keys", "handshake", "ring", "disk", "store", "uploads", "jobs", "procs", "client"),
        "objects.local",
    },
    "nearby": {"errors", "digest", "disk", "store", "wire", "net", "channel", "ring", "connection", "client", "procs"},
    "tasks": {"errors", "keys", "blocks", "disk", "store", "bulk", "node", "nearby"},
    "compute": {"errors", "keys", "store", "procs", "bulk", "node", "nearby", "tasks"},
    "plans": {"keys", "node", "tasks", "compute"},
    "shipping": {
        *("errors", "digest", "keys", "files", "wire", "connection", "pipeline", "fanout", "client", "bulk", "procs"),
    },
    "calls": {
        *("errors", "wire", "events", "disk", "bulk", "procs", "node", "tasks", "compute", "plans", "shipping"),
        "nearby",
    },
    "session": {
        *("errors", "keys", "buffers", "wire", "channel", "handshake", "serving"),
        *("node",),
    },
    "receiving": {"errors", "keys", "digest", "wire", "bodies", "session"},
    "storing": {"errors", "keys", "digest", "blocks", "wire", "net", "disk", "store", "session", "receiving"},
    "scrubbing": {"errors", "keys", "digest", "wire", "disk", "store", "node", "session"},
    "computing": {
        *("errors", "keys", "digest", "events", "wire", "net", "procs", "jobs", "compute", "plans", "calls", "session"),
    },
    "server": {"errors", "digest", "wire", "session", "storing", "scrubbing", "computing", "objecting"},
    "workers": {"errors", "log"},
    "daemon": {
        *("running", "errors", "log", "buffers", "ring", "wire", "net", "channel", "handshake", "serving"),
        *("disk", "store", "procs", "client", "node", "session", "server"),
    },
    "running": {"log", "net", "processors", "syscalls", "workers"},
    "unix": {"errors", "net"},
    "metrics": set(),
    "local": {"errors", "net", "ring", "client"},
    # S3: where objects live
    "objects": set(),
    "objects.base": {"errors", "keys"},
    "objects.sources": {"errors", "objects.base"},
    # what is to reach a remote store
    "queue": set(),
    "via": set(),
    "queue.entries": {"keys", "objects.base", "objects.sources"},
    "queue.rows": {"errors", "keys", "objects", "objects.codec", "objects.base", "objects.sources", "queue.entries"},
    "queue.reserve": set(),
    "queue.journal": {"disk", "errors", "queue.reserve", "queue.rows"},
    "queue.backlog": {"errors", "queue.entries", "queue.rows"},
    "queue.loading": {"errors", "queue.backlog", "queue.journal", "queue.rows", "queue.spool"},
    "queue.room": {"errors", "queue.entries"},
    "queue.spool": {"disk", "errors", "objects.base", "objects.filling", "objects.sources"},
    "queue.files": {"errors", "objects.sources", "queue.entries"},
    "queue.queue": {
        *("errors", "keys", "queue.backlog", "queue.entries", "queue.files", "queue.journal", "queue.loading"),
        *("queue.outcomes", "queue.room", "queue.rows", "queue.spool", "queue.together"),
    },
    "queue.together": {
        *("errors", "queue.entries", "queue.files", "queue.room", "queue.rows", "queue.spool"),
    },
    "queue.outcomes": {"errors"},
    "queue.pace": set(),
    "queue.asking": {"errors"},
    "queue.measured": {"metrics", "queue.entries", "queue.upkeep"},
    "queue.upkeep": {"keys", "queue.asking", "queue.entries", "queue.queue"},
    "queue.pusher": {
        *("errors", "log", "objects.base", "objects.sources", "queue.entries", "queue.files", "queue.pace"),
        *("queue.queue", "via"),
    },
    # S3: what clients speak
    "s3": set(),
    "s3.errors": {"errors"},
    "s3.xml": {"s3.errors"},
    "s3.call": {
        "queue.queue",
        *("keys", "objects.base", "s3.checksums", "s3.errors", "s3.payload", "s3.http", "s3.credentials", "s3.sigv4"),
    },
    "s3.headers": {"objects.base", "s3", "s3.errors", "s3.xml"},
    "s3.conditions": {"objects.base", "s3.errors", "s3.headers"},
    "s3.buckets": {"s3", "s3.call", "s3.errors", "s3.headers", "s3.xml"},
    "s3.listing": {"objects.base", "s3", "s3.buckets", "s3.call", "s3.errors", "s3.xml"},
    "s3.objects": {
        *("errors", "objects.base"),
        *("s3", "s3.buckets", "s3.call", "s3.conditions", "s3.errors", "s3.headers", "s3.xml"),
    },
    "s3.deleting": {
        *("errors", "keys"),
        *("s3", "s3.buckets", "s3.call", "s3.conditions", "s3.errors", "s3.objects", "s3.xml", "via"),
    },
    "s3.copying": {
        *("errors", "keys", "objects.base", "s3", "s3.buckets", "s3.call", "s3.checksums", "s3.conditions"),
        *("s3.errors", "s3.headers", "s3.objects", "s3.payload", "s3.xml"),
    },
    "s3.multipart": {
        *("objects.base", "s3", "s3.buckets", "s3.call", "s3.checksums", "s3.errors", "s3.headers", "s3.listing"),
        "s3.xml",
    },
    "s3.parts": {
        *("errors", "objects.base", "s3", "s3.buckets", "s3.call", "s3.checksums", "s3.conditions", "s3.copying"),
        *("s3.errors", "s3.headers", "s3.multipart", "s3.payload", "s3.xml"),
    },
    "s3.completing": {
        *("errors", "objects.base", "s3", "s3.buckets", "s3.call", "s3.checksums", "s3.conditions", "s3.errors"),
        *("s3.payload", "s3.xml"),
    },
    "s3.formdata": {"s3.errors"},
    "s3.forms": {
        *("errors", "keys", "objects.base", "s3", "s3.call", "s3.errors", "s3.formdata", "s3.headers", "s3.payload"),
        *("s3.policy", "s3.xml"),
    },
    "s3.routes": {
        *("s3", "s3.call", "s3.errors", "s3.buckets", "s3.copying", "s3.deleting", "s3.listing", "s3.objects"),
        *("s3.multipart", "s3.parts", "s3.completing", "s3.forms", "s3.undelivered"),
    },
    "s3.app": {
        *("errors", "keys", "log", "objects.base"),
        *("s3", "s3.call", "s3.errors", "s3.http", "s3.routes", "s3.signing", "s3.sigv4", "s3.xml", "via"),
    },
    "s3.checksums": {"s3.errors"},
    "s3.aws_chunked": {"s3.errors"},
    "s3.hashing": {"s3.checksums"},
    "s3.payload": {"objects.base", "s3.errors", "s3.checksums", "s3.aws_chunked", "s3.hashing"},
    "objects.paging": {"objects.base"},
    "objects.memory": {"errors", "keys", "objects.base", "objects.paging"},
    "s3.credentials": {"errors"},
    "s3.signing": set(),
    "s3.sigv2": {"s3.errors", "s3.credentials", "s3.signing"},
    "s3.sigv4": {"s3", "s3.errors", "s3.credentials", "s3.signing", "s3.sigv2"},
    "s3.policy": {"s3", "s3.errors", "s3.credentials", "s3.signing", "s3.sigv2", "s3.sigv4"},
    # S3: what its clients say
    "s3.head": set(),
    "s3.incoming": {"errors", "buffers", "net", "processors", "s3.head"},
    "s3.http": {"errors", "net", "s3.head", "s3.incoming"},
    "s3.tls": {"errors", "net"},
    # S3: our own client
    "s3.outgoing": {"errors"},
    "s3.connection": {"errors", "net", "s3.outgoing"},
    "s3.client": {
        *("errors", "keys"),
        *("s3", "s3.connection", "s3.errors", "s3.outgoing", "s3.signing", "s3.tls", "s3.xml"),
    },
    "s3.described": {"keys", "s3.client", "s3.connection", "s3.signing"},
    "s3.transfer": {"errors", "keys", "s3", "s3.checksums", "s3.client", "s3.connection", "s3.outgoing", "s3.xml"},
    # a remote S3
    "remote": set(),
    "remote.credentials": {"errors"},
    "remote.proxies": {"errors", "s3.outgoing"},
    "remote.pool": {"errors", "s3.connection"},
    "remote.refusals": {"errors", "s3.client", "s3.connection"},
    "remote.service": {
        *("errors", "keys", "via", "remote", "remote.credentials", "remote.pool", "remote.proxies", "remote.refusals"),
        *("s3", "s3.client", "s3.connection", "s3.errors", "s3.outgoing", "s3.signing", "s3.tls", "s3.xml"),
    },
    "remote.values": {"errors", "objects.base", "s3.conditions", "s3.headers"},
    "remote.bodies": {"errors", "objects.base", "objects.sources", "s3.outgoing"},
    "remote.reading": {"errors", "keys", "objects.base", "remote.pool", "remote.service", "s3.connection"},
    "remote.listing": {
        *("errors", "keys", "objects.base", "remote.service", "remote.values"),
        *("s3.client", "s3.conditions", "s3.xml"),
    },
    "remote.buckets": {
        *("errors", "keys", "objects.base", "remote", "remote.listing", "remote.service", "remote.values"),
        *("s3", "s3.client", "s3.xml"),
    },
    "remote.uploading": {
        *("errors", "keys", "objects.base", "objects.sources", "remote", "remote.bodies", "remote.service"),
        *("remote.values", "s3", "s3.client", "s3.connection", "s3.xml"),
    },
    "remote.parts": {
        *("errors", "keys", "objects.base", "objects.sources", "remote", "remote.bodies", "remote.service"),
        *("remote.uploading", "remote.values", "s3.client", "s3.outgoing"),
    },
    # the one backend that knows of HTTP: it is a client of it
    "objects.remote": {
        *("errors", "keys", "objects.base", "objects.sources", "s3.client"),
        *("remote", "remote.bodies", "remote.buckets", "remote.credentials", "remote.listing", "remote.parts"),
        *("remote.reading", "remote.service", "remote.uploading", "remote.values"),
    },
    # a remote store behind a queue
    "objects.reading": {"errors", "digest", "disk", "objects.base"},
    "objects.key_locks": {"keys"},
    "objects.known_buckets": {"errors", "disk", "objects.base"},
    "objects.pending": {"errors", "keys", "disk", "objects.base", "queue.entries", "queue.queue"},
    "objects.overlay_listing": {"objects.base", "objects.paging", "objects.pending"},
    "objects.emptying": {"errors", "keys", "objects.base", "queue.entries", "queue.queue"},
    "objects.queued": {
        *("errors", "keys", "blocks", "disk", "store", "queue.entries", "queue.queue", "queue.room"),
        *("objects.base", "objects.emptying", "objects.key_locks", "objects.known_buckets", "objects.local_parts"),
        *("objects.overlay_listing", "objects.pending", "objects.reading", "objects.sources", "via"),
    },
    # S3: the daemon
    "s3.undelivered": {
        *("errors", "keys", "queue", "queue.asking", "queue.entries", "queue.queue", "queue.upkeep"),
        *("s3.call", "s3.errors"),
    },
    "s3.upstream": {
        *("errors", "log", "net", "objects.base", "objects.queued", "objects.remote"),
        *("metrics", "queue.entries", "queue.measured", "queue.pusher", "queue.queue", "queue.upkeep", "s3.pages"),
    },
    "s3.session": {"errors", "log", "net", "processors", "serving", "s3.http"},
    "s3.pages": {"log", "net", "serving", "s3.http", "s3.session"},
    "s3.daemon": {
        *("errors", "handshake", "log", "net", "ring", "running", "serving"),
        *("objects.base", "objects.local", "objects.ring", "s3", "s3.app", "s3.call", "s3.credentials", "s3.head"),
        *("s3.session", "s3.tls", "s3.upstream"),
    },
    "objects.codec": {"errors", "keys", "objects.base"},
    "objects.ring": {
        *("errors", "keys", "digest", "ring", "wire", "connection", "bodies"),
        *("objects", "objects.base", "objects.codec", "objects.paging", "objects.sources"),
    },
    "objecting": {
        *("errors", "keys", "digest", "wire", "session", "receiving", "store", "storing"),
        *("objects", "objects.base", "objects.codec"),
    },
    "objects.attributes": {"errors", "blocks", "objects.base"},
    "objects.locks": {"keys", "disk", "store"},
    "objects.sidecars": {
        *("errors", "keys", "blocks", "layout", "tree", "disk", "store"),
        *("objects.attributes", "objects.locks"),
    },
    "objects.buckets": {"errors", "keys", "tree", "walking", "disk", "store", "objects.base", "objects.locks"},
    "objects.remembered": {"children", "blocks", "objects.base"},
    "objects.publishing": {
        *("errors", "keys", "blocks", "disk", "store", "objects"),
        *("objects.base", "objects.attributes", "objects.locks", "objects.sidecars", "objects.buckets"),
        "objects.remembered",
    },
    "objects.local": {
        *("errors", "keys", "digest", "blocks", "disk", "store", "objects"),
        *("objects.base", "objects.locks", "objects.sidecars", "objects.buckets", "objects.publishing"),
        *("objects.filling", "objects.local_listing", "objects.local_parts", "objects.reading"),
    },
    "objects.local_listing": {
        *("errors", "keys", "layout", "tree", "children", "walking", "blocks", "disk", "store", "objects"),
        *("objects.base", "objects.attributes", "objects.paging"),
    },
    "objects.filling": {"errors", "keys", "digest", "disk", "objects.base"},
    "objects.upload_files": {
        "record",
        "errors",
        "keys",
        "digest",
        "disk",
        "objects",
        "objects.base",
        "objects.attributes",
    },
    "objects.local_parts": {
        *("errors", "keys", "digest", "blocks", "disk", "store", "objects"),
        *(
            "objects.base",
            "objects.locks",
            "objects.paging",
            "objects.publishing",
            "objects.upload_files",
            "objects.filling",
        ),
    },
    # the uploader
    "push.protocol": {"errors", "keys", "queue", "queue.asking"},
    "push.roots": {"errors", "queue.files"},
    "push.deliveries": {"errors"},
    "push.transfers": {"errors", "log"},
    "push.spread": set(),
    "push.systemd": {"__init__", "unix"},
    "push.aliases": {
        *("errors", "handshake", "keys", "ring"),
        *("objects.base", "objects.remote", "objects.ring", "push.protocol"),
    },
    "push.uploader": {
        *("__init__", "errors", "keys", "metrics", "objects.base"),
        *("queue", "queue.asking", "queue.entries", "queue.files", "queue.measured", "queue.queue", "queue.upkeep"),
        *("push.aliases", "push.deliveries", "push.protocol", "push.roots", "push.spread"),
    },
    "push.session": {
        *("errors", "log", "net", "serving"),
        *("push.deliveries", "push.protocol", "push.uploader", "queue.entries"),
    },
    "push.status": {"metrics", "push.protocol", "push.uploader", "s3.pages"},
    "push.daemon": {
        *("__init__", "errors", "log", "net", "running", "serving", "unix"),
        *("objects.remote", "queue.entries", "queue.pusher", "queue.queue", "s3.pages"),
        *("push", "push.aliases", "push.roots", "push.session", "push.status", "push.systemd", "push.transfers"),
        "push.uploader",
    },
    # the uploader's clients; send stands alone, as it is copied to machines without the rest
    "send": set(),
    "push": set(),
    "push.report": {"errors"},
    "push.pictures": {"errors", "push.report"},
    "verbs.send": {"arguments", "errors", "send"},
    "verbs.queues": {"arguments", "errors", "output"},
    "verbs.push_client": {
        *("arguments", "errors", "output", "send", "push.protocol", "push.report", "push.pictures"),
        *("verbs", "verbs.queues"),
    },
    # the command line
    "usage": set(),
    "progress": {"output", "connection"},
    "syncing": {
        *("record", "errors", "keys", "digest", "files", "client", "bulk", "pipeline"),
        *("selection", "copying"),
    },
    "copying": {"errors", "keys", "files", "client", "bulk", "selection"},
    "output": {"errors"},
    "arguments": {"errors", "connection", "client"},
    "selection": {"record", "errors", "keys", "client"},
    "verbs": {"arguments", "errors"},
    "verbs.s3": {
        *("arguments", "s3.daemon", "verbs", "verbs.s3_client", "verbs.s3_queue", "verbs.s3_remote", "verbs.s3_status"),
    },
    "verbs.s3_status": {
        *("arguments", "errors", "keys", "output", "s3", "s3.client", "s3.described", "verbs.s3_client"),
        "verbs.s3_queue",
    },
    "verbs.s3_queue": {"arguments", "errors", "keys", "s3.client", "verbs", "verbs.queues", "verbs.s3_client"},
    "verbs.s3_remote": {"arguments", "errors", "s3.daemon", "s3.upstream"},
    "verbs.push": {"arguments", "errors", "push.daemon", "queue.entries", "s3.daemon", "verbs.push_client"},
    "verbs.s3_client": {
        *("arguments", "output", "errors", "keys", "bodies"),
        *("s3", "s3.client", "s3.credentials", "s3.described", "s3.transfer"),
    },
    "verbs.copy": {
        *("arguments", "output", "errors", "keys", "bodies", "client", "bulk", "files"),
        *("selection", "copying", "progress"),
    },
    "verbs.move": {
        *("arguments", "output", "errors", "keys", "client", "bulk", "files", "moving", "pipeline"),
        *("selection", "copying", "progress"),
    },
    "verbs.sync": {"arguments", "output", "errors", "keys", "selection", "copying", "syncing"},
    "verbs.scrub": {"arguments", "output", "errors", "keys", "progress", "scrub"},
    "verbs.keys": {"arguments", "output", "errors", "keys", "client", "pipeline", "selection", "progress"},
    "verbs.find": {"arguments", "output", "errors", "keys", "client", "selection"},
    "verbs.compute": {"arguments", "bodies"},
    "verbs.maps": {"arguments", "output", "errors", "events", "mapping", "progress"},
    "verbs.jobs": {"arguments", "output", "errors"},
    "verbs.completion": {"arguments", "errors", "verbs"},
    "verbs.run": {"arguments", "output", "errors", "client", "verbs"},
    "verbs.ring": {"arguments", "output", "ring", "daemon", "local"},
    "cli": {"__init__", "errors", "usage", "output", "verbs"},
    "__init__": {"errors", "client", "local"},
    "__main__": {"cli"},
}

# What lies outside the package and has an owner -> the modules that may import it. All else may come
# from the standard library, and only from there.
OWNERS: dict[str, set[str]] = {
    "xxhash": {"digest"},
    "docopt": {"arguments"},
    "awscrt": {"s3.checksums"},
    "socket": {"send"},  # net has what it wraps
    "_socket": {"net", "unix", "send"},
    "select": {"net", "spinning", "serving", "workers", "procs", "bodies", "computing", "send"},
    "matplotlib": {"push.pictures"},
    "sqlite3": {"queue.journal"},
    "ssl": {"s3.tls", "s3.connection"},
    "botocore": {"remote.credentials"},
    "selectors": set(),
    "socketserver": set(),
    "asyncio": set(),
    "importlib": {"__init__"},  # an import that this test cannot see (and so is that of a verb's module, in verbs)
}

MAY_PRINT = {"cli", "progress"}
MODULE_LINES = 400
LONGER = {"send": 600}  # what is copied as one file cannot be cut in two
FUNCTION_LINES = 50

FILES = {
    ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
each_module = pytest.mark.parametrize("module", FILES)


@cache
def source(module: str) -> str:
    return FILES[module].read_text()


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(source(module), FILES[module])


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Yields each import's line and absolute dotted name; `from a import b` is `a.b`, whatever `b` is."""
    package = FILES[module].parent.relative_to(ROOT).parts
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = [*above, node.module] if node.module else above
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def module_of(name: str) -> str:
    """The package's module that a dotted name lies in: s4raw.wire.Frame lies in wire, s4raw.__version__ in __init__."""
    inside = name.split(".")[1:]
    prefixes = (".".join(inside[:end]) for end in range(len(inside), 0, -1))
    return next((prefix for prefix in prefixes if prefix in FILES), "__init__")


def inner_imports(module: str) -> Iterator[tuple[int, str]]:
    return ((line, module_of(name)) for line, name in imports(module) if name.split(".")[0] == PACKAGE)


def outer_imports(module: str) -> Iterator[tuple[int, str]]:
    return ((line, top) for line, name in imports(module) if (top := name.split(".")[0]) != PACKAGE)


def report(module: str, offences: Iterator[tuple[int, str]]) -> None:
    """Fails with one `file:line: what` for each offence."""
    path = FILES[module].relative_to(ROOT)
    if lines := [f"{path}:{line}: {what}" for line, what in sorted(offences)]:
        pytest.fail("\n".join(lines), pytrace=False)


def test_the_table_is_acyclic() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()


def test_the_table_names_the_modules_that_exist() -> None:
    named = set(MAY_IMPORT).union(*MAY_IMPORT.values(), *OWNERS.values(), MAY_PRINT)
    missing, stale = sorted(set(FILES) - set(MAY_IMPORT)), sorted(named - set(FILES))
    assert not missing, f"add to MAY_IMPORT in {__file__}, with what each may import: {', '.join(missing)}"
    assert not stale, f"no such module any more, take it out of {__file__}: {', '.join(stale)}"


def test_nothing_but_main_imports_cli() -> None:
    assert {module for module, allowed in MAY_IMPORT.items() if "cli" in allowed} == {"__main__"}


@each_module
def test_imports_only_what_its_layer_may(module: str) -> None:
    allowed = MAY_IMPORT.get(module, set())
    report(
        module,
        (
            (line, f"{module} may not import {other}; it may import {sorted(allowed) or 'nothing'}")
            for line, other in inner_imports(module)
            if other not in allowed
        ),
    )


@each_module
def test_imports_from_outside_only_what_it_owns(module: str) -> None:
    report(
        module,
        (
            (line, f"{module} may not import {other}; its owners are {sorted(OWNERS.get(other, ())) or 'none'}")
            for line, other in outer_imports(module)
            if (module not in OWNERS[other] if other in OWNERS else other not in sys.stdlib_module_names)
        ),
    )


@each_module
def test_is_short(module: str) -> None:
    lines, limit = len(source(module).splitlines()), LONGER.get(module, MODULE_LINES)
    assert lines < limit, f"{FILES[module]} is {lines} lines long, the limit is under {limit}"


@each_module
def test_has_only_short_functions(module: str) -> None:
    report(
        module,
        (
            (node.lineno, f"{node.name} is {length} lines long, the limit is under {FUNCTION_LINES}")
            for node in ast.walk(tree(module))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (length := (node.end_lineno or 0) - node.lineno + 1) >= FUNCTION_LINES
        ),
    )


@each_module
def test_says_what_it_is_for(module: str) -> None:
    public = (
        node
        for node in tree(module).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
    )
    assert ast.get_docstring(tree(module)), f"{FILES[module]} has no docstring"
    report(module, ((node.lineno, f"{node.name} has no docstring") for node in public if not ast.get_docstring(node)))


@each_module
def test_leaves_printing_to_the_cli(module: str) -> None:
    report(
        module,
        (
            (node.lineno, f"{module} may not print; only {sorted(MAY_PRINT)} may")
            for node in ast.walk(tree(module))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            if module not in MAY_PRINT
        ),
    )
