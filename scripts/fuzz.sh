#!/usr/bin/env bash
# Fuzz every target of the Go packages for a while, four at a time: scripts/fuzz.sh 20s
# A finding is written to the package's testdata/fuzz and fails the run.
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${1:?usage: scripts/fuzz.sh DURATION, such as 20s}

targets() {
	git ls-files '*_test.go' | xargs grep -H -o '^func Fuzz[A-Za-z0-9_]*' |
		sed -E 's|^(.*)/[^/]*_test\.go:func (.*)$|\1 \2|' | sort -u
}

fuzz() {
	local log
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	if go test -run '^$' -fuzz "^$2\$" -fuzztime "$duration" -parallel 1 "./$1" >"$log" 2>&1; then
		echo "fuzz: $1 $2: $(grep -o 'execs: [0-9]*' "$log" | tail -1), no finding"
	else
		echo "fuzz: $1 $2: FAILED" >&2
		cat "$log" >&2
		return 1
	fi
}
export -f fuzz
export duration

targets | xargs -P 4 -L 1 bash -c 'fuzz "$0" "$1"'
