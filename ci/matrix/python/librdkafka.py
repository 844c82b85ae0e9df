"""librdkafka, through confluent-kafka."""

import logging
import time

import confluent_kafka as ck
from confluent_kafka import admin

from cases import BEGINNING, CASES, Message
from common import main, until

WAIT = 20
QUIET = logging.getLogger("librdkafka")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False
TOPIC = admin.ConfigResource.Type.TOPIC


def checked(message):
    if message is not None and message.error():
        raise ck.KafkaException(message.error())
    return message


def only(futures):
    (future,) = futures.values()
    return future.result(WAIT)


class Adapter:
    lacks = {}

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = admin.AdminClient({"bootstrap.servers": bootstrap}, logger=QUIET)

    def producer(self, acks_all=False, codec=None, largest=None, tx=None):
        settings = {"bootstrap.servers": self.bootstrap}
        if acks_all:
            settings.update({"acks": "all", "enable.idempotence": True})
        if codec:
            settings.update({"compression.type": codec, "linger.ms": 50})
        if largest:
            settings["message.max.bytes"] = largest
        if tx:
            settings["transactional.id"] = tx
        return ck.Producer(settings, logger=QUIET)

    def write(self, topic, records, **settings):
        producer, errors = self.producer(**settings), []
        for record in records:
            producer.produce(topic, on_delivery=lambda error, _: error and errors.append(error), **record)
            producer.poll(0)
        if producer.flush(WAIT):
            raise AssertionError("records are not acknowledged")
        too_large = ck.KafkaError.MSG_SIZE_TOO_LARGE
        return ["MESSAGE_TOO_LARGE" if error.code() == too_large else error.str() for error in errors]

    def consumer(self, group="none", instance=None, protocol=None):
        settings = {"bootstrap.servers": self.bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
        if instance:
            settings["group.instance.id"] = instance
        if protocol:
            settings["group.protocol"] = protocol
        return ck.Consumer({**settings, "enable.auto.commit": False}, logger=QUIET)

    def read(self, topic, starts, count):
        consumer, found = self.consumer(), []
        first = {BEGINNING: ck.OFFSET_BEGINNING}
        consumer.assign([ck.TopicPartition(topic, index, first.get(at, at)) for index, at in starts.items()])
        limit = time.monotonic() + WAIT
        while len(found) < count and time.monotonic() < limit:
            message = checked(consumer.poll(0.5))
            if message is not None:
                found.append(Message(message.offset(), message.key(), message.value(), message.headers()))
        consumer.close()
        return found

    def offset_at(self, topic, milliseconds):
        consumer = self.consumer()
        (found,) = consumer.offsets_for_times([ck.TopicPartition(topic, 0, milliseconds)], WAIT)
        consumer.close()
        return found.offset

    def member(self, group, topic, **settings):
        def make():
            consumer = self.consumer(group, **settings)
            consumer.subscribe([topic])
            return consumer

        def step(consumer):
            message, read = checked(consumer.poll(0.1)), []
            if message is not None:
                read.append(message.value().decode())
                consumer.commit(message, asynchronous=False)
            return read, [one.partition for one in consumer.assignment()]

        return make, step, lambda consumer: consumer.close()

    def read_and_commit(self, group, topic, count):
        consumer, found, message = self.consumer(group), [], None
        consumer.subscribe([topic])
        while len(found) < count:
            message = until(lambda: checked(consumer.poll(0.2)), "no record")
            found.append(message.value())
        consumer.commit(message, asynchronous=False)
        consumer.close()
        return found

    def create_topic(self, topic, partitions, config):
        only(self.admin.create_topics([admin.NewTopic(topic, partitions, 1, config=config)]))

    def topics(self):
        return self.admin.list_topics(timeout=WAIT).topics

    def partitions(self, topic):
        return len(self.admin.list_topics(topic, WAIT).topics[topic].partitions)

    def create_partitions(self, topic, count):
        only(self.admin.create_partitions([admin.NewPartitions(topic, count)]))

    def config(self, topic):
        found = only(self.admin.describe_configs([admin.ConfigResource(TOPIC, topic)]))
        return {name: entry.value for name, entry in found.items()}

    def set_config(self, topic, name, value):
        entry = admin.ConfigEntry(name, value, incremental_operation=admin.AlterConfigOpType.SET)
        only(self.admin.incremental_alter_configs([admin.ConfigResource(TOPIC, topic, incremental_configs=[entry])]))

    def groups(self):
        return [one.group_id for one in self.admin.list_consumer_groups().result(WAIT).valid]

    def describe_group(self, group):
        found = only(self.admin.describe_consumer_groups([group]))
        return found.state.name, len(found.members)

    def delete_group(self, group):
        only(self.admin.delete_consumer_groups([group]))

    def offsets(self, topic):
        specs = admin.OffsetSpec.earliest(), admin.OffsetSpec.latest()
        return tuple(only(self.admin.list_offsets({ck.TopicPartition(topic, 0): spec})).offset for spec in specs)

    def delete_records(self, topic, offset):
        return only(self.admin.delete_records([ck.TopicPartition(topic, 0, offset)])).low_watermark

    def delete_topic(self, topic):
        only(self.admin.delete_topics([topic]))

    def cluster(self):
        found = self.admin.describe_cluster().result(WAIT)
        return found.cluster_id, found.controller.id, [node.id for node in found.nodes]

    def transaction(self, topic, name):
        producer = self.producer(tx=name)
        try:
            producer.init_transactions(WAIT)
            producer.begin_transaction()
            producer.produce(topic, b"v")
            producer.commit_transaction(WAIT)
        except ck.KafkaException as error:
            return error.args[0].str()
        return None


if __name__ == "__main__":
    main("librdkafka", f"{ck.libversion()[0]} (confluent-kafka {ck.__version__})", Adapter, CASES)
