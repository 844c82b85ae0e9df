"""The cases of the Python programs, each written once against an adapter of the client (`librdkafka.py` shows all that
one has). What an adapter does not define, its client cannot do; why stands in its `lacks`.
"""

import time
from typing import NamedTuple

from common import Member, Refused, expect, group_of_three, group_static, until

BEGINNING = "beginning"
# A refusal after longer than this is none at once.
AT_ONCE_SECONDS = 5


class Message(NamedTuple):
    """A record that was read."""

    offset: int
    key: bytes
    value: bytes
    headers: list


def values(count, size=20):
    return [f"{number:06d}".encode().ljust(size, b".") for number in range(count)]


def topic(client, run, what, partitions=1, **config):
    name = run.name(what)
    client.create_topic(name, partitions, {key.replace("_", "."): value for key, value in config.items()})
    until(lambda: client.partitions(name) == partitions, "the topic is not there")
    return name


def write(client, name, records, **settings):
    """Records are keyword arguments: value, key, headers, partition, timestamp; each is acknowledged."""
    expect(client.write(name, records, **settings), [], "errors")


def written(client, run, what, count=50):
    """A topic of one partition with that many records."""
    name = topic(client, run, what)
    write(client, name, [{"value": value} for value in values(count)])
    return name


def everything(client, name, partitions, count):
    found = client.read(name, {index: BEGINNING for index in range(partitions)}, count)
    expect(len(found), count, "records read")
    return found


def round_trip(client, run, payloads, partitions=3, **settings):
    name = topic(client, run, "produce", partitions)
    write(client, name, [{"value": value} for value in payloads], **settings)
    found = [message.value for message in everything(client, name, partitions, len(payloads))]
    expect(sorted(found), sorted(payloads), "what came back")


def produce_default(client, run):
    round_trip(client, run, values(100))


def produce_acks_all(client, run):
    round_trip(client, run, values(100), acks_all=True)


def codec(name):
    return lambda client, run: round_trip(client, run, values(50, 2000), codec=name)


def headers(client, run):
    name, sent = topic(client, run, "headers"), [("a", b"1"), ("a", b""), ("b", b"2")]
    write(client, name, [{"value": b"v", "headers": sent}])
    expect(list(everything(client, name, 1, 1)[0].headers), sent, "headers")


def null_key_value(client, run):
    name, sent = topic(client, run, "nulls"), [(None, b"v"), (b"k", None), (b"k", b"")]
    write(client, name, [{"key": key, "value": value} for key, value in sent])
    expect([(one.key, one.value) for one in everything(client, name, 1, 3)], sent, "keys and values")


def large_record(client, run):
    round_trip(client, run, [b"x" * 1_000_000], 1, largest=2_000_000)


def too_large_refused(client, run):
    name = topic(client, run, "large", max_message_bytes="10000")
    expect(client.write(name, [{"value": b"x" * 20_000}]), ["MESSAGE_TOO_LARGE"], "errors")


def auto_create_topic(client, run):
    name = run.name("auto")
    write(client, name, [{"value": b"first"}])
    everything(client, name, client.partitions(name), 1)


def read_beginning(client, run):
    name = written(client, run, "beginning")
    expect([one.value for one in everything(client, name, 1, 50)], values(50), "values")


def read_offset(client, run):
    name = written(client, run, "offset")
    found = client.read(name, {0: 37}, 13)
    expect([(one.offset, one.value) for one in found], list(enumerate(values(50)))[37:], "records")


def read_timestamp(client, run):
    name, base = topic(client, run, "timestamp"), int(time.time() * 1000) - 100_000
    write(client, name, [{"value": b"v", "timestamp": base + 1000 * number} for number in range(50)])
    start = client.offset_at(name, base + 20_500)
    expect(start, 21, "offset at the time")
    expect(client.read(name, {0: start}, 29)[0].offset, 21, "first offset")


def three(client, run, **settings):
    name, group = topic(client, run, "three", 6), run.name("three")

    def write_values(texts):
        write(client, name, [{"value": text.encode(), "partition": at % 6} for at, text in enumerate(texts)])

    group_of_three(lambda: Member(*client.member(group, name, **settings)), write_values)


def group_of_three_classic(client, run):
    three(client, run)


def group_consumer_protocol(client, run):
    three(client, run, protocol="consumer")


def group_resume(client, run):
    name, group = written(client, run, "resume", 20), run.name("resume")
    expect(client.read_and_commit(group, name, 10), values(20)[:10], "values")
    expect(client.read_and_commit(group, name, 10), values(20)[10:], "values of the one that came back")


def static(client, run):
    name, group = topic(client, run, "static", 6), run.name("static")
    group_static(lambda instance: Member(*client.member(group, name, instance=instance)))


def admin_create_topic(client, run):
    name = topic(client, run, "create", 5, retention_ms="3600000")
    expect(client.config(name)["retention.ms"], "3600000", "retention.ms")


def admin_create_partitions(client, run):
    name = topic(client, run, "partitions", 2)
    client.create_partitions(name, 7)
    until(lambda: client.partitions(name) == 7, "not seven partitions")


def admin_configs(client, run):
    name = topic(client, run, "configs")
    expect(client.config(name)["cleanup.policy"], "delete", "cleanup.policy")
    client.set_config(name, "retention.ms", "7200000")
    until(lambda: client.config(name)["retention.ms"] == "7200000", "the change is not seen")


def admin_groups(client, run):
    name, group = topic(client, run, "groups", 6), run.name("groups")
    one = Member(*client.member(group, name))
    until(lambda: one.error or len(one.partitions) == 6, "the member has no partitions")
    assert group in client.groups(), "the group is not listed"
    expect(client.describe_group(group), ("STABLE", 1), "state and members")
    one.stop()


def admin_list_offsets(client, run):
    expect(client.offsets(written(client, run, "offsets")), (0, 50), "earliest and latest")


def admin_delete_records(client, run):
    name = written(client, run, "records")
    expect(client.delete_records(name, 30), 30, "low watermark")
    expect(everything(client, name, 1, 20)[0].offset, 30, "first offset")


def admin_delete_group(client, run):
    name, group = written(client, run, "delete-group", 10), run.name("delete-group")
    client.read_and_commit(group, name, 10)
    assert group in client.groups(), "the group is not listed"
    client.delete_group(group)
    assert group not in client.groups(), "the group is still listed"


def admin_delete_topic(client, run):
    name = topic(client, run, "delete-topic")
    client.delete_topic(name)
    until(lambda: name not in client.topics(), "the topic is still there")


def admin_cluster(client, run):
    name, controller, nodes = client.cluster()
    assert name and controller in nodes, f"cluster {name}, controller {controller}, nodes {nodes}"


def transactions(client, run):
    name, started = topic(client, run, "transactions"), time.monotonic()
    error = client.transaction(name, run.name("tx"))
    seconds = time.monotonic() - started
    if error:
        assert seconds < AT_ONCE_SECONDS, f"refused after {seconds:.0f} s: {error}"
        raise Refused(error)
    everything(client, name, 1, 1)


# With the methods of the adapter that each needs beyond reading and writing.
CASES = {
    "produce-default": (produce_default, []),
    "produce-acks-all": (produce_acks_all, []),
    **{f"codec-{name}": (codec(name), []) for name in ("gzip", "snappy", "lz4", "zstd")},
    "headers": (headers, []),
    "null-key-value": (null_key_value, []),
    "large-record": (large_record, []),
    "too-large-refused": (too_large_refused, []),
    "auto-create-topic": (auto_create_topic, []),
    "read-beginning": (read_beginning, []),
    "read-offset": (read_offset, []),
    "read-timestamp": (read_timestamp, ["offset_at"]),
    "group-of-three": (group_of_three_classic, ["member"]),
    "group-resume": (group_resume, ["read_and_commit"]),
    "group-static": (static, ["member"]),
    "group-consumer-protocol": (group_consumer_protocol, ["member"]),
    "admin-create-topic": (admin_create_topic, ["config"]),
    "admin-create-partitions": (admin_create_partitions, ["create_partitions"]),
    "admin-configs": (admin_configs, ["config", "set_config"]),
    "admin-groups": (admin_groups, ["groups", "describe_group"]),
    "admin-list-offsets": (admin_list_offsets, ["offsets"]),
    "admin-delete-records": (admin_delete_records, ["delete_records"]),
    "admin-delete-group": (admin_delete_group, ["groups", "delete_group"]),
    "admin-delete-topic": (admin_delete_topic, ["delete_topic"]),
    "admin-cluster": (admin_cluster, ["cluster"]),
    "transactions": (transactions, ["transaction"]),
}
