"""The proofs of what is built on Kafka's clients: Streams, Connect, MirrorMaker 2, Flink, a schema registry's store."""

from brokers import Kafka, free_ports
from stage import FLINK_JARS, GROUPS, Stage, ask, expect, expect_same, numbered, properties, until

LINES = ["to be or not to be", "that is the question", "whether it is nobler"] * 100


def schemas(stage):
    stage.run("SchemaStore", stage.bootstrap, "_schemas")
    stage.expect_compacted("_schemas")


def streams(stage):
    """Words are counted, and counted on by a second life that has no state on disk: it restores from the changelog."""
    stage.topic("lines", 2)
    stage.topic("counts", 2)
    repartition = "word-count-counts-repartition"
    once = {word: sum(line.split().count(word) for line in LINES) for word in " ".join(LINES).split()}

    def counts():
        """The last of each word."""
        return {word: int(count) for word, count in (line.split("\t") for line in stage.lines("counts", "%k\t%s"))}

    for life in 1, 2:
        stage.spread("lines", LINES)
        state = str(stage.directory / f"state-{life}")
        process = stage.start("WordCount", stage.bootstrap, "word-count", "lines", "counts", state)
        until(lambda: counts() == {word: life * count for word, count in once.items()}, lambda: f"life {life} counts {counts()}")
        if life == 2:
            # What is counted is purged from where it was repartitioned.
            until(lambda: max(stage.offsets(repartition, "earliest").values()) > 0, "nothing was purged")
        stage.stop(process)
    stage.expect_compacted("word-count-counts-changelog")
    expect(stage.settings(repartition)["cleanup.policy"], "delete", "the policy of the repartition topic")


WORKER = """\
bootstrap.servers={bootstrap}
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.flush.interval.ms=1000
plugin.discovery=service_load
listeners=HTTP://127.0.0.1:{port}
"""


class Files:
    """A connector that reads lines from a file into a topic, and one that writes them to another file."""

    def __init__(self, stage, name):
        self.given, self.out, self.topic = stage.directory / "in", stage.directory / "out", f"{name}-lines"
        self.given.touch()
        file = "org.apache.kafka.connect.file.FileStream"
        self.source = {"name": f"{name}-source", "connector.class": f"{file}SourceConnector", "tasks.max": "1",
                       "file": str(self.given), "topic": self.topic}
        self.sink = {"name": f"{name}-sink", "connector.class": f"{file}SinkConnector", "tasks.max": "1",
                     "file": str(self.out), "topics": self.topic}
        self.both = self.source, self.sink

    def give(self, lines):
        with self.given.open("a") as file:
            file.write("".join(line + "\n" for line in lines))

    def arrived(self):
        return self.out.read_text().splitlines() if self.out.exists() else []

    def are_running(self, port, worker=None):
        """Both and their one task, on that worker if it is given."""
        for one in self.both:
            status = ask(port, f"/connectors/{one['name']}/status")
            if not status or len(status["tasks"]) != 1:
                return False
            for part in status["connector"], *status["tasks"]:
                if part["state"] != "RUNNING" or worker and part["worker_id"] != worker:
                    return False
        return True


def connect_standalone(stage):
    files, (port,) = Files(stage, "standalone"), free_ports(1)
    worker = WORKER.format(bootstrap=stage.bootstrap, port=port)
    worker += f"offset.storage.file.filename={stage.directory / 'offsets'}\n"
    given = [stage.write(f"{one['name']}.properties", properties(one)) for one in files.both]
    command = ("org.apache.kafka.connect.cli.ConnectStandalone", stage.write("worker.properties", worker), *given)
    for life in 1, 2:
        # What is given while no worker runs is found by the next.
        files.give(numbered(500 * (life - 1), 500 * life))
        process = stage.start(*command)
        until(lambda: files.are_running(port), "the connectors do not run")
        until(lambda: len(files.arrived()) >= 500 * life, lambda: f"life {life}: {len(files.arrived())} lines arrived")
        stage.stop(process)
        expect_same(files.arrived(), numbered(500 * life), f"lines of life {life}")
    expect_same(stage.lines(files.topic), numbered(1000), "records")
    assert stage.is_caught_up("connect-standalone-sink", files.topic, 1000), stage.committed("connect-standalone-sink")


def connect_distributed(stage):
    """Two workers, of which one is killed and the other stopped; a third goes on."""
    files, ports = Files(stage, "distributed"), free_ports(3)
    topics = {"config.storage.topic": "connect-configs", "offset.storage.topic": "connect-offsets",
              "status.storage.topic": "connect-status"}

    def start(port):
        worker = WORKER.format(bootstrap=stage.bootstrap, port=port) + properties({
            "group.id": "connect-workers", "scheduled.rebalance.max.delay.ms": 1000, "config.storage.replication.factor": 1,
            "offset.storage.replication.factor": 1, "status.storage.replication.factor": 1, **topics})
        return stage.start("org.apache.kafka.connect.cli.ConnectDistributed", stage.write(f"worker-{port}.properties", worker))

    first = start(ports[0])
    until(lambda: ask(ports[0], "/connectors") == [], "the first worker does not answer")
    stage.expect_compacted(*topics.values())
    second = start(ports[1])
    until(lambda: ask(ports[1], "/connectors") == [], "the second worker does not answer")
    files.give(numbered(500))
    for one in files.both:
        until(lambda: one["name"] in (ask(ports[1], "/connectors") or ())
              or ask(ports[1], "/connectors", {"name": one["name"], "config": one}), "the connector is not taken")
    until(lambda: files.are_running(ports[0]), "the connectors do not run")
    until(lambda: len(files.arrived()) >= 500, lambda: f"{len(files.arrived())} lines arrived")
    expect_same(files.arrived(), numbered(500), "lines")
    # The group of the workers notices, and the second has everything.
    stage.kill(first)
    files.give(numbered(500, 700))
    until(lambda: files.are_running(ports[1], f"127.0.0.1:{ports[1]}"), "the second worker does not take over")
    # At least once: what the first had not committed comes again.
    until(lambda: set(files.arrived()) == set(numbered(700)), "the lines after a kill did not arrive")
    stage.stop(second)
    before = len(files.arrived())
    files.give(numbered(700, 900))
    start(ports[2])
    until(lambda: files.are_running(ports[2], f"127.0.0.1:{ports[2]}"), "the third worker does not know the connectors")
    until(lambda: len(files.arrived()) >= before + 200, "the lines after a stop did not arrive")
    expect_same(files.arrived()[before:], numbered(700, 900), "lines of the third worker")
    expect(set(stage.lines(files.topic)), set(numbered(900)), "records")


def mirror(stage):
    """From an Apache Kafka of its own, with the offsets of a group that goes on here."""
    with Kafka() as source:
        there = Stage(source, "tools")
        there.topic("mirrored", 2, "retention.ms=7200000")
        there.spread("mirrored", numbered(1000))
        expect_same(there.consume("mirrored", 1000, "--from-beginning", "--group", "mover"), numbered(1000), "lines there")
        settings = {
            "clusters": "far, here", "far.bootstrap.servers": source.address, "here.bootstrap.servers": stage.bootstrap,
            "far->here.enabled": "true", "far->here.topics": "mirrored", "far->here.groups": "mover", "here->far.enabled": "false",
            "far->here.sync.group.offsets.enabled": "true", "sync.group.offsets.interval.seconds": 1, "offset.lag.max": 0,
            "replication.factor": 1, "checkpoints.topic.replication.factor": 1, "heartbeats.topic.replication.factor": 1,
            "offset-syncs.topic.replication.factor": 1, "offset.storage.replication.factor": 1,
            "status.storage.replication.factor": 1, "config.storage.replication.factor": 1,
            "refresh.topics.interval.seconds": 2, "refresh.groups.interval.seconds": 2, "emit.checkpoints.interval.seconds": 1}
        command = ("org.apache.kafka.connect.mirror.MirrorMaker", stage.write("mirror.properties", properties(settings)))
        process = stage.start(*command)
        until(lambda: len(stage.lines("far.mirrored")) >= 1000, "the records were not mirrored")
        expect_same(stage.lines("far.mirrored"), numbered(1000), "mirrored records")
        expect(stage.settings("far.mirrored").get("retention.ms"), "7200000", "the setting of the mirrored topic")
        stage.expect_compacted("mm2-offsets.far.internal", "mm2-configs.far.internal", "mm2-status.far.internal",
                               "far.checkpoints.internal", "heartbeats")
        until(lambda: "mover" in stage.tool(GROUPS, "--list").split(), "the group was not mirrored")
        until(lambda: stage.is_caught_up("mover", "far.mirrored", 1000), lambda: f"the group stands at {stage.committed('mover')}")
        # A second life goes on behind the first, and so does the group, from there to here.
        stage.stop(process)
        there.spread("mirrored", numbered(1000, 1200))
        stage.start(*command)
        until(lambda: len(stage.lines("far.mirrored")) >= 1200, "the records after a restart were not mirrored")
        expect_same(stage.lines("far.mirrored"), numbered(1200), "mirrored records of both lives")
        expect_same(stage.consume("far.mirrored", 200, "--group", "mover"), numbered(1000, 1200), "what the group reads here")


FLINK_JAVA = ["-Xmx1g", *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in ("lang", "util", "time"))]


def flink(stage):
    """A job that fails once, and one that is started later and goes on from what the first committed."""
    stage.topic("flink-in", 2)
    stage.topic("flink-out", 2)
    for life in 1, 2:
        before, end = stage.lines("flink-out"), 1000 * life
        stage.spread("flink-in", numbered(end - 1000, end))
        job = ("FlinkCopy", stage.bootstrap, "flink-in", "flink-out", "flink", str(life))
        process = stage.start(*job, jars=FLINK_JARS, java=FLINK_JAVA)
        if life == 1:
            until(lambda: stage.is_caught_up("flink", "flink-in", 1000), lambda: f"committed: {stage.committed('flink')}")
            expect_same(stage.lines("flink-out"), numbered(1000), "records before the failure")
            stage.produce("flink-in", ["fail"])
        until(lambda: set(stage.lines("flink-out")) == {*numbered(end), "fail"}, f"the records of life {life} did not arrive")
        until(lambda: stage.is_caught_up("flink", "flink-in", end + 1), lambda: f"committed: {stage.committed('flink')}")
        stage.stop(process)
    # All of the first life was committed.
    expect_same(stage.lines("flink-out"), before + numbered(1000, 2000), "records of the second job")
    assert "failed once" in stage.running[0][1].read_text(), "the job did not fail"


PROOFS = {
    "schemas": ("a schema registry's store", "compacted topic of one partition, own writes read at once, a second life", schemas),
    "streams": ("Kafka Streams", "word count at least once, state restored from its changelog, repartition topic purged", streams),
    "standalone": ("Kafka Connect standalone", "file to topic to file, the worker restarted", connect_standalone),
    "distributed": ("Kafka Connect distributed", "file to topic to file on two workers, one killed, one stopped", connect_distributed),
    "mirror": ("MirrorMaker 2", "a topic, its settings and a group's offsets from Apache Kafka, restarted", mirror),
    "flink": ("Flink's Kafka connector", "topic to topic at least once with checkpoints, a failure and a second job", flink),
}
