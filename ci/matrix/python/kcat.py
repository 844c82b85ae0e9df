"""kcat, with Debian's librdkafka: an old one, as many have it. It is a program, so each call here is a process.

It cannot create topics with settings or set timestamps; where a case needs that, the newer librdkafka does it.
"""

import json
import re
import subprocess
import threading
from itertools import groupby

import librdkafka
from cases import BEGINNING, CASES, Message
from common import main, until

WAIT = 20
NO_CALL = "the client has no such call"


def version():
    text = subprocess.run(["kcat", "-V"], capture_output=True, text=True, check=True).stdout
    return "{} (librdkafka {})".format(*re.search(r"Version ([\d.]+) .*librdkafka ([\d.]+)", text, re.S).groups())


def value_of(text):
    return None if text is None else text.encode()


class Group:
    """A process of `kcat -G`, and what it printed."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.values, self.partitions, self.read = [], set(), 0
        for follow in (self.follow_records, self.follow_rebalances):
            threading.Thread(target=follow, daemon=True).start()

    def follow_records(self):
        for line in self.process.stdout:
            self.values.append(json.loads(line)["payload"])

    def follow_rebalances(self):
        for line in self.process.stderr:
            if "assigned: " in line:
                self.partitions = {int(number) for number in re.findall(r"\[(\d+)\]", line.split("assigned: ")[1])}
            elif "revoked: " in line:
                self.partitions = set()

    def step(self):
        threading.Event().wait(0.05)
        new = self.values[self.read :]
        self.read += len(new)
        return new, set(self.partitions)

    def close(self):
        self.process.terminate()
        self.process.wait(WAIT)


class Adapter:
    lacks = {"group-consumer-protocol": "this librdkafka knows the classic protocol only"}

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.newer = librdkafka.Adapter(bootstrap)
        self.create_topic, self.partitions = self.newer.create_topic, self.newer.partitions

    def command(self, *arguments):
        return ["kcat", "-b", self.bootstrap, "-X", "topic.metadata.refresh.interval.ms=1000", *arguments]

    def call(self, *arguments, text=""):
        return subprocess.run(self.command(*arguments), input=text, capture_output=True, text=True, timeout=WAIT)

    def write(self, topic, records, acks_all=False, codec=None, largest=None):
        if "timestamp" in records[0]:
            return self.newer.write(topic, records)
        settings = []
        if acks_all:
            settings += ["-X", "acks=all", "-X", "enable.idempotence=true"]
        if codec:
            settings += ["-z", codec, "-X", "linger.ms=50"]
        if largest:
            settings += ["-X", f"message.max.bytes={largest}"]
        for flags, some in groupby(records, self.flags):
            lines = "".join(self.line(one) for one in some)
            done = self.call("-P", "-t", topic, *settings, *flags, text=lines)
            if done.returncode or "failed" in done.stderr:
                return ["MESSAGE_TOO_LARGE" if "too large" in done.stderr else done.stderr]
        return []

    @staticmethod
    def flags(record):
        flags = []
        for name, value in record.get("headers", []):
            flags += ["-H", f"{name}={value.decode()}"]
        if record.get("key") is not None:
            flags += ["-K", ":"]
        if record["value"] is None:
            flags.append("-Z")
        if "partition" in record:
            flags += ["-p", str(record["partition"])]
        return flags

    @staticmethod
    def line(record):
        key = record.get("key")
        return ("" if key is None else key.decode() + ":") + (record["value"] or b"").decode() + "\n"

    def read(self, topic, starts, count):
        found = []
        for index, at in starts.items():
            done = self.call("-C", "-J", "-e", "-q", "-t", topic, "-p", str(index), "-o", str(at))
            assert done.returncode == 0, done.stderr
            for one in map(json.loads, done.stdout.splitlines()):
                flat = one.get("headers", [])
                headers = [(name, value.encode()) for name, value in zip(flat[::2], flat[1::2])]
                found.append(Message(one["offset"], value_of(one["key"]), value_of(one["payload"]), headers))
        return found

    def offset_at(self, topic, milliseconds):
        done = self.call("-Q", "-t", f"{topic}:0:{milliseconds}")
        return int(re.search(r"offset (-?\d+)", done.stdout).group(1))

    def offsets(self, topic):
        return self.offset_at(topic, -2), self.offset_at(topic, -1)

    def member(self, group, topic, instance=None):
        static = ["-X", f"group.instance.id={instance}"] if instance else []
        command = self.command("-G", group, "-u", "-J", "-X", "auto.offset.reset=earliest", *static, topic)
        return lambda: Group(command), Group.step, Group.close

    def read_and_commit(self, group, topic, count):
        command = self.command("-G", group, "-u", "-J", "-c", str(count), "-X", "auto.offset.reset=earliest", topic)
        member = Group(command)
        until(lambda: member.process.poll() is not None, "kcat did not end")
        until(lambda: len(member.values) == count, "not all records were printed")
        return [value.encode() for value in member.values]


main("kcat", version(), Adapter, CASES)
