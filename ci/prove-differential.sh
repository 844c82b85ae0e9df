#!/usr/bin/env bash
# Compares Millrace with a real Apache Kafka of one node: every API and version that Millrace serves, and what a long
# history holds at every offset and timestamp, before and after a restart of Millrace.
#
#   ci/prove-differential.sh KAFKA_HOST:PORT [ROUNDS] [all|requests|history]
#
# Starts a Millrace of one shard on free ports with data of its own and stops it again: with little memory and segments of
# the least size, so that a history is in segments, in write-ahead objects and in memory. Fails if an answer differs in a
# way that ci/differential/accepted.txt does not list.
set -euo pipefail
cd "$(dirname "$0")/.."

kafka=${1:?the address of an Apache Kafka}
rounds=${2:-20}
part=${3:-all}

# With the tests, so that what they have built is not built again with fewer features.
cargo build --workspace --bins --tests --locked
target=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
data=$(mktemp -d)
millrace=
stop() {
  [ -z "$millrace" ] || kill "$millrace" 2>/dev/null || true
  [ -z "$millrace" ] || wait "$millrace" 2>/dev/null || true
  millrace=
}
trap 'stop; rm -rf "$data"' EXIT

start() {
  # By size alone: what is too small for a segment stays in the write-ahead log.
  "$target/debug/millrace" serve --shards 1 --listen "${1:-127.0.0.1:0}" --data-dir "$data" --memory-mib 64 \
    --roll-segments true --roll-bytes 65536 --roll-after-ms 86400000 >"$data/out" 2>&1 &
  millrace=$!
  address=
  for _ in $(seq 300); do
    address=$(sed -n 's/^ *kafka *\([^ ]*\).*/\1/p' "$data/out")
    [ -n "$address" ] && return
    kill -0 "$millrace" 2>/dev/null || break
    sleep 0.1
  done
  cat "$data/out" >&2
  exit 2
}

compare() {
  "$target/debug/millrace-differential" --left "$kafka" --right "$address" --rounds "$rounds" \
    --store "$data/log" --tag $$ --part "$1"
}

status=0
start
compare "$part" || status=1
if [ "$part" != requests ]; then
  stop
  start
  echo "after a restart of Millrace:"
  compare cold || status=1
fi
exit "$status"
