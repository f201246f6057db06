"""The usage texts: one for each verb, so that only the verb in question is parsed. They are also the manual."""

MAIN = """\
s4raw: ephemeral data on the disks of a few machines, and commands where the data lies.

Usage: s4raw VERB [ARGUMENTS...]
       s4raw VERB --help
       s4raw --help | --version

Store:
  cp [-r] SRC DST              copy to or from the ring; - is stdin or stdout
  ls [-r] [PREFIX]             list keys, or buckets
  rm [-r] PREFIX               delete a key, or all keys under a prefix

Compute, on the servers that hold the keys:
  eval KEY CMD                 run CMD with the key as stdin, its output comes here
  map INDIR OUTDIR CMD         1:1, every key through CMD
  map-to-n INDIR OUTDIR CMD    1:n, shuffle: the files that CMD names go to their servers
  map-from-n INDIR OUTDIR CMD  n:1, merge: keys with one numeric prefix or name

Ring:
  health                       ask every server
  servers                      print the conf's servers
  server                       run a server
  local [-n N] [-- CMD...]     an embedded ring on this machine

The ring is the conf file: --conf, else $S4_CONF_PATH, else ~/.s4.conf, one ipv4:port a line.
Exit codes: 0 done, 1 it failed, 2 wrong usage or configuration, 130 interrupted.
"""

_COMMON = """\
  -c, --conf FILE    the ring's conf (default: $S4_CONF_PATH, or ~/.s4.conf)
  -h, --help         show this text
"""

_COMPUTE = """\
CMD runs as bash -c with set -eou pipefail and LC_ALL=C, in a temporary directory of its own that goes with it, on the
server that holds the data. The first failure ends the call everywhere.

Options:
  --timeout SECONDS  how long one command may take (default: $S4_TIMEOUT, or 300)
  --json             print the result as a line of JSON
  -q, --quiet        no progress line
"""

VERBS = {
    "cp": f"""\
Copy a file to a key or a key to a file; with -r a tree, over all servers at once.

Usage: s4raw cp [-r] [-q] [--json] [-c FILE] [--] SRC DST

One of SRC and DST is s4://bucket/key, the other a local path or - for stdin or stdout. A destination "dir/" takes the
source's name, and so does ".". "cp -r s4://b/dir/ ." makes ./dir/..., "cp -r s4://b/dir/ out/" makes out/...,
"cp -r foo s4://b/x" makes x/<paths below foo>. Keys are immutable: a key that exists is not replaced.

Options:
  -r, --recursive    copy all files below a directory
  -q, --quiet        no progress line
  --json             print a line of JSON for each file
{_COMMON}""",
    "ls": f"""\
List keys: DATE TIMEZ SIZE NAME a line, "  PRE name/" for a directory. Nothing found: exit code 1.

Usage: s4raw ls [-r] [--json] [-c FILE] [--] [PREFIX]

Without PREFIX: the buckets. s4://bucket/dir/ lists the directory, s4://bucket/dir/pre what begins so.

Options:
  -r, --recursive    all keys below, by their whole name
  --json             print a line of JSON for each entry
{_COMMON}""",
    "rm": f"""\
Delete a key, or with -r every key that begins with PREFIX, on every server.

Usage: s4raw rm [-r] [-q] [--json] [-c FILE] [--] PREFIX

Options:
  -r, --recursive    everything under the prefix; finding nothing is fine
  -q, --quiet        no progress line
  --json             print the result as a line of JSON
{_COMMON}""",
    "eval": f"""\
Run a command on the key's server with the key as stdin. Its stdout, stderr and exit code come back as they are.

Usage: s4raw eval [--timeout SECONDS] [-c FILE] [--] KEY CMD

CMD runs as bash -c with set -eou pipefail and LC_ALL=C, in a temporary directory of its own. $filename is the key's
basename.

Options:
  --timeout SECONDS  how long the command may take (default: $S4_TIMEOUT, or 300)
{_COMMON}""",
    "map": f"""\
1:1. Run CMD over every key below INDIR: the key is its stdin, its stdout becomes the key of the same path below OUTDIR.

Usage: s4raw map [--timeout SECONDS] [-q] [--json] [-c FILE] [--] INDIR OUTDIR CMD

INDIR is searched recursively and may end in a glob (s4://b/in/*_1). $filename is the key's basename. Input and output
lie on the same server: nothing crosses the network.

{_COMPUTE}{_COMMON}""",
    "map-to-n": f"""\
1:n, the shuffle. Run CMD over every key below INDIR: the key is its stdin; it writes files and prints their paths. They
become OUTDIR/<input basename>/<file basename>, each on its own server.

Usage: s4raw map-to-n [--timeout SECONDS] [-q] [--json] [-c FILE] [--] INDIR OUTDIR CMD

INDIR is searched recursively and may end in a glob. $filename is the key's basename. Zero files are fine.

{_COMPUTE}{_COMMON}""",
    "map-from-n": f"""\
n:1, the merge. Keys below INDIR are grouped by numeric prefix, or name. CMD gets the paths of a group on stdin, a line
each; its stdout becomes OUTDIR/<prefix>, plus the _suffix that all inputs share. Each server merges what it holds.

Usage: s4raw map-from-n [--timeout SECONDS] [-q] [--json] [-c FILE] [--] INDIR OUTDIR CMD

INDIR is searched recursively and may end in a glob.

{_COMPUTE}{_COMMON}""",
    "health": f"""\
Ask every server whether it is well, for a second at most. Exit code 1 if any is not.

Usage: s4raw health [--json] [-c FILE]

Options:
  --json             print a line of JSON for each server
{_COMMON}""",
    "servers": f"""\
Print the servers of the conf, one a line.

Usage: s4raw servers [--json] [-c FILE]

Options:
  --json             print a line of JSON for each server
{_COMMON}""",
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
  --access-log         log every request
  --listen-fd N        serve on this listening socket, inherited from the parent
  --lifeline-fd N      stop when this descriptor, inherited from the parent, reaches its end
{_COMMON}""",
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
