"""The verb that hands files over to the push daemon: send, which is also a command of its own, ``s4raw-send``."""

from __future__ import annotations

from s4raw import send
from s4raw.arguments import Arguments, Verb
from s4raw.errors import UsageError

USAGE = {"send": send.USAGE.replace("s4raw-send", "s4raw send")}


def run(arguments: Arguments) -> int:
    """Do what ``s4raw-send`` does with these arguments."""
    words = ["--null"] if arguments["--null"] else []
    words += [option for option in ("--queued", "--snapshot") if arguments[option]]
    words += [f"{name}={arguments[name]}" for name in ("--wait", "--type", "--socket") if arguments[name] is not None]
    words += [f"--metadata={pair}" for pair in arguments["--metadata"]]
    names = [name for name in (arguments["FILE"], arguments["DEST"]) if name is not None]
    if names == ["-"] and not arguments.stdin_is_free:
        raise UsageError("stdin holds the lines of run, not pairs of files and destinations")
    return send.main([*words, "--", *names], "s4raw send")


VERBS: dict[str, Verb] = {"send": run}
