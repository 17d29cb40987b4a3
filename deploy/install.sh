#!/usr/bin/env bash
# Installs what a bare Debian 12 lacks to run skiff; with --build, to build it; with --demo, to show it;
# with --test, to test it. Idempotent; needs root.
set -euo pipefail

run=(containerd runc iptables nftables iproute2 conntrack ca-certificates)
build=(protobuf-compiler libprotobuf-dev gcc libc6-dev)
test=(busybox-static etcd-client etcd-server containernetworking-plugins python3 python3-venv iputils-ping procps)

wanted=("${run[@]}")
for arg in "$@"; do
    case "$arg" in
        --build) wanted+=("${build[@]}") ;;
        --demo) wanted+=("${build[@]}" busybox-static python3) ;;
        --test) wanted+=("${build[@]}" "${test[@]}") ;;
        *) echo "install.sh: unknown argument $arg (--build, --demo, --test)" >&2; exit 2 ;;
    esac
done

missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install.sh: not root; run: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi

echo "installing: ${missing[*]}"
# Debian starts services of packages at once; skiff starts its own containerd.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
