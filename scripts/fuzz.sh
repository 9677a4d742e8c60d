#!/usr/bin/env bash
# Fuzz every target of the Go packages for a while, two at a time for each processor: scripts/fuzz.sh 20s
# Packages whose folder matches the second argument, a regular expression, are left out.
# A finding is written to the package's testdata/fuzz and fails the run.
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${1:?usage: scripts/fuzz.sh DURATION [EXCEPT], such as 20s}
except=${2:-^$}

targets() {
	git ls-files '*_test.go' | xargs grep -H -o '^func Fuzz[A-Za-z0-9_]*' |
		sed -E 's|^(.*)/[^/]*_test\.go:func (.*)$|\1 \2|' | grep -vE "^($except) " | sort -u
}

fuzz() {
	local log try
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	# Without -fuzzminimizetime a run may spend all its time on making one interesting input shorter. The go command
	# sometimes reports its own time limit as a failure, without an input that fails, more often on a busy machine; such
	# a run is done again.
	for try in 1 2 3 4; do
		if go test -vet=off -run '^$' -fuzz "^$2\$" -fuzztime "$duration" -fuzzminimizetime 10x -parallel 1 "./$1" >"$log" 2>&1; then
			echo "fuzz: $1 $2: $(grep -o 'execs: [0-9]*' "$log" | tail -1), no finding"
			return 0
		fi
		if [ "$try" = 4 ] || grep -q 'Failing input written' "$log" || ! grep -q 'context deadline exceeded' "$log"; then
			break
		fi
		echo "fuzz: $1 $2: the time limit of the go command struck, once more"
	done
	echo "fuzz: $1 $2: FAILED" >&2
	cat "$log" >&2
	return 1
}
export -f fuzz
export duration

targets | xargs -P $((2 * $(nproc))) -L 1 bash -c 'fuzz "$0" "$1"'
