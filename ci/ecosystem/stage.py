"""What a proof stands on: a broker, a directory, Kafka's tools, processes that end with the proof, and the checks."""

import json
import re
import subprocess
import time
import urllib.request
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent

PATIENCE_SECONDS = 120
TOOLS = "org.apache.kafka.tools"
GROUPS = "consumer.group.ConsumerGroupCommand"
CONSUMER = "consumer.ConsoleConsumer"
JAVA = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
JARS = HERE / "target" / "jars"
FLINK_JARS = HERE / "flink" / "target" / "jars"


class Stage:
    """Everything that a proof starts is in its own directory and ends with it."""

    def __init__(self, broker, name):
        self.bootstrap, self.directory = broker.address, broker.directory / name
        self.directory.mkdir()
        self.running = []

    def run(self, name, *arguments, text=None):
        """One of the tools to its end; what it printed."""
        command = [*JAVA, "-cp", f"{JARS}/*", name, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        if done.returncode:
            said = f"{done.stdout[-300:]} {done.stderr[-700:]}"
            raise AssertionError(f"{name} {' '.join(arguments)}: status {done.returncode}: {said}")
        return done.stdout

    def tool(self, name, *arguments, text=None):
        return self.run(f"{TOOLS}.{name}", "--bootstrap-server", self.bootstrap, *arguments, text=text)

    def start(self, name, *arguments, jars=JARS, java=()):
        log = self.directory / f"{name.split('.')[-1]}-{len(self.running)}.log"
        with log.open("wb") as out:
            command = [*JAVA, *java, "-cp", f"{jars}/*", name, *arguments]
            process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self.running.append((process, log))
        return process

    def stop(self, process):
        """As an operator stops it."""
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self, process):
        process.kill()
        process.wait()

    def end(self):
        for process, _ in self.running:
            if process.poll() is None:
                self.stop(process)

    def logs(self):
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for _, log in self.running)

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def topic(self, name, partitions, *config):
        settings = [word for one in config for word in ("--config", one)]
        self.tool("TopicCommand", "--create", "--topic", name, "--partitions", str(partitions), *settings)

    def produce(self, topic, lines):
        self.tool("ConsoleProducer", "--topic", topic, text="".join(line + "\n" for line in lines))

    def spread(self, topic, lines):
        """Each line to any of the partitions, by kcat."""
        command = ["kcat", "-P", "-b", self.bootstrap, "-t", topic, "-X", "sticky.partitioning.linger.ms=0"]
        subprocess.run(command, input="".join(line + "\n" for line in lines), text=True, check=True, timeout=PATIENCE_SECONDS)

    def consume(self, topic, count, *more):
        """What the console consumer prints until it has `count` records."""
        return self.tool(CONSUMER, "--topic", topic, "--max-messages", str(count), "--timeout-ms", "60000", *more).splitlines()

    def lines(self, topic, form="%s"):
        """Everything that a topic holds now, read by kcat; nothing of a topic that is not there."""
        command = ["kcat", "-C", "-q", "-e", "-b", self.bootstrap, "-t", topic, "-o", "beginning", "-f", form + "\\n",
                   "-X", "allow.auto.create.topics=false"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, stdin=subprocess.DEVNULL)
        if done.returncode and "Unknown topic" not in done.stderr:
            raise AssertionError(f"kcat: status {done.returncode}: {done.stderr[-500:]}")
        return done.stdout.splitlines()

    def committed(self, group):
        """What a group has committed, and the ends, by topic and partition; nothing of a group that is not there."""
        try:
            described = self.tool(GROUPS, "--describe", "--group", group)
        except AssertionError as failed:
            if "not found" in str(failed) or "does not exist" in str(failed):
                return {}
            raise
        rows = re.findall(r"^(\S+) +(\S+) +(\d+) +(\d+) +(\d+) +(\d+) ", described, re.M)
        return {(topic, int(partition)): (int(offset), int(end)) for _, topic, partition, offset, end, _ in rows}

    def is_caught_up(self, group, topic, records):
        """Whether a group has committed all of a topic, which holds so many records."""
        found = [both for (of, _), both in self.committed(group).items() if of == topic]
        return sum(offset for offset, _ in found) == sum(end for _, end in found) == records

    def offsets(self, topic, *time):
        """By partition."""
        out = self.tool("GetOffsetShell", "--topic", topic, *(("--time", *time) if time else ()))
        return {int(partition): int(offset) for partition, offset in re.findall(rf"^{re.escape(topic)}:(\d+):(\d+)$", out, re.M)}

    def settings(self, topic):
        """The settings of a topic that were given; a list holds commas itself."""
        described = self.tool("TopicCommand", "--describe", "--topic", topic)
        (text,) = re.findall(r"Configs: *(\S*)", described)[:1]
        return dict(one.split("=", 1) for one in re.split(r",(?=[\w.]+=)", text) if one)

    def expect_compacted(self, *topics):
        for topic in topics:
            expect(self.settings(topic).get("cleanup.policy"), "compact", f"cleanup.policy of {topic}")


def ask(port, path, body=None):
    """A question to a Connect worker; nothing while it cannot answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body and json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    try:
        return json.load(urllib.request.urlopen(request, timeout=10))
    except OSError:
        return None


def until(condition, what):
    """`what` says how it is instead, when time is up."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"after {PATIENCE_SECONDS} s: {what() if callable(what) else what}")
        time.sleep(0.5)


def expect(found, expected, what):
    if found != expected:
        raise AssertionError(f"{what}: {str(found)[:500]} instead of {str(expected)[:500]}")


def expect_same(found, expected, what):
    """The same lines, each as often, in any order."""
    for word, some in ("missing", Counter(expected) - Counter(found)), ("too many", Counter(found) - Counter(expected)):
        if some:
            raise AssertionError(f"{what}: {sum(some.values())} {word}, such as {list(some)[:5]}")


def properties(settings):
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def numbered(*bounds):
    return [f"line {number}" for number in range(*bounds)]
