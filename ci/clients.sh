#!/usr/bin/env bash
# Real clients against a real broker: what kcat and Java's own tools write with default settings is read back and
# compared byte for byte.
#   ci/clients.sh BINARY RECORDS [local|s3] [serve arguments...]
# Installs what it needs (ci/install.sh). To run it against a broker that is up already: set BOOTSTRAP.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$1 records=$2 store=${3:-local}
shift "$(($# < 3 ? $# : 3))"
work=$(mktemp -d)
broker=
export LC_ALL=C # sort by bytes

finish() {
    local status=$?
    if [ -n "$broker" ]; then
        kill "$broker" 2>/dev/null || true
        wait "$broker" 2>/dev/null || true
    fi
    [ "$store" != s3 ] || "$here/s3-server.sh" stop
    if [ "$status" -ne 0 ]; then
        echo "--- clients failed; last output of the broker and of the client:"
        tail -n 30 "$work/broker.log" "$work/client.log" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM INT

source "$here/servers.sh"

start_broker() {
    local port arguments=()
    if [ "$store" = s3 ]; then
        eval "$("$here/s3-server.sh" start)"
        arguments=(--object-store "s3://$MILLRACE_TEST_S3_BUCKET/clients")
    fi
    port=$(free_port)
    "$binary" serve --data-dir "$work/data" --listen "127.0.0.1:$port" "${arguments[@]}" "$@" \
        >"$work/broker.log" 2>&1 </dev/null &
    broker=$!
    bootstrap=127.0.0.1:$port
    for _ in $(seq 300); do
        kcat -L -b "$bootstrap" -m 1 >/dev/null 2>&1 && return
        kill -0 "$broker"
    done
    return 1
}

tool() { # tool CLASS ARGUMENT...
    java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$here/java/target/jars/*" "$@" 2>>"$work/client.log"
}

kcat_read() { # kcat_read TOPIC
    kcat -C -q -e -o beginning -b "$bootstrap" -t "$1" 2>>"$work/client.log"
}

# compare NAME EXPECTED FOUND: the same lines, each as often; a topic has several partitions, so the order may differ.
compare() {
    sort "$3" >"$work/sorted"
    if ! cmp "$2" "$work/sorted"; then
        echo "clients ($store): $1 DIFFERS: $(wc -l <"$2") lines written, $(wc -l <"$work/sorted") read"
        comm -3 "$2" "$work/sorted" | head -n 5
        exit 1
    fi
    echo "clients ($store): $1: $(wc -l <"$2") records, $(wc -c <"$2") bytes, equal ($((SECONDS - since)) s)"
    since=$SECONDS
    rm "$3"
}

"$here/install.sh"
if [ -n "${BOOTSTRAP:-}" ]; then bootstrap=$BOOTSTRAP; else start_broker "$@"; fi
since=$SECONDS
run=$$
# Distinct lines of different lengths.
awk -v count="$records" 'BEGIN { srand(7); for (i = 1; i <= count; i++) {
    line = sprintf("%09d", i); for (w = int(rand() * 12); w > 0; w--) line = line sprintf(" %08x", rand() * 4294967295); print line } }' \
    >"$work/payload"
sort "$work/payload" >"$work/expected"

kcat -P -b "$bootstrap" -t "kcat-$run" <"$work/payload" 2>>"$work/client.log"
kcat_read "kcat-$run" >"$work/back"
compare "kcat -P, kcat -C" "$work/expected" "$work/back"

tool GroupReader "$bootstrap" "kcat-$run" "$records" "$work/back"
compare "kcat -P, a group of Java consumers that come and go" "$work/expected" "$work/back"

tool org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$bootstrap" --topic "console-$run" <"$work/payload"
tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$bootstrap" --topic "console-$run" \
    --from-beginning --max-messages "$records" --timeout-ms 60000 >"$work/back"
compare "ConsoleProducer, ConsoleConsumer" "$work/expected" "$work/back"
kcat_read "console-$run" >"$work/back"
compare "ConsoleProducer, kcat -C" "$work/expected" "$work/back"

tool ExpectedPayloads "$work/payload" "$records" | sort >"$work/drawn"
tool org.apache.kafka.tools.ProducerPerformance --bootstrap-server "$bootstrap" --topic "perf-$run" \
    --payload-file "$work/payload" --num-records "$records" --throughput -1 | tail -n 1
kcat_read "perf-$run" >"$work/back"
compare "ProducerPerformance, kcat -C" "$work/drawn" "$work/back"
