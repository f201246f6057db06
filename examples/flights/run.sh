#!/usr/bin/env bash
# Fetch a year of flights, work on it in an embedded ring of three servers, check the ring's answers.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

for tool in s4raw python3; do
    command -v "$tool" >/dev/null || { echo "run.sh: $tool is not on PATH" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

bash "$here/fetch.sh"
csv=$here/.data/flights.csv
s4raw local -n 3 --data "$work/ring" -- bash "$here/job.sh" "$csv" "$work"
python3 "$here/check.py" "$csv" "$work/results"
python3 "$here/show.py" "$work/results"
