#!/usr/bin/env python3
"""Idempotent producers of three clients, and a group of readers, through a proxy that cuts connections at random points.

    ci/matrix/target/venv/bin/python ci/matrix/chaos.py (--binary MILLRACE | --kafka) [--seconds N] [--seed N] [--rate N] [--readers N]
        [--late] [--fetch-bytes N] [--shared-port]

Each producer writes numbered records with its default retries. Afterwards every partition must hold each of its numbers
once and in order, and the group must have read each at least once; with --late it begins when all is written. Prints the
seed. The proxy stands before every shard, and `--advertise` names it, so that no client knows another way. --kafka puts an
Apache Kafka behind the proxy instead, --shared-port gives Millrace one port for its shards.
"""

import argparse
import random
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict

import confluent_kafka as ck
from confluent_kafka import admin

from brokers import HERE, JARS, Kafka, Millrace
from cutting_proxy import CuttingProxy

SHARDS = 2
PARTITIONS = 3
# Beyond the seconds of writing, for what must be tried again.
PATIENCE_SECONDS = 150
# A connection is cut after so many bytes; the least lets a client introduce itself.
SMALLEST, LARGEST = 1_000, 400_000
# What a reader asks of a partition at a time. An answer over several of them must fit between two cuts, or a reader that
# is behind gets none: a client that loses its connection within an answer asks for the whole of it again.
FETCH_BYTES = 8_000
LONGEST_SILENCE = 3.0

PRODUCERS = {
    "Java": ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp",
             f"{JARS}/*", "ChaosProducer"],
    "librdkafka": [sys.executable, str(HERE / "python/chaos_producer.py")],
    "franz-go": [str(HERE / "target/go/chaos")],
}


def neighbours(count):
    """Listening sockets on neighbouring ports."""
    for _ in range(1000):
        first = random.randrange(22_000, 31_000)
        held = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
            return held
        except OSError:
            for one in held:
                one.close()
    raise RuntimeError(f"no {count} neighbouring free ports")


def consumer(bootstrap, group, **more):
    settings = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "log_level": 0}
    return ck.Consumer({**settings, "enable.auto.commit": False, **more})


class Member(threading.Thread):
    """Reads in a group and commits, through all cuts."""

    def __init__(self, bootstrap, topics, seen, fetch_bytes):
        super().__init__(daemon=True)
        self.bootstrap, self.topics, self.seen, self.stopping = bootstrap, topics, seen, False
        self.fetch_bytes = fetch_bytes

    def run(self):
        # A member that went silent is missed soon.
        more = {"session.timeout.ms": 6000, "max.partition.fetch.bytes": self.fetch_bytes}
        client = consumer(self.bootstrap, "chaos", **more)
        client.subscribe(self.topics)
        while not self.stopping:
            message = client.poll(0.1)
            if message is None or message.error():
                continue
            name, number, _ = message.value().split(b" ", 2)
            self.seen[name.decode()].add(int(number))
            try:
                client.commit(message)
            except ck.KafkaException:
                # The partition moved meanwhile: it is read again, by whoever has it.
                continue
        client.close()


def stored(bootstrap, topic):
    """The numbers of each partition in order; the proxy cuts nothing any more."""
    client, found = consumer(bootstrap, "verifier"), {}
    for partition in range(PARTITIONS):
        at = ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING)
        _, end = client.get_watermark_offsets(at, 60)
        client.assign([at])
        found[partition] = []
        while len(found[partition]) < end:
            message = client.poll(60)
            if message is None or message.error():
                raise RuntimeError(f"{topic}-{partition} cannot be read: {message and message.error()}")
            found[partition].append(int(message.value().split(b" ", 2)[1]))
    client.close()
    return found


def judge(name, found, records):
    """What is wrong with the records of one producer."""
    wrong = []
    for partition, numbers in found.items():
        expected = list(range(partition, records, PARTITIONS))
        if numbers == expected:
            continue
        lost = len(set(expected) - set(numbers))
        doubled = len(numbers) - len(set(numbers))
        disorder = sum(after < before for before, after in zip(numbers, numbers[1:]))
        wrong.append(f"{name}, partition {partition}: {lost} lost, {doubled} doubled, {disorder} times out of order")
    return wrong


def start(options, way):
    if options.kafka:
        return Kafka(way)
    return Millrace(options.binary, ["--advertise", way, "--shared-port", str(options.shared_port).lower()])


def run(options):
    records, names = options.seconds * options.rate, options.clients.split(",")
    sockets = neighbours(1 if options.kafka or options.shared_port else SHARDS)
    first = sockets[0].getsockname()[1]
    way, topics = f"127.0.0.1:{first}", {name: f"chaos-{name.lower()}" for name in names}
    with start(options, way) as broker:
        shards = [(host, int(port)) for host, port in (one.split(":") for one in broker.listens)]
        proxy = CuttingProxy(list(zip(sockets, shards)), options.seed, SMALLEST, LARGEST, LONGEST_SILENCE)
        proxy.calm = True
        manager = admin.AdminClient({"bootstrap.servers": way, "log_level": 0})
        made = manager.create_topics([admin.NewTopic(topic, PARTITIONS, 1) for topic in topics.values()])
        for future in made.values():
            future.result(60)
        proxy.calm = False
        seen = defaultdict(set)
        members = [Member(way, list(topics.values()), seen, options.fetch_bytes) for _ in range(options.readers)]
        if not options.late:
            for member in members:
                member.start()
        arguments = [str(PARTITIONS), str(records), str(options.rate)]
        running = {name: subprocess.Popen([*PRODUCERS[name], way, topics[name], *arguments]) for name in names}
        wrong = ended(running, options.seconds)
        print(f"chaos: all producers ended, {sum(proxy.cuts.values())} connections cut so far", flush=True)
        if options.late:
            for member in members:
                member.start()
        until = time.monotonic() + PATIENCE_SECONDS
        while options.readers and any(len(seen[name]) < records for name in names) and time.monotonic() < until:
            time.sleep(0.1)
        cuts = dict(proxy.cuts)
        proxy.calm = True
        for name, topic in topics.items():
            wrong += judge(name, stored(way, topic), records)
            if options.readers and len(seen[name]) < records:
                missing = set(range(records)) - seen[name]
                counts = [sum(number % PARTITIONS == partition for number in missing) for partition in range(PARTITIONS)]
                wrong.append(f"{name}: of its partitions' records the group never read {counts}")
        for member in members:
            member.stopping = True
        for member in members:
            member.join(30)
        if broker.process.poll() is not None:
            wrong.append(f"the broker ended:\n{broker.last_output()}")
    return records, cuts, wrong


def ended(running, seconds):
    """Waits for the producers; what they did not get acknowledged is wrong."""
    wrong, limit = [], time.monotonic() + seconds + PATIENCE_SECONDS
    for name, process in running.items():
        try:
            if process.wait(max(1, limit - time.monotonic())):
                wrong.append(f"{name}: records were not acknowledged")
            print(f"chaos: {name} ended", flush=True)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            wrong.append(f"{name}: not over after {seconds + PATIENCE_SECONDS} s")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    broker = parser.add_mutually_exclusive_group(required=True)
    broker.add_argument("--binary")
    broker.add_argument("--kafka", action="store_true")
    parser.add_argument("--shared-port", action="store_true")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--rate", type=int, default=400)
    parser.add_argument("--clients", default=",".join(PRODUCERS))
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--late", action="store_true")
    parser.add_argument("--fetch-bytes", type=int, default=FETCH_BYTES)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    started = time.monotonic()
    print(f"chaos: seed {options.seed}", flush=True)
    records, cuts, wrong = run(options)
    for line in wrong:
        print(f"chaos: WRONG: {line}")
    told = ", ".join(f"{count} by {manner}" for manner, count in sorted(cuts.items()))
    print(f"chaos: {options.clients}, {records} records each on {PARTITIONS} partitions, a group of {options.readers}; "
          f"{sum(cuts.values())} connections cut ({told}); {len(wrong)} wrong ({time.monotonic() - started:.0f} s)")
    sys.exit(1 if wrong or not cuts else 0)


if __name__ == "__main__":
    main()
