"""Verbs about the ring and its servers: health, servers, server, local."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from s4raw.arguments import COMMON, Arguments, Verb
from s4raw.output import write_json

USAGE = {
    "health": f"""\
Ask every server whether it is well, for a second at most. Exit code 1 if any is not.

Usage: s4raw health [--json] [-c FILE]

Options:
  --json             print a line of JSON for each server
{COMMON}""",
    "servers": f"""\
Print the servers of the conf, one a line.

Usage: s4raw servers [--json] [-c FILE]

Options:
  --json             print a line of JSON for each server
{COMMON}""",
    "server": f"""\
Run a server, in the foreground, until SIGTERM or SIGINT. It finds its own line in the conf by its local addresses.

Usage: s4raw server [options]

Options:
  --port N             which line, where several are this machine's
  --data DIR           where the keys lie (default: s4_data)
  --max-cpu-jobs N     commands at once (default: cpus + 2)
  --max-io-jobs N      writes to the disk at once (default: cpus * 4)
  --max-connections N  connections at once; more are told that the server is busy (default: 1024)
  --idle-timeout S     close a connection that was idle for so long (default: 600)
  --grace S            after SIGTERM, wait so long for what is running (default: 30)
  --workers N          processes that share the work, for machines with many cores (default: 1)
  --access-log         log every request
  --listen-fd N        serve on this listening socket, inherited from the parent
  --lifeline-fd N      stop when this descriptor, inherited from the parent, reaches its end
{COMMON}""",
    "local": """\
An embedded ring: N servers on free ports of 127.0.0.1.

Usage: s4raw local [-n N] [--data DIR] [--] [CMD...]

With CMD: run it with S4_CONF_PATH set, end the ring with it, exit with its code. Without: stay up until Ctrl-C, and
print the line to export.

Options:
  -n N               how many servers [default: 3]
  --data DIR         keep the data here (default: a temporary directory)
  -h, --help         show this text
""",
}


def health(arguments: Arguments) -> int:
    """Ask every server."""
    sick = False
    with arguments.ring() as ring:
        for server, error in ring.health():
            sick = sick or error is not None
            if arguments["--json"]:
                write_json(server=server, healthy=error is None, error=error and error.message)
            else:
                sys.stdout.write(f"{'unhealthy:' if error else 'healthy:  '} {server}\n")
    return 1 if sick else 0


def servers(arguments: Arguments) -> int:
    """Print the conf's servers."""
    from s4raw.ring import Topology

    for server in Topology.read(arguments["--conf"]).servers:
        if arguments["--json"]:
            write_json(server=server)
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
            port=arguments.count("--port", 0) or None,
            data=arguments["--data"] or defaults.data,
            max_io_jobs=arguments.count("--max-io-jobs", defaults.max_io_jobs),
            max_cpu_jobs=arguments.count("--max-cpu-jobs", defaults.max_cpu_jobs),
            max_connections=arguments.count("--max-connections", defaults.max_connections),
            idle_seconds=arguments.number("--idle-timeout", defaults.idle_seconds),
            grace_seconds=arguments.number("--grace", defaults.grace_seconds),
            access_log=arguments["--access-log"],
            workers=arguments.count("--workers", defaults.workers),
            listen_fd=arguments.count("--listen-fd", 0) or None,
            lifeline_fd=arguments.count("--lifeline-fd", 0) or None,
        )
    )
    return 0


def local(arguments: Arguments) -> int:
    """Run an embedded ring, around a command or until interrupted."""
    import signal

    from s4raw.local import LocalRing, run_in_ring

    count = arguments.count("-n", 3)
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


VERBS: dict[str, Verb] = {"health": health, "servers": servers, "server": server, "local": local}
