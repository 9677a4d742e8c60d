# sower: `make run` shows a whole firmware update, `make test` proves it. `make help` lists the rest.
# OLD= and NEW= give `make run` a firmware pair of your own.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO ?= go
OLD ?=
NEW ?=

include firmware-stub/firmware.mk

# The go command does not notice changes in C files outside a package's folder; this makes them part of the
# build's identity.
export CGO_CFLAGS := -O2 -g -DSOW_SOURCES=$(shell cat $(FW_LIB) $(FW_HEADERS) firmware-stub/ports/posix/*.c | cksum | cut -d' ' -f1)

.PHONY: help setup build run test test-device test-go check traps fuzz proof generate dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install the Arm compiler and the emulator, if they are missing
	@scripts/setup.sh

build: ## bin/sower
	@$(GO) build -trimpath -o bin/sower ./cmd/sower

check: ## gofmt, go vet, staticcheck, generated files
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt: $$out" >&2; exit 1; }
	@$(GO) vet ./...
	@$(GO) tool staticcheck ./...
	@$(GO) generate ./applayer/diag && git diff --exit-code -- applayer/diag/causes_gen.go firmware-stub/include/sow_cause.h docs/causes.md

generate: ## rewrite what follows from applayer/diag/causes.tsv and proto/ (needs protoc)
	@$(GO) generate ./applayer/diag ./engine/api

run: firmware build ## a whole update on a simulated fleet (OLD=a.bin NEW=b.bin: with your own pair)
	@bin/sower rehearse --firmware $(FIRMWARE) --out run/summary.json $(if $(OLD)$(NEW),--old "$(OLD)" --new "$(NEW)")

test: firmware check ## everything that must hold, in minutes
	@$(MAKE) -s -C firmware-stub/test/size
	@$(MAKE) -s -j2 -Oline test-device test-go
	@$(GO) test -vet=off -race -skip 'Crash|Kill' ./engine/run ./integrations/chirpstack ./simulator/world ./simulator/radio ./simulator/fleet ./simulator/networkserver
	@scripts/fuzz.sh 20s 'engine/api|integrations/chirpstack' # whose instrumented builds take minutes: make fuzz, make proof

test-device: # one core's work, beside test-go
	@$(MAKE) -s -C firmware-stub/test/lint
	@$(MAKE) -s -C firmware-stub/test/core test fuzz

test-go: # some tests run make themselves, which is not this one's business
	@env -u MAKEFLAGS -u MFLAGS $(GO) test -vet=off ./...

traps: ## switch every defence against a trap of ChirpStack off in turn: its test must fail
	@$(GO) test -tags traps -run TestTraps -v ./engine/traps

fuzz: ## every fuzz target for 20 s
	@scripts/fuzz.sh 20s

proof: firmware check ## the long form of every proof: hours
	@$(MAKE) -s -C firmware-stub/test/core proof fuzz-proof
	@$(MAKE) -s traps
	@scripts/dist.sh --check
	@SOWER_PROOF=1 $(GO) test -timeout 4h -tags proof ./...
	@$(GO) test -race -timeout 1h ./engine/... ./integrations/... ./simulator/... ./cmd/sower
	@scripts/fuzz.sh 10m

dist: ## static programs for linux/amd64 and linux/arm64, with checksums, in build/dist
	@scripts/dist.sh

clean: ## remove what was built
	@rm -rf bin build run
