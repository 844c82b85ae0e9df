"""Makes docs/compatibility.md of the results of a run, what `ci/prove ecosystem` recorded, and limits.md."""

import json
import re

from brokers import HERE

PAGE = HERE.parent.parent / "docs" / "compatibility.md"
TOOLS = HERE / "ecosystem.json"

TOOLS_HEADING = "## Tools and frameworks"
# The first of limits.md.
LIMITS_HEADING = "## Not supported"

CELLS = {"pass": "✓", "refused": "refused", "unsupported": "–", "fail": "FAILS"}

HEAD = """\
# Compatibility

Made by `ci/prove matrix`; do not edit. Every case ran against {millrace} (two shards, data on the local disk) and beside
it against {kafka} (one node), each client at its newest version, and kcat with Debian's old librdkafka besides.

✓ both brokers do it · – the client cannot (reasons below) · refused: Millrace says no at once, with an error that the
client reports.

## Clients

"""


def steady(detail):
    """Without what is another in each run: addresses, and names made from a process's number."""
    detail = re.sub(r"\d+\.\d+\.\d+\.\d+:\d+/\d+: ", "", detail)
    return re.sub(r"\b[a-z-]+-tx-[\d-]+", "NAME", detail)


def cell(ours, theirs, accepted):
    text = CELLS[ours["result"]]
    if ours["result"] != theirs["result"] and not any(one["case"] == ours["case"] for one in accepted):
        text += f" (Kafka: {CELLS[theirs['result']]})"
    return text


def table(cases, clients, ours, theirs, accepted):
    versions = [ours[client, cases[0]["case"]]["version"] for client in clients]
    lines = ["| case | " + " | ".join(clients) + " |", "|---|" + "---|" * len(clients), "| version | " + " | ".join(versions) + " |"]
    for case in cases:
        cells = [cell(ours[client, case["case"]], theirs[client, case["case"]], accepted) for client in clients]
        lines.append(f"| {case['title']} | " + " | ".join(cells) + " |")
    return lines


def differences(cases, clients, ours, theirs, accepted):
    lines = ["", "### Where Millrace differs from Kafka", ""]
    reasons = {one["case"]: one["reason"] for one in accepted}
    for case in cases:
        name = case["case"]
        differing = [client for client in clients if ours[client, name]["result"] != theirs[client, name]["result"]]
        if not differing:
            continue
        lines.append(f"- {case['title']}: {reasons.get(name, 'not accepted')}. On Kafka it passes. What the clients report:")
        for client in differing:
            lines.append(f"  - {client}: {steady(ours[client, name]['detail'])}")
    return lines


def reasons(cases, clients, ours):
    lines = ["", "### What clients cannot do", ""]
    for client in clients:
        lacking = {}
        for case in cases:
            one = ours[client, case["case"]]
            if one["result"] == "unsupported":
                lacking.setdefault(one["detail"], []).append(case["title"])
        for reason, titles in lacking.items():
            lines.append(f"- {client}: {reason}: {'; '.join(titles)}.")
    return lines


def tools():
    if not TOOLS.exists():
        return []
    lines = ["", TOOLS_HEADING, "", "Run by `ci/prove ecosystem`, outside of CI, on the same two brokers.", ""]
    lines += ["| tool | version | what was done | Millrace | Kafka |", "|---|---|---|---|---|"]
    for one in json.loads(TOOLS.read_text()):
        outcome = [CELLS.get(one[broker], one[broker]) for broker in ("millrace", "kafka")]
        lines.append(f"| {one['tool']} | {one['version']} | {one['title']} | {outcome[0]} | {outcome[1]} |")
    return lines


def ending():
    """What does not come from a run of the clients."""
    return tools() + ["", (HERE / "limits.md").read_text().rstrip()]


def renew_tools():
    """Makes the end of the page anew; the part about clients stays as it is."""
    there = PAGE.read_text()
    clients = there[: min(there.find(heading) % len(there) for heading in (TOOLS_HEADING, LIMITS_HEADING))]
    PAGE.write_text(clients.rstrip() + "\n" + "\n".join(ending()) + "\n")


def page(cases, millrace, kafka, accepted):
    (millrace_version, ours), (kafka_version, theirs) = millrace, kafka
    clients = sorted({client for client, _ in ours}, key=str.lower)
    lines = table(cases, clients, ours, theirs, accepted) + differences(cases, clients, ours, theirs, accepted)
    lines += reasons(cases, clients, ours) + ending()
    return HEAD.format(millrace=millrace_version, kafka=kafka_version) + "\n".join(lines) + "\n"
