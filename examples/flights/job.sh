#!/usr/bin/env bash
# The job on the ring that S4_CONF_PATH names: job.sh CSV WORK. Leaves the answers in WORK/results.
# A server runs each quoted command where the data lies, in an empty directory; scripts go by absolute path.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
csv=$1 work=$2 b=s4://flights
parse="python3 ${here@Q}/parse.py"
split="python3 ${here@Q}/split.py"
stats="python3 ${here@Q}/stats.py"
results=$work/results
mkdir -p "$work/raw" "$results/months"

step() { # step NAME COMMAND...: run it and say how long it took
    local name=$1 start=${EPOCHREALTIME/[.,]/} us
    shift
    "$@"
    us=$((${EPOCHREALTIME/[.,]/} - start))
    printf '  %-44s %3d.%02d s\n' "$name" $((us / 1000000)) $((us / 10000 % 100))
}

# The ring places a key by the number its name starts with: 00000 to 00023 go round the servers.
tail -n +2 "$csv" >"$work/body.csv"
split -n l/24 -d -a 5 "$work/body.csv" "$work/raw/"
step 'cp: 24 pieces to the ring' s4raw cp -r "$work/raw/" $b/raw/
step 'map: parse' s4raw map $b/raw/ $b/parsed/ "$parse"

# 1. Delays by carrier: shuffle, merge, then the figures; the key's name (01090_UA) carries the carrier.
step 'map-to-n: delays by carrier' s4raw map-to-n $b/parsed/ $b/by_carrier/ "$split carrier"
step 'map-from-n: sort them' s4raw map-from-n $b/by_carrier/ $b/delays/ 'xargs cat | sort -n'
step 'map: count, mean, p95' s4raw map $b/delays/ $b/carriers/ "$stats \"\${filename#*_}\""
step 'cp: the answers' s4raw cp -r $b/carriers/ "$results/carriers/"

# 2. Flights by origin and month: count before the shuffle, so that only counts travel; one key a month.
count='cut -f2,6 | cut -c6-7,11- | sort | uniq -c | awk '\''{ print $3 "\t" $1 > $2 }'\''; ls'
total='xargs cat | awk '\''{ n[$1] += $2 } END { for (origin in n) print origin "\t" n[origin] }'\'' | sort'
step 'map-to-n: counts by month' s4raw map-to-n $b/parsed/ $b/by_month/ "$count"
step 'map-from-n: add them up' s4raw map-from-n $b/by_month/ $b/months/ "$total"
print_months() {
    local month
    for month in {01..12}; do s4raw eval "$b/months/$month" "sed 's/^/$month\t/'"; done >"$results/months/all"
}
step 'eval: print them' print_months

# 3. All flights sorted by distance: every 1000th distance of one piece bounds the ranges, each range is one key.
sample() { s4raw eval $b/parsed/00000 'cut -f1 | sort | awk "NR % 1000 == 0" | uniq' >"$work/bounds"; }
step 'eval: sample the distances' sample
mapfile -t bounds <"$work/bounds"
step 'map-to-n: sort, cut into ranges' s4raw map-to-n $b/parsed/ $b/by_distance/ "sort | $split distance ${bounds[*]}"
step 'map-from-n: merge' s4raw map-from-n $b/by_distance/ $b/sorted/ "tr '\n' '\0' | sort -m --files0-from=-"
step 'cp: the sorted flights' s4raw cp -r $b/sorted/ "$results/sorted/"
