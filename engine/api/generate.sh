#!/bin/sh
# Writes sowerv1 from proto/sower/v1. Needs protoc (Debian: protobuf-compiler); its plugins are those of go.mod.
set -eu
cd "$(dirname "$0")/../.."
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
GOBIN=$bin go install google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
PATH=$bin:$PATH protoc -I proto --go_out=. --go_opt=module=github.com/sower-fuota/sower \
	--connect-go_out=. --connect-go_opt=module=github.com/sower-fuota/sower proto/sower/v1/sower.proto
