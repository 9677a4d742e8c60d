#!/bin/sh
# Makes build/dist: static programs without cgo for linux/amd64 and linux/arm64, what is needed to install them, and
# checksums. The same commit and Go version give the same bytes, wherever it is built: with --check everything is built
# a second time, in another folder and from nothing, and compared.
set -eu
cd "$(dirname "$0")/.."
out=build/dist
release=$(git describe --tags --always --dirty)

build() { # SOURCE OUT
	for arch in amd64 arm64; do
		(cd "$1" && CGO_ENABLED=0 GOOS=linux GOARCH=$arch GOFLAGS= \
			go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.release=$release" -o "$2/sower-linux-$arch" ./cmd/sower)
	done
}

rm -rf "$out"
mkdir -p "$out"
build . "$PWD/$out"
cp dist/sower.service dist/prometheus-alerts.yml "$out"
(cd "$out" && sha256sum -- * > SHA256SUMS)

if [ "${1:-}" = --check ]; then
	other=$(mktemp -d)
	trap 'rm -rf "$other"' EXIT
	mkdir "$other/src" "$other/out"
	tar -cf - --exclude=./build --exclude=./bin --exclude=./.git . | tar -xf - -C "$other/src"
	(export GOCACHE="$other/cache" && build "$other/src" "$other/out")
	for arch in amd64 arm64; do
		cmp "$out/sower-linux-$arch" "$other/out/sower-linux-$arch"
	done
	echo "built twice, the same bytes"
fi
cat "$out/SHA256SUMS"
