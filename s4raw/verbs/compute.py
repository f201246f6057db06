"""The verb that runs a command over one key: eval."""

from __future__ import annotations

from s4raw.arguments import COMMON, Arguments, Verb
from s4raw.bodies import write_all

USAGE = {
    "eval": f"""\
Run a command on the key's server with the key as stdin. Its stdout, stderr and exit code come back as they are.

Usage: s4raw eval [--timeout SECONDS] [-c FILE] [--] KEY CMD

CMD runs as bash -c with set -eou pipefail and LC_ALL=C, in a temporary directory of its own. $filename is the key's
basename.

Options:
  --timeout SECONDS  how long the command may take (default: $S4_TIMEOUT, or 300)
{COMMON}""",
}


def evaluate(arguments: Arguments) -> int:
    """Run a command on the key's server; its exit code is ours."""

    with arguments.ring() as ring:
        return ring.eval(arguments["KEY"], arguments["CMD"], write_all(1), write_all(2), arguments.timeout())


VERBS: dict[str, Verb] = {"eval": evaluate}
