#!/usr/bin/env bash
# `millrace recover` of an etcd: two brokers on an S3 server and an etcd take records and a group's offsets; the etcd loses its
# data, then gets back those of an older backup. Both times brokers refuse to start until the etcd is rebuilt from the bucket;
# then every topic, id, setting, record and offset is as before.
#   ci/recover_cluster.sh BINARY [RECORDS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$1 records=${2:-20000}
work=$(mktemp -d)
brokers=() etcd=''
export LC_ALL=C # sort by bytes

finish() {
    local status=$? process
    for process in "${brokers[@]}" $etcd; do
        kill -9 "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    "$here/s3-server.sh" stop
    if [ "$status" -ne 0 ]; then
        echo "--- recover_cluster failed; last output:"
        tail -n 20 "$work"/*.log
    fi
    rm -rf "$work"
    exit "$status"
}
eval "$("$here/s3-server.sh" start)"
trap finish EXIT
trap 'exit 143' TERM INT

source "$here/servers.sh"

# Below those that the system gives to connections. Two are etcd's, two each from 10 and 20 on the brokers'.
is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
for _ in $(seq 50); do
    port=$((10000 + RANDOM % 9000))
    free=yes
    for one in 0 1 10 11 20 21; do is_free $((port + one)) || free=; done
    [ -z "$free" ] || break
done
etcd_port=$port peer_port=$((port + 1))
stores=(--object-store "s3://$MILLRACE_TEST_S3_BUCKET/cluster" --metadata "etcd://127.0.0.1:$etcd_port/cluster")

stop_etcd() {
    kill -9 "$etcd"
    wait "$etcd" 2>/dev/null || true
    etcd=
}

start_brokers() {
    local one from
    brokers=() bootstrap=
    for one in 1 2; do
        from=$((port + 10 * one))
        "$binary" serve "${stores[@]}" --data-dir "$work/data-$one" --shards 2 --listen "127.0.0.1:$from" >>"$work/broker-$one.log" 2>&1 </dev/null &
        brokers+=($!)
        bootstrap=${bootstrap:+$bootstrap,}127.0.0.1:$from
    done
    # Every partition has a leader, and both brokers are there.
    for _ in $(seq 600); do
        kcat -L -b "$bootstrap" -m 5 >"$work/listed" 2>/dev/null && grep -q ' 4 brokers' "$work/listed" &&
            ! grep -q 'leader -1' "$work/listed" && return
        kill -0 "${brokers[@]}"
        read -rt 0.1 <> <(:) || true
    done
    echo "the brokers do not serve"
    return 1
}

stop_brokers() {
    local one
    kill "${brokers[@]}"
    for one in "${brokers[@]}"; do wait "$one"; done
    brokers=()
}

refused() {
    if "$binary" serve "${stores[@]}" --data-dir "$work/data-1" --listen 127.0.0.1:0 >"$work/refused.log" 2>&1 </dev/null; then
        echo "a broker started $1"
        exit 1
    fi
    grep -q 'millrace recover' "$work/refused.log" || { cat "$work/refused.log"; exit 1; }
    echo "$1: a broker is refused, and told of millrace recover"
}

recover() {
    "$binary" recover "${stores[@]}" "$@" >"$work/recover.log" 2>&1 || { cat "$work/recover.log"; exit 1; }
    sed 's/^/    /' "$work/recover.log"
}

write() { # write TOPIC FROM TO
    seq -f 'record-%.0f' "$2" "$3" | kcat -P -b "$bootstrap" -t "$1" -X acks=all -X linger.ms=5 -X enable.idempotence=true 2>>"$work/client.log"
}

# What can be seen: topics with ids and partitions, their records. Leaders, addresses and epochs differ.
see() {
    local topic
    for topic in $("$binary" topic --bootstrap "127.0.0.1:$((port + 10))" list | cut -f 1); do
        "$binary" topic --bootstrap "127.0.0.1:$((port + 10))" describe "$topic" | sed 's/node.*//'
        kcat -C -q -e -o beginning -b "$bootstrap" -t "$topic" -f '%t %p %o %s\n' 2>>"$work/client.log" | sort
    done
}

read_as_group() { # reads what the group has not read yet, and commits
    kcat -G readers -b "$bootstrap" -X auto.offset.reset=earliest -X enable.partition.eof=true -e -q ordered 2>>"$work/client.log" | sort
}

same() { # same WHEN
    start_brokers
    see >"$work/after"
    cmp "$work/before" "$work/after"
    local seen
    write ordered $((read_up_to + 1)) $((read_up_to + 10))
    seen=$(read_as_group | wc -l)
    [ "$seen" -eq 10 ] || { echo "$1: the group reads $seen records instead of the 10 new ones"; exit 1; }
    read_up_to=$((read_up_to + 10))
    echo "$1: $(wc -l <"$work/after") lines of topics and records equal, the group went on at its offsets"
}

start_etcd "$work/etcd" "$etcd_port" "$peer_port" "$work/etcd.log"
start_brokers
"$binary" topic --bootstrap "127.0.0.1:$((port + 10))" create kept --partitions 6 --config retention.ms=-1 >/dev/null
"$binary" topic --bootstrap "127.0.0.1:$((port + 10))" create ordered --partitions 2 --config max.message.bytes=54321 >/dev/null
"$binary" topic --bootstrap "127.0.0.1:$((port + 10))" create deleted >/dev/null
write kept 1 "$records"
write deleted 1 10
write ordered 1 100
read_up_to=100
[ "$(read_as_group | wc -l)" -eq 100 ]
stop_brokers
stop_etcd
cp -r "$work/etcd" "$work/backup"
start_etcd "$work/etcd" "$etcd_port" "$peer_port" "$work/etcd.log"
start_brokers
"$binary" topic --bootstrap "127.0.0.1:$((port + 10))" delete deleted >/dev/null
"$binary" topic --bootstrap "127.0.0.1:$((port + 10))" create later --partitions 3 >/dev/null
write later 1 50
write kept $((records + 1)) $((records + 100))
write ordered 101 110
read_up_to=110
[ "$(read_as_group | wc -l)" -eq 10 ]
see >"$work/before"
if "$binary" recover "${stores[@]}" >"$work/live.log" 2>&1; then
    echo "a recovery beside live brokers was not refused"
    exit 1
fi
grep -q 'stop every broker' "$work/live.log" || { cat "$work/live.log"; exit 1; }
echo "beside live brokers: a recovery is refused"
stop_brokers

stop_etcd
rm -r "$work/etcd"
start_etcd "$work/etcd" "$etcd_port" "$peer_port" "$work/etcd.log"
refused "the etcd lost its data"
recover --dry-run
recover
same "after the etcd lost its data"

see >"$work/before"
stop_brokers
stop_etcd
rm -r "$work/etcd"
cp -r "$work/backup" "$work/etcd"
start_etcd "$work/etcd" "$etcd_port" "$peer_port" "$work/etcd.log"
refused "the etcd is from an older backup"
recover
same "after the etcd was from an older backup"
stop_brokers
"$binary" audit "${stores[@]}" --data-dir "$work/data-1" >"$work/audit.log" 2>&1 || { cat "$work/audit.log"; exit 1; }
echo "audit: whole"
