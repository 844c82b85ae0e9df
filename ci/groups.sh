#!/usr/bin/env bash
# Groups of Java's consumers while the broker is killed (-9) and started again.
#   ci/groups.sh BINARY [MEMBERS] [SECONDS]
# Three console consumers of the consumer protocol read a topic, committed to its end when the broker dies: nothing is
# read twice, and what is written later is read. Then MEMBERS members (default 20) join and leave a group at random for
# SECONDS (default 20) under load, once with each group protocol; the broker dies twice: every record is read, and in
# the end the group is stable and each member has a partition. Before that, the members of a group change one by one from the classic protocol to
# the consumer protocol and back, with an eager and with a cooperative assignor: no partition is lost or doubled. Needs
# what ci/install.sh installs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$1 members=${2:-20} seconds=${3:-20}
records=2000
work=$(mktemp -d)
broker= address=127.0.0.1:0 readers=()
export LC_ALL=C # sort by bytes

finish() {
    local status=$?
    for pid in "${readers[@]}" $broker; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    if [ "$status" -ne 0 ]; then
        echo "--- groups failed; last output of the broker and of the clients:"
        tail -n 30 "$work/broker.log" "$work/client.log" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM INT

# The first start takes a free port, later ones the same.
start_broker() {
    # Emptied here: what an earlier life wrote is not taken for this one's.
    : >"$work/broker.log"
    "$binary" serve --shards 1 --listen "$address" --data-dir "$work/data" >"$work/broker.log" 2>&1 </dev/null &
    broker=$!
    for _ in $(seq 300); do
        address=$(sed -n 's/^ *kafka *\([^ ]*\).*/\1/p' "$work/broker.log")
        [ -z "$address" ] || return 0
        kill -0 "$broker"
        sleep 0.1
    done
    return 1
}

crash_broker() {
    kill -9 "$broker"
    wait "$broker" 2>/dev/null || true
    start_broker
}

tool() { # tool CLASS ARGUMENT...
    java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$here/java/target/jars/*" "$@" 2>>"$work/client.log"
}

# Until the group has committed all that there is.
await_committed() { # await_committed GROUP
    for _ in $(seq 60); do
        tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$address" --describe \
            --group "$1" >"$work/lag" || continue
        # Columns: group, topic, partition, committed, end, lag.
        awk '$3 ~ /^[0-9]+$/ { rows++; if ($6 != 0) behind++ } END { exit !(rows > 0 && behind == 0) }' "$work/lag" &&
            return
    done
    cat "$work/lag"
    return 1
}

console_consumers() {
    local number pid
    tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$address" --create --topic console --partitions 6 \
        >/dev/null
    seq -f 'record %06g' "$records" >"$work/expected"
    for number in 1 2 3; do
        # No function: the tool itself is to be killed. (With --consumer-property, which is deprecated, each prints a line
        # that is no record.)
        java -Xmx256m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$here/java/target/jars/*" \
            org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$address" --topic console --group console \
            --from-beginning --command-property group.protocol=consumer >"$work/read.$number" 2>>"$work/client.log" &
        readers+=("$!")
    done
    head -n $((records / 2)) "$work/expected" | kcat -P -b "$address" -t console -X sticky.partitioning.linger.ms=0
    await_committed console
    crash_broker
    tail -n +$((records / 2 + 1)) "$work/expected" | kcat -P -b "$address" -t console -X sticky.partitioning.linger.ms=0
    await_committed console
    for pid in "${readers[@]}"; do
        kill "$pid"
        wait "$pid" || true
    done
    readers=()
    sort "$work"/read.* >"$work/sorted"
    if ! cmp "$work/expected" "$work/sorted"; then
        echo "groups: console consumers DIFFER: $(wc -l <"$work/sorted") lines, $(sort -u "$work/sorted" | wc -l) distinct"
        comm -3 "$work/expected" "$work/sorted" | head -n 5
        return 1
    fi
    echo "groups: three console consumers of the consumer protocol, one kill: $records records, each read once"
}

roll() { # roll ASSIGNOR
    java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
        -cp "$here/java/target/jars/*:$here/java/target/classes" \
        GroupRoll "$address" "org.apache.kafka.clients.consumer.$1" "roll-$1" 2>>"$work/client.log"
}

churn() { # churn PROTOCOL
    local java
    java -Xmx1g -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$here/java/target/jars/*:$here/java/target/classes" \
        GroupChurn "$address" "$1" "$members" "$seconds" "churn-$1" 2>>"$work/client.log" &
    java=$!
    readers=("$java")
    for _ in 1 2; do
        sleep $((seconds / 3))
        kill -0 "$java"
        crash_broker
    done
    wait "$java"
    readers=()
    echo "groups: the broker was killed twice meanwhile"
}

"$here/install.sh"
start_broker
console_consumers
roll RangeAssignor
roll CooperativeStickyAssignor
churn classic
churn consumer
