"""Map calls: map, map-to-n, map-from-n."""

from __future__ import annotations

import time

from s4raw.arguments import COMMON, Arguments, Verb
from s4raw.output import write_json
from s4raw.progress import ProgressLine

COMPUTE = """\
CMD runs as bash -c with set -eou pipefail and LC_ALL=C, in a temporary directory of its own that goes with it, on the
server that holds the data. The first failure ends the call everywhere.

Options:
  --timeout SECONDS  how long one command may take (default: $S4_TIMEOUT, or 300)
  --json             print the result as a line of JSON
  -q, --quiet        no progress line
"""

USAGE = {
    "map": f"""\
1:1. Run CMD over every key below INDIR: the key is its stdin, its stdout becomes the key of the same path below OUTDIR.

Usage: s4raw map [--timeout SECONDS] [-q] [--json] [-c FILE] [--] INDIR OUTDIR CMD

INDIR is searched recursively and may end in a glob (s4://b/in/*_1). $filename is the key's basename. Input and output
lie on the same server: nothing crosses the network.

{COMPUTE}{COMMON}""",
    "map-to-n": f"""\
1:n, the shuffle. Run CMD over every key below INDIR: the key is its stdin; it writes files and prints their paths. They
become OUTDIR/<input basename>/<file basename>, each on its own server.

Usage: s4raw map-to-n [--timeout SECONDS] [-q] [--json] [-c FILE] [--] INDIR OUTDIR CMD

INDIR is searched recursively and may end in a glob. $filename is the key's basename. Zero files are fine.

{COMPUTE}{COMMON}""",
    "map-from-n": f"""\
n:1, the merge. Keys below INDIR are grouped by numeric prefix, or name. CMD gets the paths of a group on stdin, a line
each; its stdout becomes OUTDIR/<prefix>, plus the _suffix that all inputs share. Each server merges what it holds.

Usage: s4raw map-from-n [--timeout SECONDS] [-q] [--json] [-c FILE] [--] INDIR OUTDIR CMD

INDIR is searched recursively and may end in a glob.

{COMPUTE}{COMMON}""",
}


def _mapper(verb: str) -> Verb:
    def run(arguments: Arguments) -> int:
        line = ProgressLine(verb, "keys", not arguments["--quiet"])
        started = time.monotonic()
        with arguments.ring() as ring:
            method = {"map": ring.map, "map-to-n": ring.map_to_n, "map-from-n": ring.map_from_n}[verb]
            try:
                places = arguments["INDIR"], arguments["OUTDIR"], arguments["CMD"]
                count = method(*places, timeout=arguments.timeout(), progress=line.show)
            finally:
                line.close()
        if arguments["--json"]:
            seconds = round(time.monotonic() - started, 6)
            write_json(verb=verb, indir=places[0], outdir=places[1], commands=count, seconds=seconds)
        return 0

    return run


VERBS: dict[str, Verb] = {verb: _mapper(verb) for verb in USAGE}
