#!/usr/bin/env bash
# Starts and stops the brokers that a comparison needs, all pinned alike. Sourced by the scripts beside it.
#
# MILLRACE and BENCH name the two programs (default: from target/release). APACHE_KAFKA names a script that takes
# `start PORT` (prints the broker's pid last), `stop PORT -w` and `tool CLASS ARGUMENT...` (default
# ../shared/tools/apache-kafka). BROKER_CORES and CLIENT_CORES are lists for taskset: 1 and 0, so that what the
# client uses is not taken from the broker.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
millrace=${MILLRACE:-target/release/millrace}
bench=${BENCH:-target/release/millrace-bench}
apache_kafka=${APACHE_KAFKA:-../shared/tools/apache-kafka}
broker_cores=${BROKER_CORES:-1}
client_cores=${CLIENT_CORES:-0}
port=${PORT:-39400}
# Of a Millrace that is started.
shards=1

data=$(mktemp -d)
names=()
# By name; `commands` starts a Millrace again, `admins` is where its metrics are.
declare -A addresses=() pids=() commands=() admins=()

# listens NAME: waits until the broker accepts, or says what it printed.
listens() {
    for _ in $(seq 300); do
        (exec 3<>"/dev/tcp/127.0.0.1/${addresses[$1]#*:}") 2>/dev/null && return
        kill -0 "${pids[$1]}" 2>/dev/null || break
        read -rt 0.1 <> <(:) || true
    done
    cat "$data/$1.log" >&2
    exit 1
}

# launch NAME: starts the process of a broker that has a name, on the data that it has.
launch() {
    if [ "$1" = kafka ]; then
        taskset -c "$broker_cores" "$apache_kafka" start "${addresses[kafka]#*:}" >"$data/kafka.log" 2>&1
        pids[kafka]=$(tail -1 "$data/kafka.log")
    else
        eval "${commands[$1]} >>\"$data/$1.log\" 2>&1 &"
        pids[$1]=$!
    fi
    listens "$1"
}

# halt NAME: ends it with SIGTERM; what it stored stays.
halt() {
    if [ "$1" = kafka ]; then
        "$apache_kafka" stop "${addresses[kafka]#*:}" >/dev/null
    else
        kill "${pids[$1]}" 2>/dev/null && wait "${pids[$1]}" || true
    fi
}

# start_kafka: Apache Kafka with its defaults, as `kafka`.
start_kafka() {
    port=$((port + 10))
    names+=(kafka)
    addresses[kafka]=127.0.0.1:$port
    launch kafka
}

# start_millrace NAME ARGUMENTS...: $shards shards, a directory of its own.
start_millrace() {
    local name=$1
    shift
    port=$((port + 10))
    names+=("$name")
    addresses[$name]=127.0.0.1:$port
    printf -v "commands[$name]" '%q ' taskset -c "$broker_cores" "$millrace" serve --shards "$shards" \
        --data-dir "$data/$name" --listen "127.0.0.1:$port" "$@"
    launch "$name"
}

# start_measured NAME ARGUMENTS...: the same with metrics.
start_measured() {
    admins[$1]=127.0.0.1:$((port + 15))
    start_millrace "$@" --admin "${admins[$1]}"
}

# rolled NAME: waits until every record is in a segment; ends the script if none more got there for five minutes.
rolled() {
    local left before='' since=$SECONDS
    while :; do
        left=$(curl -sf "http://${admins[$1]}/metrics" | awk '/^millrace_uncovered_bytes{/ { sum += $2 } END { printf "%.0f", sum }')
        [ "$left" != 0 ] || return 0
        [ "$left" = "$before" ] || { before=$left since=$SECONDS; }
        [ $((SECONDS - since)) -lt 300 ] || { echo "$1: $left bytes are still in no segment" >&2; exit 1; }
        read -rt 0.5 <> <(:) || true
    done
}

# cool DIRECTORY...: what the files there hold is on the disk and no longer in the page cache.
cool() {
    python3 - "$@" <<'PYTHON'
import os, sys

for root in sys.argv[1:]:
    for folder, _, files in os.walk(root):
        for name in files:
            try:
                file = os.open(os.path.join(folder, name), os.O_RDONLY)
            except FileNotFoundError:
                continue  # deleted meanwhile
            os.fdatasync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
PYTHON
}

# stored NAME: the directory that holds what it stored.
stored() {
    case $1 in
    kafka) dirname "$(tr '\0' '\n' <"/proc/${pids[kafka]}/cmdline" | tail -1)" ;;
    s3) echo "$S3_SERVER_DIR" ;;
    *) echo "$data/$1" ;;
    esac
}

# stop_millrace: ends every Millrace and removes what it stored; Kafka goes on.
stop_millrace() {
    local name kept=()
    for name in "${names[@]}"; do
        if [ "$name" = kafka ]; then
            kept=(kafka)
            continue
        fi
        kill "${pids[$name]}" 2>/dev/null && wait "${pids[$name]}" 2>/dev/null || true
        rm -rf "${data:?}/$name"
    done
    names=("${kept[@]}")
}

stop_all() {
    stop_millrace
    [ "${#names[@]}" -eq 0 ] || "$apache_kafka" stop "${addresses[kafka]#*:}" -w >/dev/null 2>&1 || true
    rm -rf "$data"
}

trap stop_all EXIT

# sides: the brokers as `millrace-bench compare` takes them.
sides() {
    local name
    for name in "${names[@]}"; do echo "$name=${addresses[$name]},pid=${pids[$name]}"; done
}
