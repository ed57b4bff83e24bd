# SPDX-License-Identifier: Apache-2.0
"""What a run of tests came to: counts, and for whatever was skipped or failed, why and where.

The unit is a test of Check where a program has them (they are read from its TAP log, which
tools/legs/wrap asked for), and the program itself otherwise.
"""

import dataclasses
import glob
import json
import os
import re

PASSED = {"OK", "EXPECTEDFAIL"}
LONGEST = 160  # characters of a failure's message; the log has them all
SKIPPED_LINE = re.compile(r"^\W*skip(?:ped)?\b\W*(.*)$", re.IGNORECASE)


@dataclasses.dataclass
class Tally:
    """How many passed, a line for each failure, and for each skip (what, why)."""

    passed: int = 0
    failed: list = dataclasses.field(default_factory=list)
    skipped: list = dataclasses.field(default_factory=list)

    def add(self, other, prefix=""):
        """Joins another tally, whose failures and skips get the prefix."""
        self.passed += other.passed
        self.failed += [prefix + line for line in other.failed]
        self.skipped += [(prefix + what, why) for what, why in other.skipped]

    def check(self, good, name, why):
        """Counts one thing that was tried."""
        if good:
            self.passed += 1
        else:
            self.failed.append(f"{name}: {why}")

    def skips(self):
        """One line for each leg and reason to skip, and what it held for."""
        by_reason = {}
        for what, why in self.skipped:
            leg, _, name = what.partition(": ")
            by_reason.setdefault((leg, why), []).append(name)
        return [f"{leg}: {why} ({len(names)}: {', '.join(dict.fromkeys(names))})"
                for (leg, why), names in by_reason.items()]

    @property
    def line(self):
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def settings(environment):
    """What tells runs of the same command apart: the project's own variables."""
    return frozenset(item for item in environment if item[0].startswith("QKV_"))


def count_tap(lines):
    """What a TAP log comes to: how many tests passed, and a line for each that failed."""
    passed = sum(line.startswith("ok ") for line in lines)
    return passed, [line[len("not ok ") :] for line in lines if line.startswith("not ok ")]


def read_tap(folder):
    """The TAP logs of a run: {(command, settings): [(passed, [failed test, ...]), ...]}."""
    logs = {}
    for path in glob.glob(os.path.join(folder, "*.tap")):
        stem = path[: -len(".tap")]
        with open(stem + ".command", encoding="utf-8") as file:
            command = tuple(file.read().splitlines())
        with open(stem + ".environment", encoding="utf-8", errors="replace") as file:
            environment = [tuple(line.split("=", 1)) for line in file.read().split("\0")]
        with open(path, encoding="utf-8", errors="replace") as file:
            counts = count_tap(file.read().splitlines())
        logs.setdefault((command, settings(environment)), []).append(counts)
    return logs


def take_tap(logs, test):
    """The log of one of meson's tests, whose command has the wrapper (and an emulator) in front."""
    command = test["command"]
    for start in range(len(command)):
        found = logs.get((tuple(command[start:]), settings(test["env"].items())))
        if found:
            return found.pop()
    return 0, []


def read_test(test, tap, log):
    """One line of meson's JSON log, and its TAP log."""
    tally = Tally()
    passed, failed = tap
    output = test.get("stdout", "").splitlines()
    reasons = [match.group(1) for match in map(SKIPPED_LINE.match, output) if match]
    name = test["name"].split(" / ")[-1].split(":")[-1]
    if test["result"] == "SKIP":
        said = reasons or [line for line in output if line.strip()][-1:] or ["no reason given"]
        tally.skipped.append((name, "; ".join(said)))
        return tally
    tally.skipped += [(name, reason) for reason in reasons]
    if test["result"] in PASSED:
        tally.passed = passed or 1
        return tally
    tally.passed = passed
    tally.failed += [f"{name}: {text[:LONGEST]} ({log})" for text in failed]
    if not failed:
        how = test["result"].lower()
        tally.failed.append(f"{name}: {how}, exit status {test.get('returncode')} ({log})")
    return tally


def read_meson(log_json, tap_folder, log, wanted, status):
    """The tally of one `meson test`, which should have run so many tests and ended with this status;
    one that stopped midway has failed, whatever had passed by then."""
    tally = Tally()
    logs = read_tap(tap_folder)
    ended = 0
    with open(log_json, encoding="utf-8") as file:
        for line in file:
            test = json.loads(line)
            tally.add(read_test(test, take_tap(logs, test), log))
            ended += 1
    if ended < wanted:
        tally.failed.append(f"meson test: {ended} of {wanted} tests ended ({log})")
    elif status and not tally.failed:
        tally.failed.append(f"meson test: exit status {status} ({log})")
    return tally
