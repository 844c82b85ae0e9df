#!/usr/bin/env bash
# Compares Millrace with a real Apache Kafka of one node: every API and version that Millrace serves.
#
#   ci/prove-differential.sh KAFKA_HOST:PORT [ROUNDS]
#
# Starts a Millrace of one shard on free ports with data of its own and stops it again. Fails if an answer differs in a
# way that ci/differential/accepted.txt does not list.
set -euo pipefail
cd "$(dirname "$0")/.."

kafka=${1:?the address of an Apache Kafka}
rounds=${2:-20}

cargo build -p millrace-broker -p millrace-differential
target=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
data=$(mktemp -d)
"$target/debug/millrace" serve --shards 1 --listen 127.0.0.1:0 --data-dir "$data" >"$data/log" 2>&1 &
millrace=$!
trap 'kill "$millrace" 2>/dev/null; wait "$millrace" 2>/dev/null || true; rm -rf "$data"' EXIT

address=
for _ in $(seq 300); do
  address=$(sed -n 's/^ *kafka *\([^ ]*\).*/\1/p' "$data/log")
  [ -n "$address" ] && break
  kill -0 "$millrace" 2>/dev/null || break
  sleep 0.1
done
[ -n "$address" ] || { cat "$data/log" >&2; exit 2; }

"$target/debug/millrace-differential" --left "$kafka" --right "$address" --rounds "$rounds"
