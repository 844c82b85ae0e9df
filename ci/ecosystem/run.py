#!/usr/bin/env python3
"""Kafka's tools and frameworks against Millrace and, after it, against Apache Kafka. The results go to ecosystem.json beside
the client matrix, and from there into docs/compatibility.md, whose part about clients stays as it is.

    ci/ecosystem/run.py --binary MILLRACE [--only NAME,NAME] [--broker millrace|kafka|both]

Prints what failed and ends with status 1 if that is so on Millrace, or on Kafka: then it is the proof that is wrong.
Needs what install.sh installs, and kcat.
"""

import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "matrix"))
import compatibility  # noqa: E402
import frameworks  # noqa: E402
import tools  # noqa: E402
from brokers import Kafka, Millrace  # noqa: E402
from stage import FLINK_JARS, HERE, JARS, Stage  # noqa: E402

RECORDED = HERE.parent / "matrix" / "ecosystem.json"
PROOFS = {**tools.PROOFS, **frameworks.PROOFS}


def prove(start, names):
    """pass or fail by name, all on one broker."""
    results = {}
    with start() as broker:
        for name in names:
            stage, started = Stage(broker, name), time.monotonic()
            try:
                PROOFS[name][2](stage)
                results[name] = "pass"
            except Exception:  # whatever a tool does is its result
                results[name] = "fail"
                print(f"ecosystem: {name} on {broker.version}:\n{traceback.format_exc()}{stage.logs()}", flush=True)
            finally:
                stage.end()
            print(f"ecosystem: {name} on {broker.version}: {results[name]} ({time.monotonic() - started:.0f} s)", flush=True)
            if broker.process.poll() is not None:
                raise RuntimeError(f"{broker.version} ended:\n{broker.last_output()}")
    return results


def version_of(name):
    """Of the Flink connector, and for all others of Kafka's tools and clients."""
    jars, jar = (FLINK_JARS, "flink-connector-kafka") if name == "flink" else (JARS, "kafka-clients")
    (found,) = jars.glob(f"{jar}-[0-9]*.jar")
    return found.stem.removeprefix(f"{jar}-")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--only", default=",".join(PROOFS))
    parser.add_argument("--broker", choices=("millrace", "kafka", "both"), default="both")
    options = parser.parse_args()
    names = options.only.split(",")
    recorded = {one["name"]: one for one in json.loads(RECORDED.read_text())} if RECORDED.exists() else {}
    failed = False
    for broker, start in (("millrace", lambda: Millrace(options.binary)), ("kafka", Kafka)):
        if options.broker not in (broker, "both"):
            continue
        for name, result in prove(start, names).items():
            tool, title, _ = PROOFS[name]
            one = recorded.setdefault(name, {"name": name, "millrace": "not run", "kafka": "not run"})
            one.update({"tool": tool, "version": version_of(name), "title": title, broker: result})
            failed |= result != "pass"
    RECORDED.write_text(json.dumps([recorded[name] for name in PROOFS if name in recorded], indent=2) + "\n")
    compatibility.renew_tools()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    main()
