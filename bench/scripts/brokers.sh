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
declare -A addresses=() pids=()

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

# start_kafka: Apache Kafka with its defaults, as `kafka`.
start_kafka() {
    port=$((port + 10))
    taskset -c "$broker_cores" "$apache_kafka" start "$port" >"$data/kafka.log" 2>&1
    names+=(kafka)
    addresses[kafka]=127.0.0.1:$port
    pids[kafka]=$(tail -1 "$data/kafka.log")
    listens kafka
}

# start_millrace NAME ARGUMENTS...: $shards shards, a directory of its own.
start_millrace() {
    local name=$1
    shift
    port=$((port + 10))
    names+=("$name")
    addresses[$name]=127.0.0.1:$port
    taskset -c "$broker_cores" "$millrace" serve --shards "$shards" --data-dir "$data/$name" --listen "127.0.0.1:$port" "$@" \
        >"$data/$name.log" 2>&1 &
    pids[$name]=$!
    listens "$name"
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
