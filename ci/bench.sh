#!/usr/bin/env bash
# What millrace-bench writes is read by others: batches of every codec by kcat (librdkafka's decoders) and by Java's
# console consumer, the interval log by HdrHistogram's own reader. Each record must come back, of its size and the same
# in both; the log's counts and percentiles must be those of the JSON result.
#   ci/bench.sh BROKER BENCH
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$1 bench=$2
work=$(mktemp -d)
broker=

finish() {
    local status=$?
    [ -z "$broker" ] || { kill "$broker" && wait "$broker"; } 2>/dev/null || true
    [ "$status" -eq 0 ] || tail -n 20 "$work"/*.log >&2 || true
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT

"$here/install.sh"
"$binary" serve --data-dir "$work/data" --shards 1 --listen 127.0.0.1:0 >"$work/broker.log" 2>&1 </dev/null &
broker=$!
bootstrap=
for _ in $(seq 300); do
    bootstrap=$(sed -n 's/^ *kafka *\([^ ]*\).*/\1/p' "$work/broker.log")
    [ -z "$bootstrap" ] || break
    kill -0 "$broker"
    read -rt 0.1 <> <(:) || true
done

java_class() {
    java -Xmx256m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$here/java/target/jars/*" "$@" 2>>"$work/java.log"
}

for codec in none gzip snappy lz4 zstd; do
    # A rate, so that nothing is asked for that is not answered within the window; no warm-up, which is not counted.
    "$bench" produce --bootstrap "$bootstrap" --topic "$codec" --compression "$codec" --compressibility 60 \
        --record-size 1000 --rate 50 --seconds 2 --warm-up 0 --json "$work/json" --log "$work/hlog" >"$work/bench.log"
    read -r records expected < <(python3 - "$work/json" <<'PYTHON'
import json, sys

result = json.load(open(sys.argv[1]))
assert not result["errors"], result["errors"]
(series,) = result["series"]
nanos = series["latency_nanos"]
assert series["records"] > 0
print(series["records"], series["name"], series["latencies"], *(int(nanos[key]) for key in ("p50", "p99", "p99.9", "max")))
PYTHON
    )
    found=$(java_class IntervalLog "$work/hlog")
    [ "$found" = "$expected" ] || { echo "$codec: the log says $found, the result $expected" >&2; exit 1; }
    # A record's size and value as one line; values are not text.
    kcat -C -q -e -o beginning -b "$bootstrap" -t "$codec" -f '%S\n' >"$work/sizes" 2>"$work/kcat.log"
    sizes=$(sort "$work/sizes" | uniq -c | awk '{ printf "%s of %s B;", $1, $2 }')
    [ "$sizes" = "$records of 1000 B;" ] || { echo "$codec: $records records written, kcat read $sizes" >&2; exit 1; }
    by_kcat=$(kcat -C -q -e -o beginning -b "$bootstrap" -t "$codec" -p 0 -D '' 2>"$work/kcat.log" | sha256sum)
    by_java=$(java_class RecordValues "$bootstrap" "$codec" 0 | sha256sum)
    [ "$by_kcat" = "$by_java" ] || { echo "$codec: kcat and Java read different values" >&2; exit 1; }
    echo "bench: $codec: $records records read by kcat and Java; interval log: $found"
done
