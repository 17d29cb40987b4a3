#!/usr/bin/env bash
# Measures what the README's table says, with the release build, on a host of its own (a
# network namespace). Five runs each, medians. ./dev bench [build|start|idle|pods|all]
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(readlink -f "${SKIFF_BIN:-${CARGO_TARGET_DIR:-target}/release/skiff}")
what=${1:-all}
[ -n "${SKIFF_BIN:-}" ] || cargo build --release -p skiff
work=$(mktemp -d) ns=skiff-bench-$$
export KUBECONFIG=$work/kubeconfig

host() { nsenter --net="/run/netns/$ns" -- "$@"; }
flags() { echo --data-dir "$work/data" --run-dir "$work/run" --log-dir "$work/pods" --write-kubeconfig "$KUBECONFIG" --node-name bench --node-ip 198.18.255.2; }
# Not through host(): in the background that is a shell of its own, and a signal would end only that.
server() { nsenter --net="/run/netns/$ns" -- "$bin" server $(flags) >>"$work/log" 2>&1 & pid=$!; }
image() { host "$bin" image --containerd-address "$work/run/containerd/containerd.sock" --data-dir "$work/data" --run-dir "$work/run" "$@"; }
stop() { kill "$pid"; wait "$pid" 2>/dev/null || true; }
clean() { host "$bin" cleanup --data $(flags) >/dev/null; }
finish() {
    [ -n "${pid:-}" ] && kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
    clean || true
    ip netns del "$ns" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

ip netns add "$ns"
ip link add "sb$$" type veth peer name inner netns "$ns"
ip addr add 198.18.255.1/30 dev "sb$$" && ip link set "sb$$" up
ip -n "$ns" addr add 198.18.255.2/30 dev inner
ip -n "$ns" link set inner up && ip -n "$ns" link set lo up
ip -n "$ns" route add default via 198.18.255.1

median() { sort -n | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}'; }
millis() { date +%s%3N; }
# Captured whole: a grep that leaves early would end the client with SIGPIPE, and with pipefail that is "no".
ready() { [[ $(host "$bin" get nodes --no-headers 2>/dev/null) == *" Ready "* ]]; }
# Taking down what ran before is not part of starting what comes next.
started() {
    until ready; do
        kill -0 "$pid" 2>/dev/null || { tail -n 5 "$work/log" >&2; exit 1; }
        sleep 0.02
    done
}
settled() { until ! pgrep -f "containerd-shim.*$work/run" >/dev/null; do sleep 0.1; done; sleep 1; }
row() { printf '%-58s %s\n' "$1" "$2"; }

row "load average before" "$(cut -d' ' -f1-3 /proc/loadavg)"
row "size of the binary, MB" "$(($(stat -c %s "$bin") / 1000000))"

bench_start() {
    local times=""
    for _ in 1 2 3 4 5; do
        local begin; begin=$(millis)
        server
        started
        times="$times $(($(millis) - begin))"
        stop; clean
    done
    row "cold start to node Ready, containerd's included, ms" "$(tr ' ' '\n' <<<"$times" | grep . | median) of$times"
}

idle_figures() { # SECONDS
    local ticks0 ticks1 bytes0 bytes1
    ticks0=$(awk '{print $14+$15}' "/proc/$pid/stat"); bytes0=$(awk '/^write_bytes/ {print $2}' "/proc/$pid/io")
    sleep "$1"
    ticks1=$(awk '{print $14+$15}' "/proc/$pid/stat"); bytes1=$(awk '/^write_bytes/ {print $2}' "/proc/$pid/io")
    row "idle: memory resident, MiB" "$(awk '/^VmRSS/ {printf "%.1f", $2/1024}' "/proc/$pid/status")"
    row "idle: of that, private and dirty, MiB" "$(awk '/^Private_Dirty/ {s+=$2} END {printf "%.1f", s/1024}' "/proc/$pid/smaps_rollup")"
    row "idle: CPU, % of a core" "$(awk -v t=$((ticks1 - ticks0)) -v s="$1" 'BEGIN {printf "%.2f", t/s}')"
    row "idle: written to disk, MB a day" "$(awk -v b=$((bytes1 - bytes0)) -v s="$1" 'BEGIN {printf "%.1f", b*86400/s/1e6}')"
}

bench_idle() {
    server
    started
    sleep 60
    idle_figures 60
    stop; clean
}

pod() { # NAME
    printf '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s","labels":{"app":"bench"}},"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"c","image":"skiff.local/demo-web:1","command":["sleep","1000"]}]}}\n' "$1"
}

bench_pods() {
    server
    started
    python3 deploy/demo/image.py "$work/images" >/dev/null
    image import "$work/images/demo-web-1.tar" >/dev/null
    local times="" all="" each=""
    for n in $(seq 6); do
        pod "one-$n" >"$work/pod.json"
        local begin; begin=$(millis)
        host "$bin" create -f "$work/pod.json" >/dev/null
        host "$bin" wait pod "one-$n" --for 'jsonpath={.status.phase}=Running' --timeout 20s >/dev/null
        # The first run warms caches and is not counted.
        [ "$n" -eq 1 ] || times="$times $(($(millis) - begin))"
        host "$bin" delete pod "one-$n" --grace-period 0 >/dev/null
        settled
    done
    row "one pod, create to Running (two client calls included), ms" "$(tr ' ' '\n' <<<"$times" | grep . | median) of$times"
    for round in 1 2 3 4 5; do
        for n in $(seq 20); do pod "many-$round-$n"; echo ---; done >"$work/pods.yaml"
        local begin marks="" name phase watch watcher
        local -A seen=()
        begin=$(millis)
        # One reader of one watch: a process for each look would take the cores from what is measured.
        exec {watch}< <(exec nsenter --net="/run/netns/$ns" -- "$bin" get pods -l app=bench -w --no-headers 2>/dev/null)
        watcher=$!
        host "$bin" create -f "$work/pods.yaml" >/dev/null
        while [ "${#seen[@]}" -lt 20 ] && read -r -t 30 -u "$watch" name _ phase _; do
            [ "$phase" = Running ] && [ -z "${seen[$name]:-}" ] || continue
            seen[$name]=1
            marks="$marks $((${EPOCHREALTIME/./} / 1000 - begin))"
        done
        kill "$watcher" 2>/dev/null || true
        exec {watch}<&-
        each="$each $(tr ' ' '\n' <<<"$marks" | grep . | median)"
        all="$all ${marks##* }"
        host "$bin" delete pods -l app=bench --grace-period 0 >/dev/null
        settled
    done
    row "20 pods at once, median of the twenty, ms" "$(tr ' ' '\n' <<<"$each" | grep . | median) of$each"
    row "20 pods at once, the last one, ms" "$(tr ' ' '\n' <<<"$all" | grep . | median) of$all"
    stop; clean
}

bench_build() {
    local target begin
    target=$(mktemp -d)
    begin=$(millis)
    CARGO_TARGET_DIR=$target cargo build --release --quiet -p skiff
    row "clean release build, s" "$((($(millis) - begin) / 1000))"
    row "size of that binary, MB" "$(($(stat -c %s "$target/release/skiff") / 1000000))"
    rm -rf "$target"
}

case "$what" in
    build) bench_build ;;
    start) bench_start ;;
    idle) bench_idle ;;
    pods) bench_pods ;;
    all) bench_start; bench_pods; bench_idle ;;
    *) echo "bench: $what is none of build, start, idle, pods, all" >&2; exit 2 ;;
esac
