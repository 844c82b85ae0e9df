# shellcheck shell=bash
# For perf/stat and perf/flamegraph: `watched PID|--run [SECONDS]` sets $pid and $seconds. With --run it starts a broker
# and a load that lasts long enough; they end with the script. MILLRACE and BENCH name the two programs, LOAD the load.

broker='' load='' data=''
unwatch() {
    for started in $load $broker; do
        kill "$started" 2>/dev/null || true
        wait "$started" 2>/dev/null || true
    done
    [ -z "$data" ] || rm -rf "$data"
    broker='' load='' data=''
}
trap unwatch EXIT

watched() {
    seconds=${2:-5}
    case ${1:-} in
    --run) ;;
    [0-9]*)
        pid=$1
        return
        ;;
    *)
        grep '^#   ' "$0" | cut -c3- >&2
        exit 2
        ;;
    esac
    local root at="127.0.0.1:${PORT:-39492}"
    root=$(cd "$(dirname "$0")/.." && pwd)
    data=$(mktemp -d)
    "${MILLRACE:-$root/target/release/millrace}" serve --data-dir "$data/millrace" --listen "$at" --shards 1 \
        --object-store memory: >"$data/log" 2>&1 &
    broker=$! pid=$!
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/${at%:*}/${at#*:}") 2>/dev/null && break
        kill -0 "$broker" 2>/dev/null || break
        read -rt 0.1 <> <(:) || true
    done
    # shellcheck disable=SC2086 # the load is a list of arguments
    "${BENCH:-$root/target/release/millrace-bench}" produce --bootstrap "$at" --pid "$pid" --seconds "$((seconds + 4))" \
        ${LOAD:---in-flight 4 --connections 4} >"$data/load" 2>&1 &
    load=$!
    # What is watched is the steady state.
    for _ in $(seq 10); do
        kill -0 "$load" 2>/dev/null || { cat "$data/log" "$data/load" >&2; exit 1; }
        read -rt 0.1 <> <(:) || true
    done
}
