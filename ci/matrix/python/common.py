"""What the Python programs of the matrix share: cases run one after the other, each with a limit, one JSON line each.

A case is a function of the client's adapter and a `Run`. It raises `Unsupported` where the client cannot do it, `Refused`
where the broker said no at once; anything else raised is a failure.
"""

import json
import os
import sys
import threading
import time

CASE_SECONDS = 45
# What one wait inside a case may take.
PATIENCE_SECONDS = 30


class Unsupported(Exception):
    """The client has no such call."""


class Refused(Exception):
    """The broker refused, with an error that the client reported at once."""


class Run:
    """Names that no other run uses."""

    def __init__(self, client, nonce):
        self.client, self.nonce = client, nonce
        self.used = 0

    def name(self, what):
        self.used += 1
        return f"{self.client}-{what}-{self.nonce}-{self.used}".lower()


def expect(found, expected, what):
    if found != expected:
        raise AssertionError(f"{what}: {short(found)} instead of {short(expected)}")


def short(value):
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "…"


def until(condition, what):
    """Waits for a condition, which is polled; returns what it returned."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > limit:
            raise AssertionError(f"after {PATIENCE_SECONDS} s: {what}")
        time.sleep(0.05)


def one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def verdict(case, client, run):
    """Runs one case in a thread of its own, so that one that hangs does not hold the others."""
    found = {}

    def body():
        try:
            case(client, run)
            found["result"], found["detail"] = "pass", ""
        except Unsupported as reason:
            found["result"], found["detail"] = "unsupported", str(reason)
        except Refused as reason:
            found["result"], found["detail"] = "refused", str(reason)
        except BaseException as error:  # a client may raise anything
            found["result"], found["detail"] = "fail", one_line(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(CASE_SECONDS)
    if "detail" not in found:
        return "fail", f"not over after {CASE_SECONDS} s"
    return found["result"], found["detail"]


def judged(name, cases, client, run):
    if name in client.lacks:
        return "unsupported", client.lacks[name]
    if name not in cases:
        return "fail", "the program does not know the case"
    case, needs = cases[name]
    if not all(hasattr(client, need) for need in needs):
        return "unsupported", "the client has no such call"
    return verdict(case, client, run)


def main(name, version, adapter, cases):
    """`PROGRAM BOOTSTRAP CASE...`: a line for each case."""
    bootstrap, wanted = sys.argv[1], sys.argv[2:]
    run, client = Run(name, os.getpid()), adapter(bootstrap)
    for case in wanted:
        started = time.monotonic()
        result, detail = judged(case, cases, client, run)
        seconds = round(time.monotonic() - started, 2)
        line = {"client": name, "version": version, "case": case, "result": result, "detail": detail}
        print(json.dumps({**line, "seconds": seconds}), flush=True)
    # Threads of a case that hung end with the process.
    os._exit(0)


class Member:
    """A member of a group in a thread of its own: `step(consumer)` returns (values read, partitions it has)."""

    def __init__(self, make, step, close):
        self.values, self.partitions, self.lost, self.error = [], set(), set(), None
        self.stopping = False
        self.thread = threading.Thread(target=self.live, args=(make, step, close), daemon=True)
        self.thread.start()

    def live(self, make, step, close):
        try:
            consumer = make()
            while not self.stopping:
                values, partitions = step(consumer)
                self.lost |= self.partitions - set(partitions)
                self.partitions = set(partitions)
                self.values.extend(values)
            close(consumer)
        except BaseException as error:
            self.error = error

    def stop(self):
        self.stopping = True
        self.thread.join(PATIENCE_SECONDS)
        if self.thread.is_alive():
            raise AssertionError("a member did not end")
        if self.error:
            raise self.error


def shares(members, counts):
    """Whether the members have disjoint partitions, so many each."""
    for member in members:
        if member.error:
            raise member.error
    found = [member.partitions for member in members]
    return sorted(map(len, found)) == counts and len(set().union(*found)) == sum(counts)


def group_of_three(start_member, write):
    """Six partitions over three members, then over the two that stay; `write(values)` waits for acknowledgements."""
    members = [start_member() for _ in range(3)]
    until(lambda: shares(members, [2, 2, 2]), f"three members have {[len(m.partitions) for m in members]} partitions")
    first = [f"a{number}" for number in range(60)]
    write(first)
    read = lambda: sorted(value for member in members for value in member.values)
    until(lambda: len(read()) >= 60, "60 records were not read")
    expect(read(), sorted(first), "what three members read")
    members[0].stop()
    until(lambda: shares(members[1:], [3, 3]), "the two that stayed did not take over")
    second = [f"b{number}" for number in range(60)]
    write(second)
    until(lambda: len(read()) >= 120, f"{len(read())} of 120 records were read")
    expect(read(), sorted(first + second), "what the group read")
    for member in members[1:]:
        member.stop()


def group_static(start_member):
    """Two static members; the second restarts: it has the same partitions, the first lost none."""
    members = [start_member("one"), start_member("two")]
    until(lambda: shares(members, [3, 3]), "two members do not share six partitions")
    had = set(members[1].partitions)
    members[0].lost.clear()
    members[1].stop()
    again = start_member("two")
    until(lambda: shares([members[0], again], [3, 3]), "the member that came back has no share")
    expect(again.partitions, had, "the partitions of the member that came back")
    expect(members[0].lost, set(), "what the other member lost meanwhile")
    again.stop()
    members[0].stop()
