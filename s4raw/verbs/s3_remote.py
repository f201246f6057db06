"""Which remote the S3 daemon stands in front of, and how it queues writes: from arguments and the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from s4raw.arguments import Arguments, bytes_of
from s4raw.errors import UsageError

if TYPE_CHECKING:
    from s4raw.s3.upstream import Upstream

_QUEUE = "S3D_WRITE_QUEUE"
_DIRECTORY = "S3D_WRITE_QUEUE_DIR"
_MAX_SIZE, _MAX_FILES, _MAX_AGE = "S3D_WRITE_QUEUE_MAX_SIZE", "S3D_WRITE_QUEUE_MAX_FILES", "S3D_WRITE_QUEUE_MAX_AGE"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_OF_REMOTES = ("URL", "--profile", "--remote-region", "--remote-ca", "--remote-virtual", "--connections")
_OF_QUEUES = ("--queue", "--queue-size", "--queue-files", "--queue-age", "--queue-refuse", "--max-attempts", "--http")


def upstream(arguments: Arguments) -> Upstream | None:
    """The remote that ``s3 run`` is asked for, None without one. Raises UsageError."""
    from s4raw.s3.daemon import split_address
    from s4raw.s3.upstream import Upstream

    queued = _wants_queue(arguments)
    if not arguments["--remote"]:
        if queued:
            raise UsageError(f"the write queue (--write-queue, or ${_QUEUE}) goes with --remote")
        _none_of(arguments, _OF_REMOTES, "--remote")
    if not queued:
        _none_of(arguments, _OF_QUEUES, "--write-queue")
    if not arguments["--remote"]:
        return None
    defaults = Upstream()
    found = Upstream(
        endpoint=arguments["URL"],
        profile=arguments["--profile"],
        region=arguments["--remote-region"],
        connections=arguments.count("--connections", defaults.connections),
        authorities=arguments["--remote-ca"],
        addressing="virtual" if arguments["--remote-virtual"] else "path",
    )
    if queued:
        found.queue = _directory(arguments)
        found.max_size = _limit(arguments, "--queue-size", _MAX_SIZE)
        found.max_files = _limit(arguments, "--queue-files", _MAX_FILES)
        found.max_age = float(_limit(arguments, "--queue-age", _MAX_AGE))
        found.refuse = arguments["--queue-refuse"]
        found.max_attempts = arguments.count("--max-attempts", found.max_attempts)
        found.http = split_address(arguments["--http"]) if arguments["--http"] else None
    return found


def _wants_queue(arguments: Arguments) -> bool:
    text = os.environ.get(_QUEUE, "").lower()
    if text not in (*_TRUE, *_FALSE):
        raise UsageError(f"${_QUEUE} is true or false, not {text!r}")
    return bool(arguments["--write-queue"]) or text in _TRUE


def _none_of(arguments: Arguments, names: tuple[str, ...], needed: str) -> None:
    for name in names:
        if arguments[name]:
            raise UsageError(f"{name} goes with {needed}")


def _directory(arguments: Arguments) -> str:
    from s4raw.s3.daemon import DEFAULT_DIRECTORY, DIRECTORY_VARIABLE

    data = os.path.abspath(os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY)
    return arguments["--queue"] or os.environ.get(_DIRECTORY) or os.path.join(os.path.dirname(data), "s3d_queue")


def _limit(arguments: Arguments, option: str, variable: str) -> int:
    """A limit of the queue; 0 for none. Sizes have units. Raises UsageError."""
    given = arguments[option]
    text, name = (given, option) if given is not None else (os.environ.get(variable, ""), f"${variable}")
    if not text:
        return 0
    number = bytes_of(text) if variable == _MAX_SIZE else int(text) if text.isascii() and text.isdigit() else None
    if number is None:
        raise UsageError(f"{name} needs a whole number, got {text!r}")
    return number
