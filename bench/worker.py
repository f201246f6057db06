"""The client's end of a measurement, in a process of its own: so its CPU time and its peak memory are its own.

The first line on stdin names what to do (``{"target": "module:function", "arguments": {...}}``); the function sets
things up and returns an action. Every further line holds the arguments of one run of the action; the answer is a line
with its ``seconds``, ``cpu`` (seconds) and ``peak`` (KiB), and with whatever the action returns. Ends with its stdin.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import proc

Found = Mapping[str, object]
Action = Callable[..., Found | None]


def commands() -> Action:
    """Run commands. Their seconds are from fork to wait; their memory has a floor: what this process holds itself."""
    return run_command


def run_command(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: str = ".",
    stdin: str = os.devnull,
    stdout: str = os.devnull,
) -> Found:
    """Run one command to its end. Raises RuntimeError, with its stderr, if it fails."""
    environment = {**os.environ, **(env or {})}
    errors = os.memfd_create("stderr")
    try:
        started = time.perf_counter()
        pid = os.fork()  # not vfork, whose child would be charged with all of this process's memory
        if not pid:
            _become(argv, environment, cwd, stdin, stdout, errors)
        _, status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - started
        if status:
            text = os.pread(errors, 2 << 10, 0).decode(errors="replace")
            raise RuntimeError(f"{argv} exited with {os.waitstatus_to_exitcode(status)}: {text}")
    finally:
        os.close(errors)
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss}


def _become(argv: Sequence[str], env: Mapping[str, str], cwd: str, stdin: str, stdout: str, errors: int) -> None:
    try:
        os.chdir(cwd)
        os.dup2(os.open(stdin, os.O_RDONLY), 0)
        os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
        os.dup2(errors, 2)
        os.execvpe(argv[0], list(argv), env)
    except BaseException as error:
        os.write(errors, str(error).encode())
    finally:
        os._exit(127)


def _timed(action: Action, arguments: Mapping[str, Any]) -> Found:
    proc.reset_peak("self")
    cpu, started = time.process_time(), time.perf_counter()
    found = action(**arguments) or {}
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "peak": proc.memory_kib("self", "VmHWM"), **found}


def main() -> None:
    """Serve one measurement."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is for whoever watches
    action: Action | None = None
    for line in sys.stdin:
        answer: Found
        try:
            order = json.loads(line)
            if action is None:
                module, _, function = order["target"].partition(":")
                action = getattr(importlib.import_module(module), function)(**order["arguments"])
                answer = {}
            else:
                answer = _timed(action, order)
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
