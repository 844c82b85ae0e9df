"""Starts a Millrace and an Apache Kafka for a run, each with data of its own on free ports, and ends them."""

import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

START_SECONDS = 60
HERE = Path(__file__).resolve().parent
JARS = HERE / "java" / "target" / "jars"

KAFKA_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{told},CONTROLLER://127.0.0.1:{controller}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


class Broker:
    """A process that serves Kafka at `address` until the `with` block ends."""

    def __init__(self, name):
        self.name, self.address, self.process, self.version = name, None, None, None
        self.directory = Path(tempfile.mkdtemp(prefix=f"matrix-{name}-"))
        self.log = self.directory / "log"

    def start(self, command, listening):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        limit = time.monotonic() + START_SECONDS
        while not listening():
            if self.process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"{self.name} does not listen:\n{self.last_output()}")
            time.sleep(0.05)

    def last_output(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Millrace(Broker):
    """Two shards, so that clients must find the right one."""

    def __init__(self, binary, arguments=()):
        super().__init__("millrace")
        told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()
        self.version = f"Millrace {told[-1]}"
        data = self.directory / "data"
        command = [binary, "serve", "--shards", "2", "--listen", "127.0.0.1:0", "--data-dir", str(data), *arguments]
        self.start(command, self.listening)

    def listening(self):
        found = re.search(r"^ *kafka *(.*)$", self.log.read_text(errors="replace"), re.M)
        if found:
            self.listens = re.findall(r"[\d.]+:\d+", found.group(1))
            self.address = self.listens[0]
        return found


class Kafka(Broker):
    """One node of Apache Kafka, broker and controller. `told`: what clients are told instead of its own address."""

    def __init__(self, told=None):
        super().__init__("kafka")
        (jar,) = JARS.glob("kafka_2.13-*.jar")
        self.version = f"Apache Kafka {jar.stem.split('-')[1]}"
        port, controller = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        self.listens = [self.address]
        properties = self.directory / "server.properties"
        told = told or self.address
        text = KAFKA_PROPERTIES.format(port=port, told=told, controller=controller, data=self.directory / "data")
        properties.write_text(text)
        java = ["java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{JARS}/*"]
        cluster = ["-t", "bWlsbHJhY2UtbWF0cml4LQ"]
        format_command = [*java, "kafka.tools.StorageTool", "format", "--standalone", *cluster, "-c", str(properties)]
        subprocess.run(format_command, check=True, capture_output=True)
        self.start([*java, "kafka.Kafka", str(properties)], lambda: accepts(port))


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count):
    """Ports that are free now; all are held until all are known, so that no two are the same."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
