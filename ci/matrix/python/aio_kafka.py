"""aiokafka: its calls run in a loop of their own thread, so that the cases need not know of it."""

import asyncio
import logging
import threading
import time

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from cases import BEGINNING, CASES, Message
from common import main

WAIT = 20
logging.disable(logging.CRITICAL)


class Loop:
    """An event loop in a thread, which outlives all cases."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def __call__(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(40)


async def built(make):
    """aiokafka's objects are made inside the loop."""
    made = make()
    await made.start()
    return made


class Adapter:
    lacks = {
        "group-consumer-protocol": "aiokafka knows the classic protocol only",
        "admin-delete-group": "the client has no such call",
    }

    def __init__(self, bootstrap):
        self.bootstrap, self.run = bootstrap, Loop()
        self.admin = self.run(built(lambda: AIOKafkaAdminClient(bootstrap_servers=bootstrap)))

    async def producer(self, acks_all=False, codec=None, largest=None, tx=None):
        settings = {"bootstrap_servers": self.bootstrap}
        if acks_all:
            settings.update(acks="all", enable_idempotence=True)
        if codec:
            settings.update(compression_type=codec, linger_ms=50)
        if largest:
            settings["max_request_size"] = largest
        if tx:
            settings["transactional_id"] = tx
        return await built(lambda: AIOKafkaProducer(**settings))

    def write(self, topic, records, **settings):
        return self.run(self.written(topic, records, settings))

    async def written(self, topic, records, settings):
        producer, errors = await self.producer(**settings), []
        renamed = [{("timestamp_ms" if key == "timestamp" else key): each for key, each in one.items()} for one in records]
        for future in [await producer.send(topic, **record) for record in renamed]:
            try:
                await asyncio.wait_for(future, WAIT)
            except MessageSizeTooLargeError:
                errors.append("MESSAGE_TOO_LARGE")
            except KafkaError as error:
                errors.append(str(error))
        await producer.stop()
        return errors

    async def consumer(self, *topics, group=None, instance=None):
        settings = {"group_id": group, "auto_offset_reset": "earliest", "enable_auto_commit": False}
        if instance:
            settings["group_instance_id"] = instance
        return await built(lambda: AIOKafkaConsumer(*topics, bootstrap_servers=self.bootstrap, **settings))

    def read(self, topic, starts, count):
        return self.run(self.read_from(topic, starts, count))

    async def read_from(self, topic, starts, count):
        consumer, found = await self.consumer(), []
        consumer.assign([TopicPartition(topic, index) for index in starts])
        for index, at in starts.items():
            if at == BEGINNING:
                await consumer.seek_to_beginning(TopicPartition(topic, index))
            else:
                consumer.seek(TopicPartition(topic, index), at)
        limit = time.monotonic() + WAIT
        while len(found) < count and time.monotonic() < limit:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [Message(one.offset, one.key, one.value, one.headers) for one in records]
        await consumer.stop()
        return found

    def offset_at(self, topic, milliseconds):
        return self.ask(lambda consumer: consumer.offsets_for_times({TopicPartition(topic, 0): milliseconds})).offset

    def offsets(self, topic):
        partition = TopicPartition(topic, 0)
        return (
            self.ask(lambda consumer: consumer.beginning_offsets([partition])),
            self.ask(lambda consumer: consumer.end_offsets([partition])),
        )

    def ask(self, question):
        async def asked():
            consumer = await self.consumer()
            (found,) = (await question(consumer)).values()
            await consumer.stop()
            return found

        return self.run(asked())

    def member(self, group, topic, **settings):
        async def step(consumer):
            polled = await consumer.getmany(timeout_ms=100)
            read = [one.value.decode() for records in polled.values() for one in records]
            if read:
                await consumer.commit()
            return read, [one.partition for one in consumer.assignment()]

        return (
            lambda: self.run(self.consumer(topic, group=group, **settings)),
            lambda consumer: self.run(step(consumer)),
            lambda consumer: self.run(consumer.stop()),
        )

    def read_and_commit(self, group, topic, count):
        async def read():
            consumer, found = await self.consumer(topic, group=group), []
            while len(found) < count:
                polled = await asyncio.wait_for(consumer.getmany(timeout_ms=1000, max_records=count - len(found)), WAIT)
                found += [one.value for records in polled.values() for one in records]
            await consumer.commit()
            await consumer.stop()
            return found

        return self.run(read())

    def create_topic(self, topic, partitions, config):
        made = self.run(self.admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)]))
        for name, code, *_ in made.topic_errors:
            assert code == 0, f"creating {name}: error {code}"

    def topics(self):
        return self.run(self.admin.list_topics())

    def partitions(self, topic):
        (found,) = self.run(self.admin.describe_topics([topic]))
        return len(found["partitions"])

    def create_partitions(self, topic, count):
        self.run(self.admin.create_partitions({topic: NewPartitions(count)}))

    def config(self, topic):
        (found,) = self.run(self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        ((_, _, _, _, entries),) = found.resources
        return {entry[0]: entry[1] for entry in entries}

    def set_config(self, topic, name, value):
        self.run(self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})]))

    def groups(self):
        return [one[0] for one in self.run(self.admin.list_consumer_groups())]

    def describe_group(self, group):
        (found,) = self.run(self.admin.describe_consumer_groups([group]))
        ((_, _, state, _, _, members, *_),) = found.groups
        return state.upper(), len(members)

    def delete_records(self, topic, offset):
        partition = TopicPartition(topic, 0)
        return self.run(self.admin.delete_records({partition: RecordsToDelete(offset)}))[partition]

    def delete_topic(self, topic):
        self.run(self.admin.delete_topics([topic]))

    def cluster(self):
        found = self.run(self.admin.describe_cluster())
        return found["cluster_id"], found["controller_id"], [node["node_id"] for node in found["brokers"]]

    def transaction(self, topic, name):
        async def whole():
            producer = await self.producer(tx=name)
            async with producer.transaction():
                await producer.send_and_wait(topic, b"v")
            await producer.stop()

        try:
            self.run(whole())
        except KafkaError as error:
            return f"{type(error).__name__}: {error}"
        return None


main("aiokafka", aiokafka.__version__, Adapter, CASES)
