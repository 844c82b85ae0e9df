"""The proofs of Kafka's command-line tools and of its verifiable clients."""

import json
import re

from stage import GROUPS, expect, expect_same, numbered


def console(stage):
    stage.topic("console", 3, "retention.ms=3600000")
    assert "PartitionCount: 3" in stage.tool("TopicCommand", "--describe", "--topic", "console")
    stage.produce("console", numbered(300))
    # A group that starts again goes on behind what it read.
    group = ("--group", "console")
    first = stage.consume("console", 100, "--from-beginning", *group)
    second = stage.consume("console", 200, *group)
    expect(len(first), 100, "lines of the first reader")
    expect_same(first + second, numbered(300), "lines of both readers")
    assert stage.is_caught_up("console", "console", 300), stage.committed("console")
    stage.tool("TopicCommand", "--alter", "--topic", "console", "--partitions", "5")
    assert "PartitionCount: 5" in stage.tool("TopicCommand", "--describe", "--topic", "console")
    expect(sum(stage.offsets("console").values()), 300, "records after more partitions")


def groups(stage):
    stage.topic("groups", 2)
    stage.spread("groups", numbered(200))
    group = ("--group", "groups")
    expect_same(stage.consume("groups", 200, "--from-beginning", *group), numbered(200), "lines")
    assert "groups" in stage.tool(GROUPS, "--list").split()
    assert re.search(r"^groups .* Empty +0\b", stage.tool(GROUPS, "--describe", "--state", *group), re.M)
    stage.tool(GROUPS, "--reset-offsets", "--to-earliest", "--topic", "groups", "--execute", *group)
    expect(sum(offset for offset, _ in stage.committed("groups").values()), 0, "offsets after the reset")
    expect_same(stage.consume("groups", 200, *group), numbered(200), "lines after the reset")
    stage.tool(GROUPS, "--reset-offsets", "--shift-by", "-10", "--topic", "groups", "--execute", *group)
    assert all(offset == max(end - 10, 0) for offset, end in stage.committed("groups").values()), stage.committed("groups")
    stage.tool(GROUPS, "--delete-offsets", "--topic", "groups", *group)
    stage.tool(GROUPS, "--reset-offsets", "--to-latest", "--topic", "groups", "--execute", "--group", "made")
    expect(sum(offset for offset, _ in stage.committed("made").values()), 200, "offsets of a group made by a reset")
    stage.tool(GROUPS, "--delete", "--group", "made")
    assert "made" not in stage.tool(GROUPS, "--list").split()


def settings_and_offsets(stage):
    stage.topic("settings", 1)
    entity = ("--entity-type", "topics", "--entity-name", "settings")
    config = ("kafka.admin.ConfigCommand", "--bootstrap-server", stage.bootstrap, *entity)
    stage.run(*config, "--alter", "--add-config", "retention.bytes=1048576,cleanup.policy=[compact,delete]")
    assert "retention.bytes=1048576" in stage.run(*config, "--describe")
    expect(stage.settings("settings")["retention.bytes"], "1048576", "retention.bytes")
    stage.run(*config, "--alter", "--delete-config", "cleanup.policy")
    assert "cleanup.policy" not in stage.settings("settings")
    stage.produce("settings", numbered(300))
    expect(stage.offsets("settings"), {0: 300}, "latest offsets")
    assert stage.offsets("settings", "max-timestamp")[0] in range(300)
    named = {"partitions": [{"topic": "settings", "partition": 0, "offset": 100}], "version": 1}
    stage.tool("DeleteRecordsCommand", "--offset-json-file", stage.write("delete.json", json.dumps(named)))
    expect(stage.offsets("settings", "earliest"), {0: 100}, "the earliest offset")
    expect(stage.consume("settings", 200, "--from-beginning"), numbered(100, 300), "what is left")
    directories = json.loads(stage.tool("LogDirsCommand", "--describe", "--topic-list", "settings").splitlines()[-1])
    sizes = [one["size"] for broker in directories["brokers"] for log in broker["logDirs"] for one in log["partitions"]]
    assert sizes and max(sizes) > 0, directories
    stage.tool("TopicCommand", "--delete", "--topic", "settings")
    assert "settings" not in stage.tool("TopicCommand", "--list").splitlines()


def throttled(stage, name, client, metric, *arguments):
    """The longest that a performance tool was told to wait, in milliseconds."""
    out = stage.tool(name, "--topic", "quotas", "--num-records", "150", "--command-property", f"client.id={client}",
                     "--print-metrics", *arguments)
    return max(float(value) for value in re.findall(rf"{metric}-throttle-time-max:[^:]*: +([\d.]+|NaN)", out))


def quotas(stage):
    """150 kB at 10 kB a second, ten seconds of which are free, by a client that has such quotas and one that has not."""
    stage.topic("quotas", 1)
    config = ("kafka.admin.ConfigCommand", "--bootstrap-server", stage.bootstrap)
    limited = ("--entity-type", "clients", "--entity-name", "limited")
    stage.run(*config, "--alter", "--add-config", "producer_byte_rate=10000,consumer_byte_rate=10000", *limited)
    shown = stage.run(*config, "--describe", *limited)
    assert "producer_byte_rate=10000.0" in shown and "consumer_byte_rate=10000.0" in shown, shown
    everyone = ("--entity-type", "users", "--entity-default")
    stage.run(*config, "--alter", "--add-config", "producer_byte_rate=100000000", *everyone)
    assert "producer_byte_rate=1.0E8" in stage.run(*config, "--describe", *everyone)
    stage.run(*config, "--alter", "--delete-config", "producer_byte_rate", *everyone)
    produce = ("ProducerPerformance", "--record-size", "1000", "--throughput", "-1")
    consume = ("ConsumerPerformance", "--timeout", "60000")
    for client, bounds in ("free", (0, 0)), ("limited", (1_000, 60_000)):
        for (name, *arguments), metric in (produce, "produce"), (consume, "fetch"):
            ms = throttled(stage, name, client, metric, *arguments)
            assert bounds[0] <= ms <= bounds[1], f"{name} of the {client} client waited {ms} ms"
    stage.run(*config, "--alter", "--delete-config", "producer_byte_rate,consumer_byte_rate", *limited)
    assert "byte_rate" not in stage.run(*config, "--describe", *limited)


def operators(stage):
    stage.topic("operators", 1)
    versions = stage.tool("BrokerApiVersionsCommand")
    for api in "Produce(0)", "Fetch(1)", "ConsumerGroupHeartbeat(68)":
        assert re.search(rf"^\t{re.escape(api)}: \d", versions, re.M), versions
    assert "Cluster ID: " in stage.run("org.apache.kafka.tools.ClusterTool", "cluster-id", "--bootstrap-server", stage.bootstrap)
    assert "group.version" in stage.tool("FeatureCommand", "describe")
    assert re.search(r"^LeaderId: +\d+$", stage.tool("MetadataQuorumCommand", "describe", "--status"), re.M)
    assert "ProducerId" in stage.tool("TransactionsCommand", "describe-producers", "--topic", "operators", "--partition", "0")
    election = ("--election-type", "preferred", "--topic", "operators", "--partition", "0")
    assert "operators-0" in stage.tool("LeaderElectionCommand", *election)
    assert "No partition reassignments found" in stage.tool("reassign.ReassignPartitionsCommand", "--list")


def told(out, name):
    """What a verifiable client says of one kind."""
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return [one for one in lines if one["name"] == name]


def verifiable(stage):
    """Twice, so that the second consumer goes on behind the first."""
    stage.topic("verifiable", 3)
    for life in "1", "2":
        out = stage.tool("VerifiableProducer", "--topic", "verifiable", "--max-messages", "2000", "--throughput", "2000",
                         "--value-prefix", life)
        acknowledged = [one["value"] for one in told(out, "producer_send_success")]
        expect(len(acknowledged), 2000, "records acknowledged")
        out = stage.tool("VerifiableConsumer", "--topic", "verifiable", "--group-id", "verifiable", "--max-messages", "2000",
                         "--reset-policy", "earliest", "--verbose")
        expect_same([one["value"] for one in told(out, "record_data")], acknowledged, f"records of life {life}")
        assert all(one["success"] for one in told(out, "offsets_committed")), "a commit failed"
    assert stage.is_caught_up("verifiable", "verifiable", 4000), stage.committed("verifiable")


PROOFS = {
    "console": ("Kafka's console tools", "topics, records, more partitions; a reader's group goes on where it was", console),
    "groups": ("Kafka's console tools", "groups listed and described, offsets reset and deleted, a group deleted", groups),
    "settings": ("Kafka's console tools", "settings, offsets, DeleteRecords, log directories, a topic deleted", settings_and_offsets),
    "quotas": ("Kafka's console tools", "quotas of clients and users set, shown, taken away; a client above its own is held back", quotas),
    "operators": ("Kafka's console tools", "API versions, cluster id, features, quorum, producers, elections, reassignments", operators),
    "verifiable": ("VerifiableProducer, VerifiableConsumer",
                   "2 × 2,000 records, each acknowledged and read once; the second reader goes on behind the first", verifiable),
}
