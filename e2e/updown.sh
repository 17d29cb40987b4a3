#!/usr/bin/env bash
# `./dev up` and `./dev down`, as a new user calls them; then compares what the machine had
# before with what it has after: rules, links, namespaces, mounts, control groups, processes.
set -euo pipefail
cd "$(dirname "$0")/.."

picture() {
    echo "# rules"; iptables-save 2>/dev/null | grep -iE 'skiff|cni' || true
    echo "# tables"; nft list tables 2>/dev/null | grep -i skiff || true
    echo "# links"; ip -o link | awk -F': ' '{print $2}' | sort
    echo "# namespaces"; ip netns list | sort; ls /run/skiff 2>/dev/null || true
    echo "# mounts"; awk '{print $2}' /proc/mounts | sort
    echo "# control groups"; find /sys/fs/cgroup -type d -name '*skiff*' 2>/dev/null | sort
    echo "# processes"; ps -eo args= | grep -E 'containerd|skiff' | grep -vE 'grep|updown|dev test|cargo|ci/run|<defunct>' | sort || true
}

before=$(mktemp) after=$(mktemp)
trap './dev down >/dev/null 2>&1 || true; rm -f "$before" "$after"' EXIT
picture >"$before"
./dev up
./dev down
# A process that was just ended may still be seen for a moment.
for _ in $(seq 50); do
    picture >"$after"
    cmp -s "$before" "$after" && break
    sleep 0.1
done
if ! diff "$before" "$after"; then
    echo "updown: the lines above were left behind (>) or taken away (<)" >&2
    exit 1
fi
trap 'rm -f "$before" "$after"' EXIT
echo "1 passed, 0 failed"
