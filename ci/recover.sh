#!/usr/bin/env bash
# `millrace audit` and `millrace recover` on an S3 server: a bucket is audited beside a broker that takes records and after
# its kill -9, its metadata directory is deleted and rebuilt, and every record is read back.
#   ci/recover.sh BINARY [RECORDS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$1 records=${2:-50000}
work=$(mktemp -d)
broker='' writer=''
export LC_ALL=C # sort by bytes

finish() {
    local status=$? process
    for process in $writer $broker; do
        kill -9 "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    "$here/s3-server.sh" stop
    if [ "$status" -ne 0 ]; then
        echo "--- recover failed; last output:"
        tail -n 30 "$work"/*.log
    fi
    rm -rf "$work"
    exit "$status"
}
eval "$("$here/s3-server.sh" start)"
trap finish EXIT
trap 'exit 143' TERM INT
stores=(--data-dir "$work/data" --object-store "s3://$MILLRACE_TEST_S3_BUCKET/recover")

source "$here/servers.sh"

start_broker() {
    local port
    port=$(free_port)
    "$binary" serve "${stores[@]}" --listen "127.0.0.1:$port" >>"$work/broker.log" 2>&1 </dev/null &
    broker=$!
    bootstrap=127.0.0.1:$port
    for _ in $(seq 300); do
        kcat -L -b "$bootstrap" -m 1 >/dev/null 2>&1 && return
        kill -0 "$broker"
    done
    return 1
}

kill_broker() {
    kill -9 "$broker"
    wait "$broker" 2>/dev/null || true
    broker=
}

audit() { # audit WHEN
    "$binary" audit "${stores[@]}" >"$work/audit.log" 2>&1 || { echo "audit $1: not whole"; cat "$work/audit.log"; exit 1; }
    echo "audit $1: whole, $(grep '^partitions' "$work/audit.log" | tr -s ' '), $(grep '^records' "$work/audit.log" | tr -s ' ')"
}

write() { # write FROM TO
    seq -f 'record-%.0f' "$1" "$2" | kcat -P -b "$bootstrap" -t kept -X acks=all -X linger.ms=5 2>>"$work/client.log"
}

check() { # check COUNT
    seq -f 'record-%.0f' 1 "$1" | sort >"$work/expected"
    kcat -C -q -e -o beginning -b "$bootstrap" -t kept 2>>"$work/client.log" | sort >"$work/read"
    cmp "$work/expected" "$work/read"
    echo "read back: $1 records, equal"
}

start_broker
"$binary" topic --bootstrap "$bootstrap" create kept --partitions 6 --config retention.ms=-1 >/dev/null
"$binary" topic --bootstrap "$bootstrap" create empty >/dev/null
write 1 "$records"
write $((records + 1)) $((2 * records)) &
writer=$!
audit "beside a broker that takes records"
wait "$writer"
writer=
kill_broker
audit "after kill -9"
rm -r "$work/data/metadata"
audit "of the bucket alone"
"$binary" recover "${stores[@]}" | tee "$work/recover.log" | head -n 1
audit "after the recovery"
start_broker
check $((2 * records))
write $((2 * records + 1)) $((2 * records + 10))
check $((2 * records + 10))
audit "of the bucket alone, beside the broker"
if "$binary" recover "${stores[@]}" >>"$work/recover.log" 2>&1; then
    echo "a recovery beside a live broker was not refused"
    exit 1
fi
kill_broker
start_broker
check $((2 * records + 10))
