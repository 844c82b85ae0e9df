#!/usr/bin/env bash
# Measures release builds of this repository, and a reference broker if one is named, with the same loads in one run.
# Prints the command above each figure; RESULTS.md keeps the last run.
#   perf/measure.sh                              all cases, 6 seconds each
#   SECONDS_EACH=30 perf/measure.sh memory s3    only these stores
#   REFERENCE=HOST:PORT REFERENCE_PID=PID perf/measure.sh
# MILLRACE and BENCH name the two programs (default: from target/release). S3 is served by ci/s3-server.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
millrace=${MILLRACE:-target/release/millrace}
bench=${BENCH:-target/release/millrace-bench}
seconds=${SECONDS_EACH:-6}
port=${PORT:-39392}
topic=${FIRST_TOPIC:-0}

broker=
data=
stop() {
    [ -z "$broker" ] || { kill "$broker" 2>/dev/null && wait "$broker" 2>/dev/null || true; }
    [ -z "$data" ] || rm -rf "$data"
    broker='' data=''
}
trap 'stop; [ -z "${S3_SERVER_PID:-}" ] || ci/s3-server.sh stop' EXIT

serve() { # serve ARGUMENTS...: one shard, a fresh directory
    stop
    data=$(mktemp -d)
    echo
    echo "### millrace serve --shards 1 $*"
    "$millrace" serve --data-dir "$data/millrace" --listen "127.0.0.1:$port" --shards 1 "$@" >"$data/log" 2>&1 &
    broker=$!
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
        kill -0 "$broker" 2>/dev/null || break
        read -rt 0.1 <> <(:) || true
    done
    cat "$data/log" >&2
    exit 1
}

load() { # load ARGUMENTS...: against the broker that runs
    local at=${REFERENCE_NOW:-127.0.0.1:$port} pid=${REFERENCE_PID_NOW:-$broker}
    topic=$((topic + 1))
    echo
    echo "\$ millrace-bench produce $* --seconds $seconds"
    "$bench" produce --bootstrap "$at" --pid "$pid" --topic "m$topic" --seconds "$seconds" "$@" || true
}

full() { load --in-flight 4 --connections 4; }
steady() { load --batch-bytes 1 --rate 2000; }
small() { load --batch-bytes 1 --record-size 100 --connections 64 --in-flight 1; }

for store in ${*:-memory local fsync s3 linger reference}; do
    case $store in
    memory)
        serve --object-store memory:
        full && steady && small
        ;;
    local)
        serve --fsync false
        full && steady && small
        ;;
    fsync)
        serve --fsync true
        full && steady && small
        ;;
    s3)
        [ -n "${S3_SERVER_PID:-}" ] || eval "$(ci/s3-server.sh start)"
        serve --object-store "s3://$MILLRACE_TEST_S3_BUCKET/full"
        load --in-flight 16 --connections 4
        ;;
    linger)
        [ -n "${S3_SERVER_PID:-}" ] || eval "$(ci/s3-server.sh start)"
        for setting in "5 8" "25 8" "100 8" "5 100" "25 100" "100 100"; do
            read -r linger puts <<<"$setting"
            prefix=linger-$linger-$puts
            serve --object-store "s3://$MILLRACE_TEST_S3_BUCKET/$prefix" --linger-ms "$linger" --max-puts-per-second "$puts"
            # Enough requests in flight that the schedule is kept whatever an answer takes.
            load --batch-bytes 1 --rate 500 --in-flight 1000
            echo "objects     $(find "$S3_SERVER_DIR/buckets/$MILLRACE_TEST_S3_BUCKET/$prefix/wal" -type f | wc -l)"
        done
        ;;
    reference)
        [ -n "${REFERENCE:-}" ] || continue
        stop
        REFERENCE_NOW=$REFERENCE REFERENCE_PID_NOW=${REFERENCE_PID:?}
        echo
        echo "### the reference broker"
        full && steady && small
        ;;
    esac
done
