#!/usr/bin/env python3
"""The client matrix: every client's cases against Millrace and, beside it, against Apache Kafka.

    ci/matrix/run.py --binary MILLRACE [--clients A,B] [--cases X,Y] [--shared-port]
        [--write | --check | --alone]

Prints what differs and ends with status 1 if a case fails on Millrace, or a result is not Kafka's and not listed in
accepted.json with a reason. --write makes docs/compatibility.md of the results, --check compares them with it; --alone runs
no Kafka, and a result other than a pass must be listed or not be supported by the client; --shared-port gives Millrace one
port for all its shards. Needs what install.sh installs.
"""

import argparse
import difflib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import compatibility
from brokers import HERE, JARS, Kafka, Millrace

CLIENT_SECONDS = 300
# Programs at a time against one broker: most of their time they wait.
AT_ONCE = 4

TARGET = HERE / "target"
PYTHON = [str(TARGET / "venv/bin/python")]
JAVA_OPTIONS = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"]

# The slow ones first.
CLIENTS = {
    "KafkaJS": ["node", str(HERE / "node/kafkajs.js")],
    "sarama": [str(TARGET / "go/sarama")],
    "Java": ["java", *JAVA_OPTIONS, "-cp", f"{JARS}/*", "Matrix"],
    "librdkafka": [*PYTHON, str(HERE / "python/librdkafka.py")],
    "kcat": [*PYTHON, str(HERE / "python/kcat.py")],
    "kafka-python": [*PYTHON, str(HERE / "python/kafka_python.py")],
    "franz-go": [str(TARGET / "go/franz")],
    "aiokafka": [*PYTHON, str(HERE / "python/aio_kafka.py")],
    "rskafka": [str(TARGET / "rskafka/debug/matrix-rskafka")],
}


def results_of(client, address, cases):
    """A result for every case, whatever the program does."""
    command = [*CLIENTS[client], address, *cases]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CLIENT_SECONDS, stdin=subprocess.DEVNULL)
        out, trouble = done.stdout, done.stderr[-500:]
    except subprocess.TimeoutExpired as late:
        out, trouble = (late.stdout or b"").decode(), f"the program was not over after {CLIENT_SECONDS} s"
    found = {}
    for line in out.splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            found[one["case"]] = one
    version = next(iter(found.values()))["version"] if found else "unknown"
    lost = {"client": client, "version": version, "result": "fail", "detail": f"no result: {trouble}", "seconds": 0}
    return [found.get(case, {**lost, "case": case}) for case in cases]


def run_all(start, clients, cases, again=False):
    """The broker's version, and results by client and case; what failed is tried `again` once."""

    def one_client(client):
        found = results_of(client, broker.address, cases)
        failed = [one["case"] for one in found if one["result"] == "fail"]
        if failed and again:
            second = {one["case"]: one for one in results_of(client, broker.address, failed)}
            found = [second.get(one["case"], one) for one in found]
        return found

    with start() as broker, ThreadPoolExecutor(AT_ONCE) as pool:
        lists = pool.map(one_client, clients)
        found = {(one["client"], one["case"]): one for some in lists for one in some}
        if broker.process.poll() is not None:
            raise RuntimeError(f"{broker.name} ended during the run:\n{broker.last_output()}")
        return broker.version, found


def judge(millrace, kafka, accepted):
    """What is wrong, as lines."""
    seen, wrong = set(), []
    for key, ours in millrace.items():
        theirs = kafka[key]
        known = next((one for one in accepted if one["case"] == key[1] and one["millrace"] == ours["result"]), None)
        if ours["result"] == theirs["result"] and ours["result"] != "fail":
            continue
        if known and known["kafka"] == theirs["result"]:
            seen.add(known["case"])
            continue
        wrong.append(
            f"{key[0]}: {key[1]}: Millrace {ours['result']} ({ours['detail']}), Kafka {theirs['result']} ({theirs['detail']})"
        )
    return seen, wrong


def expected(millrace, accepted):
    """What Kafka gives where it is not asked: a pass, what is accepted to differ, or what the client cannot do."""

    def one(ours):
        known = next((each for each in accepted if each["case"] == ours["case"] and each["millrace"] == ours["result"]), None)
        result = known["kafka"] if known else "unsupported" if ours["result"] == "unsupported" else "pass"
        return {**ours, "result": result, "detail": "not asked"}

    return {key: one(ours) for key, ours in millrace.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--cases")
    parser.add_argument("--shared-port", action="store_true")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", action="store_true")
    what.add_argument("--alone", action="store_true")
    arguments = parser.parse_args()
    known = json.loads((HERE / "cases.json").read_text())
    accepted = json.loads((HERE / "accepted.json").read_text())
    cases = arguments.cases.split(",") if arguments.cases else [one["case"] for one in known]
    clients = arguments.clients.split(",")
    whole = not arguments.cases and set(clients) == set(CLIENTS)

    serve = ["--shared-port", "true"] if arguments.shared_port else []

    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        ours = pool.submit(run_all, lambda: Millrace(arguments.binary, serve), clients, cases)
        # The reference is not what is on trial: a slow moment of its start is no finding.
        theirs = None if arguments.alone else pool.submit(run_all, Kafka, clients, cases, again=True)
        (millrace_version, millrace) = ours.result()
        (kafka_version, kafka) = theirs.result() if theirs else ("what is known of it", expected(millrace, accepted))
    seen, wrong = judge(millrace, kafka, accepted)
    for client in clients:
        some = [millrace[client, case] for case in cases]
        counts = ", ".join(
            f"{sum(one['result'] == result for one in some)} {result}" for result in ("pass", "refused", "unsupported", "fail")
        )
        print(f"matrix: {client} {some[0]['version']}: {counts} ({sum(one['seconds'] for one in some):.0f} s)")
    for one in accepted:
        if whole and one["case"] not in seen:
            wrong.append(f"accepted.json lists {one['case']}, where nothing differs")
    for line in wrong:
        print(f"matrix: WRONG: {line}")
    page = compatibility.page(known, (millrace_version, millrace), (kafka_version, kafka), accepted) if whole else None
    if arguments.write and not wrong:
        compatibility.PAGE.write_text(page)
        print("matrix: docs/compatibility.md is written")
    if arguments.check:
        there = compatibility.PAGE.read_text()
        if page != there:
            sys.stdout.writelines(difflib.unified_diff(there.splitlines(True), page.splitlines(True), "docs", "this run"))
            wrong.append("docs/compatibility.md is not what this run shows: write it with ci/prove matrix")
            print(f"matrix: WRONG: {wrong[-1]}")
    count = len(millrace)
    print(f"matrix: {count} cases beside {kafka_version}, {len(wrong)} wrong ({time.monotonic() - started:.0f} s)")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
