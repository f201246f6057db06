"""The command line: finds the verb, parses its own usage text, runs it, prints errors, and exits.

Start-up time is paid at every call: everything but the verb at hand is imported only when it is needed.
"""

from __future__ import annotations

import gc
import os
import sys

from s4raw import usage, verbs
from s4raw.errors import S4Error, UsageError

INTERRUPTED = 130


def run() -> None:
    """The console script: ``main``, then the end, without the interpreter's tidying up (3 ms)."""
    gc.disable()  # until the imports are done: there is no garbage yet, and looking for it takes 2 ms
    _open_standard_streams()
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)


def _open_standard_streams() -> None:
    """Fill closed standard descriptors, so that no socket or file takes their numbers; to use one stays an error."""
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            fd = os.open(os.devnull, os.O_RDONLY if number else os.O_WRONLY)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):
            output.reconfigure(errors="backslashreplace")  # names that a terminal cannot show


def main(argv: list[str] | None = None) -> int:
    """Run ``s4raw`` with these arguments; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    verb = argv[0] if argv else ""
    if verb in ("-h", "--help", "help"):
        sys.stdout.write(usage.MAIN)
        return 0
    if verb == "--version":
        from s4raw import __version__

        sys.stdout.write(f"s4raw {__version__}\n")
        return 0
    if verb not in verbs.MODULES:
        sys.stderr.write(f"s4raw: no such verb: {verb!r}\n\n{usage.MAIN}" if verb else usage.MAIN)
        return UsageError.exit_code
    try:
        return verbs.call(argv)
    except S4Error as error:
        from s4raw.output import write_error

        write_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("s4raw: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our stdout has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        sys.stderr.write(f"s4raw: {error.filename or 'stdout'}: {error.strerror}\n")
        return 1
