#!/usr/bin/env bash
# Three brokers on one etcd and one S3 server are stopped (SIGTERM) and started again, one after the other, under a default
# Java producer and a group of default Java consumers: no send fails, every record is read once and in order.
#   ci/rolling.sh BINARY [ROUNDS]
# Needs what ci/install.sh installs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$1 rounds=${2:-1}
partitions=12 per_second=300
work=$(mktemp -d)
brokers=() addresses=() admins=() etcd= load=

finish() {
    local status=$?
    for pid in ${load:+"$load"} "${brokers[@]}" ${etcd:+"$etcd"}; do
        kill "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    [ -z "${S3_SERVER_PID:-}" ] || "$here/s3-server.sh" stop
    if [ "$status" -ne 0 ]; then
        echo "--- rolling restart failed; last output of the brokers and of the client:"
        tail -n 20 "$work"/broker.* "$work/client.log" "$work/load" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM INT

source "$here/servers.sh"

# Until a command succeeds; what is awaited is said where it never does.
await() { # await WHAT COMMAND...
    local what=$1
    shift
    for _ in $(seq 600); do
        "$@" && return
        read -rt 0.1 <> <(:) || true
    done
    echo "in vain: $what"
    return 1
}

start_metadata() {
    local port
    port=$(free_port)
    start_etcd "$work/etcd" "$port" "$(free_port)" "$work/etcd.log"
    metadata=etcd://127.0.0.1:$port/rolling
    await "etcd listens" listens "127.0.0.1:$port"
}

listens() { (exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null; }

ready() { curl -sf "http://$1/readyz" >/dev/null; }

start_broker() { # start_broker NUMBER
    "$binary" serve --shards 1 --name "broker-$1" --listen "${addresses[$1]}" --admin "${admins[$1]}" \
        --data-dir "$work/data.$1" --object-store "s3://$MILLRACE_TEST_S3_BUCKET/rolling" --metadata "$metadata" \
        >>"$work/broker.$1" 2>&1 </dev/null &
    brokers[$1]=$!
    await "broker $1 is ready" ready "${admins[$1]}"
}

# Every broker leads its share again.
balanced() {
    local leaders
    leaders=$(kcat -L -b "${addresses[0]}" -t rolling 2>/dev/null | sed -n 's/.*leader \([0-9]*\),.*/\1/p' | sort | uniq -c)
    [ "$(wc -l <<<"$leaders")" -eq 3 ] && awk -v want=$((partitions / 3)) '$1 != want { exit 1 }' <<<"$leaders"
}

"$here/install.sh"
eval "$("$here/s3-server.sh" start)"
start_metadata
for number in 0 1 2; do
    addresses[number]=127.0.0.1:$(free_port) admins[number]=127.0.0.1:$(free_port)
    start_broker "$number"
done
mkfifo "$work/stop"
java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$here/java/target/jars/*:$here/java/target/classes" \
    SteadyLoad "$(IFS=,; echo "${addresses[*]}")" rolling "$partitions" "$per_second" \
    <"$work/stop" >"$work/load" 2>"$work/client.log" &
load=$!
exec 9>"$work/stop"
await "the load has begun" grep -q begun "$work/load"
await "all lead" balanced
for round in $(seq "$rounds"); do
    for number in 0 1 2; do
        begun=$(date +%s%N)
        kill -TERM "${brokers[$number]}"
        wait "${brokers[$number]}"
        echo "rolling: round $round, broker $number left within $((($(date +%s%N) - begun) / 1000000)) ms"
        start_broker "$number"
        await "broker $number leads its share again" balanced
    done
done
echo >&9
exec 9>&-
wait "$load" || { cat "$work/load"; exit 1; }
load=
cat "$work/load"
echo "rolling: $rounds rounds of three brokers, no send failed, every record read once and in order"
