"""An idempotent producer of librdkafka that writes numbered records at an even rate, number n to partition n modulo the
partitions. Fails if one is not acknowledged. Arguments: bootstrap server, topic, partitions, records, records a second."""

import sys
import time

import confluent_kafka as ck

bootstrap, topic = sys.argv[1:3]
partitions, records, rate = map(int, sys.argv[3:])
failed = []
producer = ck.Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0})
started = time.monotonic()
for number in range(records):
    producer.poll(max(0, started + number / rate - time.monotonic()))
    value = f"librdkafka {number} {'x' * (number % 300)}"
    producer.produce(topic, value, partition=number % partitions, on_delivery=lambda error, _: error and failed.append(error))
if producer.flush(300) or failed:
    print("librdkafka: not acknowledged:", failed[:1])
    sys.exit(1)
