"""Verbs of the uploader: push run, and those of its client in ``push_client``."""

from __future__ import annotations

import os

from s4raw.arguments import Arguments, Verb, bytes_of
from s4raw.errors import UsageError
from s4raw.verbs import push_client

DEFAULT = "run"  # what the family's name alone does
FAMILY = """\
The uploader: takes files from programs that must go on, and sees to it that they reach S3.

Usage: s4raw push [run] [options]
       s4raw push VERB [ARGUMENTS...]

Verbs:
  run                run the daemon; so does s4raw push alone
  status             how much is queued, since when, and what was done
  list               what is queued
  retry [WHAT]...    try files again at once, also those that were set aside
  drop WHAT...       take files out of the queue
  flush              wait until all that is queued has been stored
  report LOG...      how long uploads took, by host

Each has its own text: s4raw push VERB --help

Options:
  -h, --help         show this text
"""

USAGE = {
    "run": """\
Run the uploader, in the foreground, until SIGTERM or SIGINT. What it has accepted survives it, and whatever kills it.

Usage: s4raw push run [options] [--alias NAME=URL]... [--allow-root DIR]... [--allow-uid UID]...

s4raw send, and the send.py of s3daemon, hand it files: FILE ALIAS/BUCKET/KEY. The default remote is that of
$S3_ENDPOINT_URL, else where AWS's own tools would go; keys are found as they find them. Unknown aliases mean it, too.

Where to listen:
  --address A:P          here (default: $S3DAEMON_HOST and $S3DAEMON_PORT, or localhost:15555)
  --socket PATH          on this Unix socket instead; with --address on both (default: $S3DAEMON_SOCKET)
  --socket-mode MODE     its mode (default: 600)
  --allow-uid UID        this user, too, may use it: not root and our own alone; may be given often
  --http A:P             answer GET /metrics, /healthz and /status here
  --idle-timeout S       close a connection that says nothing for so long (default: 60)
  --max-connections N    connections at once (default: 8192)

What goes where:
  --alias NAME=URL       an alias that is another remote, or with ring:CONF a ring of s4raw; may be given often
  --config FILE          aliases as TOML: [alias.NAME] with endpoint, profile, region, ... or ring
  --profile NAME         the profile of AWS's configuration for the default remote
  --allow-root DIR       read no file that does not lie below DIR (default: any that we may read); may be given often

How:
  --queue DIR            where accepted files are remembered (default: $S4RAW_PUSH_DIR, or s4raw/push in
                         $XDG_STATE_HOME or ~/.local/state)
  --connections N        to a remote at once (default: $S3DAEMON_MAX_CONNECTIONS, or 192); 25 are kept warm
  --clients N            files on their way to each alias at once (default: $S3DAEMON_MAX_CLIENTS, or --connections)
  --connect-timeout S    (default: $S3DAEMON_CONNECT_TIMEOUT, or 5)
  --retries N            how often a request to a remote is tried, in all; who waits for it is told then (default:
                         $S3DAEMON_MAX_RETRIES, or 2)
  --max-attempts N       set a file for which nobody waits aside after so many (default: try for ever)
  --max-rate SIZE        bytes a second, for all together, as in 10M
  --limit-bytes SIZE     the queue is full with so many bytes (default: $S3D_WRITE_QUEUE_MAX_SIZE, or no limit)
  --limit-files N        or so many files (default: $S3D_WRITE_QUEUE_MAX_FILES, or no limit)
  --limit-age S          or if the oldest has waited for so long (default: $S3D_WRITE_QUEUE_MAX_AGE, or no limit)
  --full HOW             wait, or refuse, when it is full (default: wait)
  --log FILE             a line for each transfer (default: $S3DAEMON_LOG, or stderr); SIGHUP opens it again
  --grace S              after SIGTERM, wait so long for what is on its way (default: 30)
  --listen-fd N          serve on this listening socket, inherited from the parent
  --lifeline-fd N        stop when this descriptor, inherited from the parent, reaches its end
  -h, --help             show this text
""",
    **push_client.USAGE,
}


def run(arguments: Arguments) -> int:
    """Run the daemon."""
    from s4raw.push.daemon import Options, serve
    from s4raw.queue.entries import Limits
    from s4raw.s3.daemon import split_address

    defaults = Options()
    address, http, full = arguments["--address"], arguments["--http"], arguments["--full"] or "wait"
    host, port = split_address(address) if address else _from_environment()
    if full not in ("wait", "refuse"):
        raise UsageError(f"--full is wait or refuse, not {full!r}")
    connections = arguments.whole("--connections", "S3DAEMON_MAX_CONNECTIONS", defaults.connections)
    serve(
        Options(
            host=host,
            port=port,
            socket=arguments["--socket"] or os.environ.get("S3DAEMON_SOCKET") or None,
            both=bool(address),
            socket_mode=_mode(arguments["--socket-mode"], defaults.socket_mode),
            uids=[_uid(each) for each in arguments["--allow-uid"]],
            http=split_address(http) if http else None,
            queue=arguments["--queue"] or os.environ.get("S4RAW_PUSH_DIR", ""),
            aliases=arguments["--alias"],
            config=arguments["--config"],
            profile=arguments["--profile"],
            roots=arguments["--allow-root"],
            connections=connections,
            clients=arguments.whole("--clients", "S3DAEMON_MAX_CLIENTS", connections),
            connect_timeout=arguments.real("--connect-timeout", "S3DAEMON_CONNECT_TIMEOUT", defaults.connect_timeout),
            attempts=arguments.whole("--retries", "S3DAEMON_MAX_RETRIES", defaults.attempts),
            max_attempts=arguments.count("--max-attempts", defaults.max_attempts),
            max_rate=_size("--max-rate", arguments["--max-rate"]),
            limits=Limits(
                _size("--limit-bytes", arguments["--limit-bytes"], "S3D_WRITE_QUEUE_MAX_SIZE"),
                arguments.whole("--limit-files", "S3D_WRITE_QUEUE_MAX_FILES", 0),
                arguments.real("--limit-age", "S3D_WRITE_QUEUE_MAX_AGE", 0.0),
            ),
            refuse=full == "refuse",
            log=arguments["--log"] or os.environ.get("S3DAEMON_LOG") or None,
            max_connections=arguments.count("--max-connections", defaults.max_connections),
            idle_seconds=arguments.number("--idle-timeout", defaults.idle_seconds),
            grace_seconds=arguments.number("--grace", defaults.grace_seconds),
            listen_fd=arguments.count("--listen-fd", 0) or None,
            lifeline_fd=arguments.count("--lifeline-fd", 0) or None,
        )
    )
    return 0


def _from_environment() -> tuple[str, int]:
    """Where s3daemon and its clients look. Raises UsageError."""
    host, port = os.environ.get("S3DAEMON_HOST") or "localhost", os.environ.get("S3DAEMON_PORT") or "15555"
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"S3DAEMON_PORT needs a port, got {port!r}")
    return host, int(port)


def _size(name: str, text: str | None, variable: str = "") -> int:
    if text is None and (text := os.environ.get(variable)):
        name = f"${variable}"
    size = bytes_of(text) if text else 0
    if size is None:
        raise UsageError(f"{name} needs a size, as in 10M, got {text!r}")
    return size


def _mode(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not 1 <= len(text) <= 4 or text.strip("01234567"):
        raise UsageError(f"--socket-mode needs a mode, as in 660, got {text!r}")
    return int(text, 8) & 0o777


def _uid(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise UsageError(f"--allow-uid: there is no user {text!r}") from None


VERBS: dict[str, Verb] = {"run": run, **push_client.VERBS}
