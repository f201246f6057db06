"""What each verb does with its parsed arguments. Returns exit codes; errors are raised and printed by ``cli``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from s4raw.client import DEFAULT_TIMEOUT, Ring
from s4raw.errors import UsageError
from s4raw.keys import SCHEME, Entry, parse_key, parse_prefix
from s4raw.progress import ProgressLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Arguments = Mapping[str, Any]

TIMEOUT_VARIABLE = "S4_TIMEOUT"


def _ring(arguments: Arguments) -> Ring:
    return Ring.from_conf(arguments["--conf"])


def _json(**fields: object) -> None:
    import json

    sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")


def _number(arguments: Arguments, option: str, default: float) -> float:
    text = arguments[option]
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e9:
        raise UsageError(f"{option} needs a positive number, got {text!r}")
    return number


def _count(arguments: Arguments, option: str, default: int) -> int:
    number = _number(arguments, option, default)
    if number != int(number):
        raise UsageError(f"{option} needs a whole number, got {arguments[option]!r}")
    return int(number)


def _timeout(arguments: Arguments) -> float:
    if arguments["--timeout"] is None and TIMEOUT_VARIABLE in os.environ:
        return _number({TIMEOUT_VARIABLE: os.environ[TIMEOUT_VARIABLE]}, TIMEOUT_VARIABLE, DEFAULT_TIMEOUT)
    return _number(arguments, "--timeout", DEFAULT_TIMEOUT)


def cp(arguments: Arguments) -> int:
    """Copy to or from the ring."""
    from s4raw.copying import is_remote

    source, target = arguments["SRC"], arguments["DST"]
    if is_remote(source) and is_remote(target):
        raise UsageError("both paths are remote: keys do not move, they are copied out and in, and deleted")
    if not is_remote(source) and not is_remote(target):
        raise UsageError(f"one of the paths must begin with s4://, got {source!r} and {target!r}")
    with _ring(arguments) as ring:
        if arguments["--recursive"]:
            return _copy_tree(ring, source, target, arguments)
        return (_upload if is_remote(target) else _download)(ring, source, target, arguments)


def _upload(ring: Ring, source: str, target: str, arguments: Arguments) -> int:
    from s4raw.copying import STDIO, upload_key

    key = upload_key(source, target)
    line = ProgressLine(f"cp to {key}", "bytes", not arguments["--quiet"])
    if os.path.isfile(source):
        line.update(0, os.path.getsize(source))
    try:
        size = ring.put_stream(key, 0, line.add) if source == STDIO else ring.put_file(key, source, line.add)
    finally:
        line.close()
    if arguments["--json"]:
        _json(verb="cp", path=source, key=str(key), bytes=size)
    return 0


def _download(ring: Ring, source: str, target: str, arguments: Arguments) -> int:
    from s4raw.bodies import write_all
    from s4raw.copying import STDIO, download_path

    key = parse_key(source)
    path = target if target == STDIO else download_path(key, target)
    line = ProgressLine(f"cp from {key}", "bytes", not arguments["--quiet"])
    if line.shown:
        line.update(0, ring.stat(key).size)
    try:
        size = ring.get_stream(key, write_all(1), line.add) if target == STDIO else ring.get_file(key, path, line.add)
    finally:
        line.close()
    if arguments["--json"] and target != STDIO:
        _json(verb="cp", key=str(key), path=path, bytes=size)
    return 0


def _copy_tree(ring: Ring, source: str, target: str, arguments: Arguments) -> int:
    from s4raw import bulk
    from s4raw.copying import STDIO, is_remote, plan_download, plan_upload

    upload = is_remote(target)
    if STDIO in (source, target):
        raise UsageError("cp -r copies directories: - cannot be one of them")
    if upload and os.path.isfile(source):
        return _upload(ring, source, target, arguments)
    plan = list(plan_upload(source, target) if upload else plan_download(ring, source, target))
    line = ProgressLine(f"cp {len(plan)} files", "bytes", not arguments["--quiet"])
    line.update(0, sum(size for _, size in plan))

    def done(item: bulk.Item, size: int) -> None:
        line.add(size)
        if arguments["--json"]:
            _json(verb="cp", path=str(item.file), key=str(item.key), bytes=size)

    try:
        bulk.transfer(ring, [item for item, _ in plan], done, upload)
    finally:
        line.close()
    return 0


def ls(arguments: Arguments) -> int:
    """List keys or buckets."""
    text = arguments["PREFIX"] or SCHEME
    prefix, recursive = parse_prefix(text), arguments["--recursive"]
    if recursive and not prefix.bucket:
        raise UsageError("ls -r needs a bucket, as in s4://bucket/")
    buckets = not recursive and "/" not in text.removeprefix(SCHEME)
    found = False
    with _ring(arguments) as ring:
        listing = ring.list(SCHEME if buckets else prefix, recursive)
        cut = 0 if buckets or recursive else prefix.name.rfind("/") + 1
        for entry in listing:
            if buckets and not entry.name.startswith(prefix.bucket):
                continue
            found = True
            if arguments["--json"]:
                _json_entry(entry, prefix.bucket, buckets)
            else:
                sys.stdout.write(_line(entry, cut))
    sys.stdout.flush()
    return 0 if found else 1


def _line(entry: Entry, cut: int) -> str:
    if entry.is_prefix:
        return f"  PRE {entry.name[cut:]}\n"
    stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(entry.mtime_ns // 10**9))
    return f"{stamp} {entry.size} {entry.name[cut:]}\n"


def _json_entry(entry: Entry, bucket: str, buckets: bool) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.mtime_ns // 10**9))
    if buckets:
        _json(bucket=entry.name, time=stamp)
    elif entry.is_prefix:
        _json(prefix=f"s4://{bucket}/{entry.name}")
    else:
        _json(key=f"s4://{bucket}/{entry.name}", bytes=entry.size, time=stamp)


def rm(arguments: Arguments) -> int:
    """Delete a key, or everything under a prefix."""
    with _ring(arguments) as ring:
        if not arguments["--recursive"]:
            ring.remove(parse_key(arguments["PREFIX"]))
            count = 1
        else:
            line = ProgressLine("rm", "keys", not arguments["--quiet"])
            try:
                count = ring.remove_all(parse_prefix(arguments["PREFIX"]), line.update)
            finally:
                line.close()
    if arguments["--json"]:
        _json(verb="rm", prefix=arguments["PREFIX"], count=count)
    return 0


def evaluate(arguments: Arguments) -> int:
    """Run a command on the key's server; its exit code is ours."""
    from s4raw.bodies import write_all

    with _ring(arguments) as ring:
        return ring.eval(arguments["KEY"], arguments["CMD"], write_all(1), write_all(2), _timeout(arguments))


def _mapper(verb: str) -> Callable[[Arguments], int]:
    def run(arguments: Arguments) -> int:
        line = ProgressLine(verb, "keys", not arguments["--quiet"])
        started = time.monotonic()
        with _ring(arguments) as ring:
            method = {"map": ring.map, "map-to-n": ring.map_to_n, "map-from-n": ring.map_from_n}[verb]
            try:
                places = arguments["INDIR"], arguments["OUTDIR"], arguments["CMD"]
                count = method(*places, timeout=_timeout(arguments), progress=line.update)
            finally:
                line.close()
        if arguments["--json"]:
            seconds = round(time.monotonic() - started, 6)
            _json(verb=verb, indir=places[0], outdir=places[1], commands=count, seconds=seconds)
        return 0

    return run


def health(arguments: Arguments) -> int:
    """Ask every server."""
    sick = False
    with _ring(arguments) as ring:
        for server, error in ring.health():
            sick = sick or error is not None
            if arguments["--json"]:
                _json(server=server, healthy=error is None, error=error and error.message)
            else:
                sys.stdout.write(f"{'unhealthy:' if error else 'healthy:  '} {server}\n")
    return 1 if sick else 0


def servers(arguments: Arguments) -> int:
    """Print the conf's servers."""
    from s4raw.ring import Topology

    for server in Topology.read(arguments["--conf"]).servers:
        if arguments["--json"]:
            _json(server=server)
        else:
            sys.stdout.write(f"{server}\n")
    return 0


def server(arguments: Arguments) -> int:
    """Run a server."""
    from s4raw.daemon import Options, serve

    defaults = Options()

    serve(
        Options(
            conf=arguments["--conf"],
            port=_count(arguments, "--port", 0) or None,
            data=arguments["--data"] or defaults.data,
            max_io_jobs=_count(arguments, "--max-io-jobs", defaults.max_io_jobs),
            max_cpu_jobs=_count(arguments, "--max-cpu-jobs", defaults.max_cpu_jobs),
            max_connections=_count(arguments, "--max-connections", defaults.max_connections),
            idle_seconds=_number(arguments, "--idle-timeout", defaults.idle_seconds),
            grace_seconds=_number(arguments, "--grace", defaults.grace_seconds),
            access_log=arguments["--access-log"],
            listen_fd=_count(arguments, "--listen-fd", 0) or None,
            lifeline_fd=_count(arguments, "--lifeline-fd", 0) or None,
        )
    )
    return 0


def local(arguments: Arguments) -> int:
    """Run an embedded ring, around a command or until interrupted."""
    import signal

    from s4raw.local import LocalRing, run_in_ring

    count = _count(arguments, "-n", 3)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with LocalRing(count, arguments["--data"]) as ring:
        if arguments["CMD"]:
            return run_in_ring(ring, arguments["CMD"])
        sys.stdout.write(f"export S4_CONF_PATH={ring.conf}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(0.5)  # not pause(): a signal that comes just before it would be waited for for ever
    return 0


VERBS: dict[str, Callable[[Arguments], int]] = {
    "cp": cp,
    "ls": ls,
    "rm": rm,
    "eval": evaluate,
    **{verb: _mapper(verb) for verb in ("map", "map-to-n", "map-from-n")},
    "health": health,
    "servers": servers,
    "server": server,
    "local": local,
}
