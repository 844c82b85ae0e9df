"""kafka-python."""

import logging
import time

import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, MessageSizeTooLargeError

from cases import BEGINNING, CASES, Message
from common import main, until

WAIT = 20
logging.disable(logging.CRITICAL)


class Adapter:
    lacks = {"group-consumer-protocol": "kafka-python knows the classic protocol only"}

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    def producer(self, acks_all=False, codec=None, largest=None, tx=None):
        settings = {"bootstrap_servers": self.bootstrap}
        if acks_all:
            settings.update(acks="all", enable_idempotence=True)
        if codec:
            settings.update(compression_type=codec, linger_ms=50)
        if largest:
            settings["max_request_size"] = largest
        if tx:
            settings["transactional_id"] = tx
        return KafkaProducer(**settings)

    def write(self, topic, records, **settings):
        producer, errors = self.producer(**settings), []
        renamed = [{("timestamp_ms" if key == "timestamp" else key): each for key, each in one.items()} for one in records]
        for future in [producer.send(topic, **record) for record in renamed]:
            try:
                future.get(WAIT)
            except MessageSizeTooLargeError:
                errors.append("MESSAGE_TOO_LARGE")
            except KafkaError as error:
                errors.append(str(error))
        producer.close()
        return errors

    def consumer(self, group=None, instance=None):
        settings = {"group_id": group, "auto_offset_reset": "earliest", "enable_auto_commit": False}
        if instance:
            settings["group_instance_id"] = instance
        return KafkaConsumer(bootstrap_servers=self.bootstrap, **settings)

    def read(self, topic, starts, count):
        consumer, found = self.consumer(), []
        consumer.assign([TopicPartition(topic, index) for index in starts])
        for index, at in starts.items():
            if at == BEGINNING:
                consumer.seek_to_beginning(TopicPartition(topic, index))
            else:
                consumer.seek(TopicPartition(topic, index), at)
        limit = time.monotonic() + WAIT
        while len(found) < count and time.monotonic() < limit:
            for records in consumer.poll(timeout_ms=500).values():
                found += [Message(one.offset, one.key, one.value, one.headers) for one in records]
        consumer.close()
        return found

    def offset_at(self, topic, milliseconds):
        consumer = self.consumer()
        (found,) = consumer.offsets_for_times({TopicPartition(topic, 0): milliseconds}).values()
        consumer.close()
        return found.offset

    def member(self, group, topic, **settings):
        def make():
            consumer = self.consumer(group, **settings)
            consumer.subscribe([topic])
            return consumer

        def step(consumer):
            read = [one.value.decode() for records in consumer.poll(timeout_ms=100).values() for one in records]
            if read:
                consumer.commit()
            return read, [one.partition for one in consumer.assignment()]

        return make, step, lambda consumer: consumer.close(autocommit=False)

    def read_and_commit(self, group, topic, count):
        consumer, found = self.consumer(group), []
        consumer.config["max_poll_records"] = 1
        consumer.subscribe([topic])
        while len(found) < count:
            polled = until(lambda: consumer.poll(timeout_ms=200, max_records=count - len(found)), "no record")
            found += [one.value for records in polled.values() for one in records]
        consumer.commit()
        consumer.close(autocommit=False)
        return found

    def create_topic(self, topic, partitions, config):
        self.admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1, "configs": config}})

    def topics(self):
        return self.admin.list_topics()

    def partitions(self, topic):
        (found,) = self.admin.describe_topics([topic])
        return len(found["partitions"])

    def create_partitions(self, topic, count):
        self.admin.create_partitions({topic: count})

    def config(self, topic):
        found = self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        ((entries,),) = [list(resources.values()) for resources in found.values()]
        return {name: entry["value"] for name, entry in entries.items()}

    def set_config(self, topic, name, value):
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})])

    def groups(self):
        return [one["group_id"] for one in self.admin.list_groups()]

    def describe_group(self, group):
        found = self.admin.describe_groups([group])[group]
        return found["group_state"].upper(), len(found["members"])

    def delete_group(self, group):
        self.admin.delete_groups([group])

    def offsets(self, topic):
        consumer, partition = self.consumer(), TopicPartition(topic, 0)
        found = consumer.beginning_offsets([partition])[partition], consumer.end_offsets([partition])[partition]
        consumer.close()
        return found

    def delete_records(self, topic, offset):
        (found,) = self.admin.delete_records({TopicPartition(topic, 0): offset}).values()
        return found["low_watermark"]

    def delete_topic(self, topic):
        self.admin.delete_topics([topic])

    def cluster(self):
        found = self.admin.describe_cluster()
        return found["cluster_id"], found["controller_id"], [
            node.get("node_id", node.get("broker_id")) for node in found["brokers"]
        ]

    def transaction(self, topic, name):
        try:
            producer = self.producer(tx=name)
            producer.init_transactions()
            producer.begin_transaction()
            producer.send(topic, b"v")
            producer.commit_transaction()
            producer.close()
        except KafkaError as error:
            return f"{type(error).__name__}: {error}"
        return None


main("kafka-python", kafka.__version__, Adapter, CASES)
