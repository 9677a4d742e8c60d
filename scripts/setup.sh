#!/usr/bin/env bash
# Install what builds and tests need beyond Go and gcc, by apt: the Arm cross compiler, the emulator, checkers. Says what it
# does and does it once; on another system it names what to install.
set -euo pipefail

declare -A package=(
	[arm-none-eabi-gcc]=gcc-arm-none-eabi
	[qemu-system-arm]=qemu-system-arm
	[cppcheck]=cppcheck
	[clang-tidy]=clang-tidy
	[cmake]=cmake
	[g++]=g++
	[pkg-config]=pkg-config
)

missing=()
for tool in "${!package[@]}"; do
	command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
for tool in go gcc; do
	command -v "$tool" >/dev/null || { echo "setup: $tool is missing; install Go 1.26 and gcc first" >&2; exit 1; }
done
# The C library headers of the cross compiler are a package of their own.
if command -v arm-none-eabi-gcc >/dev/null && ! echo '#include <string.h>' | arm-none-eabi-gcc -E - >/dev/null 2>&1; then
	missing+=(libnewlib-arm-none-eabi)
fi
[[ " ${missing[*]} " == *" gcc-arm-none-eabi "* ]] && missing+=(libnewlib-arm-none-eabi)
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "setup: please install: ${missing[*]}" >&2
	exit 1
fi
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
echo "setup: installing ${missing[*]} (once; about a minute)"
# Another apt may be at work, which a fresh machine runs by itself, and a mirror may not answer at once.
install() {
	local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
	"${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
}
for wait in 5 15 30 60 0; do
	if install; then break; fi
	[ "$wait" != 0 ] || { echo "setup: apt-get could not install ${missing[*]}" >&2; exit 1; }
	echo "setup: apt-get failed, once more in $wait s" >&2
	sleep "$wait"
done
for tool in "${!package[@]}"; do
	command -v "$tool" >/dev/null || { echo "setup: $tool is still missing after apt-get install ${package[$tool]}" >&2; exit 1; }
done
