#!/usr/bin/env bash
# Put files into a ring with an S3 client, count their words where they lie, fetch the counts with the S3 client,
# and check them against one process. Runs on an embedded ring with the S3 daemon in front of it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

command -v s4raw >/dev/null || { echo "run.sh: s4raw is not on PATH" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export AWS_ACCESS_KEY_ID=AKIDOFTHEEXAMPLE AWS_SECRET_ACCESS_KEY=the-secret-of-the-example
s4raw local -n 3 --data "$work/ring" -- bash "$here/job.sh" "$work"
